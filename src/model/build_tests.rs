//! Rates from made-up readings: never below zero, never across a restart, never from one reading.

use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use stallscope_probes::sample::{Holder, RingSource, SchedRaw, SyscallRaw, TaskState, WatcherRaw};

use super::*;

const PID: i32 = 100;
const S: u64 = 1_000_000_000;

fn absent<T>() -> Reading<T> {
    Reading::absent(Why::NotSampled, "not read")
}

pub(in crate::model) fn probe<T>(at_ns: u64, value: T) -> Probe<T> {
    Probe { begin_ns: at_ns, end_ns: at_ns, reading: Reading::Got(value) }
}

/// A sample in which nothing was read.
pub(in crate::model) fn nothing(seq: u64) -> Sample {
    Sample {
        seq,
        due_ns: 0,
        late_ns: 0,
        process: Probe::not_sampled(""),
        threads: Probe::not_sampled(""),
        fds: Probe::not_sampled(""),
        listeners: Probe::not_sampled(""),
        sockets: Probe::not_sampled(""),
        rings: Probe::not_sampled(""),
        tcp: Probe::not_sampled(""),
        heartbeat: Probe::not_sampled(""),
        fd_kinds: Probe::not_sampled(""),
        peers: Probe::not_sampled(""),
        cgroup: Probe::not_sampled(""),
        pressure: Probe::not_sampled(""),
        tables: Probe::not_sampled(""),
        epolls: Probe::not_sampled(""),
        active: Probe::not_sampled(""),
        watcher: WatcherRaw::default(),
    }
}

fn process(ticks: u64, start_time_ticks: u64) -> ProcessRaw {
    ProcessRaw {
        state: TaskState::Running,
        utime_ticks: ticks,
        stime_ticks: 0,
        threads: 1,
        rss_bytes: 1,
        start_time_ticks,
    }
}

pub(in crate::model) fn thread(tid: i32, run_ns: u64, delay_ns: u64, timeslices: u64) -> ThreadRaw {
    ThreadRaw {
        tid,
        comm: format!("t{tid}"),
        state: TaskState::Running,
        utime_ticks: 0,
        stime_ticks: 0,
        sched: Reading::Got(SchedRaw { run_ns, delay_ns, timeslices }),
        syscall: Reading::Got(SyscallRaw::Running),
        wchan: absent(),
        kernel_stack: absent(),
        switches: absent(),
    }
}

pub(in crate::model) fn ring(fd: i32, sq_head: u32, cq_head: u32) -> RingRaw {
    RingRaw {
        fd,
        source: RingSource::Memory { confirmed: true },
        state: Reading::Got(RingState { sq_head, cq_head, ..RingState::default() }),
        armed: absent(),
    }
}

fn listener(inode: u32, drops: Option<u32>) -> ListenerRaw {
    ListenerRaw {
        local: SocketAddr::from(([127, 0, 0, 1], 80)),
        inode,
        queued: 0,
        limit: Some(128),
        drops,
        holder: Holder::Target,
    }
}

fn page(responses: u64) -> HeartbeatRaw {
    HeartbeatRaw { responses, ..HeartbeatRaw::default() }
}

/// The number, or why there is none.
fn outcome<T: Copy>(reading: &Reading<T>) -> Result<T, Why> {
    reading
        .got()
        .copied()
        .ok_or_else(|| reading.absence().map_or(Why::Failed, |absence| absence.why))
}

fn builder() -> ModelBuilder {
    ModelBuilder::new(PID, 100)
}

/// CPU time of the process after each (instant, start, ticks).
fn cores(readings: &[(u64, u64, u64)]) -> Vec<Result<f64, Why>> {
    let mut builder = builder();
    let push = |&(at_ns, start, ticks): &(u64, u64, u64)| {
        let sample = Sample { process: probe(at_ns, process(ticks, start)), ..nothing(0) };
        outcome(&builder.push(&sample).process.got().unwrap().cpu_cores)
    };
    readings.iter().map(push).collect()
}

#[test]
fn cpu_time_becomes_cores() {
    let first = Err(Why::NoPrevious);
    assert_eq!(cores(&[(S, 7, 500), (2 * S, 7, 550)]), [first, Ok(0.5)]);
    assert_eq!(cores(&[(S, 7, 500), (2 * S, 7, 700)]), [first, Ok(2.0)]);
    assert_eq!(cores(&[(S, 7, 500), (2 * S, 7, 400)]), [first, Err(Why::Restarted)]);
    assert_eq!(cores(&[(S, 7, 500), (2 * S, 8, 600)]), [first, Err(Why::Restarted)]);
    assert_eq!(cores(&[(S, 7, 500), (S, 7, 500)]), [first, Err(Why::NoPrevious)]);
    // After a restart the count begins anew.
    let again = cores(&[(S, 7, 500), (2 * S, 8, 10), (3 * S, 8, 110)]);
    assert_eq!(again, [first, Err(Why::Restarted), Ok(1.0)]);
}

/// Ticks are of 10 ms: over 50 ms one of them more or less would be a fifth of a core.
#[test]
fn cpu_time_is_measured_over_a_quarter_of_a_second() {
    let at = |tick: u64| S + tick * 50_000_000;
    let steady: Vec<_> = (0..20).map(|tick| (at(tick), 7, tick * 5 / 2)).collect();
    for cores in &cores(&steady)[5..] {
        assert!((cores.unwrap() - 0.5).abs() <= 0.06, "{cores:?}");
    }
}

/// Submissions of one ring after each (instant, `sq_head`); `None` for a locked read.
fn submissions(reads: &[(u64, Option<u32>)]) -> Vec<Result<f64, Why>> {
    let mut builder = builder();
    let push = |&(at_ns, head): &(u64, Option<u32>)| {
        let locked = RingRaw { state: Reading::absent(Why::Locked, ""), ..ring(9, 0, 0) };
        let raw = head.map_or(locked, |head| ring(9, head, head));
        let model = builder.push(&Sample { rings: probe(at_ns, vec![raw]), ..nothing(0) });
        let ring = &model.rings.got().unwrap()[0];
        assert_eq!(outcome(&ring.submissions_per_s), outcome(&ring.completions_per_s));
        outcome(&ring.submissions_per_s)
    };
    reads.iter().map(push).collect()
}

#[test]
fn heads_of_rings_wrap() {
    let (first, locked) = (Err(Why::NoPrevious), Err(Why::Locked));
    assert_eq!(submissions(&[(S, Some(10)), (2 * S, Some(40))]), [first, Ok(30.0)]);
    assert_eq!(submissions(&[(S, Some(u32::MAX)), (2 * S, Some(4))]), [first, Ok(5.0)]);
    assert_eq!(submissions(&[(S, Some(7)), (3 * S, Some(7))]), [first, Ok(0.0)]);
    // A locked read in between: the rate spans it.
    let over = submissions(&[(S, Some(0)), (2 * S, None), (3 * S, Some(10))]);
    assert_eq!(over, [first, locked, Ok(5.0)]);
    assert_eq!(submissions(&[(S, None), (2 * S, Some(9))]), [locked, first]);
}

#[test]
fn a_ring_that_was_closed_is_forgotten() {
    let mut builder = builder();
    for (at_ns, rings) in [(S, vec![ring(9, 5, 5)]), (2 * S, Vec::new())] {
        builder.push(&Sample { rings: probe(at_ns, rings), ..nothing(0) });
    }
    let model = builder.push(&Sample { rings: probe(3 * S, vec![ring(9, 7, 7)]), ..nothing(0) });
    assert_eq!(outcome(&model.rings.got().unwrap()[0].submissions_per_s), Err(Why::NoPrevious));
}

#[test]
fn what_is_carried_along_says_the_same_again() {
    let mut builder = builder();
    let sample = |seq, at_ns, head| Sample {
        rings: probe(at_ns, vec![ring(9, head, head)]),
        threads: probe(at_ns, vec![thread(PID, u64::from(head) * 1_000_000, 0, 5)]),
        ..nothing(seq)
    };
    builder.push(&sample(0, S, 0));
    let read = builder.push(&sample(1, 2 * S, 100));
    assert_eq!(outcome(&read.rings.got().unwrap()[0].submissions_per_s), Ok(100.0));
    assert_eq!(outcome(&read.threads.got().unwrap()[0].cpu_ratio), Ok(0.1));
    for seq in 2..5 {
        let carried = builder.push(&sample(seq, 2 * S, 100));
        assert_eq!((&carried.rings, &carried.threads), (&read.rings, &read.threads));
    }
    let next = builder.push(&sample(5, 3 * S, 300));
    assert_eq!(outcome(&next.rings.got().unwrap()[0].submissions_per_s), Ok(200.0));
    assert_eq!(outcome(&next.threads.got().unwrap()[0].cpu_ratio), Ok(0.2));
}

#[test]
fn time_of_threads_becomes_shares() {
    let ratios = |before: ThreadRaw, now: ThreadRaw| {
        let mut builder = builder();
        builder.push(&Sample { threads: probe(S, vec![before]), ..nothing(0) });
        let model = builder.push(&Sample { threads: probe(2 * S, vec![now]), ..nothing(1) });
        let thread = &model.threads.got().unwrap()[0];
        (outcome(&thread.cpu_ratio), outcome(&thread.delay_ratio), outcome(&thread.switches_per_s))
    };
    let restarted = (Err(Why::Restarted), Err(Why::Restarted), Err(Why::Restarted));
    let none = (Err(Why::NoPrevious), Err(Why::NoPrevious), Err(Why::NoPrevious));
    let was = || thread(PID, S, S, 10);
    assert_eq!(ratios(was(), thread(PID, S + S / 2, S + S / 4, 17)), (Ok(0.5), Ok(0.25), Ok(7.0)));
    // Read a little later than its neighbours, a thread seems to run more than all the time.
    assert_eq!(ratios(was(), thread(PID, 3 * S, S, 10)), (Ok(1.0), Ok(0.0), Ok(0.0)));
    assert_eq!(ratios(was(), thread(PID, S / 2, S, 10)), restarted);
    assert_eq!(ratios(was(), thread(PID, 2 * S, S, 9)), restarted);
    assert_eq!(ratios(was(), thread(PID + 1, 2 * S, S, 10)), none);
}

#[test]
fn counters_of_the_application_and_the_namespace() {
    let mut builder = builder();
    let mut push = |at_ns, responses, overflows, drops| {
        let model = builder.push(&Sample {
            heartbeat: probe(at_ns, page(responses)),
            tcp: probe(at_ns, TcpRaw { listen_overflows: overflows, ..TcpRaw::default() }),
            listeners: probe(at_ns, vec![listener(42, drops)]),
            ..nothing(0)
        });
        (
            outcome(&model.app.got().unwrap().responses_per_s),
            model.tcp.got().map(|tcp| tcp.listen_overflows_new),
            outcome(&model.listeners.got().unwrap()[0].drops_new),
        )
    };
    assert_eq!(push(S, 5, Some(3), Some(8)), (Err(Why::NoPrevious), None, Err(Why::NoPrevious)));
    assert_eq!(push(2 * S, 25, Some(4), Some(9)), (Ok(20.0), Some(Some(1)), Ok(1)));
    assert_eq!(
        push(3 * S, 5, Some(1), None),
        (Err(Why::Restarted), Some(None), Err(Why::Unsupported))
    );
    assert_eq!(push(4 * S, 6, None, Some(u32::MAX)), (Ok(1.0), Some(None), Err(Why::NoPrevious)));
    assert_eq!(push(5 * S, 6, Some(9), Some(1)), (Ok(0.0), Some(None), Ok(2)));
}

#[test]
fn the_first_sample_has_nothing_to_compare_with() {
    let model = builder().push(&Sample {
        process: probe(S, process(1, 7)),
        threads: probe(S, vec![thread(PID, 1, 1, 1)]),
        rings: probe(S, vec![ring(9, 1, 1)]),
        tcp: probe(S, TcpRaw::default()),
        heartbeat: probe(S, page(9)),
        listeners: probe(S, vec![listener(1, Some(1))]),
        ..nothing(0)
    });
    let app = model.app.got().unwrap();
    let none = Err(Why::NoPrevious);
    assert_eq!(outcome(&model.process.got().unwrap().cpu_cores), none);
    assert_eq!(outcome(&model.threads.got().unwrap()[0].cpu_ratio), none);
    assert_eq!(outcome(&model.rings.got().unwrap()[0].submissions_per_s), none);
    assert_eq!(outcome(&model.tcp), Err(Why::NoPrevious));
    assert_eq!(outcome(&app.responses_per_s), none);
    assert_eq!(outcome(&model.listeners.got().unwrap()[0].drops_new), Err(Why::NoPrevious));
}

#[test]
fn what_could_not_be_read_stays_absent_with_its_reason() {
    let mut builder = builder();
    builder.push(&Sample { process: probe(S, process(1, 7)), ..nothing(0) });
    let model = builder.push(&nothing(1));
    let why = Why::NotSampled;
    assert_eq!(model.process.absence().map(|absence| absence.why), Some(why));
    assert_eq!(model.threads.absence().map(|absence| absence.why), Some(why));
    assert_eq!(model.fds.absence().map(|absence| absence.why), Some(why));
    assert_eq!(model.listeners.absence().map(|absence| absence.why), Some(why));
    assert_eq!(model.served.absence().map(|absence| absence.why), Some(why));
    assert_eq!(model.ports.absence().map(|absence| absence.why), Some(why));
    assert_eq!(model.rings.absence().map(|absence| absence.why), Some(why));
    assert_eq!(model.tcp.absence().map(|absence| absence.why), Some(why));
    assert_eq!(model.app.absence().map(|absence| absence.why), Some(why));
    assert_eq!(model.frozen.absence().map(|absence| absence.why), Some(why));
}

/// An instant, two counters, two heads, a start.
type Tick = (u64, u64, u64, (u32, u32), u64);

/// Some instants, some counters, in any order: clocks and counters may go back.
fn any_samples() -> impl Strategy<Value = Vec<Sample>> {
    let number = || prop_oneof![0_u64..4, any::<u64>()];
    let tick = (0_u64..5, number(), number(), any::<(u32, u32)>(), 7_u64..9);
    vec(tick, 1..12).prop_map(|ticks| {
        let sample = |(seq, (at, a, b, heads, start)): (usize, Tick)| {
            let at_ns = at * 100_000_000;
            Sample {
                process: probe(at_ns, process(a, start)),
                threads: probe(at_ns, vec![thread(PID, a, b, a), thread(PID + 1, b, a, b)]),
                rings: probe(at_ns, vec![ring(9, heads.0, heads.1)]),
                heartbeat: probe(at_ns, page(b)),
                ..nothing(seq as u64)
            }
        };
        ticks.into_iter().enumerate().map(sample).collect()
    })
}

proptest! {
    #[test]
    fn no_rate_is_below_zero(samples in any_samples()) {
        let mut builder = builder();
        for sample in &samples {
            let model = builder.push(sample);
            let threads = model.threads.got().unwrap();
            let ring = &model.rings.got().unwrap()[0];
            let mut rates = vec![
                outcome(&model.process.got().unwrap().cpu_cores),
                outcome(&ring.submissions_per_s),
                outcome(&ring.completions_per_s),
                outcome(&model.app.got().unwrap().responses_per_s),
            ];
            for thread in threads.iter() {
                rates.push(outcome(&thread.switches_per_s));
                for share in [&thread.cpu_ratio, &thread.delay_ratio].map(outcome) {
                    prop_assert!(share.is_err() || (0.0..=1.0).contains(&share.unwrap()));
                }
            }
            for rate in rates {
                prop_assert!(rate.is_err() || rate.unwrap() >= 0.0, "{rate:?}");
                let whys = [Why::NoPrevious, Why::Restarted];
                prop_assert!(rate.is_ok() || whys.contains(&rate.unwrap_err()), "{rate:?}");
            }
        }
    }

    /// The kernel lists threads and rings as it likes.
    #[test]
    fn the_order_of_threads_rings_and_listeners_does_not_matter(
        counts in vec((any::<u32>(), any::<u32>()), 2..6),
        turn in 0_usize..6,
    ) {
        let samples = |turned: bool| {
            let numbered = counts.iter().zip(0_i32..);
            let of = |step: u64| {
                let mut threads: Vec<ThreadRaw> = numbered.clone()
                    .map(|((a, b), n)| thread(PID + n, u64::from(*a) * step, u64::from(*b), step))
                    .collect();
                let mut rings: Vec<RingRaw> = numbered.clone()
                    .map(|((a, b), n)| ring(n, a.wrapping_mul(step as u32), *b))
                    .collect();
                if turned && step == 2 {
                    let turn = turn % counts.len();
                    threads.rotate_left(turn);
                    rings.rotate_left(turn);
                    threads.reverse();
                }
                let threads = probe(step * S, threads);
                Sample { threads, rings: probe(step * S, rings), ..nothing(step) }
            };
            [of(1), of(2)]
        };
        let last = |samples: [Sample; 2]| {
            let mut builder = builder();
            builder.push(&samples[0]);
            let model = builder.push(&samples[1]);
            let mut threads = model.threads.got().unwrap().to_vec();
            let mut rings = model.rings.got().unwrap().to_vec();
            threads.sort_by_key(|thread| thread.tid);
            rings.sort_by_key(|ring| ring.fd);
            (threads, rings)
        };
        prop_assert_eq!(last(samples(false)), last(samples(true)));
    }
}
