//! The two queues of a ring.

use stallscope_probes::sample::{RingState, ServedRaw};

use super::any_waiting;
use crate::detect::thresholds::REQUEST_YOUNG_MS;
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

/// Whether clients wait for longer than an answer takes: under load some wait for a moment at any
/// time. Where that was not asked for, unread bytes have to do.
fn clients_wait(now: &Model) -> bool {
    let long = |oldest_ms: Option<u32>| oldest_ms.is_some_and(|ms| ms >= REQUEST_YOUNG_MS);
    let waits = |raw: &ServedRaw| match &raw.answers {
        Some(answers) => long(waiting(answers).1) || long(answers.queued_oldest_ms),
        None => raw.unread_bytes > 0,
    };
    let census = now.all_served();
    census.iter().any(|served| waits(&served.raw)) || (census.is_empty() && now.queued() > Some(0))
}
