//! From two successive models to one look at each thing that ought to progress.

use stallscope_probes::sample::{RingState, TaskState};

use super::thresholds::BEAT_MISSING_MS;
use super::track::{Look, Progress};
use crate::model::threads::{Doing, doing};
use crate::model::{AppModel, ListenerModel, Model, RingModel, ServedModel};

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
    Some(Look { at_ns: now.at_ns, demand: demand.map(str::to_owned), progress })
}

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
/// may reap lazily what it does not wait for.
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
            .filter(|pending| *pending > 0 && (!any_waiting(now) || now.queued() > Some(0)))
            .map(|pending| format!("{pending} unreaped completions in ring {}", ring.fd)),
    };
    Some(Look { at_ns: ring.at_ns, demand, progress })
}

fn any_waiting(now: &Model) -> bool {
    now.runtime_threads().any(|thread| doing(thread) == Doing::Waiting)
}

/// The event loop, told by the server's own page.
///
/// A beat is one timer among a loop's tasks: a saturated loop can be late with it by half a second
/// and answer thousands all the while. So an answer or an accept shows as well that it turns.
pub fn beat(before: Option<&AppModel>, now: &Model) -> Option<Look> {
    let app = now.app.got()?;
    let age_ms = app.beat_age_ms?;
    let alive_ns = last_sign_of_life(app)?;
    let progress = if before.is_none_or(|before| last_sign_of_life(before) != Some(alive_ns)) {
        Progress::Made { at_ns: alive_ns, within_ns: 0 }
    } else if age_ms > BEAT_MISSING_MS {
        Progress::None
    } else {
        Progress::Unknown
    };
    Some(Look { at_ns: now.at_ns, demand: clients_waiting(now, app), progress })
}

fn last_sign_of_life(app: &AppModel) -> Option<u64> {
    app.raw.beat_ns.max(app.raw.last_response_ns).max(app.raw.last_accept_ns)
}

fn clients_waiting(now: &Model, app: &AppModel) -> Option<String> {
    let ours = |port: u16| app.raw.listen_port.is_none_or(|ours| ours == port);
    let queued: u64 = now
        .own_listeners()
        .filter(|listener| ours(listener.local.port()))
        .map(|listener| u64::from(listener.queued))
        .sum();
    let queued = Some(queued).filter(|queued| *queued > 0);
    let in_flight = app.raw.requests.saturating_sub(app.raw.responses);
    let served = now.all_served().iter();
    let unread: u64 = served
        .filter(|served| ours(served.raw.port))
        .map(|served| served.raw.unread_bytes)
        .fold(0, u64::saturating_add);
    if let Some(queued) = queued {
        Some(format!("{queued} connections in the accept queue"))
    } else if in_flight > 0 {
        Some(format!("{in_flight} requests without a response"))
    } else if unread > 0 {
        Some(format!("{unread} bytes from clients unread"))
    } else {
        None
    }
}

/// The event loop of a server that keeps no page: bytes from clients lie unread, nothing changes
/// on any of its connections, and no thread that could take them waits for events. `None` when
/// there was no new census.
pub fn unread(before: Option<&ServedModel>, served: &ServedModel, now: &Model) -> Option<Look> {
    let before = before.filter(|before| before.at_ns < served.at_ns);
    let moved = before.map(|before| before.raw.fingerprint != served.raw.fingerprint);
    let turning = now.threads.got().is_none() || any_waiting(now);
    let progress = match (before, moved) {
        _ if turning => Progress::Made { at_ns: served.at_ns, within_ns: 0 },
        (Some(before), Some(true)) => Progress::between(before.at_ns, served.at_ns),
        (Some(_), _) => Progress::None,
        (None, _) => return None,
    };
    let demand = (served.raw.unread_bytes > 0).then(|| {
        format!(
            "{} bytes unread on {} connections to port {}",
            served.raw.unread_bytes, served.raw.unread_sockets, served.raw.port
        )
    });
    Some(Look { at_ns: served.at_ns, demand, progress })
}

/// What is known about accepting at one listener, besides its queue.
#[derive(Debug, Clone, Copy)]
pub struct AcceptSigns<'a> {
    /// The server's page, if it keeps one and serves on this port: then and now.
    pub page: Option<(Option<&'a AppModel>, &'a AppModel)>,
    /// The census of the port: then and now.
    pub census: Option<(Option<&'a ServedModel>, &'a ServedModel)>,
}

/// The accept queue of one listener.
///
/// That something was accepted shows in the server's own count, in a queue that shrinks, or in a
/// connection that a census sees accepted for the first time.
pub fn accept(
    before: Option<(&Model, &ListenerModel)>,
    listener: &ListenerModel,
    signs: AcceptSigns<'_>,
    at_ns: u64,
) -> Look {
    let demand = (listener.queued > 0).then(|| {
        format!("{} connections in the accept queue of {}", listener.queued, listener.local)
    });
    let shrunk = before.filter(|(_, before)| listener.queued < before.queued);
    let progress = match (signs.page, shrunk, signs.census) {
        (Some((then, now)), _, _) => by_page(then, now),
        (None, Some((then, _)), _) => Progress::between(then.at_ns, at_ns),
        (None, None, Some((Some(then), now))) if then.at_ns < now.at_ns => {
            if then.raw.accepted_seen == now.raw.accepted_seen {
                Progress::None
            } else {
                Progress::between(then.at_ns, now.at_ns)
            }
        }
        // No census at all: the queue is all there is to go by.
        (None, None, None) if before.is_some() => Progress::None,
        (None, None, _) => Progress::Unknown,
    };
    Look { at_ns, demand, progress }
}

fn by_page(then: Option<&AppModel>, now: &AppModel) -> Progress {
    match (then, now.raw.last_accept_ns) {
        (Some(then), Some(at_ns)) if then.raw.accepted != now.raw.accepted => {
            Progress::Made { at_ns, within_ns: 0 }
        }
        (Some(_), _) => Progress::None,
        (None, _) => Progress::Unknown,
    }
}
