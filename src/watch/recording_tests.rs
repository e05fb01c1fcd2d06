//! Recordings written, cut, damaged and made up: what comes back is what was written, or less with
//! a word about it, and never something else.

use proptest::collection::vec;
use proptest::prelude::*;
use stallscope_probes::Reading;
use stallscope_probes::sample::FdLimitRaw;

use super::super::event::Event;
use super::super::replay;
use super::super::world::{Kind, Phase, World};
use super::any_sample::{long, sample};
use super::old::{FrameV4, WindowV4};
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

/// The same as version 4 wrote it: no marks.
fn bytes_of_v4(header: Header, frames: &[FrameV4]) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], &4_u16.to_le_bytes()].concat();
    let header = FrameV4::Header(Box::new(header));
    for frame in std::iter::once(&header).chain(frames) {
        let payload = postcard::to_stdvec(frame).unwrap();
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
        bytes.extend_from_slice(&payload);
    }
    bytes
}

type Read = (Header, Vec<Frame>, Vec<String>);

fn read(bytes: &[u8]) -> Result<Read, RecordingError> {
    let mut reader = Reader::open(bytes)?;
    let frames = reader.by_ref().collect();
    let losses = reader.losses();
    Ok((reader.header, frames, losses))
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
        let (_, found, losses) = read.unwrap();
        let complete = ends[1..].iter().filter(|end| **end <= cut).count();
        assert_eq!(found, frames[..complete], "{cut}");
        let [loss] = &losses[..] else { panic!("cut at {cut}: {losses:?}") };
        assert!(loss.contains("the watcher was killed"), "{cut}: {loss}");
    }
    assert_eq!(read(&whole).unwrap(), (header(), frames, Vec::new()));
}

/// Whether `part` is `whole` with some left out.
fn is_part(part: &[Frame], whole: &[Frame]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|frame| rest.any(|other| other == frame))
}

#[test]
fn a_damaged_bit_costs_one_frame_and_never_passes_for_data() {
    let frames = small();
    let whole = bytes_of(header(), &frames);
    let ends = ends(&frames);
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            let Ok((found_header, found, losses)) = read(&bytes) else {
                assert!(at < ends[0], "byte {at}, bit {bit}: nothing is read");
                continue;
            };
            assert!(at >= ends[0], "byte {at}, bit {bit}: a damaged header was read");
            assert_eq!(found_header, header(), "byte {at}, bit {bit}");
            assert_eq!(found.len(), frames.len() - 1, "byte {at}, bit {bit}: {losses:?}");
            assert!(is_part(&found, &frames), "byte {at}, bit {bit}");
            let words = losses.first().unwrap_or_else(|| panic!("byte {at}: no word about it"));
            assert!(words.contains("damaged") || words.contains("killed"), "{words}");
        }
    }
}

/// One mark in `bytes` after another, the header's first.
fn marks(bytes: &[u8]) -> Vec<usize> {
    let at = |at: &usize| bytes[*at..].starts_with(&MARK);
    (0..bytes.len()).filter(at).collect()
}

#[test]
fn what_is_lost_is_said_with_its_place() {
    let frames = small();
    let whole = bytes_of(header(), &frames);
    let marks = marks(&whole);
    assert_eq!(marks.len(), frames.len() + 1);
    let second = marks[3] - marks[2];
    let both = marks[4] - marks[2];
    // Offset from the mark of the second sample, the new byte, what is said, what is left out.
    let cases: [(usize, u8, String, &[usize]); 4] = [
        (
            12,
            0xaa,
            format!(
                "a frame's checksum does not match; {second} bytes between 22:13:20.999 and 22:13:21.099 are passed over, with at most 1 sample"
            ),
            &[1],
        ),
        (4, 0xaa, format!("a frame's checksum does not match; {second} bytes between"), &[1]),
        (7, 0xaa, String::from("a frame claims 2852127"), &[1]),
        (
            0,
            0xaa,
            format!("what should be a frame does not begin like one; {second} bytes between"),
            &[1],
        ),
    ];
    let without = |left_out: &[usize]| -> Vec<Frame> {
        let kept = frames.iter().enumerate().filter(|(at, _)| !left_out.contains(at));
        kept.map(|(_, frame)| frame.clone()).collect()
    };
    for (offset, byte, words, left_out) in cases {
        let mut bytes = whole.clone();
        bytes[marks[2] + offset] = byte;
        let (_, found, losses) = read(&bytes).unwrap();
        assert_eq!(found, without(left_out), "{offset}");
        let [loss] = &losses[..] else { panic!("{losses:?}") };
        assert!(loss.contains(&words), "{loss}");
    }
    // A piece cut out of the midst of two frames, and garbage put in its place.
    let garbage = [&MARK[..], b"no frame", &MARK, &[0; 40]].concat();
    let mut bytes = whole.clone();
    bytes.splice(marks[2] + 100..marks[3] + 100, garbage.iter().copied());
    let (_, found, losses) = read(&bytes).unwrap();
    assert_eq!(found, without(&[1, 2]));
    let [loss] = &losses[..] else { panic!("{losses:?}") };
    let words =
        format!("{} bytes after 22:13:20.999 are passed over", both - second + garbage.len());
    assert!(loss.contains(&words), "{loss} / {words}");
}

#[test]
fn many_holes_are_counted() {
    let sample = small().remove(0);
    let frames = vec![sample; 2 * HOLES_MAX + 5];
    let mut bytes = bytes_of(header(), &frames);
    for mark in marks(&bytes).into_iter().skip(2).step_by(2) {
        bytes[mark + 20] ^= 1;
    }
    let (_, found, losses) = read(&bytes).unwrap();
    assert_eq!(found.len(), HOLES_MAX + 3);
    assert_eq!(losses.len(), HOLES_MAX + 2, "{losses:?}");
    assert!(losses[HOLES_MAX].contains("in 2 more places"), "{losses:?}");
    assert!(losses[HOLES_MAX + 1].contains("has no end"), "{losses:?}");
}

/// Frames whose lengths lie, so that each costs a look at all the rest.
#[test]
fn a_file_made_to_keep_a_reader_busy_is_given_up() {
    let lie = [&MARK[..], &(2_u32 << 20).to_le_bytes(), &[0; 4]].concat();
    let bytes = [bytes_of(header(), &[]), lie.repeat((4 << 20) / lie.len())].concat();
    let (_, found, losses) = read(&bytes).unwrap();
    assert_eq!(found, []);
    assert!(losses[0].contains("the search for its next frame was given up"), "{losses:?}");
}

#[test]
fn version_4_is_read_as_far_as_its_lengths_lead() {
    let samples: Vec<Frame> = small().into_iter().take(3).collect();
    let mut old: Vec<FrameV4> = samples
        .iter()
        .map(|frame| match frame {
            Frame::Sample(sample) => FrameV4::Sample(sample.clone()),
            _ => panic!("{frame:?}"),
        })
        .collect();
    let folded = String::from("main;run 3\n");
    let window = WindowV4 { begin_ns: 1, end_ns: 2, hz: 99, folded: folded.clone() };
    old.push(FrameV4::Profile(window));
    old.push(FrameV4::End(EndReason::TimeUp));
    let whole = bytes_of_v4(header(), &old);
    let (kind, maker, notes) = (stacks::Kind::Cpu, Maker::Itself, Vec::new());
    let profile = ProfileWindow { begin_ns: 1, end_ns: 2, kind, maker, hz: 99, folded, notes };
    let mut frames = samples;
    frames.extend([Frame::Profile(profile), Frame::End(EndReason::TimeUp)]);
    assert_eq!(read(&whole).unwrap(), (header(), frames.clone(), Vec::new()));

    // A damaged payload costs its frame; a damaged length what follows, as nothing marks a frame.
    let first = bytes_of_v4(header(), &old[..1]).len();
    let mut bytes = whole.clone();
    bytes[first + 8 + 20] ^= 1;
    let (_, found, losses) = read(&bytes).unwrap();
    frames.remove(1);
    assert_eq!(found, frames);
    assert!(losses[0].contains("at most 1 sample"), "{losses:?}");
    let mut bytes = whole;
    bytes[first] ^= 1;
    let (_, found, losses) = read(&bytes).unwrap();
    assert_eq!(found, frames[..1]);
    assert!(losses[0].contains("no whole frame follows"), "{losses:?}");
}

/// What is missing is a gap in time, as of a watcher that got no CPU: no stall is made of it.
#[test]
fn a_hole_is_no_stall() {
    let mut world = World::new(Kind { ring: true, page: true, rights: true });
    let frames: Vec<Frame> =
        (0..400).map(|_| Frame::Sample(Box::new(world.tick(Phase::Busy)))).collect();
    let whole = bytes_of(header(), &frames);
    let marks = marks(&whole);
    for (from, to) in [(200, 201), (200, 210), (150, 300), (1, 399)] {
        let mut bytes = whole.clone();
        for byte in &mut bytes[marks[from + 1] + 2..marks[to + 1]] {
            *byte = !*byte;
        }
        let incident = replay::read(&bytes[..]).unwrap();
        assert_eq!(incident.models.len(), 400 - (to - from), "{from} to {to}");
        let onsets: Vec<&Event> =
            incident.events.iter().filter(|event| matches!(event, Event::Onset(_))).collect();
        assert!(onsets.is_empty(), "{from} to {to}: {onsets:?}");
        assert_eq!(incident.losses.len(), 2, "{:?}", incident.losses);
    }
}

#[test]
fn what_is_no_recording_is_refused_in_words() {
    // As version 1 began: its frames do not matter, the version stands before them.
    let mut older = bytes_of(header(), &[]);
    older[MAGIC.len()] = 1;
    let mut newer = bytes_of(header(), &[]);
    newer[MAGIC.len()] = 6;
    let cases: [(&[u8], &str); 7] = [
        (b"", "this is no stallscope recording"),
        (b"STALL", "this is no stallscope recording"),
        (b"\x7fELF\x02\x01\x01\0\0\0\0\0", "this is no stallscope recording"),
        (&older, "format version 1; this program reads versions 4 to 5"),
        (&newer, "format version 6; this program reads versions 4 to 5"),
        (b"STALLREC\x05\0", "no readable header"),
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
        bytes.extend_from_slice(&MARK);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&[0; 100]);
        let (_, frames, losses) = read(&bytes).unwrap();
        assert_eq!(frames, []);
        assert!(losses[0].contains(words), "{losses:?}");
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
    assert_eq!(reader.losses(), [""; 0]);
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

fn frame_v4() -> impl Strategy<Value = FrameV4> {
    let window = (long(), long(), any::<u32>(), ".{0,40}")
        .prop_map(|(begin_ns, end_ns, hz, folded)| WindowV4 { begin_ns, end_ns, hz, folded });
    prop_oneof![
        3 => sample().prop_map(|sample| FrameV4::Sample(Box::new(sample))),
        1 => window.prop_map(FrameV4::Profile),
    ]
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
        let (_, found, losses) = read(&bytes_of(header(), &frames)).unwrap();
        prop_assert_eq!(found, frames);
        prop_assert_eq!(losses.is_empty(), ended);
    }

    #[test]
    fn whatever_version_4_wrote_is_read(frames in vec(frame_v4(), 0..8)) {
        let (_, found, losses) = read(&bytes_of_v4(header(), &frames)).unwrap();
        let expected: Vec<Frame> = frames.into_iter().map(Frame::from).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(losses.len(), 1);
    }

    /// Damage of any extent: what is read was written, and what is not is told.
    #[test]
    fn what_is_damaged_is_left_out_and_said(
        frames in vec(frame(), 1..6), at: prop::sample::Index, garbage in vec(any::<u8>(), 1..60), cut in 0_usize..60,
    ) {
        let mut bytes = bytes_of(header(), &frames);
        let begin = bytes_of(header(), &[]).len();
        let from = begin + at.index(bytes.len() - begin);
        let to = (from + cut).min(bytes.len());
        let whole = bytes.clone();
        bytes.splice(from..to, garbage);
        let (_, found, losses) = read(&bytes).unwrap();
        prop_assert!(is_part(&found, &frames));
        prop_assert!(!losses.is_empty());
        if bytes != whole {
            // What lies before the damage is there, and what follows it but the frame that it hit.
            let ends = (0..=frames.len()).map(|count| bytes_of(header(), &frames[..count]).len());
            let after = frames.len() - ends.clone().filter(|end| *end < to.max(from + 1)).count();
            let before = ends.skip(1).filter(|end| *end <= from).count();
            prop_assert!(found.len() >= before + after, "{} of {before} and {after}", found.len());
        }
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
    fn a_sealed_frame_of_noise_gives_no_panic(payload in vec(any::<u8>(), 0..400), variant in 0_u8..7) {
        let mut bytes = bytes_of(header(), &[]);
        let payload = [&[variant][..], &payload].concat();
        bytes.extend_from_slice(&MARK);
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
        bytes.extend_from_slice(&payload);
        let (_, frames, losses) = read(&bytes).unwrap();
        prop_assert!(frames.len() <= 1);
        prop_assert!(!losses.is_empty() || matches!(frames[..], [Frame::End(_)]));
    }
}
