//! The date of an onset, as well as it can be told.

use std::collections::BTreeMap;

use super::looks;
use super::signs::{Rises, Signs};
use super::subject::Subject;
use super::thresholds::REFINE_MAX_NS;
use super::track::Stalled;
use super::{Onset, StallKind};
use crate::model::{Model, ServedModel};

/// Censuses are up to a second apart while all is calm. When a sign that is read at every tick was
/// last seen within the time that they leave open, it dates the stall better. Connections know
/// themselves since when they wait, also those that wait to be accepted.
pub(super) fn sharpen(
    mut stalled: Stalled,
    subject: Subject,
    (signs, rises): (&Signs, &Rises),
    served: &BTreeMap<u16, ServedModel>,
    now: &Model,
    first_ns: u64,
) -> Stalled {
    let by_clients = match subject {
        Subject::Answers(port) => served.get(&port).and_then(looks::oldest_request_ns),
        Subject::Neglected(port) => served.get(&port).and_then(looks::oldest_neglected_ns),
        _ => None,
    };
    if let Some(at_ns) = by_clients {
        stalled.at_ns = at_ns;
        stalled.within_ns = CLIENTS_WITHIN_NS;
        stalled.before_watch = at_ns < first_ns;
        return stalled;
    }
    if let (Subject::Throttled, Some((at_ns, within_ns))) = (subject, rises.throttled_from()) {
        stalled.at_ns = at_ns.min(stalled.at_ns);
        stalled.within_ns = within_ns;
        return stalled;
    }
    if let (Subject::Conntrack, false, Some((at_ns, within_ns))) =
        (subject, stalled.before_watch, rises.untracked_from())
    {
        // The table may be full for long before anybody is turned away, and is not read at every tick.
        stalled.at_ns = at_ns;
        stalled.within_ns = within_ns;
    }
    let was_so_at_first = stalled.before_watch
        || stalled.at_ns <= first_ns.saturating_add(rises.first_look_ns(subject));
    // Clients that were dropped come again after a second: that none was at the first look says
    // nothing. The sockets have counted.
    let had_dropped = match subject {
        Subject::Overflow(inode) => rises.had_dropped(Some(inode)),
        Subject::Handshakes => rises.had_dropped(None),
        _ => false,
    };
    stalled.before_watch |= was_so_at_first && had_dropped;
    let on_record = match subject {
        Subject::Ports => served.values().filter_map(looks::all_wait_since_ns).min(),
        Subject::Accept(inode) | Subject::Sibling(inode) => {
            let listeners = now.listeners.got().into_iter().flat_map(|all| all.iter());
            let mut ports = listeners.filter(|one| one.inode == inode).map(|one| one.local.port());
            ports.next().and_then(|port| looks::oldest_queued_ns(served.get(&port)?))
        }
        // Clients have to wait for a moment before that what they wait for is demand.
        Subject::Completion(_) => {
            let since =
                |one| looks::oldest_request_ns(one).or_else(|| looks::oldest_queued_ns(one));
            served.values().filter_map(since).min()
        }
        _ => None,
    };
    if let Some(at_ns) = on_record
        && (was_so_at_first || is_near(at_ns, subject, &stalled))
    {
        stalled.at_ns = at_ns;
        stalled.within_ns = CLIENTS_WITHIN_NS;
        stalled.before_watch = at_ns < first_ns;
        return stalled;
    }
    let sign = match subject {
        Subject::Unread(_) => signs.loop_stopped(),
        Subject::Accept(_) | Subject::Conntrack => signs.last_fd_change,
        Subject::Ports => signs.last_port_taken,
        _ => None,
    };
    let Some((at_ns, within_ns)) = sign else { return stalled };
    let is_better = subject == Subject::Ports || within_ns < stalled.within_ns;
    if is_near(at_ns, subject, &stalled) && is_better {
        stalled.at_ns = at_ns;
        stalled.within_ns = within_ns;
    }
    stalled
}

/// Whether the stall may have begun then, as far as its own track can tell.
fn is_near(at_ns: u64, subject: Subject, stalled: &Stalled) -> bool {
    let early_ns = match subject {
        // Its looks show at each tick what the last census found.
        Subject::Ports => CENSUS_EVERY_NS,
        Subject::Completion(_) => CLIENTS_YOUNG_NS,
        _ => stalled.within_ns,
    };
    let from_ns = stalled.at_ns.saturating_sub(early_ns.saturating_add(REFINE_MAX_NS));
    let to_ns = stalled.at_ns.saturating_add(stalled.within_ns.saturating_add(REFINE_MAX_NS));
    (from_ns..=to_ns).contains(&at_ns)
}

/// [`REQUEST_YOUNG_MS`](super::thresholds::REQUEST_YOUNG_MS), and until the next census.
const CLIENTS_YOUNG_NS: u64 = 500_000_000;

/// A whole census is no older than this while few sockets are there.
const CENSUS_EVERY_NS: u64 = 2_000_000_000;

/// Two instants in jiffies (10 ms at worst).
const CLIENTS_WITHIN_NS: u64 = 20_000_000;

/// Dates the onset by the server's own record of its last progress, where it keeps one.
///
/// Demand that shows with the first looks (a census is not taken at the very first) may be as old as
/// the record: of a loop it says when the last beat was, and beats need no demand. `first_ns`: when
/// the first look of all was, and by when everything had been looked at.
pub(super) fn refine(
    mut stalled: Stalled,
    kind: StallKind,
    (first_ns, first_looks_end_ns): (u64, u64),
    now: &Model,
) -> Onset {
    let page = now.app.got().map(|app| &app.raw);
    let recorded = page.and_then(|page| match kind {
        StallKind::Accept => page.last_accept_ns,
        StallKind::Runtime => page.beat_ns.max(page.last_response_ns),
        StallKind::Answers => page.last_response_ns,
        StallKind::Ring | StallKind::Stopped => page.last_accept_ns.max(page.last_response_ns),
        StallKind::Listener | StallKind::Full | StallKind::Throttled => None,
    });
    let beats_ended_before = kind == StallKind::Runtime
        && recorded.is_some_and(|at_ns| at_ns < first_ns)
        && stalled.at_ns <= first_looks_end_ns;
    stalled.before_watch |= beats_ended_before;
    // Nought stands for the server's own record.
    stalled.within_ns = stalled.within_ns.max(1);
    let recorded = recorded.filter(|at_ns| {
        stalled.before_watch || at_ns.saturating_add(REFINE_MAX_NS) >= stalled.at_ns
    });
    let (at_ns, within_ns, last_progress) = match (recorded, kind) {
        (Some(at_ns), StallKind::Accept) => (at_ns, 0, "the last accept, by the server's page"),
        (Some(at_ns), StallKind::Runtime) => {
            (at_ns, 0, "the last beat or response, by the server's page")
        }
        (Some(at_ns), _) => (at_ns, 0, "the last accept or response, by the server's page"),
        (None, StallKind::Accept) => (
            stalled.at_ns,
            stalled.within_ns,
            "the last accept seen, or the first queued connection",
        ),
        (None, StallKind::Ring) => {
            (stalled.at_ns, stalled.within_ns, "the last move of the ring's head")
        }
        (None, StallKind::Runtime) => {
            (stalled.at_ns, stalled.within_ns, "the last change on any connection")
        }
        (None, StallKind::Answers) => {
            (stalled.at_ns, stalled.within_ns, "the last answer on any connection")
        }
        (
            None,
            StallKind::Listener | StallKind::Full | StallKind::Throttled | StallKind::Stopped,
        ) => (stalled.at_ns, stalled.within_ns, "the last sample in another state"),
    };
    Onset {
        kind,
        at_ns,
        within_ns,
        before_watch: stalled.before_watch,
        detected_ns: now.at_ns,
        demand: stalled.demand,
        last_progress: last_progress.to_owned(),
        partial: None,
    }
}
