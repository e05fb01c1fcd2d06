//! Any sample there can be, likely or not: for tests that must hold for all of them.

use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use stallscope_probes::sample::{
    ActiveHow, ActiveOutcome, ActivePlan, ActiveRaw, AnswersRaw, ArmedRaw, CgroupRaw, ConntrackRaw,
    EpollRaw, FdKindsRaw, FdLimitRaw, FdsRaw, FileTableRaw, HeartbeatRaw, Holder, ListenerRaw,
    PeerInfoRaw, PeerRaw, PortsRaw, PressureRaw, PressureScope, ProbeCostRaw, ProbeId, ProcessRaw,
    RingRaw, RingSource, RingState, Sample, SchedRaw, ServedRaw, SocketsRaw, StallTimeRaw,
    SwitchesRaw, SyscallRaw, TablesRaw, TaskState, TcpRaw, TcpState, ThreadRaw, WatcherRaw,
};
use stallscope_probes::{Absence, Probe, Reading, Why};

/// Small, middling and extreme: sums and differences of counters overflow first.
fn count<T: Copy + std::fmt::Debug + 'static>(values: [T; 4]) -> BoxedStrategy<T> {
    prop::sample::select(values.to_vec()).boxed()
}

pub(super) fn long() -> BoxedStrategy<u64> {
    prop_oneof![count([0, 1, 1_000_000_000, u64::MAX]), any::<u64>(), 0_u64..10_000_000_000].boxed()
}

fn word() -> BoxedStrategy<u32> {
    prop_oneof![count([0, 1, u32::MAX - 1, u32::MAX]), any::<u32>(), 0_u32..1_000].boxed()
}

fn maybe_word() -> BoxedStrategy<Option<u32>> {
    proptest::option::of(word()).boxed()
}

fn maybe_long() -> BoxedStrategy<Option<u64>> {
    proptest::option::of(long()).boxed()
}

fn reading<T: std::fmt::Debug + Clone + 'static>(
    value: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Reading<T>> {
    let why = prop::sample::select(vec![
        Why::NotPermitted,
        Why::Gone,
        Why::Unsupported,
        Why::NotSampled,
        Why::Locked,
        Why::Malformed,
        Why::Failed,
    ]);
    prop_oneof![
        4 => value.prop_map(Reading::Got),
        1 => (why, ".{0,8}").prop_map(|(why, detail)| Reading::absent(why, detail)),
    ]
    .boxed()
}

fn probe<T: std::fmt::Debug + Clone + 'static>(
    value: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Probe<T>> {
    (long(), long(), reading(value))
        .prop_map(|(begin_ns, end_ns, reading)| Probe { begin_ns, end_ns, reading })
        .boxed()
}

fn state() -> BoxedStrategy<TaskState> {
    any::<char>()
        .prop_map(TaskState::from_letter)
        .boxed()
        .prop_union(
            prop::sample::select(vec!['R', 'S', 'D', 'T', 't', 'Z', 'X', 'I'])
                .prop_map(TaskState::from_letter)
                .boxed(),
        )
        .boxed()
}

fn thread() -> BoxedStrategy<ThreadRaw> {
    let sched = (long(), long(), long()).prop_map(|(run_ns, delay_ns, timeslices)| SchedRaw {
        run_ns,
        delay_ns,
        timeslices,
    });
    let syscall = prop_oneof![
        Just(SyscallRaw::Running),
        Just(SyscallRaw::NotInSyscall),
        (any::<i64>(), long()).prop_map(|(nr, arg0)| SyscallRaw::In { nr, arg0 }),
        Just(SyscallRaw::In { nr: 202, arg0: 0 }),
        Just(SyscallRaw::In { nr: 232, arg0: 0 }),
    ];
    let stack = vec(".{0,8}", 0..3);
    let switches = (long(), long())
        .prop_map(|(voluntary, involuntary)| SwitchesRaw { voluntary, involuntary });
    (
        (99..103_i32, ".{0,15}", state(), long(), long()),
        (reading(sched), reading(syscall), reading(".{0,8}"), reading(stack), reading(switches)),
    )
        .prop_map(|((tid, comm, state, utime_ticks, stime_ticks), rest)| {
            let (sched, syscall, wchan, kernel_stack, switches) = rest;
            ThreadRaw {
                tid,
                comm,
                state,
                utime_ticks,
                stime_ticks,
                sched,
                syscall,
                wchan,
                kernel_stack,
                switches,
            }
        })
        .boxed()
}

fn address() -> BoxedStrategy<SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
        any::<([u8; 16], u16)>().prop_map(SocketAddr::from),
    ]
    .boxed()
}

fn listener() -> BoxedStrategy<ListenerRaw> {
    let holder = prop::sample::select(vec![Holder::Target, Holder::Other, Holder::Unknown]);
    (address(), 1..4_u32, word(), maybe_word(), maybe_word(), holder)
        .prop_map(|(local, inode, queued, limit, drops, holder)| ListenerRaw {
            local,
            inode,
            queued,
            limit,
            drops,
            holder,
        })
        .boxed()
}

fn ring() -> BoxedStrategy<RingRaw> {
    let errors =
        || reading(vec((prop::sample::select(vec![1, 24, i32::MAX]), word()), 0..3)).boxed();
    let state = (
        (word(), word(), word(), word(), word(), word()),
        (proptest::option::of(any::<bool>()), any::<bool>(), maybe_word(), maybe_word()),
        (reading(vec((".{0,8}", any::<i32>()), 0..3)), errors(), errors()),
    );
    let state = state.prop_map(|(heads, (sqpoll, overflowing, dropped, lost), lists)| {
        let (sq_entries, sq_head, sq_tail, cq_entries, cq_head, cq_tail) = heads;
        let (pending, failed, recent) = lists;
        RingState {
            sq_entries,
            sq_head,
            sq_tail,
            cq_entries,
            cq_head,
            cq_tail,
            sqpoll,
            overflowing,
            sq_dropped: dropped,
            cq_lost: lost,
            pending,
            failed,
            recent,
        }
    });
    let operations = vec((prop::sample::select(vec![13_u8, 22, 26, 27]), word()), 0..4);
    let armed = (long(), operations, word()).prop_map(|(at_ns, operations, overflow)| ArmedRaw {
        at_ns,
        operations,
        overflow,
    });
    let source = prop_oneof![
        any::<bool>().prop_map(|confirmed| RingSource::Memory { confirmed }),
        ".{0,8}".prop_map(|detail| RingSource::Fdinfo(Absence { why: Why::NotPermitted, detail })),
    ];
    (3..6_i32, source, reading(state), reading(armed))
        .prop_map(|(fd, source, state, armed)| RingRaw { fd, source, state, armed })
        .boxed()
}

fn peer() -> BoxedStrategy<PeerRaw> {
    let bytes = || proptest::option::of(any::<u64>());
    let info = ((any::<u8>(), word(), word()), (word(), word(), word()), (bytes(), bytes()));
    let info = info.prop_map(
        |(
            (retransmits, retransmitted, rtt_us),
            (unacked, last_sent_ms, last_received_ms),
            (sent_bytes, received_bytes),
        )| {
            PeerInfoRaw {
                retransmits,
                retransmitted,
                rtt_us,
                unacked,
                last_sent_ms,
                last_received_ms,
                sent_bytes,
                received_bytes,
            }
        },
    );
    let state = (1..=12_u8).prop_map(|number| TcpState::from_number(number).unwrap());
    (address(), any::<u16>(), 1..4_u32, state, word(), word(), proptest::option::of(info))
        .prop_map(|(remote, local_port, inode, state, unread_bytes, unsent_bytes, info)| PeerRaw {
            remote,
            local_port,
            inode,
            state,
            unread_bytes,
            unsent_bytes,
            info,
        })
        .boxed()
}

fn fd_kinds() -> BoxedStrategy<FdKindsRaw> {
    ((word(), word(), word(), word()), (word(), word(), word(), any::<bool>()))
        .prop_map(|((sockets, rings, epolls, anonymous), (pipes, files, looked_at, truncated))| {
            FdKindsRaw { sockets, rings, epolls, anonymous, pipes, files, looked_at, truncated }
        })
        .boxed()
}

fn pressure() -> BoxedStrategy<PressureRaw> {
    let stall = || {
        let time = (long(), maybe_long());
        proptest::option::of(time.prop_map(|(some_us, full_us)| StallTimeRaw { some_us, full_us }))
    };
    let scope = prop::sample::select(vec![PressureScope::Cgroup, PressureScope::Machine]);
    (scope, stall(), stall(), stall())
        .prop_map(|(scope, cpu, memory, io)| PressureRaw { scope, cpu, memory, io })
        .boxed()
}

fn cgroup() -> BoxedStrategy<CgroupRaw> {
    (
        (proptest::option::of(any::<bool>()), maybe_long(), maybe_long(), maybe_long()),
        (maybe_long(), maybe_long(), maybe_long(), maybe_long()),
    )
        .prop_map(|(cpu, memory)| CgroupRaw {
            frozen: cpu.0,
            nr_throttled: cpu.1,
            throttled_usec: cpu.2,
            nr_periods: cpu.3,
            memory_high: memory.0,
            memory_max: memory.1,
            oom: memory.2,
            oom_kill: memory.3,
        })
        .boxed()
}

fn watcher() -> BoxedStrategy<WatcherRaw> {
    let probe = prop::sample::select(vec![ProbeId::Fast, ProbeId::Threads, ProbeId::Cgroup]);
    let cost = (probe, long(), long()).prop_map(|(probe, cost_ns, every_ns)| ProbeCostRaw {
        probe,
        cost_ns,
        every_ns,
    });
    (
        (long(), long(), maybe_long(), maybe_long()),
        (long(), long(), word(), long()),
        vec(cost, 0..3),
    )
        .prop_map(|(own, pace, costs)| WatcherRaw {
            cpu_ns: own.0,
            sampling_cpu_ns: own.1,
            rss_bytes: own.2,
            open_fds: own.3,
            interval_asked_ns: pace.0,
            interval_ns: pace.1,
            budget_ppm: pace.2,
            ticks_missed: pace.3,
            costs,
        })
        .boxed()
}

fn sockets() -> BoxedStrategy<SocketsRaw> {
    let served = (
        any::<u16>(),
        (word(), word(), word(), word(), word(), word()),
        (long(), long(), long(), long(), long(), long()),
    )
        .prop_map(|(port, words, longs)| ServedRaw {
            port,
            accepted_open: words.0,
            queued: words.1,
            close_wait: words.2,
            syn_recv: words.3,
            unread_sockets: words.4,
            time_wait: words.5,
            unread_bytes: longs.0,
            unsent_bytes: longs.1,
            fingerprint: longs.2,
            accepted_seen: longs.3,
            closed_seen: longs.4,
            left_queue_seen: longs.5,
            answers: Some(AnswersRaw {
                awaiting: words.0,
                awaiting_unread: words.1,
                never_answered: words.2,
                oldest_ms: Some(words.3),
                last_sent_ms: Some(words.4),
                last_received_ms: None,
                perhaps: words.0,
                perhaps_oldest_ms: Some(words.1),
                answered: words.2,
                neglected: words.2,
                neglected_oldest_ms: Some(words.5),
                queued_oldest_ms: Some(words.0),
            }),
        });
    let ports = (any::<(u16, u16)>(), word(), word(), vec((address(), word()), 0..3))
        .prop_map(|(range, in_use, time_wait, top)| PortsRaw { range, in_use, time_wait, top });
    (vec(served, 0..3), ports, word(), any::<bool>())
        .prop_map(|(served, ports, total, truncated)| SocketsRaw {
            served,
            ports,
            total,
            truncated,
        })
        .boxed()
}

fn page() -> BoxedStrategy<HeartbeatRaw> {
    let maybe = || proptest::option::of(long());
    (
        (".{0,8}", proptest::option::of(99..103_i32), proptest::option::of(99..103_i32)),
        (maybe(), long(), proptest::option::of(any::<u16>()), maybe(), maybe(), maybe()),
        [long().boxed(), long().boxed(), long().boxed(), long().boxed(), long().boxed()],
        [long().boxed(), long().boxed(), long().boxed(), long().boxed()],
    )
        .prop_map(|((stack, runtime_tid, kafka_tid), times, counts, kafka)| HeartbeatRaw {
            stack,
            runtime_tid,
            kafka_tid,
            beat_ns: times.0,
            beat_every_ns: times.1,
            listen_port: times.2,
            last_accept_ns: times.3,
            last_response_ns: times.4,
            kafka_beat_ns: times.5,
            accepted: counts[0],
            open: counts[1],
            requests: counts[2],
            responses: counts[3],
            accept_errors: counts[4],
            accept_errno: Some(24),
            queued: kafka[0],
            delivered: kafka[1],
            failed: kafka[2],
            producer_queue: kafka[3],
            producer_queue_max: Some(kafka[2]),
            queue_full: kafka[1],
            fault: None,
        })
        .boxed()
}

fn tables() -> BoxedStrategy<TablesRaw> {
    let files = (long(), long(), any::<Option<bool>>())
        .prop_map(|(open, max, exempt)| FileTableRaw { open, max, exempt });
    let conntrack = (word(), word(), long()).prop_map(|(entries, max, drops)| ConntrackRaw {
        entries,
        max,
        drops,
        early_drops: drops,
        insert_failed: drops,
    });
    (reading(files), reading(conntrack))
        .prop_map(|(files, conntrack)| TablesRaw { files, conntrack })
        .boxed()
}

fn epoll() -> BoxedStrategy<EpollRaw> {
    (any::<i32>(), word(), vec(any::<(u32, bool)>(), 0..3))
        .prop_map(|(fd, watched, listeners)| EpollRaw { fd, watched, listeners })
        .boxed()
}

fn active() -> BoxedStrategy<ActiveRaw> {
    let outcome = prop::sample::select(vec![
        ActiveOutcome::Pending,
        ActiveOutcome::Answered { connect_us: 1, answer_us: Some(2) },
        ActiveOutcome::Refused,
        ActiveOutcome::ConnectTimeout,
        ActiveOutcome::NoAnswer { connect_us: 3 },
        ActiveOutcome::NotMade { errno: 99 },
    ]);
    (address(), long(), outcome, word(), maybe_long())
        .prop_map(|(target, began_ns, outcome, failures_in_a_row, last_success_ns)| ActiveRaw {
            plan: ActivePlan { how: ActiveHow::Http, every_ms: 1_000 },
            target,
            began_ns,
            outcome,
            attempts: 7,
            failures_in_a_row,
            last_success_ns,
        })
        .boxed()
}

/// Any sample there can be, likely or not.
pub(super) fn sample() -> BoxedStrategy<Sample> {
    let process = (state(), long(), long(), long(), long(), count([7, 7, 7, 8])).prop_map(
        |(state, utime_ticks, stime_ticks, threads, rss_bytes, start_time_ticks)| ProcessRaw {
            state,
            utime_ticks,
            stime_ticks,
            threads,
            rss_bytes,
            start_time_ticks,
        },
    );
    let limit = (maybe_long(), maybe_long()).prop_map(|(soft, hard)| FdLimitRaw { soft, hard });
    let fds = (long(), reading(limit), any::<bool>())
        .prop_map(|(open, limit, from_st_size)| FdsRaw { open, limit, from_st_size });
    let tcp = (maybe_long(), maybe_long(), maybe_long(), maybe_long()).prop_map(
        |(overflows, drops, passive, active)| TcpRaw {
            listen_overflows: overflows,
            listen_drops: drops,
            passive_opens: passive,
            active_opens: active,
            out_rsts: None,
            retrans_segs: None,
            req_q_full_drops: drops,
            req_q_full_cookies: overflows,
        },
    );
    (
        (long(), long(), long(), watcher()),
        (probe(process), probe(vec(thread(), 0..4)), probe(fds), probe(vec(listener(), 0..3))),
        (probe(sockets()), probe(vec(ring(), 0..3)), probe(tcp), probe(page())),
        (probe(fd_kinds()), probe(vec(peer(), 0..3)), probe(cgroup()), probe(pressure())),
        (probe(tables()), probe(vec(epoll(), 0..3)), probe(active())),
    )
        .prop_map(|((seq, due_ns, late_ns, watcher), first, second, third, fourth)| Sample {
            seq,
            due_ns,
            late_ns,
            process: first.0,
            threads: first.1,
            fds: first.2,
            listeners: first.3,
            sockets: second.0,
            rings: second.1,
            tcp: second.2,
            heartbeat: second.3,
            fd_kinds: third.0,
            peers: third.1,
            cgroup: third.2,
            pressure: third.3,
            tables: fourth.0,
            epolls: fourth.1,
            active: fourth.2,
            watcher,
        })
        .boxed()
}
