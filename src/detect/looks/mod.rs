//! From two successive models to one look at each thing that ought to progress.

mod accept;
mod full;
mod ring;
mod runtime;

pub use accept::{AcceptSigns, accept, gone, orphans, overlap, sibling};
pub use full::{
    all_wait_since_ns, conntrack, no_fd, overflow, ports, probe, storm, syn, throttled,
};
pub use ring::{Side, ring};
pub use runtime::{
    Producer, answers, answers_by_page, beat, last_answer_ns, neglected, oldest_neglected_ns,
    oldest_queued_ns, oldest_request_ns, producer, unread,
};

use stallscope_probes::sample::TaskState;

use super::track::{Look, Progress};
use crate::model::Model;
use crate::model::threads::{Doing, doing};

/// Whether the process as a whole is stopped (demand) or not (progress).
pub fn stopped(now: &Model) -> Option<Look> {
    let process = now.process.got()?;
    let frozen = now.frozen.got().copied() == Some(true);
    let demand = match process.state {
        TaskState::Stopped => Some("the process is stopped by a signal (state T)"),
        TaskState::Tracing => Some("the process is stopped by a tracer (state t)"),
        _ if frozen => Some("the cgroup of the process is frozen"),
        _ => None,
    };
    let progress = match demand {
        Some(_) => Progress::None,
        None => Progress::Made { at_ns: now.at_ns, within_ns: 0 },
    };
    Some(Look { at_ns: now.at_ns, demand: demand.map(str::to_owned), progress, since_ns: None })
}

/// A state that is a stall for as long as it holds: demand in words, or none and all is well.
fn condition(at_ns: u64, demand: Option<String>) -> Look {
    let progress = match demand {
        Some(_) => Progress::None,
        None => Progress::Made { at_ns, within_ns: 0 },
    };
    Look { at_ns, demand, progress, since_ns: None }
}

/// Whether some thread of the runtime waits for events: its loop turns, or has nothing to do.
fn any_waiting(now: &Model) -> bool {
    now.runtime_threads().any(|thread| doing(thread) == Doing::Waiting)
}
