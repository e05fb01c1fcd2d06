//! Properties of the onset, whatever the watcher missed and wherever counters stand: gaps, late
//! samples, a machine that was suspended, heads that wrap, a process that was restarted.

use proptest::collection::vec;
use proptest::prelude::*;

use super::engine::Engine;
use super::event::Event;
use super::world::{Kind, Phase, TICK_NS, World};
use crate::detect::Onset;
use crate::diagnose::verdict::Cause;

use Phase::{Blocked, Busy, FdsFull, Idle, LateBeat, LeftBehind, Pausing, Saturated, Spin, Yield};

const PID: i32 = 100;
/// A ring and a page; a ring alone; neither.
const KINDS: [Kind; 3] = [
    Kind { ring: true, page: true, rights: true },
    Kind { ring: true, page: false, rights: true },
    Kind { ring: false, page: false, rights: true },
];

#[derive(Debug, Default)]
struct Said {
    onsets: Vec<Onset>,
    causes: Vec<Cause>,
    recoveries: usize,
}

/// Lets time pass in `world`, tick by tick, and shows the engine those that are not missed.
fn watch(
    engine: &mut Engine,
    world: &mut World,
    (phase, ticks): (Phase, u64),
    mut missed: impl FnMut(u64) -> bool,
    said: &mut Said,
) {
    for tick in 0..ticks {
        let sample = world.tick(phase);
        if missed(tick) {
            continue;
        }
        for event in engine.push(&sample).events {
            match event {
                Event::Onset(onset) => said.onsets.push(onset),
                Event::Verdict(verdict) if verdict.cause.is_stall() => {
                    said.causes.push(verdict.cause);
                }
                Event::Recovered { .. } => said.recoveries += 1,
                _ => {}
            }
        }
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    (0..KINDS.len()).prop_map(|at| KINDS[at])
}

fn healthy() -> impl Strategy<Value = Phase> {
    prop_oneof![Just(Idle), Just(Busy), Just(Saturated), Just(LateBeat), Just(Pausing)]
}

/// Stalls that each kind of server can have, and their causes.
fn stall() -> impl Strategy<Value = (Phase, Cause)> {
    prop_oneof![
        Just((Blocked, Cause::RuntimeBlocked)),
        Just((Spin, Cause::RuntimeBusy)),
        Just((FdsFull, Cause::FdExhausted)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Ticks that were missed, one or fifty in a row, are no stall: time in which nobody looked
    /// proves nothing.
    #[test]
    fn a_watcher_with_gaps_invents_no_stall(
        kind in kind(),
        phases in vec((healthy(), 1_u64..60), 1..6),
        gaps in vec((0_u64..60, 1_u64..50), 0..6),
    ) {
        let (mut engine, mut world, mut said) =
            (Engine::new(PID, 100), World::new(kind), Said::default());
        for phase in phases {
            let missed =
                |tick| gaps.iter().any(|(from, long)| (*from..from + long).contains(&tick));
            watch(&mut engine, &mut world, phase, missed, &mut said);
        }
        prop_assert!(said.onsets.is_empty(), "{:?}", said.onsets);
    }

    /// A stall that begins while nobody looks is found, named, and dated within the gap.
    #[test]
    fn an_onset_within_a_gap_is_dated_within_it(
        kind in kind(),
        (phase, cause) in stall(),
        gap_before in 0_u64..6,
        gap_after in 0_u64..6,
    ) {
        let (mut engine, mut world, mut said) =
            (Engine::new(PID, 100), World::new(kind), Said::default());
        let before = 60_u64;
        watch(&mut engine, &mut world, (Busy, before), |tick| tick >= before - gap_before, &mut said);
        prop_assert!(said.onsets.is_empty());
        watch(&mut engine, &mut world, (phase, 120), |tick| tick < gap_after, &mut said);
        prop_assert_eq!(said.onsets.len(), 1);
        prop_assert_eq!(said.causes.last(), Some(&cause));
        let (truth_ns, onset) = (1_000_000_000 + before * TICK_NS, &said.onsets[0]);
        let gap_ns = (gap_before + gap_after + 2) * TICK_NS;
        prop_assert!(onset.at_ns.abs_diff(truth_ns) <= gap_ns, "{onset:?}");
        prop_assert!(!onset.before_watch);
        prop_assert_eq!(said.recoveries, 0);
    }

    /// Of every second tick and of every fifth the pipe makes the same as of each.
    #[test]
    fn late_samples_change_neither_cause_nor_date_by_much(
        kind in kind(),
        (phase, cause) in stall(),
        every in 1_u64..6,
    ) {
        let (mut engine, mut world, mut said) =
            (Engine::new(PID, 100), World::new(kind), Said::default());
        let missed = |tick: u64| !tick.is_multiple_of(every);
        watch(&mut engine, &mut world, (Busy, 60), missed, &mut said);
        watch(&mut engine, &mut world, (phase, 200), missed, &mut said);
        prop_assert_eq!(said.causes.last(), Some(&cause));
        let truth_ns = 1_000_000_000 + 60 * TICK_NS;
        let error_ns = said.onsets[0].at_ns.abs_diff(truth_ns);
        prop_assert!(error_ns <= (every + 1) * TICK_NS, "{:?}", said.onsets[0]);
    }

    /// Nothing happens while a machine is suspended, and nothing is made of that.
    #[test]
    fn a_suspended_machine_is_no_stall(
        kind in kind(),
        phase in healthy(),
        slept_ns in 0_u64..3_600_000_000_000,
    ) {
        let (mut engine, mut world, mut said) =
            (Engine::new(PID, 100), World::new(kind), Said::default());
        watch(&mut engine, &mut world, (phase, 50), |_| false, &mut said);
        world.sleep(slept_ns);
        watch(&mut engine, &mut world, (phase, 50), |_| false, &mut said);
        prop_assert!(said.onsets.is_empty(), "{:?}", said.onsets);
    }

    /// Heads and tails are 32 bits wide and wrap.
    #[test]
    fn where_the_heads_of_a_ring_stand_does_not_matter(
        page in any::<bool>(),
        base in prop_oneof![any::<u32>(), (u32::MAX - 2_000)..=u32::MAX],
        (phase, cause) in prop_oneof![
            stall(),
            Just((Yield, Cause::SqNotFlushed)),
            Just((LeftBehind, Cause::SubmitErrorDropped)),
        ],
    ) {
        let said = |base: u32| {
            let (mut engine, mut said) = (Engine::new(PID, 100), Said::default());
            let mut world = World::new(Kind { ring: true, page, rights: true });
            world.begin_heads_at(base);
            watch(&mut engine, &mut world, (Busy, 60), |_| false, &mut said);
            watch(&mut engine, &mut world, (phase, 100), |_| false, &mut said);
            said
        };
        let (at_zero, at_base) = (said(0), said(base));
        prop_assert_eq!(at_base.causes.last(), Some(&cause));
        prop_assert_eq!(&at_base.causes, &at_zero.causes);
        prop_assert_eq!(&at_base.onsets, &at_zero.onsets);
    }

    /// Samples in any order (no clock of this kind goes back, but a file may be anything) neither
    /// panic nor date an onset after it was noticed.
    #[test]
    fn samples_in_any_order_are_survived(
        kind in kind(),
        order in vec(0_usize..120, 1..200),
    ) {
        let mut world = World::new(kind);
        let mut samples: Vec<_> = (0..60).map(|_| world.tick(Busy)).collect();
        samples.extend((0..60).map(|_| world.tick(Blocked)));
        let mut engine = Engine::new(PID, 100);
        for at in order {
            for event in engine.push(&samples[at]).events {
                if let Event::Verdict(verdict) = event {
                    let dated = verdict.onset_ns.is_none_or(|at_ns| at_ns <= verdict.detected_ns);
                    prop_assert!(dated, "{verdict:?}");
                }
            }
        }
    }
}
