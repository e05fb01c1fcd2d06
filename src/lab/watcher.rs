//! A watcher of a run: `stallscope watch`, exactly as its users start it.
#![expect(
    clippy::disallowed_methods,
    reason = "this is where its lines are kept and its recording judged"
)]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ChildStdout;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value as Json;

use super::place::Room;
use super::process::{Process, Stdout};
use crate::diagnose::verdict::{Cause, Confidence, Verdict};
use crate::report;
use crate::watch::event::{Event, Incident};
use crate::watch::{json, replay};

/// A watcher that has printed nothing by then is not attached.
const ATTACH_MAX: Duration = Duration::from_secs(15);
/// Writing the end of a recording takes no longer.
const END_PATIENCE: Duration = Duration::from_secs(15);
/// Of a longer run the recording is kept short: so much of it, and what lay around each onset.
const KEPT: Duration = Duration::from_mins(10);
/// Lines of one watcher that are looked at: a run has a dozen.
const LINES_MAX: usize = 10_000;

/// What a watcher has said so far.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Causes of its verdicts on stalls, and how sure they were.
    pub(super) verdicts: Vec<(Cause, String)>,
    /// When the last of them came.
    pub(super) last: Option<Instant>,
    /// Onsets.
    pub(super) onsets: u32,
}

impl Heard {
    /// Whether the last verdict is this one, how surely, and since when.
    pub(super) fn names(&self, cause: Cause) -> Option<(bool, Duration)> {
        let (last, confidence) = self.verdicts.last()?;
        let certain = confidence == Confidence::Certain.id();
        (*last == cause).then(|| (certain, self.last.map_or(Duration::ZERO, |at| at.elapsed())))
    }

    /// Whether it has raised no alarm.
    pub(super) const fn is_silent(&self) -> bool {
        self.onsets == 0 && self.verdicts.is_empty()
    }

    fn line(&mut self, line: &Json) {
        let cause = || Cause::from_id(line["cause"].as_str()?);
        match line["type"].as_str() {
            Some("onset") => self.onsets += 1,
            Some("verdict") => {
                if let Some(cause) = cause().filter(|cause| cause.is_stall()) {
                    let confidence = line["confidence"].as_str().unwrap_or_default();
                    self.verdicts.push((cause, confidence.to_owned()));
                    self.last = Some(Instant::now());
                }
            }
            _ => {}
        }
    }
}

/// A running watcher.
#[derive(Debug)]
pub(super) struct Watcher {
    process: Process,
    lines: Receiver<Json>,
    /// What it has said so far.
    pub(super) heard: Heard,
    recording: PathBuf,
}

impl Watcher {
    /// Attaches to `pid`, and returns once it watches. Its files are named after `way`.
    ///
    /// # Errors
    /// When it cannot be started, or does not get to watch.
    pub(super) fn attach(
        room: &Room,
        out: &Path,
        way: &str,
        pid: i32,
        at_most: Duration,
    ) -> anyhow::Result<Self> {
        let recording = out.join(format!("{way}.stallrec"));
        let arguments = arguments(pid, at_most, &recording);
        let name = format!("watcher-{way}");
        let mut process = Process::start(room, out, &name, &arguments, Stdout::Piped)?;
        let kept = out.join(format!("{way}.jsonl"));
        let kept =
            File::create(&kept).with_context(|| format!("cannot write {}", kept.display()))?;
        let (sender, lines) = std::sync::mpsc::channel();
        let stdout = process.stdout()?;
        std::thread::spawn(move || listen(stdout, kept, &sender));
        let log = process.log.display().to_string();
        // The first line says who is watched; nothing is sampled before it.
        lines
            .recv_timeout(ATTACH_MAX)
            .with_context(|| format!("the watcher did not get to watch; see {log}"))?;
        Ok(Self { process, lines, heard: Heard::default(), recording })
    }

    /// Takes note of what it has said since.
    pub(super) fn hear(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            self.heard.line(&line);
        }
    }

    /// Why it has ended by itself, if it has: nobody asked it to.
    pub(super) fn failure(&mut self) -> Option<String> {
        let status = self.process.exit()?;
        Some(format!(
            "the {} ended ({status}); see {}",
            self.process.name,
            self.process.log.display()
        ))
    }

    /// Asks it to end, as Ctrl-C does.
    pub(super) fn ask_to_end(&self) {
        self.process.ask_to_end();
    }

    /// Ends it, and takes note of all it has said. Its recording is kept only where it raised an
    /// alarm.
    ///
    /// # Errors
    /// When it did not end in order.
    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        self.process.ask_to_end();
        let in_order = self.process.await_end(END_PATIENCE);
        anyhow::ensure!(in_order, "the {} did not end in order", self.process.name);
        self.hear();
        if self.heard.is_silent() {
            std::fs::remove_file(&self.recording).ok();
        }
        Ok(())
    }

    /// Waits for its end, and reads what it has recorded; leaves its verdict and the report beside
    /// the recording.
    ///
    /// # Errors
    /// When it did not end in order, or left no recording.
    pub(super) fn conclude(mut self) -> anyhow::Result<(Incident, Vec<String>)> {
        let in_order = self.process.await_end(END_PATIENCE);
        anyhow::ensure!(in_order, "the {} did not end in order", self.process.name);
        self.hear();
        let incident = replay::load(&self.recording)
            .with_context(|| format!("cannot read {}", self.recording.display()))?;
        let verdicts = verdicts(&incident);
        let lines: Vec<Json> =
            verdicts.iter().map(|verdict| json::verdict(verdict, incident.anchor)).collect();
        let write = |ending: &str, bytes: &[u8]| {
            let path = self.recording.with_extension(ending);
            std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
        };
        write("json", format!("{}\n", json::line(&Json::from(lines))).as_bytes())?;
        write("html", &report::html(&incident))?;
        let mut notes = Vec::new();
        let live: Vec<Cause> = self.heard.verdicts.iter().map(|(cause, _)| *cause).collect();
        let replayed: Vec<Cause> = verdicts.iter().map(|verdict| verdict.cause).collect();
        if live != replayed {
            notes.push(format!(
                "live it said {}, from its recording {}",
                names(&live),
                names(&replayed)
            ));
        }
        Ok((incident, notes))
    }
}

/// What it is started with: what a user would give it, and an end of its own should the runner be
/// killed. Without optimisation a tick costs ten times as much, and so may the watcher.
fn arguments(pid: i32, at_most: Duration, recording: &Path) -> Vec<String> {
    let mut arguments = vec![String::from("watch"), String::from("--headless")];
    let mut with = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    with("--pid", pid.to_string());
    with("--for", format!("{}ms", at_most.as_millis()));
    with("--record", recording.to_string_lossy().into_owned());
    if at_most > KEPT {
        with("--keep", format!("{}s", KEPT.as_secs()));
    }
    if cfg!(debug_assertions) {
        with("--budget", String::from("10%"));
    }
    arguments
}

/// Keeps the watcher's lines, and passes them on. The pipe is read to its end in any case: a full
/// one would hold up the watcher.
fn listen(stdout: ChildStdout, mut kept: File, sender: &Sender<Json>) {
    for (number, line) in BufReader::new(stdout).lines().map_while(Result::ok).enumerate() {
        writeln!(kept, "{line}").ok();
        if number < LINES_MAX
            && let Ok(line) = serde_json::from_str(&line)
        {
            sender.send(line).ok();
        }
    }
}

fn verdicts(incident: &Incident) -> Vec<&Verdict> {
    let events = incident.events.iter();
    let verdicts = events.filter_map(|event| match event {
        Event::Verdict(verdict) => Some(verdict),
        _ => None,
    });
    verdicts.filter(|verdict| verdict.cause.is_stall()).collect()
}

fn names(causes: &[Cause]) -> String {
    if causes.is_empty() {
        return String::from("nothing");
    }
    causes.iter().map(|cause| cause.id()).collect::<Vec<_>>().join(", ")
}
