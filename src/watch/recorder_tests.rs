//! Recordings that are kept short: readable at every instant, never shorter than asked, and with
//! the stalls that were in them.

use stallscope_probes::Reading;
use stallscope_probes::sample::{FdLimitRaw, Sample};

use super::super::config::Config;
use super::super::engine::Engine;
use super::super::event::{Anchor, Environment, Incident, Target};
use super::super::keep::AROUND_ONSET_NS;
use super::super::recording::{HEAD_BYTES, Reader};
use super::super::replay;
use super::super::world::{Kind, Phase, TICK_NS, World};
use super::*;
use crate::profile::stacks::{self, Maker};

const S: u64 = 1_000_000_000;
const KEEP: Duration = Duration::from_secs(10);

fn header() -> Header {
    let target = Target {
        pid: 100,
        comm: String::from("server"),
        cmdline: String::new(),
        exe: None,
        start_time_ticks: 7,
        foreign_netns: false,
        siblings: Vec::new(),
    };
    let environment = Environment {
        kernel: String::from("Linux"),
        cpus: 2,
        version: String::from("0.1.0"),
        interval_ms: 50,
        ticks_per_s: 100,
        fd_limits: Reading::Got(FdLimitRaw { soft: Some(64), hard: None }),
        limits: Vec::new(),
    };
    let anchor = Anchor { mono_ns: 0, real_ns: 1_700_000_000 * S };
    Header { target, environment, anchor, config: Config::default() }
}

/// A run of a made-up server, recorded.
struct Run {
    folder: tempfile::TempDir,
    recorder: Recorder,
    world: World,
    engine: Engine,
    last_ns: u64,
}

impl Run {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.stallrec");
        let recorder = Recorder::with_header(&path, header(), Some(Keep::new(KEEP))).unwrap();
        let world = World::new(Kind { ring: true, page: true, rights: true });
        Self { folder, recorder, world, engine: Engine::new(100, 100), last_ns: 0 }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("run.stallrec")
    }

    fn tick(&mut self, phase: Phase, more: &[Frame]) {
        let sample: Sample = self.world.tick(phase);
        self.last_ns = sample.process.end_ns;
        let step = self.engine.push(&sample);
        let mut frames = vec![Frame::Sample(Box::new(sample))];
        frames.extend_from_slice(more);
        self.recorder.append(self.last_ns, &frames, &step.events).unwrap();
    }

    fn run(&mut self, phase: Phase, ns: u64) {
        for _ in 0..ns / TICK_NS {
            self.tick(phase, &[]);
        }
    }

    /// Instants of the samples that are in the file now, ns, and what is said of it.
    fn read(&mut self) -> (Vec<u64>, Vec<String>) {
        let mut reader =
            Reader::open(io::BufReader::new(File::open(self.path()).unwrap())).unwrap();
        let at_ns = |frame| match frame {
            Frame::Sample(sample) => Some(sample.process.end_ns),
            _ => None,
        };
        let instants = reader.by_ref().filter_map(at_ns).collect();
        (instants, reader.losses())
    }

    fn replay(self) -> Incident {
        let path = self.path();
        self.recorder.end(EndReason::TimeUp).unwrap();
        assert!(!new_path(&path).exists(), "a copy is left behind");
        replay::load(&path).unwrap()
    }
}

/// What a watcher that is killed leaves is the file as it stands, at any tick.
#[test]
fn at_every_instant_the_last_stretch_is_there_and_not_much_more() {
    let mut run = Run::new();
    let keep_ns = KEEP.as_nanos() as u64;
    let (mut shortened, mut before) = (0, 0);
    for tick in 0..1_000_u64 {
        run.tick(Phase::Busy, &[]);
        if tick % 3 > 0 {
            continue;
        }
        let (instants, losses) = run.read();
        let Some((first_ns, last_ns)) = instants.first().zip(instants.last()) else { continue };
        assert!(losses.iter().all(|loss| loss.contains("killed")), "{tick}: {losses:?}");
        assert!(run.last_ns - last_ns < FLUSH_EVERY_NS + TICK_NS, "{tick}");
        let since_ns = run.last_ns - first_ns;
        let recorded_ns = tick * TICK_NS;
        assert!(since_ns >= keep_ns.min(recorded_ns), "{tick}: {since_ns}");
        // Half as much again, and a piece, and the time for the copy.
        assert!(since_ns <= keep_ns / 2 * 3 + 4 * S, "{tick}: {since_ns}");
        // Nothing is missing within.
        assert!(instants.windows(2).all(|pair| pair[1] - pair[0] == TICK_NS), "{tick}");
        shortened += u32::from(*first_ns > before && before > 0);
        before = *first_ns;
    }
    assert!(shortened >= 3, "{shortened}");
    let incident = run.replay();
    assert_eq!(incident.end, EndReason::TimeUp);
    let [dropped] = &incident.losses[..] else { panic!("{:?}", incident.losses) };
    assert!(dropped.contains("between 22:13:21.") && dropped.contains("--keep"), "{dropped}");
}

#[test]
fn stalls_stay_with_what_lay_around_them_and_are_found_again() {
    let mut run = Run::new();
    let window = ProfileWindow {
        begin_ns: 1,
        end_ns: 2,
        kind: stacks::Kind::OffCpu,
        maker: Maker::Watcher,
        hz: 99,
        folded: String::from("main;run 3\n"),
        notes: Vec::new(),
    };
    let mut onsets = Vec::new();
    for _ in 0..2 {
        run.run(Phase::Busy, 60 * S);
        onsets.push(run.last_ns);
        run.run(Phase::Yield, 5 * S);
        run.tick(Phase::Yield, &[Frame::Profile(window.clone())]);
        run.run(Phase::Busy, 100 * S);
    }
    let (instants, _) = run.read();
    for onset_ns in &onsets {
        // Before an onset lies what there was then: that much at least.
        let around = onset_ns - KEEP.as_nanos() as u64 + S..onset_ns + AROUND_ONSET_NS - S;
        let kept = instants.iter().filter(|at_ns| around.contains(at_ns)).count() as u64;
        assert_eq!(kept, (around.end - around.start) / TICK_NS, "{onset_ns}");
    }
    assert!(instants.len() as u64 * TICK_NS < 2 * (AROUND_ONSET_NS + 20 * S) + 20 * S);

    let incident = run.replay();
    let found: Vec<u64> = incident
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Onset(onset) => Some(onset.at_ns),
            _ => None,
        })
        .collect();
    assert_eq!(found.len(), onsets.len(), "{found:?}");
    for (found_ns, onset_ns) in found.iter().zip(&onsets) {
        assert!(found_ns.abs_diff(*onset_ns) < S, "{found_ns} and {onset_ns}");
    }
    assert_eq!(incident.profiles, [window.clone(), window]);
    // Before the first stall, between the two, and after the second.
    assert_eq!(incident.losses.len(), 3, "{:?}", incident.losses);
}

#[test]
fn a_copy_goes_on_over_many_ticks_and_catches_up() {
    let mut run = Run::new();
    // 400 kB a tick, from 4 s on: the copy has 1.6 MB a tick.
    let large = Frame::Profile(ProfileWindow {
        begin_ns: 1,
        end_ns: 2,
        kind: stacks::Kind::Cpu,
        maker: Maker::Itself,
        hz: 99,
        folded: "x".repeat(400_000),
        notes: Vec::new(),
    });
    let mut copying = 0;
    let mut most = 0;
    for tick in 0..500 {
        let more = if tick % 5 == 0 { std::slice::from_ref(&large) } else { &[] };
        run.tick(Phase::Busy, more);
        copying += u32::from(run.recorder.shortening.is_some());
        most = most.max(run.path().metadata().unwrap().len());
    }
    assert!(copying > 20, "{copying}");
    let bytes_per_s = 4 * (400_000 + HEAD_BYTES + 2_000);
    assert!(most < bytes_per_s * 20, "{most}");
    let (instants, losses) = run.read();
    assert!(instants.windows(2).all(|pair| pair[1] - pair[0] == TICK_NS));
    assert_eq!(losses.len(), 1, "{losses:?}");
}

#[test]
fn what_a_killed_watcher_left_beside_is_removed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let begin = |path: &Path| Recorder::with_header(path, header(), Some(Keep::new(KEEP)));
    for left in ["", "STALL", "STALLREC\x05\0"] {
        fs::write(new_path(&path), left).unwrap();
        begin(&path).unwrap();
        assert!(!new_path(&path).exists(), "{left}");
    }
    fs::write(new_path(&path), "somebody's notes").unwrap();
    fs::write(&path, "the last recording").unwrap();
    let error = begin(&path).unwrap_err().to_string();
    assert!(error.contains("run.new") && error.contains("move it away"), "{error}");
    assert_eq!(fs::read_to_string(new_path(&path)).unwrap(), "somebody's notes");
    assert_eq!(fs::read_to_string(&path).unwrap(), "the last recording");
    // A link, wherever it leads, is not followed.
    fs::remove_file(new_path(&path)).unwrap();
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), new_path(&path)).unwrap();
    assert!(matches!(begin(&path), Err(RecordingError::InTheWay(_))));
}

#[test]
fn a_link_to_the_recording_is_followed_and_the_copy_may_be_read_by_as_few() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("run"), folder.path().join("link"));
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let mut recorder = Recorder::with_header(&link, header(), Some(Keep::new(KEEP))).unwrap();
    let mut world = World::new(Kind { ring: false, page: false, rights: true });
    let sample = Frame::Sample(Box::new(world.tick(Phase::Idle)));
    // One sample a second; the file is replaced for the first time at the sixteenth.
    for second in 0..20 {
        recorder.append(second * S, std::slice::from_ref(&sample), &[]).unwrap();
        recorder.replaced().unwrap();
    }
    recorder.end(EndReason::TimeUp).unwrap();
    assert!(link.is_symlink());
    let incident = replay::load(&path).unwrap();
    assert!((1..20).contains(&incident.models.len()), "{}", incident.models.len());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_cannot_be_replaced_is_refused() {
    let null = Path::new("/dev/null");
    let error = Recorder::with_header(null, header(), Some(Keep::new(KEEP))).unwrap_err();
    assert!(error.to_string().contains("must be a plain file"), "{error}");
    Recorder::with_header(null, header(), None).unwrap();
}
