//! Whole runs through the pipe: samples in, onset and verdict out, each with a twin that must
//! stay quiet.

use proptest::prelude::*;

use stallscope_probes::sample::{PeerRaw, RingSource, Sample, SyscallRaw, TcpState};
use stallscope_probes::{Absence, Probe, Reading, Why};

use super::engine::Engine;
use super::event::Event;
use super::world::{Kind, Outcome, Phase, TICK_NS, World, run};
use crate::diagnose::verdict::{Cause, Confidence, Verdict};
use crate::model::tiers::Tier;

use Phase::{
    Blocked, Busy, FdsFull, Idle, LateBeat, LeftBehind, NotAccepting, Pausing, Saturated,
    SlowRequests, Spin, Stopped, Yield,
};

const OURS: Kind = Kind { ring: true, page: true, rights: true };
const OURS_EPOLL: Kind = Kind { ring: false, page: true, rights: true };
const THEIRS: Kind = Kind { ring: true, page: false, rights: true };
const THEIRS_EPOLL: Kind = Kind { ring: false, page: false, rights: true };
const NO_RIGHTS: Kind = Kind { ring: false, page: false, rights: false };
const EVERY_KIND: [Kind; 5] = [OURS, OURS_EPOLL, THEIRS, THEIRS_EPOLL, NO_RIGHTS];

fn onset_near(outcome: &Outcome, tick: f64) -> bool {
    outcome.onsets.len() == 1 && (outcome.onsets[0].0 - tick).abs() <= 1.5
}

#[test]
fn each_stall_is_named_and_dated() {
    let cases = [
        (OURS, Yield, "sq-not-flushed", Confidence::Certain),
        (THEIRS, Yield, "sq-not-flushed", Confidence::Certain),
        (OURS, Blocked, "runtime-blocked", Confidence::Certain),
        (OURS_EPOLL, Blocked, "runtime-blocked", Confidence::Certain),
        (THEIRS, Blocked, "runtime-blocked", Confidence::Certain),
        (THEIRS_EPOLL, Blocked, "runtime-blocked", Confidence::Certain),
        (OURS, FdsFull, "fd-exhausted", Confidence::Certain),
        (OURS_EPOLL, FdsFull, "fd-exhausted", Confidence::Certain),
        (THEIRS, FdsFull, "fd-exhausted", Confidence::Certain),
        (NO_RIGHTS, FdsFull, "fd-exhausted", Confidence::Certain),
        (OURS, Stopped, "process-stopped", Confidence::Certain),
        (THEIRS_EPOLL, Stopped, "process-stopped", Confidence::Certain),
        (NO_RIGHTS, Stopped, "process-stopped", Confidence::Certain),
        (OURS, Spin, "runtime-busy", Confidence::Certain),
        (THEIRS, Spin, "runtime-busy", Confidence::Certain),
        (THEIRS_EPOLL, Spin, "runtime-busy", Confidence::Certain),
        (OURS, LeftBehind, "submit-error-dropped", Confidence::Certain),
        (THEIRS, LeftBehind, "submit-error-dropped", Confidence::Certain),
        (THEIRS_EPOLL, NotAccepting, "accept-not-armed", Confidence::Likely),
    ];
    for (kind, phase, cause, confidence) in cases {
        let outcome = run(kind, &[(Busy, 60), (phase, 100)]);
        assert_eq!(outcome.last(), Some((cause, confidence)), "{kind:?} {phase:?}");
        assert!(onset_near(&outcome, 59.5), "{kind:?} {phase:?}: {:?}", outcome.onsets);
        assert!(outcome.recoveries.is_empty(), "{kind:?} {phase:?}");
        let named = outcome.verdicts.iter().filter(|verdict| verdict.cause != Cause::Unknown);
        assert!(named.clone().all(|verdict| verdict.cause.id() == cause), "{kind:?} {phase:?}");
    }
}

#[test]
fn what_cannot_be_seen_is_not_called_healthy() {
    let mut world = World::new(NO_RIGHTS);
    let mut engine = Engine::new(100, 100);
    for _ in 0..60 {
        let mut sample = world.tick(Idle);
        sample.listeners.reading =
            Reading::absent(Why::NotPermitted, "cannot list /proc/100/fd: permission denied");
        assert!(engine.push(&sample).events.is_empty());
    }
    let verdict = engine.conclude();
    assert_eq!(verdict.cause, Cause::Unknown);
    assert!(verdict.summary.contains("permission denied"), "{}", verdict.summary);
}

#[test]
fn a_process_that_waits_for_a_cpu_is_not_idle() {
    let mut world = World::new(THEIRS_EPOLL);
    let mut engine = Engine::new(100, 100);
    for tick in 0..60 {
        let mut sample = world.tick(Idle);
        if let Reading::Got(threads) = &mut sample.threads.reading
            && let Reading::Got(sched) = &mut threads[0].sched
        {
            sched.delay_ns = tick * TICK_NS / 2;
        }
        engine.push(&sample);
    }
    assert_eq!(engine.conclude().cause, Cause::HealthyBusy);
}

#[test]
fn requests_on_old_connections_are_work() {
    let mut world = World::new(THEIRS_EPOLL);
    let mut engine = Engine::new(100, 100);
    for _ in 0..60 {
        engine.push(&world.tick(Idle));
    }
    assert_eq!(engine.conclude().cause, Cause::HealthyIdle);
    for tick in 0..60 {
        let mut sample = world.tick(Idle);
        if let Reading::Got(sockets) = &mut sample.sockets.reading {
            sockets.served[0].fingerprint = tick;
        }
        engine.push(&sample);
    }
    assert_eq!(engine.conclude().cause, Cause::HealthyBusy);
}

#[test]
fn a_loop_that_sleeps_after_each_refused_accept_is_out_of_fds_and_not_blocked() {
    for (wakes_per_tick, cause) in [(1, Cause::FdExhausted), (0, Cause::RuntimeBlocked)] {
        let mut world = World::new(THEIRS_EPOLL);
        let mut engine = Engine::new(100, 100);
        let mut causes = Vec::new();
        for tick in 0..160_u64 {
            let mut sample = world.tick(if tick < 60 { Busy } else { FdsFull });
            if let (Reading::Got(threads), 60..) = (&mut sample.threads.reading, tick) {
                threads[0].syscall = Reading::Got(SyscallRaw::In { nr: 230, arg0: 0 });
                threads[0].wchan = Reading::Got(String::from("hrtimer_nanosleep"));
                if let Reading::Got(sched) = &mut threads[0].sched {
                    sched.timeslices = 60 + (tick - 60) * wakes_per_tick;
                }
            }
            for event in engine.push(&sample).events {
                if let Event::Verdict(verdict) = event
                    && verdict.cause.is_stall()
                {
                    causes.push(verdict.cause);
                }
            }
        }
        assert_eq!(causes.last(), Some(&cause), "{wakes_per_tick}");
    }
}

#[test]
fn a_verdict_says_what_was_ruled_out_and_what_to_do() {
    let outcome = run(OURS, &[(Busy, 60), (Yield, 60)]);
    let verdict = outcome.verdicts.last().unwrap();
    let ruled_out: Vec<Cause> = verdict.ruled_out.iter().map(|out| out.cause).collect();
    let others = Cause::STALLS.into_iter().filter(|cause| *cause != Cause::SqNotFlushed);
    assert_eq!(ruled_out, others.collect::<Vec<_>>());
    assert!(verdict.ruled_out.iter().all(|out| out.because.len() > 10));
    assert!(!verdict.next.is_empty());
    assert!(verdict.evidence[0].signal.contains("unsubmitted"));
}

/// Each piece of evidence is of the kind by which it was read.
#[test]
fn verdicts_name_the_tiers_they_rest_on() {
    use Tier::{
        Cgroup, FdCensus, Fds, Heartbeat, Listeners, Process, RingMemory, ThreadCalls, Threads,
    };
    for (kind, phase, rests_on) in [
        (OURS, Yield, &[Threads, Listeners, RingMemory][..]),
        (OURS_EPOLL, Blocked, &[Threads, ThreadCalls, Listeners, Heartbeat]),
        (THEIRS_EPOLL, Blocked, &[Threads, ThreadCalls, Listeners]),
        (OURS, FdsFull, &[Fds, FdCensus, Listeners, Heartbeat]),
        (NO_RIGHTS, FdsFull, &[Fds, Listeners]),
        (NO_RIGHTS, Stopped, &[Process, Listeners]),
        (NO_RIGHTS, NotAccepting, &[Threads, Listeners]),
    ] {
        let outcome = run(kind, &[(Busy, 60), (phase, 100)]);
        let verdict = outcome.verdicts.last().unwrap();
        assert_eq!(verdict.rests_on, rests_on, "{kind:?} {phase:?}");
        let missing: Vec<Tier> = verdict.missing.iter().map(|missing| missing.tier).collect();
        assert_eq!(missing.contains(&FdCensus), !kind.rights, "{kind:?}: {missing:?}");
        assert_eq!(missing.contains(&Heartbeat), !kind.page, "{kind:?}: {missing:?}");
        assert!(!missing.contains(&Cgroup) && missing.is_sorted(), "{missing:?}");
        // A process without a ring misses nothing by that.
        assert_eq!(missing.contains(&RingMemory), !kind.rights, "{kind:?}: {missing:?}");
        let both = rests_on.iter().find(|tier| missing.contains(tier));
        assert_eq!(both, None, "{kind:?} {phase:?}: it cannot rest on what was missing");
    }
}

/// Runs the server for 160 ticks, of which the last 100 are in `phase`, through `change`.
fn changed(kind: Kind, phase: Phase, change: impl Fn(u64, &mut Sample)) -> Verdict {
    let mut world = World::new(kind);
    let mut engine = Engine::new(100, 100);
    for tick in 0..160 {
        let mut sample = world.tick(if tick < 60 { Busy } else { phase });
        change(tick, &mut sample);
        engine.push(&sample);
    }
    engine.conclude()
}

#[test]
fn rings_by_fdinfo_are_evidence_of_that_kind() {
    let denied = Absence { why: Why::NotPermitted, detail: String::from("EPERM") };
    let verdict = changed(OURS, Yield, |_, sample| {
        if let Reading::Got(rings) = &mut sample.rings.reading {
            rings[0].source = RingSource::Fdinfo(denied.clone());
        }
    });
    assert_eq!(verdict.cause, Cause::SqNotFlushed);
    let rests_on = [Tier::Threads, Tier::Listeners, Tier::RingFdinfo];
    assert_eq!(verdict.rests_on, rests_on);
    let missing = verdict.missing.iter().find(|missing| missing.tier == Tier::RingMemory);
    assert_eq!(missing.map(|missing| missing.why.as_str()), Some("EPERM"));
}

#[test]
fn what_others_and_the_cgroup_hold_back_is_evidence_where_the_reason_is_not_in_sight() {
    let peer = |port, state, unsent_bytes| PeerRaw {
        remote: ([10, 0, 0, 7], port).into(),
        local_port: 40_000,
        inode: u32::from(port),
        state,
        unread_bytes: 0,
        unsent_bytes,
        info: None,
    };
    let hold_back = |tick: u64, sample: &mut Sample| {
        let (at_ns, probe) = (sample.process.end_ns, |at_ns, reading| Probe {
            begin_ns: at_ns,
            end_ns: at_ns,
            reading: Reading::Got(reading),
        });
        let peers = vec![
            peer(9092, TcpState::Established, 4_096),
            peer(5432, TcpState::SynSent, 0),
            peer(443, TcpState::Established, 0),
        ];
        sample.peers = probe(at_ns, peers);
        if let Reading::Got(cgroup) = &mut sample.cgroup.reading {
            cgroup.nr_periods = Some(tick * 10);
            cgroup.nr_throttled = Some(tick * 4);
        }
    };
    for (kind, phase, cause) in
        [(OURS, Blocked, Cause::RuntimeBlocked), (NO_RIGHTS, NotAccepting, Cause::Unknown)]
    {
        let verdict = changed(kind, phase, hold_back);
        assert_eq!(verdict.cause, cause);
        let said: Vec<String> = verdict
            .evidence
            .iter()
            .filter(|one| matches!(one.tier, Tier::Peers | Tier::Cgroup))
            .map(|one| format!("{}: {} {}", one.signal, one.value, one.unit))
            .collect();
        assert_eq!(
            said,
            [
                "not acknowledged by Kafka at 10.0.0.7:9092: 4096 bytes",
                "connection to 10.0.0.7:5432: SYN sent, no answer ",
                "periods in which its cgroup was throttled (cpu.max): 40 % of the periods",
            ],
            "{phase:?}"
        );
        assert!(verdict.rests_on.contains(&Tier::Peers), "{:?}", verdict.rests_on);
    }
    // Where the cause is in sight, they say nothing.
    let verdict = changed(OURS, Yield, hold_back);
    assert!(!verdict.rests_on.contains(&Tier::Peers), "{:?}", verdict.rests_on);
}

#[test]
fn what_could_not_be_read_is_said_to_be_missing() {
    let outcome = run(NO_RIGHTS, &[(Busy, 60), (NotAccepting, 100)]);
    let verdict = outcome.verdicts.last().unwrap();
    assert_eq!(verdict.cause, Cause::Unknown);
    assert!(verdict.summary.contains("could not be read"), "{}", verdict.summary);
}

#[test]
fn healthy_twins_are_never_called_stalled() {
    for kind in EVERY_KIND {
        for phases in [
            [(Idle, 400), (Idle, 0)],
            [(Busy, 400), (Idle, 100)],
            [(Saturated, 400), (Idle, 100)],
            [(Idle, 100), (Saturated, 400)],
            [(Saturated, 100), (LateBeat, 400)],
            [(Pausing, 400), (Busy, 100)],
            [(Busy, 50), (SlowRequests, 400)],
        ] {
            let outcome = run(kind, &phases);
            assert!(outcome.onsets.is_empty(), "{kind:?} {phases:?}: {:?}", outcome.onsets);
            assert!(outcome.verdicts.is_empty(), "{kind:?} {phases:?}");
        }
    }
}

#[test]
fn a_stall_that_began_before_the_watch_has_the_same_cause() {
    for (kind, phase, cause) in [
        (THEIRS, Yield, "sq-not-flushed"),
        (THEIRS, Blocked, "runtime-blocked"),
        (THEIRS_EPOLL, Blocked, "runtime-blocked"),
        (THEIRS, FdsFull, "fd-exhausted"),
        (THEIRS, Stopped, "process-stopped"),
    ] {
        let outcome = run(kind, &[(phase, 60)]);
        assert_eq!(outcome.last().map(|(cause, _)| cause), Some(cause), "{kind:?} {phase:?}");
        assert!(outcome.onsets[0].1, "{kind:?} {phase:?} was so at the first look");
    }
}

#[test]
fn an_idle_server_that_stalls_is_dated_to_the_first_unmet_demand() {
    let outcome = run(THEIRS_EPOLL, &[(Busy, 20), (Idle, 100), (NotAccepting, 60)]);
    assert!(onset_near(&outcome, 119.5), "{:?}", outcome.onsets);
}

#[test]
fn a_saturated_loop_that_blocks_is_dated_to_where_its_thread_fell_asleep() {
    let mut world = World::new(THEIRS_EPOLL);
    let mut engine = Engine::new(100, 100);
    let mut census = None;
    let mut onset = None;
    for tick in 0..160 {
        let phase = match tick {
            0..40 => Busy,
            40..47 => Saturated,
            _ => Blocked,
        };
        let mut sample = world.tick(phase);
        // The accept queue stays out of it; the census comes once a second.
        if let Reading::Got(listeners) = &mut sample.listeners.reading {
            listeners[0].queued = 0;
        }
        if tick % 20 == 0 {
            census = Some(sample.sockets.clone());
        }
        sample.sockets = census.clone().unwrap();
        for event in engine.push(&sample).events {
            if let Event::Onset(found) = event {
                onset = Some(found);
            }
        }
    }
    let onset = onset.unwrap();
    let tick = (onset.at_ns as f64 - 1e9) / TICK_NS as f64;
    assert!((tick - 46.5).abs() <= 1.0, "{tick}: {onset:?}");
}

#[test]
fn recovery_is_noticed_and_a_second_stall_is_a_new_one() {
    for phase in [Yield, Blocked, FdsFull, Stopped] {
        let outcome = run(OURS, &[(Busy, 60), (phase, 60), (Busy, 60), (phase, 60)]);
        assert_eq!(outcome.onsets.len(), 2, "{phase:?}: {:?}", outcome.onsets);
        assert_eq!(outcome.recoveries.len(), 1, "{phase:?}");
        assert!(
            (outcome.recoveries[0] - 120.0).abs() <= 3.0,
            "{phase:?}: {:?}",
            outcome.recoveries
        );
    }
}

#[test]
fn a_calm_server_is_spoken_of_once_and_again_when_it_changes_for_good() {
    let outcome = run(OURS, &[(Idle, 100), (Busy, 200), (Idle, 200)]);
    assert_eq!(outcome.calm, [Cause::HealthyIdle, Cause::HealthyBusy, Cause::HealthyIdle]);
    let outcome = run(OURS, &[(Busy, 60), (Blocked, 60), (Busy, 100)]);
    assert_eq!(outcome.calm, [Cause::HealthyBusy, Cause::HealthyBusy]);
}

#[test]
fn a_listener_that_is_closed_is_noted() {
    let outcome = run(OURS, &[(Busy, 60), (Phase::Unlistening, 20)]);
    assert_eq!(outcome.notes, ["no longer listens on 127.0.0.1:8080"]);
    assert!(run(OURS, &[(Busy, 60), (Yield, 60), (Busy, 60)]).notes.is_empty());
}

#[test]
fn a_watcher_that_slows_down_for_good_says_so_once() {
    let mut world = World::new(OURS);
    let mut engine = Engine::new(100, 100);
    let mut notes = Vec::new();
    for tick in 0..300 {
        let mut sample = world.tick(Busy);
        // A single dear tick, then slow from the hundredth to the two hundredth.
        let slow = tick == 50 || (100..200).contains(&tick);
        sample.watcher.interval_asked_ns = TICK_NS;
        sample.watcher.interval_ns = if slow { 3 * TICK_NS } else { TICK_NS };
        sample.watcher.budget_ppm = 2_500;
        notes.extend(engine.push(&sample).events.into_iter().filter_map(|event| match event {
            Event::Note { text, .. } => Some((tick, text)),
            _ => None,
        }));
    }
    let slowed = "the watcher looks every 150 ms instead of every 50 ms, to stay within its budget \
                  of 0.25 % of a core (--budget)";
    let again = "the watcher looks every 50 ms again";
    assert_eq!(notes, [(119, slowed.to_owned()), (219, again.to_owned())]);
}

#[test]
fn a_certain_verdict_does_not_flip() {
    let outcome = run(OURS, &[(Busy, 60), (Yield, 60), (Blocked, 60)]);
    let certain = outcome
        .verdicts
        .iter()
        .position(|verdict| verdict.confidence == Confidence::Certain)
        .unwrap();
    assert_eq!(outcome.verdicts.len(), certain + 1);
}

proptest! {
    /// However healthy phases follow each other, nothing is called stalled.
    #[test]
    fn healthy_phases_in_any_order_stay_healthy(
        phases in proptest::collection::vec(
            (
                prop_oneof![Just(Idle), Just(Busy), Just(Saturated), Just(LateBeat), Just(Pausing), Just(SlowRequests)],
                1_u64..80,
            ),
            1..8,
        ),
        kind in 0_usize..EVERY_KIND.len(),
    ) {
        let outcome = run(EVERY_KIND[kind], &phases);
        prop_assert!(outcome.onsets.is_empty(), "{:?}", outcome.onsets);
    }

    /// An onset is never later than the verdict that names it, nor before the watch began.
    #[test]
    fn onsets_lie_between_the_first_tick_and_the_verdict(
        healthy in 1_u64..80,
        kind in 0_usize..EVERY_KIND.len(),
        phase in prop_oneof![Just(Yield), Just(Blocked), Just(FdsFull), Just(Stopped), Just(Spin)],
    ) {
        let outcome = run(EVERY_KIND[kind], &[(Busy, healthy), (phase, 80)]);
        for verdict in &outcome.verdicts {
            let onset_ns = verdict.onset_ns.unwrap();
            prop_assert!(onset_ns <= verdict.detected_ns);
            prop_assert!(onset_ns >= 1_000_000_000);
        }
    }
}
