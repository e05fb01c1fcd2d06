//! Listening sockets and their accept queues.

use stallscope_probes::sample::Holder;

use super::condition;
use crate::detect::signs::Refusing;
use crate::detect::track::{Look, Progress};
use crate::model::peers::shared_ports;
use crate::model::{AppModel, ListenerModel, Model, ServedModel};

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
/// That something was accepted shows in the server's own count, in a queue that shrinks, in a
/// connection that a census sees accepted for the first time, or in one that waited at the last
/// census and no longer does.
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
            if then.raw.accepted_seen != now.raw.accepted_seen {
                Progress::between(then.at_ns, now.at_ns)
            } else if then.raw.left_queue_seen == now.raw.left_queue_seen {
                Progress::None
            } else if now.raw.queued >= listener.queued {
                Progress::between(then.at_ns, now.at_ns)
            } else {
                // Some that wait were reset by their clients and are seen no more: so may be those
                // that left.
                Progress::Unknown
            }
        }
        // No census at all: the queue is all there is to go by.
        (None, None, None) if before.is_some() => Progress::None,
        (None, None, _) => Progress::Unknown,
    };
    Look { at_ns, demand, progress, since_ns: None }
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

/// Another process's listener on a port that the target serves too: both get connections.
///
/// Of its accepts nothing is known but that its queue shrinks.
pub fn sibling(
    before: Option<(&Model, &ListenerModel)>,
    listener: &ListenerModel,
    at_ns: u64,
) -> Look {
    let demand = (listener.queued > 0).then(|| {
        format!(
            "{} connections in the accept queue of another socket on {}",
            listener.queued, listener.local
        )
    });
    let progress = match before {
        Some((then, before)) if listener.queued < before.queued => {
            Progress::between(then.at_ns, at_ns)
        }
        Some(_) => Progress::None,
        None => Progress::Unknown,
    };
    Look { at_ns, demand, progress, since_ns: None }
}

/// Whether two listeners get connections to the same address: `SO_REUSEPORT` (socket(7)).
pub fn overlap(one: &ListenerModel, other: &ListenerModel) -> bool {
    let (a, b) = (one.local, other.local);
    one.inode != other.inode
        && a.port() == b.port()
        && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// A port that was listened on, or on which there are accepted connections, and nobody of the
/// process listens there; `open`: somebody does.
pub fn gone(port: u16, refusing: Option<Refusing>, now: &Model) -> Option<Look> {
    now.listeners.got()?;
    let open = now.own_listeners().any(|listener| listener.local.port() == port);
    let handed_over = now
        .listeners
        .got()?
        .iter()
        .any(|listener| listener.holder == Holder::Other && listener.local.port() == port);
    let demand = (!open && !handed_over && refusing.is_some())
        .then(|| format!("nobody listens on port {port} any more, and clients are refused"));
    let progress = match refusing {
        _ if open || handed_over => return Some(condition(now.at_ns, None)),
        // Resets are counted for the whole namespace: one may be anybody's.
        Some(Refusing::Once) => Progress::Unknown,
        // Without clients nobody is turned away.
        Some(Refusing::Repeatedly) | None => Progress::None,
    };
    Some(Look { at_ns: now.at_ns, demand, progress, since_ns: None })
}

/// A port that nobody of the process listens on, with connections that must have been accepted there.
pub fn orphans(now: &Model) -> Option<u16> {
    let listened = |port: u16| now.own_listeners().any(|listener| listener.local.port() == port);
    let ports = shared_ports(now).into_iter().filter(|(port, _)| !listened(*port));
    ports.max_by_key(|(_, count)| *count).map(|(port, _)| port)
}
