//! What the process waited for without its own doing: its cgroup's limits, and pressure.

use serde::{Deserialize, Serialize};
use stallscope_probes::sample::{CgroupRaw, PressureRaw, PressureScope, StallTimeRaw};
use stallscope_probes::{Probe, Reading, Why};

use super::base::Base;
use super::build::{no_previous, restarted};

/// Pressure stall information of late (`Documentation/accounting/psi.rst`): over the last second
/// or two.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PressureModel {
    /// Whose.
    pub scope: PressureScope,
    /// For a CPU; `None` where the kernel does not tell.
    pub cpu: Option<StallShare>,
    /// For memory.
    pub memory: Option<StallShare>,
    /// For a disk.
    pub io: Option<StallShare>,
}

/// Shares of the time, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StallShare {
    /// At least one task waited.
    pub some: f64,
    /// All tasks that were not idle waited; not every kernel says it of CPUs.
    pub full: Option<f64>,
}

/// What the cgroup did of late: over the last second or two. `None`: the kernel does not tell, or
/// the counter went back.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CgroupModel {
    /// Share of the periods of `cpu.max` in which it was throttled, 0 to 1; `None` too when no
    /// period went by (there is no limit).
    pub throttled_ratio: Option<f64>,
    /// Periods in which it was throttled.
    pub throttled_new: Option<u64>,
    /// Time for which it was throttled, ms, summed over CPUs.
    pub throttled_ms_new: Option<f64>,
    /// Times it was slowed down for using more than `memory.high`.
    pub memory_high_new: Option<u64>,
    /// Times it was about to go over `memory.max`.
    pub memory_max_new: Option<u64>,
    /// Processes of it that were killed for want of memory.
    pub oom_kills_new: Option<u64>,
}

impl CgroupModel {
    /// Whether it was throttled at all.
    pub fn is_throttled(&self) -> bool {
        self.throttled_new.is_some_and(|periods| periods > 0)
    }

    /// Whether it ran into a limit of memory.
    pub fn is_short_of_memory(&self) -> bool {
        [self.memory_high_new, self.memory_max_new, self.oom_kills_new]
            .into_iter()
            .flatten()
            .any(|events| events > 0)
    }
}

/// Why there is no [`CgroupModel`] of a cgroup that was read.
pub(super) const CGROUP_MUTE: &str =
    "the cgroup has none of these counters (it is the root, or no controller keeps them)";

/// Whether nothing but the freezer was found: absent is not zero.
pub(super) fn tells_nothing(raw: &CgroupRaw) -> bool {
    CgroupRaw { frozen: None, ..*raw } == CgroupRaw::default()
}

/// Makes both from the readings of one run.
#[derive(Debug, Default)]
pub(super) struct Resources {
    cgroup: Base<CgroupRaw>,
    pressure: Base<PressureRaw>,
}

impl Resources {
    pub(super) fn cgroup(&mut self, probe: &Probe<CgroupRaw>) -> Reading<CgroupModel> {
        probe.reading.as_ref().and_then(|now| {
            if tells_nothing(now) {
                return Reading::absent(Why::Unsupported, CGROUP_MUTE);
            }
            let Some((_, then)) = self.cgroup.before(probe.begin_ns, now) else {
                return no_previous();
            };
            let new = |now: Option<u64>, then: Option<u64>| now?.checked_sub(then?);
            let throttled_new = new(now.nr_throttled, then.nr_throttled);
            let periods = new(now.nr_periods, then.nr_periods).filter(|periods| *periods > 0);
            let throttled_us = new(now.throttled_usec, then.throttled_usec);
            Reading::Got(CgroupModel {
                throttled_ratio: throttled_new
                    .zip(periods)
                    .map(|(throttled, periods)| (throttled as f64 / periods as f64).min(1.0)),
                throttled_new,
                throttled_ms_new: throttled_us.map(|us| us as f64 / 1e3),
                memory_high_new: new(now.memory_high, then.memory_high),
                memory_max_new: new(now.memory_max, then.memory_max),
                oom_kills_new: new(now.oom_kill, then.oom_kill),
            })
        })
    }

    pub(super) fn pressure(&mut self, probe: &Probe<PressureRaw>) -> Reading<PressureModel> {
        probe.reading.as_ref().and_then(|now| {
            let Some((s, then)) = self.pressure.before(probe.begin_ns, now) else {
                return no_previous();
            };
            let back = |now: Option<StallTimeRaw>, then: Option<StallTimeRaw>| {
                now.zip(then).is_some_and(|(now, then)| now.some_us < then.some_us)
            };
            let others = now.scope != then.scope
                || back(now.cpu, then.cpu)
                || back(now.memory, then.memory)
                || back(now.io, then.io);
            if others {
                self.pressure.restart(probe.begin_ns, now);
                return restarted();
            }
            Reading::Got(PressureModel {
                scope: now.scope,
                cpu: stalled(now.cpu, then.cpu, s),
                memory: stalled(now.memory, then.memory, s),
                io: stalled(now.io, then.io, s),
            })
        })
    }
}

fn stalled(now: Option<StallTimeRaw>, then: Option<StallTimeRaw>, s: f64) -> Option<StallShare> {
    let (now, then) = now.zip(then)?;
    let share = |now_us: u64, then_us: u64| {
        let more_us = now_us.checked_sub(then_us)?;
        Some((more_us as f64 / 1e6 / s).min(1.0))
    };
    let full = now.full_us.zip(then.full_us);
    Some(StallShare {
        some: share(now.some_us, then.some_us)?,
        full: full.and_then(|(now_us, then_us)| share(now_us, then_us)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: u64 = 1_000_000_000;

    fn probe<T>(at_ns: u64, value: T) -> Probe<T> {
        Probe { begin_ns: at_ns, end_ns: at_ns, reading: Reading::Got(value) }
    }

    fn limits(periods: u64, throttled: u64, us: u64) -> CgroupRaw {
        CgroupRaw {
            nr_periods: Some(periods),
            nr_throttled: Some(throttled),
            throttled_usec: Some(us),
            memory_max: Some(throttled),
            oom_kill: Some(0),
            ..CgroupRaw::default()
        }
    }

    #[test]
    fn throttling_is_a_share_of_the_periods() {
        let mut resources = Resources::default();
        assert_eq!(resources.cgroup(&probe(S, limits(100, 10, 5_000))), no_previous());
        let now = resources.cgroup(&probe(2 * S, limits(110, 15, 255_000)));
        let now = *now.got().unwrap();
        let expected = CgroupModel {
            throttled_ratio: Some(0.5),
            throttled_new: Some(5),
            throttled_ms_new: Some(250.0),
            memory_high_new: None,
            memory_max_new: Some(5),
            oom_kills_new: Some(0),
        };
        assert_eq!(now, expected);
        assert!(now.is_throttled() && now.is_short_of_memory());
        // Another cgroup, or none of the counters any more.
        let other = resources.cgroup(&probe(3 * S, limits(0, 0, 0)));
        assert_eq!(other.got().unwrap().throttled_new, None);
        assert!(!other.got().unwrap().is_throttled());
    }

    #[test]
    fn a_cgroup_without_counters_is_absent_and_not_calm() {
        let mut resources = Resources::default();
        for frozen in [None, Some(false)] {
            for at_ns in [S, 3 * S] {
                let mute = CgroupRaw { frozen, ..CgroupRaw::default() };
                let found = resources.cgroup(&probe(at_ns, mute));
                assert_eq!(found.absence().map(|absence| absence.why), Some(Why::Unsupported));
            }
        }
    }

    #[test]
    fn without_a_limit_no_period_goes_by() {
        let mut resources = Resources::default();
        resources.cgroup(&probe(S, limits(0, 0, 0)));
        let now = resources.cgroup(&probe(2 * S, limits(0, 0, 0)));
        assert_eq!(
            now.got().map(|now| (now.throttled_ratio, now.throttled_new)),
            Some((None, Some(0)))
        );
    }

    fn waited(scope: PressureScope, some_us: u64, full_us: Option<u64>) -> PressureRaw {
        let time = StallTimeRaw { some_us, full_us };
        PressureRaw { scope, cpu: Some(time), memory: None, io: Some(time) }
    }

    #[test]
    fn pressure_is_a_share_of_the_time() {
        use PressureScope::{Cgroup, Machine};
        let mut resources = Resources::default();
        let mut push = |at_ns, raw| resources.pressure(&probe(at_ns, raw));
        assert_eq!(push(S, waited(Cgroup, 500, Some(0))), no_previous());
        let now = push(3 * S, waited(Cgroup, 1_000_500, Some(500_000)));
        let share = Some(StallShare { some: 0.5, full: Some(0.25) });
        let expected = PressureModel { scope: Cgroup, cpu: share, memory: None, io: share };
        assert_eq!(now, Reading::Got(expected));
        // Another scope counts from elsewhere.
        assert_eq!(push(5 * S, waited(Machine, 9_000_000, None)), restarted());
        let now = push(7 * S, waited(Machine, 99_000_000, None));
        assert_eq!(now.got().unwrap().cpu, Some(StallShare { some: 1.0, full: None }));
        assert_eq!(push(9 * S, waited(Machine, 1, None)), restarted());
    }

    #[test]
    fn what_was_not_read_stays_absent() {
        let mut resources = Resources::default();
        let absent = Probe::not_sampled("not due");
        let why = |reading: Option<Why>| assert_eq!(reading, Some(Why::NotSampled));
        why(resources.cgroup(&absent).absence().map(|absence| absence.why));
        let absent = Probe::not_sampled("not due");
        why(resources.pressure(&absent).absence().map(|absence| absence.why));
    }

    proptest! {
        #[test]
        fn shares_are_shares(readings in proptest::collection::vec((0_u64..8, any::<u64>(), any::<Option<u64>>()), 1..20)) {
            let mut resources = Resources::default();
            for (at, some_us, full_us) in readings {
                let raw = waited(PressureScope::Machine, some_us, full_us);
                if let Reading::Got(model) = resources.pressure(&probe(at * S / 2, raw)) {
                    let shares = [model.cpu, model.io].into_iter().flatten();
                    for share in shares.flat_map(|share| [Some(share.some), share.full]).flatten() {
                        prop_assert!((0.0..=1.0).contains(&share), "{share}");
                    }
                }
                let counts = CgroupRaw { nr_throttled: full_us, nr_periods: Some(some_us), ..CgroupRaw::default() };
                if let Reading::Got(model) = resources.cgroup(&probe(at * S / 2, counts)) {
                    prop_assert!(model.throttled_ratio.is_none_or(|share| (0.0..=1.0).contains(&share)));
                }
            }
        }
    }
}
