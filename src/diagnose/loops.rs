//! Which event loop ought to hear of the connections that wait, and whether anybody listens to it.
//!
//! A process may have several epoll instances: one for each of its loops, or one for a loop within
//! the loop (a child process that is waited for inside a handler). What a thread waits in is the
//! first argument of epoll_wait(2), shown by `/proc/PID/task/TID/syscall` (proc(5)).

use stallscope_probes::sample::{SyscallRaw, TaskState};

use super::case::Case;
use super::outside::TICKS_MIN;
use crate::model::{Model, ThreadModel, syscall};

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
    let is_settled = |thread: &ThreadModel| {
        let call = thread.syscall.got();
        thread.state != TaskState::Running
            && matches!(call, Some(SyscallRaw::In { .. } | SyscallRaw::NotInSyscall))
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
    let Some(SyscallRaw::In { nr, arg0 }) = thread.syscall.got() else { return false };
    syscall::name(*nr).is_some_and(|name| name.starts_with("epoll_"))
        && epolls.iter().any(|fd| u64::try_from(*fd) == Ok(*arg0))
}

/// In words.
pub fn fds(epolls: &[i32]) -> String {
    epolls.iter().map(i32::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use stallscope_probes::Reading::Got;
    use stallscope_probes::sample::EpollRaw;

    use super::super::fixtures::{
        Expect, INODE, PID, Story, add_thread, block, change_thread, hold, queue, spin, thread,
    };
    use super::super::{accept_not_armed, runtime_blocked};
    use crate::detect::StallKind;
    use crate::diagnose::verdict::Confidence::Likely;
    use crate::model::ThreadRole;
    use Expect::{Excluded, Fits};

    /// Connections wait, and the epoll instance of this fd watches their socket.
    fn watched_by(fd: i32) -> Story {
        Story::new(StallKind::Accept).stalled(move |_, model| {
            queue(model, 5);
            let listeners = vec![(INODE, true)];
            model.epolls = Got(vec![EpollRaw { fd, watched: 9, listeners }].into());
        })
    }

    /// A second thread waits in epoll fd 3, as the first does while all is well.
    fn with_another(story: Story) -> Story {
        story.throughout(|_, model| {
            add_thread(model, thread(PID + 1, "server", ThreadRole::Runtime));
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
                    with_another(watched_by(3)).stalled(|_, model| block(model)),
                    moved,
                ),
                (
                    "one sleeps, another waits for other things",
                    with_another(watched_by(7)).stalled(|_, model| block(model)),
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
    fn a_call_that_could_not_be_read_is_not_taken_for_another() {
        let unread = watched_by(7).stalled(|_, model| {
            change_thread(model, PID, |thread| thread.syscall = super::super::fixtures::absent());
        });
        hold(runtime_blocked::examine, vec![("unread", unread, Excluded("comes back"))]);
    }
}
