//! How often the target switches: what is bound to its threads costs it something at each switch.
//!
//! An event of a thread is put on the CPU and taken off again with it, and a clock's timer is
//! started and stopped each time (`perf_event_context_sched_out`, `cpu_clock_event_del` in the
//! kernel's `events/core.c`): about a microsecond per switch, measured (`docs/performance.md`).

use std::collections::HashMap;
use std::path::Path;

use crate::files;
use crate::threads::parse_schedstat;

/// Switches a second beyond which nothing is bound to the threads of a target that is watched:
/// 1 % of a CPU, about.
pub const SWITCHES_PER_S_MAX: u64 = 10_000;
/// Below this, events are bound to its threads again.
const SWITCHES_PER_S_AGAIN: u64 = SWITCHES_PER_S_MAX / 2;
/// Time between two looks, ns.
const LOOK_EVERY_NS: u64 = 500_000_000;
/// Events are off for this long at least: putting them on is dear too, ns.
const SPARED_NS: u64 = 5_000_000_000;
/// Threads looked at; with more, the rest is taken to switch as often.
const THREADS_MAX: usize = 256;

/// Whether a target switches too often to be bound.
#[derive(Debug, Default)]
pub struct Burden {
    looked: Option<(u64, HashMap<i32, u64>)>,
    heavy_since_ns: Option<u64>,
}

impl Burden {
    /// Looks at the threads if it is time, and says what has changed: `true` when they switch too
    /// often now, `false` when no longer. Where it cannot be told, nothing has changed.
    pub fn look(&mut self, proc_root: &Path, pid: i32, now_ns: u64) -> Option<bool> {
        if self.looked.as_ref().is_some_and(|(at_ns, _)| now_ns < at_ns + LOOK_EVERY_NS) {
            return None;
        }
        let (counts, threads) = timeslices(proc_root, pid)?;
        self.heed(counts, threads, now_ns)
    }

    fn heed(&mut self, counts: HashMap<i32, u64>, threads: usize, now_ns: u64) -> Option<bool> {
        let (then_ns, before) = self.looked.replace((now_ns, counts))?;
        let (_, counts) = self.looked.as_ref()?;
        let since =
            |(tid, count): (&i32, &u64)| count.saturating_sub(*before.get(tid).unwrap_or(count));
        let switches: u64 = counts.iter().map(since).sum();
        let all =
            u128::from(switches) * threads.max(counts.len()) as u128 / counts.len().max(1) as u128;
        let per_s = all * 1_000_000_000 / u128::from(now_ns.saturating_sub(then_ns).max(1));
        match self.heavy_since_ns {
            None if per_s > u128::from(SWITCHES_PER_S_MAX) => {
                self.heavy_since_ns = Some(now_ns);
                Some(true)
            }
            Some(since_ns)
                if per_s <= u128::from(SWITCHES_PER_S_AGAIN)
                    && now_ns.saturating_sub(since_ns) >= SPARED_NS =>
            {
                self.heavy_since_ns = None;
                Some(false)
            }
            _ => None,
        }
    }

    /// The events could not be put back: another try is due when the same time has passed again.
    pub const fn stays_heavy(&mut self, now_ns: u64) {
        self.heavy_since_ns = Some(now_ns);
    }
}

/// How often each thread was given a CPU (`/proc/PID/task/TID/schedstat`), of so many at most; and how
/// many there are. None where none can be read: that is not the same as none that switches.
fn timeslices(proc_root: &Path, pid: i32) -> Option<(HashMap<i32, u64>, usize)> {
    let folder = files::process(proc_root, pid).join("task");
    let listed = files::numbers(&folder, super::follow::FOLLOWED_MAX);
    let (tids, _) = listed.got()?;
    // Evenly among them: the first are not like the others.
    let step = tids.len().div_ceil(THREADS_MAX).max(1);
    let read = |tid: &i32| {
        let path = folder.join(tid.to_string()).join("schedstat");
        let sched = files::read(&path, 128).and_then(|bytes| parse_schedstat(&bytes));
        Some((*tid, sched.got()?.timeslices))
    };
    let counts: HashMap<i32, u64> = tids.iter().step_by(step).filter_map(read).collect();
    (!counts.is_empty()).then_some((counts, tids.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn counts(of: &[(i32, u64)]) -> HashMap<i32, u64> {
        of.iter().copied().collect()
    }

    #[test]
    fn too_many_switches_are_told_once_and_their_end_is_told_at_half_as_many() {
        let mut burden = Burden::default();
        let mut total = 0;
        let mut look = |second: u64, switches: u64| {
            total += switches;
            burden.heed(counts(&[(1, 7), (2, total)]), 2, second * S)
        };
        let switches = [
            (1, 50_000),
            (2, 10_000),
            (3, 10_001),
            (4, 0),
            (7, 0),
            (8, 5_001),
            (9, 5_000),
            (10, 9_000),
        ];
        let said: Vec<_> = switches.into_iter().map(|(second, of)| look(second, of)).collect();
        // The first look has none before it.
        assert_eq!(said, [None, None, Some(true), None, None, None, Some(false), None]);
    }

    #[test]
    fn threads_that_come_and_go_are_no_switches_and_those_not_looked_at_are_like_the_rest() {
        let mut burden = Burden::default();
        assert_eq!(burden.heed(counts(&[(1, 0), (2, 90_000)]), 2, S), None);
        assert_eq!(burden.heed(counts(&[(1, 100), (3, 90_000)]), 2, 2 * S), None);
        // 2,000 a second of two looked at, of twenty.
        assert_eq!(burden.heed(counts(&[(1, 1_100), (3, 91_000)]), 20, 3 * S), Some(true));
        assert_eq!(burden.heed(counts(&[(4, 7)]), 1, 8 * S), Some(false));
    }

    #[test]
    fn a_process_is_looked_at_twice_a_second_and_of_one_that_is_gone_nothing_is_said() {
        let mut burden = Burden::default();
        let own = std::process::id() as i32;
        assert!(timeslices(Path::new("/proc"), own).is_some());
        assert_eq!(burden.look(Path::new("/proc"), own, S), None);
        assert_eq!(burden.looked.as_ref().map(|(at_ns, _)| *at_ns), Some(S));
        burden.look(Path::new("/proc"), own, S + LOOK_EVERY_NS - 1);
        assert_eq!(burden.looked.as_ref().map(|(at_ns, _)| *at_ns), Some(S));
        burden.heavy_since_ns = Some(0);
        assert_eq!(burden.look(Path::new("/nowhere"), 1, 60 * S), None);
        assert_eq!(burden.heavy_since_ns, Some(0));
    }
}
