//! From caught stacks to profiles, and from folded stacks to flamegraphs. Pure; knows nothing of the
//! layers above.
//!
//! What the target's own profiler can show is bounded by how it is made: it samples on CPU time
//! (`ITIMER_PROF`, setitimer(2)), so a thread that sleeps in a system call yields no sample at all. A
//! stall with an *empty* CPU profile is therefore a finding (every thread was blocked), and a stall
//! with a *full* one is another (something burns the CPU instead of serving). What the watcher catches
//! from outside has the waits too.
//!
//! ```text
//! stacks::Profile  what was caught, with all that is known of it
//! build::build     what the probes caught, and names -> a profile
//! fold::fold       a profile -> folded text, bounded
//! pprof, firefox   a profile -> the files of `go tool pprof` and of the Firefox Profiler
//! table            a profile in figures; svg: a flamegraph as a file of its own
//! window::choose   which windows are "healthy", which "stalled", which "around the onset"
//! folded::merge    text of many windows -> one bounded, cleaned set of stacks
//! roles::group     threads -> what they are for; runtime::collapse: what the runtime does, as one
//!                  frame
//! shorten::parts   one thread's stack for people: the runtime's frames in runs, places without what
//!                  only the machine knows
//! diff::lines      two sets of stacks -> what the stall changed
//! flame::draw      stacks -> SVG, and the script that lets one zoom and search it
//! ```

pub mod build;
mod colours;
pub mod diff;
pub mod firefox;
pub mod flame;
pub mod fold;
pub mod folded;
#[cfg(test)]
pub(crate) mod made;
pub mod pprof;
pub mod printable;
pub mod qualify;
pub mod roles;
pub mod runtime;
pub mod shorten;
pub mod stacks;
pub mod svg;
pub mod table;
pub mod window;
