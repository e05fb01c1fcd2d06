//! Small windows of runs that were judged right, as data for tests: what a watcher sampled from a
//! little before the fault until the cause was named.
#![expect(clippy::disallowed_methods, reason = "this is where windows are cut and kept")]

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use super::catalogue::{self, Expected, Scenario};
use super::record::{Outcome, RunRecord, Way, WayRecord};
use crate::diagnose::verdict::Cause;
use crate::watch::event::EndReason;
use crate::watch::recording::{Frame, Header, Reader, RecordingError, Writer};

/// File of the labels.
pub const LABELS: &str = "labels.json";
/// File of a finished run, in its folder.
const FINISHED: &str = "run.json";
/// What is kept before the fault, and after the cause was named.
const BEFORE_NS: u64 = 2_000_000_000;
const AFTER_NS: u64 = 500_000_000;
/// What is kept of a healthy run, in which nothing marks an instant.
const HEALTHY_NS: u64 = 4_000_000_000;
/// Healthy scenarios of which a window is kept: those that look most like a stall.
const TWINS: [&str; 6] = [
    "twin-accept-paced",
    "twin-bursts",
    "twin-kafka-copes",
    "twin-long-requests-together",
    "twin-pauses",
    "twin-redeploy",
];

/// What one window is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Its file, beside the labels.
    pub file: String,
    /// Scenario of the lab.
    pub scenario: String,
    /// When the watcher came.
    pub way: Way,
    /// Id of the cause, or `healthy`.
    pub expected: String,
    /// When the fault took hold, by the process that made it, `CLOCK_MONOTONIC` ns.
    pub begin_ns: Option<u64>,
    /// `uname -sr` and the number of CPUs where it was recorded.
    pub recorded_on: String,
    /// Version of stallscope that recorded it.
    pub version: String,
}

/// Keeps one window of each cause, watched in both ways, and of some healthy twins; takes the
/// finished runs of a matrix in `from`, and gives back what no right run was found of.
///
/// # Errors
/// When a window or the labels cannot be written.
pub fn keep(from: &Path, into: &Path) -> anyhow::Result<Vec<String>> {
    std::fs::create_dir_all(into).with_context(|| format!("cannot make {}", into.display()))?;
    let (mut labels, mut missing) = (Vec::new(), Vec::new());
    for (what, scenarios) in wanted() {
        let run = scenarios.iter().find_map(|scenario| right_run(from, scenario));
        let Some((folder, record)) = run else {
            missing.push(what);
            continue;
        };
        for way in &record.ways {
            let label = window(&folder, &record, way, into)
                .with_context(|| format!("cannot keep a window of {}", folder.display()))?;
            labels.push(label);
        }
    }
    let text = serde_json::to_string_pretty(&labels)? + "\n";
    let path = into.join(LABELS);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(missing)
}

/// The scenarios of which one window each is wanted.
fn wanted() -> Vec<(String, Vec<&'static Scenario>)> {
    let of =
        |expected: Expected| catalogue::all().filter(move |scenario| scenario.expected == expected);
    let stalls = Cause::STALLS
        .into_iter()
        .map(|cause| (cause.id().to_owned(), of(Expected::Stall(cause)).collect()));
    let twins = of(Expected::Healthy).filter(|scenario| TWINS.contains(&scenario.name));
    stalls.chain(twins.map(|twin| (twin.name.to_owned(), vec![twin]))).collect()
}

/// The first finished run of a scenario that was right in both ways.
fn right_run(from: &Path, scenario: &Scenario) -> Option<(PathBuf, RunRecord)> {
    let folders = std::fs::read_dir(from.join(scenario.name)).ok()?;
    let mut folders: Vec<PathBuf> = folders.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    folders.into_iter().find_map(|folder| {
        let record: RunRecord =
            serde_json::from_slice(&std::fs::read(folder.join(FINISHED)).ok()?).ok()?;
        let right = record.ways.len() == Way::ALL.len()
            && record.ways.iter().all(|way| way.outcome == Outcome::Right);
        right.then_some((folder, record))
    })
}

fn window(
    folder: &Path,
    record: &RunRecord,
    way: &WayRecord,
    into: &Path,
) -> anyhow::Result<Label> {
    let recording = File::open(folder.join(format!("{}.stallrec", way.way.id())))?;
    let begin_ns = record.truth.as_ref().map(|truth| truth.begin_ns);
    let span = Span { begin_ns, named_after_ns: way.delay_ms.map(|ms| (ms * 1e6) as u64) };
    let file = format!("{}-{}.gz", record.scenario, way.way.id());
    let out = GzEncoder::new(File::create(into.join(&file))?, Compression::best());
    let header = cut(BufReader::new(recording), span, &record.scenario, out)?;
    Ok(Label {
        file,
        scenario: record.scenario.clone(),
        way: way.way,
        expected: record.expected.clone(),
        begin_ns,
        recorded_on: format!("{}, {} CPUs", header.environment.kernel, header.environment.cpus),
        version: header.environment.version,
    })
}

/// Which part of a recording is kept.
#[derive(Debug, Clone, Copy)]
struct Span {
    /// When the fault took hold, ns.
    begin_ns: Option<u64>,
    /// How long after that, or after the first sample if that is later, the cause was named, ns.
    named_after_ns: Option<u64>,
}

impl Span {
    /// First and last instant, for a recording that begins at `first_ns`.
    fn bounds(self, first_ns: u64) -> (u64, u64) {
        match (self.begin_ns, self.named_after_ns) {
            (Some(begin_ns), Some(after_ns)) => {
                let named_ns = begin_ns.max(first_ns).saturating_add(after_ns);
                (begin_ns.saturating_sub(BEFORE_NS), named_ns.saturating_add(AFTER_NS))
            }
            _ => (first_ns, first_ns.saturating_add(HEALTHY_NS)),
        }
    }
}

/// Copies the part; where the program lay and what it was called with stays behind.
fn cut(
    input: impl Read,
    span: Span,
    scenario: &str,
    out: impl Write,
) -> Result<Header, RecordingError> {
    let mut reader = Reader::open(input)?;
    let mut header = reader.header.clone();
    header.target.cmdline = format!("stallscope lab-victim {scenario}");
    header.target.exe = None;
    let mut writer = Writer::begin(out, header.clone())?;
    let mut bounds = None;
    for frame in &mut reader {
        let Frame::Sample(sample) = &frame else { continue };
        let at_ns = sample.process.end_ns;
        let (from_ns, to_ns) = *bounds.get_or_insert_with(|| span.bounds(at_ns));
        if (from_ns..=to_ns).contains(&at_ns) {
            writer.frame(&frame)?;
        }
    }
    writer.frame(&Frame::End(EndReason::Interrupted))?;
    writer.flush()?;
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_lies_around_the_fault_and_its_name() {
        const S: u64 = 1_000_000_000;
        let span = |begin_ns, named_after_ns| Span { begin_ns, named_after_ns };
        let cases = [
            // From before: the fault at 10 s, named half a second later.
            (span(Some(10 * S), Some(S / 2)), 5 * S, (8 * S, 11 * S)),
            // From after: the watch begins at 15 s.
            (span(Some(10 * S), Some(S / 2)), 15 * S, (8 * S, 16 * S)),
            (span(None, None), 5 * S, (5 * S, 9 * S)),
        ];
        for (span, first_ns, expected) in cases {
            assert_eq!(span.bounds(first_ns), expected, "{span:?}");
        }
    }

    #[test]
    fn each_cause_and_some_twins_are_wanted() {
        let wanted = wanted();
        for (what, scenarios) in &wanted {
            assert!(!scenarios.is_empty(), "no scenario of {what}");
        }
        assert_eq!(wanted.len(), Cause::STALLS.len() + TWINS.len());
    }
}
