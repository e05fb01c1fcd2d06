//! What differs from a stall in one thing and is none, from made-up samples through the whole pipe.

use std::net::SocketAddr;

use stallscope_probes::Reading;
use stallscope_probes::sample::{Sample, TcpState};

use super::causes_tests::{
    BEFORE, Change, EPOLL, FINE, RING, answered, at_the_limit, broker, burst, conntrack,
    kafka_slow, leaked, listener_gone, listeners, ms_of, one_worker_blocked, ports, resets, run,
    run_by, served, syn, unanswered, with_producer,
};
use super::world::{Kind, Phase};
use crate::detect::thresholds::Thresholds;

#[test]
fn what_differs_in_one_thing_is_no_stall() {
    fn only_slow(since: Option<u64>, sample: &mut Sample) {
        unanswered(since, sample);
    }
    fn coping(since: Option<u64>, sample: &mut Sample) {
        kafka_slow(since, sample);
        answered(sample);
    }
    fn handed_over(since: Option<u64>, sample: &mut Sample) {
        listener_gone(since, sample);
        if let Reading::Got(tcp) = &mut sample.tcp.reading {
            tcp.out_rsts = Some(0);
        }
    }
    fn cookies_of_another(since: Option<u64>, sample: &mut Sample) {
        syn(since, sample);
        served(sample, |served| served.syn_recv = 0);
    }
    fn other_ports(since: Option<u64>, sample: &mut Sample) {
        ports(since, sample);
        if let Reading::Got(sockets) = &mut sample.sockets.reading {
            sockets.ports.top[0].0 = SocketAddr::from(([127, 0, 0, 1], 9999));
        }
    }
    fn several_accepts(since: Option<u64>, sample: &mut Sample) {
        leaked(since, sample);
        answered(sample);
    }
    fn one_reset(since: Option<u64>, sample: &mut Sample) {
        listener_gone(since, sample);
        if let Reading::Got(tcp) = &mut sample.tcp.reading {
            tcp.out_rsts = Some(u64::from(since.is_some_and(|ticks| ticks > 20)));
        }
    }
    fn replacing_entries(since: Option<u64>, sample: &mut Sample) {
        conntrack(since, sample);
        if let Reading::Got(tables) = &mut sample.tables.reading
            && let Reading::Got(table) = &mut tables.conntrack
        {
            (table.drops, table.early_drops) = (0, since.unwrap_or(0));
        }
    }
    fn two_reports(since: Option<u64>, sample: &mut Sample) {
        unanswered(since, sample);
        with_producer(sample, vec![broker(TcpState::Established, 0, Some(FINE))]);
        if since.is_some() {
            served(sample, |served| {
                let answers = served.answers.as_mut().unwrap();
                (answers.awaiting, answers.never_answered) = (2, 0);
            });
        }
    }
    fn a_round_trip_away(since: Option<u64>, sample: &mut Sample) {
        let ticks = since.unwrap_or(0);
        served(sample, |served| served.syn_recv = 100);
        // An accept queue of the namespace overflows for a moment, and is empty when it is looked at.
        if ticks == 20 {
            listeners(sample, |listeners| listeners[0].drops = Some(3));
        }
        if let Reading::Got(tcp) = &mut sample.tcp.reading {
            tcp.listen_overflows = Some(3 * u64::from(ticks >= 20));
        }
    }
    /// The loop's thread is never seen in its loop, and yet everybody is answered.
    fn blocks_for_moments(_: Option<u64>, sample: &mut Sample) {
        listeners(sample, |listeners| listeners[0].queued = 0);
    }
    let cases: [(&str, Kind, Phase, Change); 16] = [
        ("a handler that blocks for moments", EPOLL, Phase::Blocked, blocks_for_moments),
        ("one reset of whomever", EPOLL, Phase::Unlistening, one_reset),
        ("a full table that makes room", EPOLL, Phase::Busy, replacing_entries),
        ("two slow requests beside Kafka", EPOLL, Phase::Idle, two_reports),
        ("handshakes of a long round trip", EPOLL, Phase::Busy, a_round_trip_away),
        ("slow requests and no Kafka", EPOLL, Phase::SlowRequests, only_slow),
        ("a slow broker that copes", EPOLL, Phase::Busy, coping),
        ("a listener that is handed over", EPOLL, Phase::Unlistening, handed_over),
        ("one burst", EPOLL, Phase::Busy, burst),
        ("somebody else's flood", EPOLL, Phase::Busy, cookies_of_another),
        ("ports to somebody else", EPOLL, Phase::Idle, other_ports),
        ("many accepts in flight", RING, Phase::Idle, several_accepts),
        ("one worker of two blocked", EPOLL, Phase::Busy, one_worker_blocked),
        ("at its limit of fds", EPOLL, Phase::Busy, at_the_limit),
        ("resets with fds to spare", EPOLL, Phase::Busy, resets),
        ("nothing at all", EPOLL, Phase::Idle, |_, _| {}),
    ];
    for (name, kind, phase, change) in cases {
        let run = run(kind, phase, BEFORE, change);
        assert!(run.onset_ticks.is_empty(), "{name}: {:?} {:?}", run.onset_ticks, run.verdicts);
    }
}

#[test]
fn connections_that_are_served_in_turn_are_not_neglected() {
    fn neglected(sample: &mut Sample, oldest_ms: u32) {
        served(sample, |served| {
            let answers = served.answers.as_mut().unwrap();
            (answers.neglected, answers.neglected_oldest_ms) = (20, Some(oldest_ms));
        });
    }
    /// Each waits for four seconds, and at each look another waits longest.
    fn in_turn(since: Option<u64>, sample: &mut Sample) {
        neglected(sample, since.map_or(100, |_| 4_000));
    }
    /// The same ones wait on.
    fn for_good(since: Option<u64>, sample: &mut Sample) {
        neglected(sample, since.map_or(100, |_| 500 + ms_of(since)));
    }
    let quick = Thresholds { neglected_hold_ms: 2_000, ..Thresholds::default() };
    let onsets = |change| run_by(quick, EPOLL, Phase::Idle, BEFORE, change).onset_ticks.len();
    assert_eq!((onsets(in_turn), onsets(for_good)), (0, 1));
}
