//! Scenarios: real servers, made to stall for real, with the ground truth written down by the
//! server itself at the instant the fault takes hold; and the runs that hold the watcher to it.
//!
//! ```text
//! catalogue, victims     what there is to run
//! needs, place           what a run takes: rights, a network namespace
//! process, start, watcher      its processes
//! run                    one execution, watched from before the fault and from after it
//! record, judge          what came of it; pure
//! matrix, healthy        many runs; hours of health
//! endure                 hours of full load on the servers themselves
//! tally, table, html     sums over runs, as text and as a page; pure
//! windows                small parts of right runs, as data for tests
//! bench                  servers against each other: no stall, but figures
//! ```

pub mod bench;
pub mod catalogue;
pub mod chance;
pub mod endure;
pub mod healthy;
pub mod html;
pub mod judge;
pub mod matrix;
pub mod names;
pub mod needs;
mod place;
mod process;
pub mod record;
pub mod run;
pub mod scenario;
mod start;
pub mod table;
pub mod tally;
pub mod truth;
pub mod victims;
mod watcher;
pub mod windows;
