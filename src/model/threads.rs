//! What a thread is for, and whether it waits for events or is stuck in something else.

use std::collections::{BTreeMap, BTreeSet};

use stallscope_probes::sample::{HeartbeatRaw, SyscallRaw, TaskState, ThreadRaw};

use super::{ThreadModel, ThreadRole};

/// System calls in which an event loop, or a blocking acceptor, waits for work.
///
/// Numbers from the kernel's `syscall_64.tbl` (x86-64) and `asm-generic/unistd.h` (others).
#[cfg(target_arch = "x86_64")]
const EVENT_WAITS: [i64; 11] = [
    7,   // poll
    23,  // select
    43,  // accept
    232, // epoll_wait
    270, // pselect6
    271, // ppoll
    281, // epoll_pwait
    288, // accept4
    426, // io_uring_enter
    441, // epoll_pwait2
    208, // io_getevents
];
#[cfg(not(target_arch = "x86_64"))]
const EVENT_WAITS: [i64; 8] = [
    4,   // io_getevents
    22,  // epoll_pwait
    72,  // pselect6
    73,  // ppoll
    202, // accept
    242, // accept4
    426, // io_uring_enter
    441, // epoll_pwait2
];

/// `restart_syscall`: an interrupted sleep or poll that goes on.
#[cfg(target_arch = "x86_64")]
const RESTART: i64 = 219;
#[cfg(not(target_arch = "x86_64"))]
const RESTART: i64 = 128;

/// What a thread is doing, as far as a stall is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// On a CPU or waiting for one.
    Running,
    /// Asleep where an event loop sleeps: it would wake for work.
    Waiting,
    /// Asleep somewhere else: it cannot take work.
    Blocked,
    /// Stopped, or dead.
    Stopped,
    /// It sleeps, and what in could not be read.
    Unclear,
}

/// Whether sleeping in this system call, with this wait channel, is waiting for events.
fn is_event_wait(nr: i64, wchan: Option<&str>) -> bool {
    // An interrupted poll(2) goes on as restart_syscall, as does an interrupted nanosleep(2):
    // only the wait channel tells them apart.
    EVENT_WAITS.contains(&nr) || (nr == RESTART && wchan.is_some_and(is_poll_channel))
}

fn is_poll_channel(wchan: &str) -> bool {
    wchan.contains("poll") || wchan.contains("select")
}

/// What `thread` is doing.
pub fn doing(thread: &ThreadModel) -> Doing {
    classify(thread.state, thread.syscall.got().copied(), thread.wchan.got().map(String::as_str))
}

fn classify(state: TaskState, syscall: Option<SyscallRaw>, wchan: Option<&str>) -> Doing {
    match state {
        TaskState::Running => Doing::Running,
        // The freezer of a version 1 cgroup (`kernel/freezer.c __refrigerator`).
        TaskState::DiskSleep if wchan.is_some_and(|wchan| wchan.contains("refrigerator")) => {
            Doing::Stopped
        }
        TaskState::DiskSleep => Doing::Blocked,
        TaskState::Stopped | TaskState::Tracing | TaskState::Zombie | TaskState::Dead => {
            Doing::Stopped
        }
        TaskState::Sleeping | TaskState::Idle | TaskState::Other(_) => match (syscall, wchan) {
            // It was woken between the read of its state and that of its system call.
            (Some(SyscallRaw::Running), _) => Doing::Running,
            (Some(SyscallRaw::In { nr, .. }), wchan) if is_event_wait(nr, wchan) => Doing::Waiting,
            (Some(SyscallRaw::In { .. } | SyscallRaw::NotInSyscall), _) => Doing::Blocked,
            (None, Some(wchan)) if !wchan.is_empty() => {
                let acceptor = wchan.contains("accept") || wchan.contains("cqring_wait");
                if is_poll_channel(wchan) || acceptor { Doing::Waiting } else { Doing::Blocked }
            }
            (None, _) => Doing::Unclear,
        },
    }
}

/// Tells the threads of one process apart, remembering which were seen waiting for events.
#[derive(Debug, Default, Clone)]
pub struct Roles {
    seen_waiting: BTreeSet<i32>,
    /// Threads that ran at every look so far, and at how many.
    running: BTreeMap<i32, u32>,
}

/// Threads remembered as waiters; tids of short-lived threads must not pile up.
const SEEN_WAITING_MAX: usize = 1024;

/// Looks in a row at which a thread runs that make it one that never sleeps.
const ALWAYS_RUNNING_LOOKS: u32 = 6;

/// Name prefixes of threads that wait for events and never serve clients.
const HELPERS: [&str; 11] = [
    "console_subscri",
    "profiler",
    "tracing-append",
    "signal-hook",
    "tokio-console",
    // Node.js: its timers' and its debugger's loop.
    "DelayedTaskSche",
    "SignalInspector",
    // GLib's, inotify's, metrics'.
    "gmain",
    "gdbus",
    "notify-rs",
    "prometheus",
];

impl Roles {
    /// The role of every thread in `threads`, in the same order.
    ///
    /// With a heartbeat page the server itself says which thread runs the runtime. Otherwise:
    /// tokio's workers by name (unless the main thread waits for events and none of them does: they
    /// are then the blocking pool of a current-thread runtime, which has the same name); or every
    /// thread ever seen waiting for events; and always the main thread, unless tokio's workers are
    /// there. Where nobody was ever seen waiting, a thread that never sleeps is the one.
    pub fn assign(
        &mut self,
        pid: i32,
        threads: &[ThreadRaw],
        page: Option<&HeartbeatRaw>,
    ) -> Vec<ThreadRole> {
        self.seen_waiting.retain(|tid| threads.iter().any(|thread| thread.tid == *tid));
        for thread in threads {
            let wchan = thread.wchan.got().map(String::as_str);
            let doing = classify(thread.state, thread.syscall.got().copied(), wchan);
            if doing == Doing::Waiting && self.seen_waiting.len() < SEEN_WAITING_MAX {
                self.seen_waiting.insert(thread.tid);
            }
        }
        self.note_running(threads);
        let tokio_workers = threads.iter().any(|thread| is_tokio_worker(&thread.comm))
            && !self.is_pool_only(threads);
        let nobody_waits = self.seen_waiting.is_empty();
        let named = page.and_then(|page| page.runtime_tid);
        threads
            .iter()
            .map(|thread| {
                let by_name = role_by_name(&thread.comm);
                let told_kafka = page.and_then(|page| page.kafka_tid) == Some(thread.tid);
                if told_kafka {
                    ThreadRole::Kafka
                } else if let Some(runtime_tid) = named {
                    match by_name {
                        _ if runtime_tid == thread.tid => ThreadRole::Runtime,
                        ThreadRole::Runtime => ThreadRole::Other,
                        other => other,
                    }
                } else if by_name == ThreadRole::Runtime && !tokio_workers {
                    ThreadRole::Other
                } else if by_name != ThreadRole::Other || is_helper(&thread.comm) || tokio_workers {
                    by_name
                } else if thread.tid == pid
                    || self.seen_waiting.contains(&thread.tid)
                    || (nobody_waits && self.never_sleeps(thread.tid))
                {
                    ThreadRole::Runtime
                } else {
                    ThreadRole::Other
                }
            })
            .collect()
    }
}

/// Whether a thread of this name is a worker of tokio's multi-thread runtime (or of its blocking
/// pool: they share the name).
pub fn is_tokio_worker(comm: &str) -> bool {
    comm.starts_with("tokio-rt-worker") || comm.starts_with("tokio-runtime-w")
}

impl Roles {
    /// Whether the threads with the name of tokio's workers are the blocking pool of a runtime that
    /// runs on another thread, the main one mostly.
    fn is_pool_only(&self, threads: &[ThreadRaw]) -> bool {
        let waits = |thread: &&ThreadRaw| self.seen_waiting.contains(&thread.tid);
        let (workers, others): (Vec<&ThreadRaw>, Vec<&ThreadRaw>) =
            threads.iter().partition(|thread| is_tokio_worker(&thread.comm));
        let turns_a_loop = |thread: &&ThreadRaw| {
            role_by_name(&thread.comm) == ThreadRole::Other && !is_helper(&thread.comm)
        };
        others.iter().any(|thread| waits(thread) && turns_a_loop(thread))
            && !workers.iter().any(waits)
    }

    fn note_running(&mut self, threads: &[ThreadRaw]) {
        let ran = |tid: i32| {
            let mut those = threads.iter().filter(|thread| thread.tid == tid);
            those.any(|thread| thread.state == TaskState::Running)
        };
        self.running.retain(|tid, _| ran(*tid));
        for thread in threads.iter().filter(|thread| thread.state == TaskState::Running) {
            if self.running.len() < SEEN_WAITING_MAX {
                let looks = self.running.entry(thread.tid).or_default();
                *looks = looks.saturating_add(1);
            }
        }
    }

    fn never_sleeps(&self, tid: i32) -> bool {
        self.running.get(&tid).is_some_and(|looks| *looks >= ALWAYS_RUNNING_LOOKS)
    }
}

fn is_helper(comm: &str) -> bool {
    HELPERS.iter().any(|helper| comm.starts_with(helper))
}

fn role_by_name(comm: &str) -> ThreadRole {
    if comm.starts_with("rdk:") || comm.starts_with("producer pollin") {
        ThreadRole::Kafka
    } else if comm.starts_with("iou-wrk-") || comm.starts_with("iou-sqp-") {
        ThreadRole::IoWorker
    } else if is_tokio_worker(comm) {
        ThreadRole::Runtime
    } else {
        ThreadRole::Other
    }
}

#[cfg(test)]
mod tests {
    use stallscope_probes::{Reading, Why};

    use super::*;

    fn thread(tid: i32, comm: &str, state: TaskState, nr: i64) -> ThreadRaw {
        ThreadRaw {
            tid,
            comm: comm.to_owned(),
            state,
            utime_ticks: 0,
            stime_ticks: 0,
            sched: Reading::absent(Why::Unsupported, ""),
            syscall: Reading::Got(SyscallRaw::In { nr, arg0: 0 }),
            wchan: Reading::Got(String::new()),
            kernel_stack: Reading::absent(Why::NotSampled, ""),
            switches: Reading::absent(Why::NotSampled, ""),
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn sleeping_in_a_wait_for_events_is_not_being_blocked() {
        use TaskState::{DiskSleep, Running, Sleeping, Stopped};
        let within = |nr| Some(SyscallRaw::In { nr, arg0: 0 });
        let cases = [
            (Running, None, None, Doing::Running),
            (Sleeping, within(232), Some("ep_poll"), Doing::Waiting),
            (Sleeping, within(426), Some("io_cqring_wait"), Doing::Waiting),
            (Sleeping, within(288), Some("inet_csk_accept"), Doing::Waiting),
            (Sleeping, within(202), Some("futex_do_wait"), Doing::Blocked),
            (Sleeping, within(1), Some("anon_pipe_write"), Doing::Blocked),
            (Sleeping, within(219), Some("do_syscall_64"), Doing::Blocked),
            (Sleeping, within(219), Some("do_sys_poll"), Doing::Waiting),
            (Sleeping, Some(SyscallRaw::Running), Some(""), Doing::Running),
            (Sleeping, None, Some("ep_poll"), Doing::Waiting),
            (Sleeping, None, Some("futex_do_wait"), Doing::Blocked),
            (Sleeping, None, Some(""), Doing::Unclear),
            (Sleeping, None, None, Doing::Unclear),
            (DiskSleep, within(232), None, Doing::Blocked),
            (Stopped, within(232), None, Doing::Stopped),
            (DiskSleep, within(232), Some("__refrigerator"), Doing::Stopped),
        ];
        for (state, syscall, wchan, expected) in cases {
            assert_eq!(
                classify(state, syscall, wchan),
                expected,
                "{state:?} {syscall:?} {wchan:?}"
            );
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_thread_once_seen_waiting_stays_a_runtime_thread_when_it_blocks() {
        let mut roles = Roles::default();
        let waiting = [
            thread(10, "main", TaskState::Sleeping, 202),
            thread(11, "loop", TaskState::Sleeping, 232),
        ];
        assert_eq!(roles.assign(10, &waiting, None), [ThreadRole::Runtime; 2]);
        let blocked = [
            thread(10, "main", TaskState::Sleeping, 202),
            thread(11, "loop", TaskState::Sleeping, 202),
        ];
        assert_eq!(roles.assign(10, &blocked, None), [ThreadRole::Runtime; 2]);
    }

    #[test]
    fn names_decide_where_they_are_known_and_the_page_decides_over_all() {
        use ThreadRole::{IoWorker, Kafka, Other, Runtime};
        let threads = [
            thread(10, "server", TaskState::Sleeping, 232),
            thread(11, "tokio-rt-worker", TaskState::Sleeping, 232),
            thread(12, "rdk:broker1", TaskState::Sleeping, 7),
            thread(13, "iou-wrk-10", TaskState::Sleeping, 0),
            thread(14, "profiler", TaskState::Sleeping, 232),
        ];
        let by_name = Roles::default().assign(10, &threads, None);
        assert_eq!(by_name, [Other, Runtime, Kafka, IoWorker, Other]);
        let page =
            HeartbeatRaw { runtime_tid: Some(10), kafka_tid: Some(14), ..HeartbeatRaw::default() };
        let told = Roles::default().assign(10, &threads, Some(&page));
        assert_eq!(told, [Runtime, Other, Kafka, IoWorker, Kafka]);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_blocking_pool_of_a_current_thread_runtime_is_no_runtime() {
        use ThreadRole::{Other, Runtime};
        let threads = [
            thread(10, "server", TaskState::Sleeping, 232),
            thread(11, "tokio-rt-worker", TaskState::Sleeping, 202),
        ];
        assert_eq!(Roles::default().assign(10, &threads, None), [Runtime, Other]);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn where_nobody_ever_waits_the_one_that_never_sleeps_runs_the_loop() {
        use ThreadRole::{Other, Runtime};
        let threads = [
            thread(10, "server", TaskState::Sleeping, 202),
            thread(11, "loop", TaskState::Running, 0),
        ];
        let mut roles = Roles::default();
        assert_eq!(roles.assign(10, &threads, None), [Runtime, Other]);
        for _ in 0..ALWAYS_RUNNING_LOOKS {
            roles.assign(10, &threads, None);
        }
        assert_eq!(roles.assign(10, &threads, None), [Runtime, Runtime]);
    }
}
