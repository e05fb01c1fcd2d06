//! What the causes outside the event loop ask alike: whether the loop turns at all, what counters
//! of the last seconds add up to, which listeners overlap.
//!
//! Such a cause leaves the loop alone: its thread goes on waiting for events. A thread that is
//! blocked or computes explains a stall by itself, whatever else is wrong.

use std::net::SocketAddr;
use std::sync::Arc;

use super::case::{Case, ThreadSpan, syscall_words};
use super::recent;
use crate::model::{ListenerModel, Model, TcpModel};

/// Counters are added up over this much: TCP counters and tables are read every half a second to a
/// second, and one read must not decide.
pub const COUNTED_NS: u64 = 3_000_000_000;
/// Samples that a state must have lasted.
pub const TICKS_MIN: usize = 3;
/// Share of the samples in which a thread that does not wait for events is seen elsewhere.
const ELSEWHERE_SHARE_MIN: f64 = 0.9;

/// Whether the event loop turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turning {
    /// A thread of it waits for events, or was seen to between work.
    Turns,
    /// It does not, in one sentence.
    Stuck(String),
    /// It cannot be told, and why.
    Unclear(String),
}

/// Whether the event loop turns, by the judged ticks.
pub fn turning(case: &Case<'_>) -> Turning {
    let threads = case.runtime();
    if threads.iter().any(|thread| thread.waiting > 0) {
        return Turning::Turns;
    }
    // A page that is kept up to date is the loop's own word.
    let beat_ms = case.last().and_then(|model| model.app.got()?.beat_age_ms);
    if beat_ms.is_some_and(|beat_ms| beat_ms < BEAT_FRESH_MS) {
        return Turning::Turns;
    }
    let share = |part: usize, thread: &ThreadSpan<'_>| part as f64 / thread.ticks.max(1) as f64;
    let seen = |thread: &&ThreadSpan<'_>| thread.ticks >= TICKS_MIN;
    if let Some(thread) = threads
        .iter()
        .filter(seen)
        .find(|thread| share(thread.blocked, thread) >= ELSEWHERE_SHARE_MIN)
    {
        let call = syscall_words(thread.last).unwrap_or_else(|| String::from("a blocking call"));
        return Turning::Stuck(format!(
            "The runtime's thread {} is blocked ({call}): it does not come back to its event loop.",
            thread.last.tid
        ));
    }
    if let Some(thread) = threads
        .iter()
        .filter(seen)
        .find(|thread| share(thread.running, thread) >= ELSEWHERE_SHARE_MIN)
    {
        return Turning::Stuck(format!(
            "The runtime's thread {} runs all the time ({} of {} samples) and never waits for events.",
            thread.last.tid, thread.running, thread.ticks
        ));
    }
    let absence = case.last().and_then(|model| model.threads.absence());
    Turning::Unclear(absence.map_or_else(
        || String::from("what the runtime's thread does could not be told."),
        |absence| format!("the threads could not be read ({}).", absence.detail),
    ))
}

/// Beats are due every 50 ms; a saturated loop is late with them.
const BEAT_FRESH_MS: f64 = 500.0;

/// The ticks of the last [`COUNTED_NS`].
pub fn counted<'a>(case: &Case<'a>) -> &'a [Arc<Model>] {
    recent(case.history, case.now_ns, COUNTED_NS)
}

/// A TCP counter of the namespace over the last [`COUNTED_NS`]; `None` when it was never read.
pub fn tcp_count(case: &Case<'_>, counter: fn(&TcpModel) -> Option<u64>) -> Option<u64> {
    sum(counted(case), |model| counter(model.tcp.got()?))
}

/// The sum of what was read; `None` when nothing was.
pub fn sum(ticks: &[Arc<Model>], value: impl Fn(&Model) -> Option<u64>) -> Option<u64> {
    let values = ticks.iter().filter_map(|model| value(model));
    values.fold(None, |sum, value| Some(sum.unwrap_or(0_u64).saturating_add(value)))
}

/// The first and last value that was read; `None` when there were not two.
pub fn ends<T>(ticks: &[Arc<Model>], value: impl Fn(&Model) -> Option<T>) -> Option<(T, T)> {
    let first = ticks.iter().position(|model| value(model).is_some())?;
    let last = ticks.iter().rposition(|model| value(model).is_some())?;
    (first < last).then_some(())?;
    Some((value(ticks.get(first)?)?, value(ticks.get(last)?)?))
}

/// Whether two listeners can be meant by one address of a client: the same address, or one of
/// them is a wildcard. (`[::]` takes IPv4 too unless `IPV6_V6ONLY` is set, ipv6(7).)
pub fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let wild = |local: SocketAddr| local.ip().is_unspecified();
    let same = one.ip().to_canonical() == other.ip().to_canonical();
    one.port() == other.port() && (same || wild(one) || wild(other))
}

/// The accept queue of one listener, tick by tick, in `ticks`.
pub fn queue_of(ticks: &[Arc<Model>], inode: u32) -> Vec<u32> {
    let queued = |model: &Arc<Model>| Some(find(model, inode)?.queued);
    ticks.iter().filter_map(queued).collect()
}

/// One listener of `model`.
pub fn find(model: &Model, inode: u32) -> Option<&ListenerModel> {
    model.listeners.got()?.iter().find(|listener| listener.inode == inode)
}

/// Whether a queue ever got shorter: something was accepted.
pub fn shrank(queued: &[u32]) -> bool {
    queued.windows(2).any(|pair| pair[1] < pair[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_overlap_and_ports_keep_apart() {
        for (one, other, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.2:80", true),
            ("[::]:80", "127.0.0.2:80", true),
            ("[::]:80", "0.0.0.0:80", true),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true),
            ("[::1]:80", "127.0.0.1:80", false),
        ] {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(overlap(one, other), expected, "{one} {other}");
            assert_eq!(overlap(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn a_queue_shrinks_only_where_it_gets_shorter() {
        assert!(shrank(&[3, 4, 3]));
        assert!(!shrank(&[3, 4, 4]));
        assert!(!shrank(&[3]));
    }
}
