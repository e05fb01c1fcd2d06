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
        Subject::Unread(port) => {
            let of_port = served.get(&port);
            signs.loop_stopped().map(|stopped| not_before_the_last_answer(stopped, of_port))
        }
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

/// A loop that is asleep elsewhere at each tick, and answers in between, has not stopped: that was
/// after the last answer. Where answers go on, others give them.
fn not_before_the_last_answer(
    (at_ns, within_ns): (u64, u64),
    served: Option<&ServedModel>,
) -> (u64, u64) {
    let answered = served.and_then(|served| Some((served.at_ns, looks::last_answer_ns(served)?)));
    match answered {
        Some((seen_ns, last_ns))
            if last_ns > at_ns && seen_ns.saturating_sub(last_ns) >= ANSWERS_ENDED_NS =>
        {
            (last_ns, CLIENTS_WITHIN_NS)
        }
        _ => (at_ns, within_ns),
    }
}

/// No answer for so long, on a server at work, and they have ended.
const ANSWERS_ENDED_NS: u64 = 250_000_000;

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

#[cfg(test)]
mod tests {
    use stallscope_probes::sample::{AnswersRaw, ServedRaw};

    use super::*;

    #[test]
    fn a_loop_has_not_stopped_before_the_last_answer() {
        const MS: u64 = 1_000_000;
        let census = |last_sent_ms| {
            let answers = AnswersRaw { last_sent_ms, ..AnswersRaw::default() };
            let raw = ServedRaw { answers: Some(answers), ..ServedRaw::default() };
            ServedModel { raw, at_ns: 10_000 * MS }
        };
        let stopped = (8_000 * MS, 25 * MS);
        // How long ago the last answer was at 10 s, and the onset, ms.
        for (last_sent_ms, expected_ms) in
            [(None, 8_000), (Some(1_000), 9_000), (Some(3_000), 8_000), (Some(40), 8_000)]
        {
            let (at_ns, _) = not_before_the_last_answer(stopped, Some(&census(last_sent_ms)));
            assert_eq!(at_ns, expected_ms * MS, "{last_sent_ms:?}");
        }
        assert_eq!(not_before_the_last_answer(stopped, None), stopped);
    }
}
