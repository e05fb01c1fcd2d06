//! From folded stacks to flamegraphs. Pure; knows nothing of the layers above.
//!
//! What a CPU profile can show is bounded by how it is made: the target's own profiler samples on
//! CPU time (`ITIMER_PROF`, setitimer(2)), so a thread that sleeps in a system call yields no
//! sample at all. A stall with an *empty* profile is therefore a finding (every thread was
//! blocked), and a stall with a *full* one is another (something burns the CPU instead of serving).
//! Neither stands alone: the thread table of the same moment belongs beside it.
//!
//! ```text
//! stacks::Profile  what was caught, with all that is known of it
//! build::build     what the probes caught, and names -> a profile
//! fold::fold       a profile -> folded text, bounded
//! pprof, firefox   a profile -> the files of `go tool pprof` and of the Firefox Profiler
//! window::choose   which windows are "healthy" and which "stalled"
//! folded::merge    text of many windows -> one bounded, cleaned set of stacks
//! roles::group     threads -> what they are for; runtime::collapse: what the runtime does, as one
//!                  frame
//! table            a profile in figures; svg: a flamegraph as a file of its own
//! flame::draw      stacks -> SVG, and the script that lets one zoom and search it
//! ```

pub mod build;
pub mod firefox;
pub mod flame;
pub mod fold;
pub mod folded;
#[cfg(test)]
mod made;
pub mod pprof;
pub mod printable;
pub mod qualify;
pub mod roles;
pub mod runtime;
pub mod stacks;
pub mod svg;
pub mod table;
pub mod window;
