//! Recordings written, cut, damaged and made up: what comes back is what was written, or less with
//! a word about it, and never something else.

use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use stallscope_probes::sample::{
    CgroupRaw, FdsRaw, HeartbeatRaw, Holder, ListenerRaw, PortsRaw, ProcessRaw, RingRaw, RingState,
    SchedRaw, ServedRaw, SocketsRaw, SyscallRaw, TaskState, TcpRaw, ThreadRaw,
};
use stallscope_probes::{Probe, Reading, Why};

use super::super::replay;
use super::super::world::{Kind, Phase, World};
use super::*;

fn header() -> Header {
    Header {
        target: Target {
            pid: 100,
            comm: String::from("server"),
            cmdline: String::from("server --port 1"),
            exe: Some("/bin/server".into()),
            start_time_ticks: 7,
            foreign_netns: false,
            siblings: vec![101],
        },
        environment: Environment {
            kernel: String::from("Linux 6.18"),
            cpus: 2,
            version: String::from("0.1.0"),
            interval_ms: 50,
            ticks_per_s: 100,
            fd_limits: (Some(64), None),
            limits: Vec::new(),
        },
        anchor: Anchor { mono_ns: 1, real_ns: 1_700_000_000_000_000_000 },
    }
}

fn bytes_of(header: Header, frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::begin(&mut bytes, header).unwrap();
    for frame in frames {
        writer.frame(frame).unwrap();
    }
    bytes
}

type Read = (Header, Vec<Frame>, Option<String>);

fn read(bytes: &[u8]) -> Result<Read, RecordingError> {
    let mut reader = Reader::open(bytes)?;
    let frames = reader.by_ref().collect();
    let loss = reader.loss().map(str::to_owned);
    Ok((reader.header, frames, loss))
}

/// A small recording of the made-up server: three ticks, a profile, an end.
fn small() -> Vec<Frame> {
    let mut world = World::new(Kind { ring: true, page: true, rights: true });
    let mut frames: Vec<Frame> = [Phase::Busy, Phase::Busy, Phase::Blocked]
        .map(|phase| Frame::Sample(Box::new(world.tick(phase))))
        .into();
    let folded = String::from("main;run 3\n");
    frames.push(Frame::Profile(ProfileWindow { begin_ns: 1, end_ns: 2, hz: 99, folded }));
    frames.push(Frame::End(EndReason::TimeUp));
    frames
}

/// Where each frame ends in the file; the header's first.
fn ends(frames: &[Frame]) -> Vec<usize> {
    (0..=frames.len()).map(|count| bytes_of(header(), &frames[..count]).len()).collect()
}

#[test]
fn cut_at_any_byte_it_gives_what_came_before_and_says_so() {
    let frames = small();
    let whole = bytes_of(header(), &frames);
    let ends = ends(&frames);
    for cut in 0..whole.len() {
        let read = read(&whole[..cut]);
        if cut < ends[0] {
            let error = read.unwrap_err();
            let foreign = matches!(error, RecordingError::Foreign);
            assert!(foreign || matches!(error, RecordingError::NoHeader), "{cut}: {error}");
            assert_eq!(foreign, cut < MAGIC.len(), "{cut}: {error}");
            continue;
        }
        let (_, found, loss) = read.unwrap();
        let complete = ends[1..].iter().filter(|end| **end <= cut).count();
        assert_eq!(found, frames[..complete], "{cut}");
        let loss = loss.unwrap_or_else(|| panic!("cut at {cut}, and no word about it"));
        assert!(loss.contains("the watcher was killed"), "{cut}: {loss}");
    }
    assert_eq!(read(&whole).unwrap(), (header(), frames, None));
}

#[test]
fn no_damaged_bit_passes_for_data() {
    let frames = small();
    let whole = bytes_of(header(), &frames);
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            let Ok((found_header, found, loss)) = read(&bytes) else { continue };
            assert_eq!(found_header, header(), "byte {at}, bit {bit}");
            assert!(found.len() < frames.len(), "byte {at}, bit {bit}: nothing was missed");
            assert_eq!(found, frames[..found.len()], "byte {at}, bit {bit}");
            assert!(loss.is_some(), "byte {at}, bit {bit}: no word about it");
        }
    }
}

#[test]
fn what_is_no_recording_is_refused_in_words() {
    let mut newer = bytes_of(header(), &[]);
    newer[MAGIC.len()] = 2;
    let cases: [(&[u8], &str); 5] = [
        (b"", "this is no stallscope recording"),
        (b"STALL", "this is no stallscope recording"),
        (b"\x7fELF\x02\x01\x01\0\0\0\0\0", "this is no stallscope recording"),
        (&newer, "format version 2; this program reads version 1"),
        (b"STALLREC\x01\0", "no readable header"),
    ];
    for (bytes, words) in cases {
        let error = read(bytes).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    // A frame that is whole, but is no header.
    let mut headless = bytes_of(header(), &[]);
    headless.truncate(MAGIC.len() + 2);
    let end = bytes_of(header(), &[Frame::End(EndReason::TimeUp)]);
    headless.extend_from_slice(&end[bytes_of(header(), &[]).len()..]);
    assert!(matches!(read(&headless), Err(RecordingError::NoHeader)));
}

#[test]
fn a_length_that_is_a_lie_is_not_believed() {
    for (length, words) in [
        (u32::MAX, "claims 4294967295 bytes"),
        (FRAME_BYTES_MAX + 1, "claims 16777217 bytes"),
        (FRAME_BYTES_MAX, "the watcher was killed"),
    ] {
        let mut bytes = bytes_of(header(), &[]);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&[0; 100]);
        let (_, frames, loss) = read(&bytes).unwrap();
        assert_eq!(frames, []);
        assert!(loss.as_ref().unwrap().contains(words), "{loss:?}");
    }
}

#[test]
fn a_frame_that_could_not_be_read_again_is_not_written() {
    let profile = |bytes| {
        let folded = "x".repeat(bytes);
        Frame::Profile(ProfileWindow { begin_ns: 1, end_ns: 2, hz: 99, folded })
    };
    let mut bytes = Vec::new();
    let mut writer = Writer::begin(&mut bytes, header()).unwrap();
    let largest = FRAME_BYTES_MAX as usize;
    let error = writer.frame(&profile(largest)).unwrap_err();
    assert!(matches!(error, RecordingError::FrameLength(length) if length > largest), "{error}");
    writer.frame(&profile(largest - 100)).unwrap();
    let (_, frames, _) = read(&bytes).unwrap();
    assert_eq!(frames, [profile(largest - 100)]);
}

/// Hands out one byte at a time, with interruptions, as a pipe may.
struct Dribble<'a>(&'a [u8], bool);

impl io::Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let bytes = buffer.len().min(1);
        io::Read::read(&mut self.0, &mut buffer[..bytes])
    }
}

#[test]
fn short_reads_are_no_damage() {
    let frames = small();
    let bytes = bytes_of(header(), &frames);
    let mut reader = Reader::open(Dribble(&bytes, false)).unwrap();
    assert_eq!(reader.by_ref().collect::<Vec<_>>(), frames);
    assert_eq!(reader.loss(), None);
}

#[test]
fn a_replay_judges_as_the_live_run_did() {
    let kind = Kind { ring: true, page: true, rights: true };
    let mut world = World::new(kind);
    let mut engine = super::super::engine::Engine::new(100, 100);
    let (mut models, mut events, mut frames) = (Vec::new(), Vec::new(), Vec::new());
    for (phase, ticks) in [(Phase::Busy, 60), (Phase::Yield, 60), (Phase::Busy, 40)] {
        for _ in 0..ticks {
            let sample = world.tick(phase);
            let step = engine.push(&sample);
            models.push(step.model);
            events.extend(step.events);
            frames.push(Frame::Sample(Box::new(sample)));
        }
    }
    assert!(events.len() >= 3, "a stall, its cause and its end: {events:?}");
    frames.push(Frame::End(EndReason::Interrupted));
    let incident = replay::read(&bytes_of(header(), &frames)[..]).unwrap();
    assert_eq!(incident.models, models);
    assert_eq!(incident.events, events);
    assert_eq!((incident.end, incident.losses), (EndReason::Interrupted, Vec::new()));
}

/// Small, middling and extreme: sums and differences of counters overflow first.
fn count<T: Copy + std::fmt::Debug + 'static>(values: [T; 4]) -> BoxedStrategy<T> {
    prop::sample::select(values.to_vec()).boxed()
}

fn long() -> BoxedStrategy<u64> {
    prop_oneof![count([0, 1, 1_000_000_000, u64::MAX]), any::<u64>(), 0_u64..10_000_000_000].boxed()
}

fn word() -> BoxedStrategy<u32> {
    prop_oneof![count([0, 1, u32::MAX - 1, u32::MAX]), any::<u32>(), 0_u32..1_000].boxed()
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
    (
        (99..103_i32, ".{0,15}", state(), long(), long()),
        (reading(sched), reading(syscall), reading(".{0,8}"), reading(stack)),
    )
        .prop_map(|((tid, comm, state, utime_ticks, stime_ticks), rest)| {
            let (sched, syscall, wchan, kernel_stack) = rest;
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
    (address(), 1..4_u32, word(), word(), proptest::option::of(word()), holder)
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
    let state = (
        (word(), word(), word(), word(), word(), word()),
        (any::<bool>(), word()),
        vec((prop::sample::select(vec![13_u8, 22, 26, 27]), word()), 0..4),
        vec((".{0,8}", any::<i32>()), 0..3),
        vec((prop::sample::select(vec![1, 24, i32::MAX]), word()), 0..3),
    );
    let state = state.prop_map(|(heads, (sqpoll, overflow), armed, pending, failed)| {
        let (sq_entries, sq_head, sq_tail, cq_entries, cq_head, cq_tail) = heads;
        RingState {
            sq_entries,
            sq_head,
            sq_tail,
            cq_entries,
            cq_head,
            cq_tail,
            sqpoll,
            overflow,
            armed,
            pending,
            failed,
        }
    });
    (3..6_i32, reading(state)).prop_map(|(fd, state)| RingRaw { fd, state }).boxed()
}

fn sockets() -> BoxedStrategy<SocketsRaw> {
    let served = (
        any::<u16>(),
        (word(), word(), word(), word(), word()),
        (long(), long(), long(), long(), long()),
    )
        .prop_map(|(port, words, longs)| ServedRaw {
            port,
            accepted_open: words.0,
            queued: words.1,
            close_wait: words.2,
            syn_recv: words.3,
            unread_sockets: words.4,
            unread_bytes: longs.0,
            unsent_bytes: longs.1,
            fingerprint: longs.2,
            accepted_seen: longs.3,
            closed_seen: longs.4,
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
            fault: None,
        })
        .boxed()
}

/// Any sample there can be, likely or not.
fn sample() -> BoxedStrategy<Sample> {
    let maybe = || proptest::option::of(long());
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
    let fds = (long(), maybe(), maybe(), any::<bool>()).prop_map(
        |(open, limit_soft, limit_hard, from_st_size)| FdsRaw {
            open,
            limit_soft,
            limit_hard,
            from_st_size,
        },
    );
    let tcp =
        (maybe(), maybe(), maybe(), maybe()).prop_map(|(overflows, drops, passive, active)| {
            TcpRaw {
                listen_overflows: overflows,
                listen_drops: drops,
                passive_opens: passive,
                active_opens: active,
                out_rsts: None,
                retrans_segs: None,
            }
        });
    let cgroup = (proptest::option::of(any::<bool>()), maybe())
        .prop_map(|(frozen, nr)| CgroupRaw { frozen, nr_throttled: nr, throttled_usec: nr });
    (
        (long(), long(), long()),
        (probe(process), probe(vec(thread(), 0..4)), probe(fds), probe(vec(listener(), 0..3))),
        (probe(sockets()), probe(vec(ring(), 0..3)), probe(tcp), probe(page()), probe(cgroup)),
    )
        .prop_map(|((seq, due_ns, late_ns), first, second)| Sample {
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
            cgroup: second.4,
        })
        .boxed()
}

fn frame() -> BoxedStrategy<Frame> {
    let profile =
        (long(), long(), any::<u32>(), ".{0,40}").prop_map(|(begin_ns, end_ns, hz, folded)| {
            Frame::Profile(ProfileWindow { begin_ns, end_ns, hz, folded })
        });
    prop_oneof![
        9 => sample().prop_map(|sample| Frame::Sample(Box::new(sample))),
        1 => profile,
    ]
    .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_written_is_read(frames in vec(frame(), 0..8), ended: bool) {
        let mut frames = frames;
        if ended {
            frames.push(Frame::End(EndReason::Stalled));
        }
        let (_, found, loss) = read(&bytes_of(header(), &frames)).unwrap();
        prop_assert_eq!(found, frames);
        prop_assert_eq!(loss.is_none(), ended);
    }

    /// Counters of a recording may hold anything: judging them must not overflow.
    #[test]
    fn whatever_is_read_can_be_judged(frames in vec(frame(), 0..20)) {
        let incident = replay::read(&bytes_of(header(), &frames)[..]).unwrap();
        let samples = frames.iter().filter(|frame| matches!(frame, Frame::Sample(_))).count();
        prop_assert_eq!(incident.models.len(), samples);
    }

    #[test]
    fn noise_is_refused(bytes in vec(any::<u8>(), 0..400)) {
        prop_assert!(read(&bytes).is_err());
    }

    /// A frame with the right checksum may still hold anything.
    #[test]
    fn a_sealed_frame_of_noise_gives_no_panic(payload in vec(any::<u8>(), 0..400), variant in 0_u8..5) {
        let mut bytes = bytes_of(header(), &[]);
        let payload = [&[variant][..], &payload].concat();
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
        bytes.extend_from_slice(&payload);
        let (_, frames, loss) = read(&bytes).unwrap();
        prop_assert!(frames.len() <= 1);
        prop_assert!(loss.is_some() || matches!(frames[..], [Frame::End(_)]));
    }
}
