//! `accept-leaked`: accepts that were given up still take connections, and nobody knows of them.
//!
//! A tokio-uring 0.5.0 operation whose future is dropped is not cancelled (`driver/mod.rs
//! remove_op`: `Lifecycle::Ignored`): the accept stays armed, the kernel completes it with the next
//! client, and the fd of that client is thrown away unclosed. `timeout(…, listener.accept())` and
//! `select!` in a loop leave one behind each time.

use stallscope_probes::ring::OP_ACCEPT;

use super::case::{Case, number};
use super::verdict::{Confidence, Evidence};
use super::{Account, Finding};
use crate::detect::StallKind;
use crate::model::tiers::Tier;

pub(super) const NEXT: &[&str] = &[
    "Look for an accept inside `timeout` or `select!`: each time the other branch wins, the accept is left armed.",
    "Keep one accept future alive across the loop (pin it outside), and shut the listener down to end it.",
    "The clients that were lost get no answer until they give up; a restart frees their fds.",
];

/// An accept loop per listener has one in flight; by design some servers keep a few.
const ARMED_FEW: u32 = 2;

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let Some(last) = case.last() else {
        return Finding::Missing(String::from("no sample was taken."));
    };
    let answers = last.all_served().iter().filter_map(|served| served.raw.answers);
    let (mut known, mut oldest_ms) = (None, None);
    for answers in answers {
        known = Some(known.unwrap_or(0_u32).saturating_add(answers.neglected));
        oldest_ms = oldest_ms.max(answers.neglected_oldest_ms);
    }
    let Some(neglected) = known else {
        return Finding::Missing(String::from(
            "it could not be counted which accepted connections were never served.",
        ));
    };
    if neglected == 0 {
        return Finding::Excluded(String::from("Every accepted connection was looked at."));
    }
    let threads = case.runtime();
    if !threads.iter().any(|thread| thread.waiting * 10 >= thread.ticks * 5) {
        return Finding::Excluded(String::from(
            "The runtime's thread does not wait for events: it comes to no connection, known or not.",
        ));
    }
    let armed = armed_accepts(case);
    let mut evidence: Vec<Evidence> = Vec::new();
    let since_ns = last
        .all_served()
        .iter()
        .map(|served| served.at_ns)
        .max()
        .zip(oldest_ms)
        .map(|(at_ns, ms)| at_ns.saturating_sub(u64::from(ms).saturating_mul(1_000_000)));
    evidence.push(number(
        Tier::Connections,
        "connections accepted and never read from",
        f64::from(neglected),
        "connections",
        since_ns,
    ));
    let listeners = u32::try_from(last.own_listeners().count()).unwrap_or(u32::MAX).max(1);
    let spare = armed.is_some_and(|(first, now)| {
        now > ARMED_FEW.saturating_mul(listeners)
            || now.saturating_sub(first) >= case.weights.leaked_accepts_min
    });
    if let Some((_, now)) = armed {
        let signal = "accepts in flight";
        evidence.push(number(Tier::RingFdinfo, signal, f64::from(now), "operations", None));
    }
    let closed: u32 =
        last.all_served().iter().map(|served| served.raw.close_wait).fold(0, u32::saturating_add);
    if closed > 0 {
        let signal = "connections closed by the client and not by the server";
        evidence.push(number(Tier::Connections, signal, f64::from(closed), "connections", None));
    }
    if let Some(fds) = last.fds.got() {
        evidence.push(number(Tier::Fds, "open fds", fds.open as f64, "fds", None));
    }
    if !spare && case.onset.kind != StallKind::Answers {
        return Finding::Excluded(format!(
            "{neglected} accepted connections were not looked at yet, and no more accepts are in flight than the loop knows of."
        ));
    }
    let (confidence, how) = if spare {
        (Confidence::Certain, "more accepts are in flight than the loop can know of")
    } else if last.all_rings().is_empty() {
        // A pool of threads that has enough to do looks the same.
        (Confidence::Possible, "whoever accepted them does not serve them")
    } else {
        (Confidence::Likely, "whoever accepted them does not serve them")
    };
    Finding::Fits(Account {
        confidence,
        summary: format!(
            "{neglected} connections were accepted and never looked at while the event loop has nothing to do: {how}."
        ),
        evidence,
    })
}

/// Accepts in flight: at the first look of the history and now.
fn armed_accepts(case: &Case<'_>) -> Option<(u32, u32)> {
    let of = |model: &crate::model::Model| {
        let armed = model.all_rings().iter().filter_map(|ring| ring.armed.got());
        armed.map(|armed| armed.of(OP_ACCEPT)).reduce(u32::saturating_add)
    };
    let first = case.history.iter().find_map(|model| of(model))?;
    let last = case.history.iter().rev().find_map(|model| of(model))?;
    Some((first, last))
}
