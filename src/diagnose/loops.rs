//! Which event loop ought to hear of the connections that wait, and whether anybody listens to it.
//!
//! A process may have several epoll instances: one for each of its loops, or one for a loop within
//! the loop (a child process that is waited for inside a handler). What a thread waits in is the
//! first argument of `epoll_wait(2)`, shown by `/proc/PID/task/TID/syscall` (proc(5)).

use std::collections::{BTreeMap, BTreeSet};

use stallscope_probes::sample::{SyscallRaw, TaskState};

use super::case::{Case, ThreadSpan};
use super::outside::TICKS_MIN;
use crate::model::threads::{Doing, doing, is_tokio_worker};
use crate::model::{Model, ThreadModel, ThreadRole, syscall};

/// The epoll instances, by fd, that watch the listening socket whose queue is longest, and whether
/// any thread waits in one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attention {
    /// Their fds; more than one where the instance was duplicated.
    pub epolls: Vec<i32>,
    /// Whether a thread was seen waiting there.
    pub is_paid: bool,
}

/// What is known of that; `None` when no connection waits, the epoll instances were not read, none
/// watches the socket, some thread's call is not known, or a thread runs and may be on its way there.
pub fn attention(case: &Case<'_>) -> Option<Attention> {
    let last = case.last()?;
    let longest = last.own_listeners().max_by_key(|listener| listener.queued)?;
    let watches = |listeners: &[(u32, bool)]| {
        longest.queued > 0 && listeners.iter().any(|(inode, asks)| *inode == longest.inode && *asks)
    };
    let watching = last.epolls.got()?.iter().filter(|epoll| watches(&epoll.listeners));
    let epolls: Vec<i32> = watching.map(|epoll| epoll.fd).collect();
    if epolls.is_empty() || case.judged().len() < TICKS_MIN {
        return None;
    }
    let waits = |model: &Model| model.all_threads().any(|thread| waits_in(thread, &epolls));
    if case.judged().iter().any(|model| waits(model)) {
        return Some(Attention { epolls, is_paid: true });
    }
    // Of those that run only one that turns a loop may be on its way back to it.
    let is_settled = |thread: &ThreadModel| {
        let call = thread.syscall.got();
        if thread.state == TaskState::Running {
            return thread.role != ThreadRole::Runtime;
        }
        matches!(call, Some(SyscallRaw::In { .. } | SyscallRaw::NotInSyscall))
    };
    let unclear =
        |model: &Model| model.threads.got().is_none() || !model.all_threads().all(is_settled);
    if case.judged().iter().any(|model| unclear(model)) {
        return None;
    }
    Some(Attention { epolls, is_paid: false })
}

/// Whether it sleeps in a wait for the events of one of these.
fn waits_in(thread: &ThreadModel, epolls: &[i32]) -> bool {
    epoll_of(thread).is_some_and(|of| epolls.iter().any(|fd| u64::try_from(*fd) == Ok(of)))
}

/// The epoll instance it sleeps in, by fd.
fn epoll_of(thread: &ThreadModel) -> Option<u64> {
    let Some(SyscallRaw::In { nr, arg0 }) = thread.syscall.got() else { return None };
    syscall::name(*nr).is_some_and(|name| name.starts_with("epoll_")).then_some(*arg0)
}

/// The workers of a runtime whose threads share one event loop: tokio's by their name, or by whatever
/// name those that were seen to wait in turn in one and the same epoll instance.
pub fn workers<'a, 'b>(case: &Case<'_>, threads: &'b [ThreadSpan<'a>]) -> Vec<&'b ThreadSpan<'a>> {
    let named = threads.iter().filter(|thread| is_tokio_worker(&thread.last.comm));
    let named: Vec<&ThreadSpan<'_>> = named.collect();
    if named.len() >= 2 || threads.len() < 2 {
        return named;
    }
    let mut by_epoll: BTreeMap<u64, BTreeSet<i32>> = BTreeMap::new();
    for model in case.history {
        for thread in model.runtime_threads() {
            if let Some(epoll) = epoll_of(thread) {
                by_epoll.entry(epoll).or_default().insert(thread.tid);
            }
        }
    }
    let shared = by_epoll.into_values().filter(|tids| tids.len() >= 2).max_by_key(BTreeSet::len);
    let tids = shared.unwrap_or_default();
    threads.iter().filter(|thread| tids.contains(&thread.last.tid)).collect()
}

/// Whether a thread turned an event loop before the onset, and was hardly ever asleep elsewhere: one
/// of a pool, parked now and then, is not held up by being parked.
pub fn turned_before(case: &Case<'_>, tid: i32) -> bool {
    let before = case.history.iter().filter(|model| model.at_ns < case.onset.at_ns);
    let (mut ticks, mut waiting, mut blocked) = (0_usize, 0_usize, 0_usize);
    for thread in before.filter_map(|model| model.thread(tid)) {
        ticks += 1;
        match doing(thread) {
            Doing::Waiting => waiting += 1,
            Doing::Blocked => blocked += 1,
            _ => {}
        }
    }
    waiting > 0 && blocked * 10 <= ticks
}

/// In words.
pub fn fds(epolls: &[i32]) -> String {
    epolls.iter().map(i32::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use stallscope_probes::Reading::Got;
    use stallscope_probes::sample::{EpollRaw, SyscallRaw};

    use super::super::fixtures::{
        Expect, INODE, PID, Story, add_thread, block, change_thread, hold, queue, spin, thread,
    };
    use super::super::{accept_not_armed, runtime_blocked, workers_blocked};
    use crate::detect::StallKind;
    use crate::diagnose::verdict::Confidence::{Certain, Likely};
    use crate::model::{Model, ThreadRole};
    use Expect::{Excluded, Fits};

    /// Connections wait, and the epoll instance of this fd watches their socket.
    fn watched_by(fd: i32) -> Story {
        Story::new(StallKind::Accept).stalled(move |_, model| {
            queue(model, 5);
            let listeners = vec![(INODE, true)];
            model.epolls = Got(vec![EpollRaw { fd, watched: 9, listeners }].into());
        })
    }

    /// A second thread waits in an epoll instance of its own, fd 5.
    fn with_another(story: Story) -> Story {
        with_one_in(5, story)
    }

    fn with_one_in(epoll: u64, story: Story) -> Story {
        story.throughout(move |_, model| {
            let mut other = thread(PID + 1, "server", ThreadRole::Runtime);
            if let Got(SyscallRaw::In { nr, .. }) = other.syscall {
                other.syscall = Got(SyscallRaw::In { nr, arg0: epoll });
            }
            add_thread(model, other);
        })
    }

    #[test]
    fn who_does_not_listen_to_the_listening_socket_is_held_up() {
        // Threads of the fixtures wait in epoll fd 3.
        let rows = |nested, moved: Expect, stuck: Expect, computing: Expect| {
            vec![
                ("waits in a loop within its loop", watched_by(7), nested),
                (
                    "one sleeps, another waits where the connections are told of",
                    with_another(watched_by(5)).stalled(|_, model| block(model)),
                    moved,
                ),
                (
                    "one sleeps, another waits for other things",
                    with_another(watched_by(3)).stalled(|_, model| block(model)),
                    stuck,
                ),
                (
                    "one computes and may come back",
                    with_another(watched_by(7)).stalled(|_, model| spin(model)),
                    computing,
                ),
            ]
        };
        hold(
            runtime_blocked::examine,
            rows(
                Fits(Likely, "within its event loop"),
                Excluded("A thread still waits for the events"),
                Fits(Likely, "is blocked in a wait for a lock"),
                Excluded("still comes back"),
            ),
        );
        hold(
            accept_not_armed::examine,
            rows(
                Excluded("no thread waits for its events"),
                Fits(Likely, "watched by an epoll set"),
                Excluded("no thread waits for its events"),
                Fits(Likely, "watched by an epoll set"),
            ),
        );
    }

    #[test]
    fn threads_that_wait_in_turn_in_one_instance_are_workers_whatever_their_name() {
        let both_block = |_: usize, model: &mut Model| {
            block(model);
            change_thread(model, PID + 1, |thread| {
                thread.syscall = Got(SyscallRaw::In { nr: 455, arg0: 0 });
                thread.wchan = Got(String::from("futex_do_wait"));
            });
        };
        let rows = |one, both| {
            vec![
                (
                    "one is blocked",
                    with_one_in(3, watched_by(3)).stalled(|_, model| block(model)),
                    one,
                ),
                ("both are blocked", with_one_in(3, watched_by(3)).stalled(both_block), both),
            ]
        };
        let two = Excluded("The runtime has 2 workers");
        hold(runtime_blocked::examine, rows(two, two));
        let all = Fits(Certain, "None of the 2 workers");
        hold(workers_blocked::examine, rows(Excluded("waits for events"), all));
    }

    #[test]
    fn a_call_that_could_not_be_read_is_not_taken_for_another() {
        let unread = watched_by(7).stalled(|_, model| {
            change_thread(model, PID, |thread| thread.syscall = super::super::fixtures::absent());
        });
        hold(runtime_blocked::examine, vec![("unread", unread, Excluded("comes back"))]);
    }
}
