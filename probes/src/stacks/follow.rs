//! From switches and samples to stretches of time: when a thread ran, and how long it waited where.
//! Pure: records in by time, stretches out.

use std::collections::BTreeMap;

/// Number of a stack in a [`super::Stacks`].
pub type StackId = u32;

/// A sample at a switch belongs to the switch that is recorded this soon after it, ns: the kernel
/// does both in one go (`perf_event_task_sched_out`, kernel/events/core.c).
const SAME_SWITCH_NS: u64 = 1_000_000;
/// Threads followed at once.
pub const FOLLOWED_MAX: usize = 8_192;

/// What a thread did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caught {
    /// It was on a CPU.
    Ran {
        /// When, ns.
        at_ns: u64,
        /// Thread.
        tid: i32,
        /// Where.
        stack: StackId,
        /// CPU time it stands for, ns.
        period_ns: u64,
    },
    /// It was on no CPU.
    Waited(Wait),
}

/// A stretch without a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Thread.
    pub tid: i32,
    /// Since when, ns.
    pub begin_ns: u64,
    /// Until when, ns.
    pub end_ns: u64,
    /// Where, if a sample was taken as it went.
    pub stack: Option<StackId>,
    /// It would have run on, had it been let.
    pub preempted: bool,
}

/// Something about one thread at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The CPU clock caught it.
    Clock {
        /// Where.
        stack: StackId,
        /// CPU time it stands for, ns.
        period_ns: u64,
    },
    /// Where it was when it lost its CPU.
    Leaving {
        /// Where.
        stack: StackId,
    },
    /// It lost its CPU.
    Out {
        /// It would have run on.
        preempted: bool,
    },
    /// It got a CPU.
    In,
    /// It ended.
    End,
}

/// Follows the threads of one process.
#[derive(Debug, Default)]
pub struct Follow {
    threads: BTreeMap<i32, Thread>,
    /// Threads there were too many of.
    pub left_out: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Thread {
    leaving: Option<(u64, StackId)>,
    away: Option<Away>,
}

#[derive(Debug, Clone, Copy)]
struct Away {
    since_ns: u64,
    stack: Option<StackId>,
    preempted: bool,
    looked_at: bool,
}

impl Away {
    const fn since(since_ns: u64) -> Self {
        Self { since_ns, stack: None, preempted: false, looked_at: false }
    }
}

impl Follow {
    /// A thread that was there when following began, and was not on a CPU as far as is known.
    pub fn begin(&mut self, tid: i32, at_ns: u64) {
        if let Some(thread) = self.thread(tid) {
            thread.away = Some(Away::since(at_ns));
        }
    }

    /// Heeds what happened to thread `tid` at `at_ns`; calls come in the order of time.
    pub fn heed(&mut self, tid: i32, at_ns: u64, what: What) -> Option<Caught> {
        if what == What::End {
            self.threads.remove(&tid);
            return None;
        }
        let thread = self.thread(tid)?;
        match what {
            What::Clock { stack, period_ns } => {
                // It runs: whatever was thought of its absence is wrong.
                thread.away = None;
                Some(Caught::Ran { at_ns, tid, stack, period_ns })
            }
            What::Leaving { stack } => {
                thread.leaving = Some((at_ns, stack));
                None
            }
            What::Out { preempted } => {
                let stack = thread
                    .leaving
                    .take()
                    .filter(|(left_ns, _)| at_ns.saturating_sub(*left_ns) < SAME_SWITCH_NS);
                let stack = stack.map(|(_, stack)| stack);
                thread.away = Some(Away { stack, preempted, ..Away::since(at_ns) });
                None
            }
            What::In => thread.away.take().map(|away| Caught::Waited(away.wait(tid, at_ns))),
            What::End => None,
        }
    }

    /// Threads that are away at `now_ns`, each with the wait so far.
    pub fn away(&self, now_ns: u64) -> impl Iterator<Item = Wait> {
        self.threads.iter().filter_map(move |(tid, thread)| {
            thread.away.map(|away| away.wait(*tid, now_ns.max(away.since_ns)))
        })
    }

    /// Threads that went to sleep before `before_ns` and have not been looked at since.
    pub fn to_look_at(&self, before_ns: u64) -> impl Iterator<Item = Wait> {
        self.threads.iter().filter_map(move |(tid, thread)| {
            let away = thread.away.filter(|away| !away.looked_at && !away.preempted)?;
            (away.since_ns < before_ns).then(|| away.wait(*tid, before_ns))
        })
    }

    /// A thread that is away since `since_ns` has been looked at: where it waits, if that was found
    /// out.
    pub fn looked_at(&mut self, tid: i32, since_ns: u64, stack: Option<StackId>) {
        if let Some(away) = self.threads.get_mut(&tid).and_then(|thread| thread.away.as_mut())
            && away.since_ns == since_ns
        {
            away.looked_at = true;
            away.stack = stack.or(away.stack);
        }
    }

    /// Switches were not followed for a while: nothing is known of who is away.
    pub fn lose_sight(&mut self) {
        for thread in self.threads.values_mut() {
            *thread = Thread::default();
        }
    }

    fn thread(&mut self, tid: i32) -> Option<&mut Thread> {
        if self.threads.len() >= FOLLOWED_MAX && !self.threads.contains_key(&tid) {
            self.left_out += 1;
            return None;
        }
        Some(self.threads.entry(tid).or_default())
    }
}

impl Away {
    const fn wait(&self, tid: i32, end_ns: u64) -> Wait {
        Wait { tid, begin_ns: self.since_ns, end_ns, stack: self.stack, preempted: self.preempted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: What = What::Out { preempted: false };

    #[test]
    fn a_wait_lies_between_two_switches_and_is_where_the_thread_left() {
        let mut follow = Follow::default();
        assert_eq!(follow.heed(7, 10, What::Leaving { stack: 3 }), None);
        assert_eq!(follow.heed(7, 11, OUT), None);
        let wait = Wait { tid: 7, begin_ns: 11, end_ns: 50, stack: Some(3), preempted: false };
        assert_eq!(follow.away(50).collect::<Vec<_>>(), [wait]);
        assert_eq!(follow.heed(7, 50, What::In), Some(Caught::Waited(wait)));
        assert_eq!(follow.away(60).count(), 0);
        assert_eq!(follow.heed(7, 70, What::In), None, "it never left");
    }

    #[test]
    fn an_old_sample_is_not_of_this_switch() {
        let mut follow = Follow::default();
        follow.heed(7, 10, What::Leaving { stack: 3 });
        follow.heed(7, 10 + SAME_SWITCH_NS, OUT);
        assert_eq!(follow.away(u64::MAX).next().and_then(|wait| wait.stack), None);
        let since_ns = 10 + SAME_SWITCH_NS;
        assert_eq!(follow.to_look_at(since_ns).count(), 0, "it has only just gone");
        assert_eq!(follow.to_look_at(since_ns + 1).map(|wait| wait.tid).collect::<Vec<_>>(), [7]);
        follow.looked_at(7, 3, Some(5));
        assert_eq!(follow.to_look_at(u64::MAX).count(), 1, "that was another wait");
        follow.looked_at(7, since_ns, Some(4));
        assert_eq!(follow.away(u64::MAX).next().and_then(|wait| wait.stack), Some(4));
        follow.looked_at(7, since_ns, None);
        assert_eq!(follow.away(u64::MAX).next().and_then(|wait| wait.stack), Some(4));
        assert_eq!(follow.to_look_at(u64::MAX).count(), 0, "once is enough");
    }

    #[test]
    fn a_thread_that_was_asleep_from_the_beginning_waits_since_then() {
        let mut follow = Follow::default();
        follow.begin(7, 100);
        let caught = follow.heed(7, 400, What::In);
        assert!(matches!(caught, Some(Caught::Waited(Wait { begin_ns: 100, end_ns: 400, .. }))));
        follow.begin(8, 100);
        let clock = What::Clock { stack: 1, period_ns: 10 };
        assert!(matches!(follow.heed(8, 110, clock), Some(Caught::Ran { .. })));
        assert_eq!(follow.away(200).count(), 0, "it runs");
    }

    #[test]
    fn an_end_and_a_lost_sight_leave_nothing_and_there_is_a_bound() {
        let mut follow = Follow::default();
        follow.heed(7, 10, OUT);
        follow.heed(8, 10, OUT);
        follow.heed(7, 11, What::End);
        assert_eq!(follow.away(20).count(), 1);
        follow.lose_sight();
        assert_eq!(follow.away(20).count(), 0);
        for tid in 0..FOLLOWED_MAX as i32 + 5 {
            follow.heed(tid, 10, OUT);
        }
        assert_eq!((follow.away(20).count(), follow.left_out), (FOLLOWED_MAX, 5));
    }
}
