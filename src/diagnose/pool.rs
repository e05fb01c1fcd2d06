//! Threads that handle requests beside the loop: when every one of them is stuck, no further request
//! is handled, while the loop, or the acceptor, goes on.
//!
//! A thread of a pool that has nothing to do waits for work, mostly on a futex; so that call tells
//! nothing. One that reads from a socket may be a client's reader at rest: it counts only where
//! another service owes an answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use stallscope_probes::sample::{SyscallRaw, THREADS_MAX};

use super::backends::{Backend, awaited};
use super::case::Case;
use super::outside::TICKS_MIN;
use super::verdict::Confidence;
use crate::detect::StallKind;
use crate::model::threads::{Doing, doing};
use crate::model::{Model, ThreadModel, ThreadRole, syscall};

/// A pool of which no thread is free.
#[derive(Debug, Clone, PartialEq)]
pub struct Stuck {
    /// Its threads.
    pub tids: Vec<i32>,
    /// What they are in, and how many of them.
    pub calls: BTreeMap<&'static str, usize>,
    /// Who owes them an answer.
    pub backend: Option<Backend>,
    /// How sure.
    pub confidence: Confidence,
}

/// Calls in which a thread waits for an answer from a socket.
const READS: [&str; 4] = ["read", "readv", "recvfrom", "recvmsg"];
/// Calls in which no thread waits for work to be handed to it.
const OTHERS: [&str; 14] = [
    "connect",
    "write",
    "writev",
    "sendto",
    "sendmsg",
    "flock",
    "fcntl",
    "fsync",
    "fdatasync",
    "nanosleep",
    "clock_nanosleep",
    "wait4",
    "waitid",
    "semop",
];

/// The largest pool of which every thread has been stuck at every judged tick.
pub fn stuck(case: &Case<'_>) -> Option<Stuck> {
    let last = case.last()?;
    let handles = [StallKind::Answers, StallKind::Runtime, StallKind::Accept];
    if !handles.contains(&case.onset.kind) || case.judged().len() < TICKS_MIN {
        return None;
    }
    let mut pools: BTreeMap<&str, Vec<&ThreadModel>> = BTreeMap::new();
    let may_handle = |thread: &&ThreadModel| {
        let is_of_use = matches!(thread.role, ThreadRole::Other | ThreadRole::Runtime);
        // The loop, and the acceptor, are not of the pool.
        let waits =
            |model: &Arc<Model>| model.thread(thread.tid).map(doing) == Some(Doing::Waiting);
        is_of_use && !case.judged().iter().any(waits)
    };
    for thread in last.all_threads().filter(may_handle) {
        pools.entry(pool_name(&thread.comm)).or_default().push(thread);
    }
    let backend = awaited(case).first().copied();
    let stuck = pools.into_values().filter_map(|pool| of_pool(case, &pool, backend));
    stuck.max_by_key(|stuck| stuck.tids.len())
}

/// Threads of a pool are numbered: `worker-12`, `http-nio-exec-3`.
fn pool_name(comm: &str) -> &str {
    comm.trim_end_matches(|letter: char| letter.is_ascii_digit() || "-_#: ".contains(letter))
}

fn of_pool(case: &Case<'_>, pool: &[&ThreadModel], backend: Option<Backend>) -> Option<Stuck> {
    let blocked = |thread: &&ThreadModel| {
        let at = |model: &Arc<Model>| model.thread(thread.tid).map(doing);
        case.judged().iter().all(|model| at(model).is_none_or(|doing| doing == Doing::Blocked))
    };
    // One that naps is asleep at each look as well, and comes back.
    let still = |thread: &&ThreadModel| {
        thread.switches_per_s.got().is_some_and(|per_s| *per_s < WAKES_PER_S_MAX)
    };
    if pool.len() < 2 || !pool.iter().all(blocked) || !pool.iter().all(still) {
        return None;
    }
    let mut calls: BTreeMap<&'static str, usize> = BTreeMap::new();
    for thread in pool {
        let Some(SyscallRaw::In { nr, .. }) = thread.syscall.got() else { return None };
        *calls.entry(syscall::name(*nr)?).or_default() += 1;
    }
    let reading: usize =
        calls.iter().filter(|(call, _)| READS.contains(*call)).map(|(_, count)| count).sum();
    let known = calls.keys().all(|call| READS.contains(call) || OTHERS.contains(call));
    let owing = backend.map_or(0, |backend| backend.unanswered);
    if !known || (reading > 0 && owing < reading.min(OWING_MIN)) {
        return None;
    }
    // Threads that were at work before are the ones that the requests wait for.
    let worked = |thread: &&&ThreadModel| {
        let before = case.history.iter().filter(|model| model.at_ns < case.onset.at_ns);
        let rate = |model: &Arc<Model>| model.thread(thread.tid)?.switches_per_s.got().copied();
        before.filter_map(rate).any(|per_s| per_s > 0.0)
    };
    let at_work = pool.iter().filter(worked).count();
    let all_seen = case.last()?.all_threads().count() < THREADS_MAX;
    let likely = all_seen && at_work * 2 >= pool.len();
    Some(Stuck {
        tids: pool.iter().map(|thread| thread.tid).collect(),
        calls,
        backend: backend.filter(|_| reading > 0),
        confidence: if likely { Confidence::Likely } else { Confidence::Possible },
    })
}

/// A thread that is stuck does not wake.
const WAKES_PER_S_MAX: f64 = 1.0;

/// Of the connections to others not all are followed: where this many owe, they all may.
const OWING_MIN: usize = 8;

#[cfg(test)]
mod tests {
    use stallscope_probes::Reading::Got;

    use super::super::fixtures::{Expect, PID, Story, add_thread, hold, kafka_peer, thread};
    use super::super::workers_blocked;
    use super::*;
    use Confidence::{Likely, Possible};
    use Expect::{Excluded, Fits};

    /// The same numbers on every architecture.
    const PIDFD_OPEN: i64 = 434;
    const FUTEX_WAIT: i64 = 455;

    fn nr(call: &str) -> i64 {
        (0..500).find(|nr| syscall::name(*nr) == Some(call)).unwrap()
    }

    /// Four threads beside the loop, of which since the onset the last is in another call; so many
    /// connections to a database owe an answer.
    fn handlers(call: i64, last_call: i64, owing: usize) -> Story {
        Story::new(StallKind::Answers)
            .throughout(|_, model| {
                for at in 0..4 {
                    let name = format!("handler-{at}");
                    let mut idle = thread(PID + 10 + at, &name, ThreadRole::Other);
                    idle.syscall = Got(SyscallRaw::In { nr: FUTEX_WAIT, arg0: 0 });
                    add_thread(model, idle);
                }
            })
            .stalled(move |_, model| {
                for at in 0..4 {
                    let nr = if at == 3 { last_call } else { call };
                    super::super::fixtures::change_thread(model, PID + 10 + at, |thread| {
                        thread.syscall = Got(SyscallRaw::In { nr, arg0: 9 });
                        thread.switches_per_s = Got(0.0);
                    });
                }
                let mut peer = kafka_peer(model.at_ns);
                peer.kafka = false;
                peer.raw.info.as_mut().unwrap().last_sent_ms = 2_000;
                peer.raw.info.as_mut().unwrap().last_received_ms = 2_100;
                model.peers = Got(vec![peer; owing].into());
            })
    }

    #[test]
    fn a_pool_is_stuck_when_none_of_its_threads_is_free() {
        let none = "no multi-thread runtime";
        let (recv, sleep) = (nr("recvfrom"), nr("nanosleep"));
        hold(
            workers_blocked::examine,
            vec![
                ("a database", handlers(recv, recv, 4), Fits(Likely, "4 in recvfrom")),
                ("it is named", handlers(recv, recv, 4), Fits(Likely, "to 10.0.0.7:9092 have got")),
                ("a sleep", handlers(sleep, sleep, 0), Fits(Likely, "4 in nanosleep")),
                ("two calls", handlers(sleep, recv, 1), Fits(Likely, "1 in recvfrom")),
                ("late", handlers(recv, recv, 4).attached_late(), Fits(Possible, "4 in recvfrom")),
                ("readers at rest", handlers(recv, recv, 0), Excluded(none)),
                ("one that owes, of four", handlers(recv, recv, 1), Excluded(none)),
                ("one waits for work", handlers(recv, FUTEX_WAIT, 4), Excluded(none)),
                ("all wait for work", handlers(FUTEX_WAIT, FUTEX_WAIT, 4), Excluded(none)),
                ("one is in another call", handlers(recv, PIDFD_OPEN, 4), Excluded(none)),
                ("one polls", handlers(recv, nr("ppoll"), 4), Fits(Likely, "3 in recvfrom")),
            ],
        );
    }

    #[test]
    fn threads_of_a_pool_are_told_by_their_names_without_the_number() {
        for (comm, pool) in [
            ("worker-12", "worker"),
            ("http-nio-exec-3", "http-nio-exec"),
            ("Thread-4", "Thread"),
            ("gunicorn", "gunicorn"),
            ("pool_0_1", "pool"),
            ("42", ""),
        ] {
            assert_eq!(pool_name(comm), pool);
        }
    }
}
