//! The two queues of a ring.

use stallscope_probes::sample::RingState;

use super::any_waiting;
use crate::detect::track::{Look, Progress};
use crate::model::answers::waiting;
use crate::model::{Model, RingModel};

/// One side of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Entries prepared, which the kernel should take.
    Submission,
    /// Completions posted, which the application should reap.
    Completion,
}

/// One side of one ring; `None` when there was no new good read of it.
///
/// Completions that wait while the event loop sleeps idle are no demand by themselves: a program
/// may reap lazily what it does not wait for. With clients who wait they are.
pub fn ring(before: Option<&RingModel>, ring: &RingModel, side: Side, now: &Model) -> Option<Look> {
    let state = ring.state.got()?;
    let before = before.filter(|before| before.at_ns < ring.at_ns);
    let head = |state: &RingState| match side {
        Side::Submission => state.sq_head,
        Side::Completion => state.cq_head,
    };
    let progress = match before.and_then(|before| Some((before.at_ns, head(before.state.got()?)))) {
        None => Progress::Unknown,
        Some((then_ns, then)) if then != head(state) => Progress::between(then_ns, ring.at_ns),
        Some(_) => Progress::None,
    };
    let demand = match side {
        Side::Submission => Some(state.sq_pending())
            .filter(|pending| *pending > 0)
            .map(|pending| format!("{pending} unsubmitted entries in ring {}", ring.fd)),
        Side::Completion => Some(state.cq_pending())
            .filter(|pending| *pending > 0 && (!any_waiting(now) || clients_wait(now)))
            .map(|pending| format!("{pending} unreaped completions in ring {}", ring.fd)),
    };
    Some(Look { at_ns: ring.at_ns, demand, progress, since_ns: None })
}

fn clients_wait(now: &Model) -> bool {
    let waits = |raw: &stallscope_probes::sample::ServedRaw| {
        raw.unread_bytes > 0 || raw.answers.is_some_and(|answers| waiting(&answers).0 > 0)
    };
    now.queued() > Some(0) || now.all_served().iter().any(|served| waits(&served.raw))
}
