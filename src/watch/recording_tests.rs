//! Recordings written, cut, damaged and made up: what comes back is what was written, or less with
//! a word about it, and never something else.

use proptest::collection::vec;
use proptest::prelude::*;
use stallscope_probes::Reading;
use stallscope_probes::sample::FdLimitRaw;

use super::super::replay;
use super::super::world::{Kind, Phase, World};
use super::any_sample::{long, sample};
use super::*;
use crate::profile::stacks::{self, Maker};

fn header() -> Header {
    let mut config = Config::default();
    config.detect.accept_hold_ms = 2_000;
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
            fd_limits: Reading::Got(FdLimitRaw { soft: Some(64), hard: None }),
            limits: Vec::new(),
        },
        anchor: Anchor { mono_ns: 1, real_ns: 1_700_000_000_000_000_000 },
        config,
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

fn window(folded: String) -> ProfileWindow {
    ProfileWindow {
        begin_ns: 1,
        end_ns: 2,
        kind: stacks::Kind::OffCpu,
        maker: Maker::Watcher,
        hz: 99,
        folded,
        notes: vec![String::from("a note")],
    }
}

/// A small recording of the made-up server: three ticks, a profile, an end.
fn small() -> Vec<Frame> {
    let mut world = World::new(Kind { ring: true, page: true, rights: true });
    let mut frames: Vec<Frame> = [Phase::Busy, Phase::Busy, Phase::Blocked]
        .map(|phase| Frame::Sample(Box::new(world.tick(phase))))
        .into();
    let folded = String::from("main;run 3\n");
    frames.push(Frame::Profile(window(folded)));
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
    // As version 1 began: its frames do not matter, the version stands before them.
    let mut older = bytes_of(header(), &[]);
    older[MAGIC.len()] = 1;
    let mut newer = bytes_of(header(), &[]);
    newer[MAGIC.len()] = 5;
    let cases: [(&[u8], &str); 6] = [
        (b"", "this is no stallscope recording"),
        (b"STALL", "this is no stallscope recording"),
        (b"\x7fELF\x02\x01\x01\0\0\0\0\0", "this is no stallscope recording"),
        (&older, "format version 1; this program reads version 4"),
        (&newer, "format version 5; this program reads version 4"),
        (b"STALLREC\x04\0", "no readable header"),
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
        Frame::Profile(window(folded))
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

fn frame() -> BoxedStrategy<Frame> {
    let profile =
        (long(), long(), any::<u32>(), ".{0,40}").prop_map(|(begin_ns, end_ns, hz, folded)| {
            Frame::Profile(ProfileWindow { begin_ns, end_ns, hz, ..window(folded) })
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
