//! From folded stacks to flamegraphs. Pure; knows nothing of the layers above.
//!
//! What a CPU profile can show is bounded by how it is made: the target's own profiler samples on
//! CPU time (`ITIMER_PROF`, setitimer(2)), so a thread that sleeps in a system call yields no
//! sample at all. A stall with an *empty* profile is therefore a finding (every thread was
//! blocked), and a stall with a *full* one is another (something burns the CPU instead of serving).
//! Neither stands alone: the thread table of the same moment belongs beside it.
//!
//! ```text
//! window::choose   which windows are "healthy", which "stalled", which "around the onset"
//! folded::merge    text of many windows -> one bounded, cleaned set of stacks
//! diff::lines      two sets of stacks -> what the stall changed
//! flame::draw      stacks -> SVG, and the script that lets one zoom and search it
//! ```

mod colours;
pub mod diff;
pub mod flame;
pub mod folded;
pub mod printable;
pub mod stacks;
pub mod window;
