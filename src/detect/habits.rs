//! Event loops that are turned by habit, and whether nobody has come back to one of late. Pure.
//!
//! That some thread waits for events proves little: a runtime's timer thread or a metrics exporter has a
//! loop of its own and goes on. A loop is told apart by what is waited in: the fd of its epoll instance
//! or ring (the first argument of the call, proc(5)), else by the thread.

use std::collections::{BTreeMap, BTreeSet};

use stallscope_probes::sample::SyscallRaw;

use crate::model::threads::{Doing, doing};
use crate::model::{Model, ThreadModel, syscall};

/// The loops.
#[derive(Debug, Default)]
pub(super) struct Habits {
    loops: BTreeMap<Loop, Habit>,
}

/// What one loop is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Loop {
    /// An epoll instance or a ring, by fd.
    Fd(u64),
    /// poll(2) and its like, by thread.
    Thread(i32),
}

#[derive(Debug, Clone, Copy)]
struct Habit {
    ticks: u32,
    attended: u32,
    /// Since when nobody has been seen in it, ns.
    left_ns: Option<u64>,
}

/// Loops remembered.
const LOOPS_MAX: usize = 128;
/// Ticks after which there is a habit…
const TICKS_MIN: u32 = 20;
/// …and the share of them in which somebody must have been seen in it: one in so many.
const ATTENDED_ONE_IN: u32 = 4;
/// Counts are halved there, so that a habit may change.
const TICKS_MAX: u32 = 2_400;
/// A loop that nobody has come back to for so long is left.
const LEFT_NS: u64 = 500_000_000;

impl Habits {
    /// Takes the next tick.
    pub(super) fn push(&mut self, now: &Model) {
        if now.threads.got().is_none() {
            return;
        }
        let waiting = now.runtime_threads().filter(|thread| doing(thread) == Doing::Waiting);
        self.advance(&waiting.map(loop_of).collect(), now.at_ns);
    }

    /// `attended`: the loops in which somebody waits.
    fn advance(&mut self, attended: &BTreeSet<Loop>, now_ns: u64) {
        for (key, habit) in &mut self.loops {
            habit.ticks += 1;
            if attended.contains(key) {
                habit.attended += 1;
                habit.left_ns = None;
            } else {
                habit.left_ns.get_or_insert(now_ns);
            }
            if habit.ticks >= TICKS_MAX {
                habit.ticks /= 2;
                habit.attended /= 2;
            }
        }
        // One that nobody has come to for a minute at this rate is closed, or was no habit.
        self.loops.retain(|_, habit| habit.attended > 0);
        for key in attended {
            if self.loops.len() < LOOPS_MAX {
                self.loops.entry(*key).or_insert(Habit { ticks: 1, attended: 1, left_ns: None });
            }
        }
    }

    /// Whether some loop that is turned by habit has been left.
    pub(super) fn is_one_left(&self, now_ns: u64) -> bool {
        self.loops.values().any(|habit| {
            habit.ticks >= TICKS_MIN
                && habit.attended.saturating_mul(ATTENDED_ONE_IN) >= habit.ticks
                && habit.left_ns.is_some_and(|left_ns| now_ns.saturating_sub(left_ns) >= LEFT_NS)
        })
    }
}

fn loop_of(thread: &ThreadModel) -> Loop {
    let fd = match thread.syscall.got() {
        Some(SyscallRaw::In { nr, arg0 }) => {
            let name = syscall::name(*nr).unwrap_or_default();
            (name.starts_with("epoll_") || name == "io_uring_enter").then_some(*arg0)
        }
        _ => None,
    };
    fd.map_or(Loop::Thread(thread.tid), Loop::Fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threads, each in the epoll instance of this fd or asleep elsewhere, for so many ticks.
    fn watch(habits: &mut Habits, from: u64, ticks: u64, threads: &[Option<u64>]) -> bool {
        let attended = threads.iter().flatten().map(|fd| Loop::Fd(*fd)).collect();
        let at_ns = |tick: u64| tick * 100_000_000;
        (from..from + ticks).for_each(|tick| habits.advance(&attended, at_ns(tick)));
        habits.is_one_left(at_ns(from + ticks - 1))
    }

    #[test]
    fn a_loop_is_left_when_nobody_waits_in_it_any_more() {
        type Threads = &'static [Option<u64>];
        let cases: [(&str, Threads, Threads, bool); 5] = [
            ("nothing changes", &[Some(3), Some(5)], &[Some(3), Some(5)], false),
            ("a helper goes on", &[Some(3), Some(5)], &[None, Some(5)], true),
            ("workers take turns", &[Some(3), None], &[None, Some(3)], false),
            ("all are away", &[Some(3), None], &[None, None], true),
            ("none ever had a loop", &[None, None], &[None, None], false),
        ];
        for (name, before, after, expected) in cases {
            let mut habits = Habits::default();
            assert!(!watch(&mut habits, 0, 30, before), "{name}");
            assert_eq!(watch(&mut habits, 30, 10, after), expected, "{name}");
        }
        let mut habits = Habits::default();
        watch(&mut habits, 0, 10, &[Some(3)]);
        assert!(!watch(&mut habits, 10, 8, &[None]), "ten ticks are no habit");
    }
}
