//! All runs of a study: in turns, each kept as soon as it is over, so that a study that was broken
//! off goes on where it was.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::fs::{FlockOperation, flock};

use super::order::{Kept, Turn, kept, left, time_left};
use super::plan::{Plan, labels};
use super::record::RunRecord;
use super::run::{self, Shared};

/// The file of the runs that are over, one a line.
pub const RUNS: &str = "runs.jsonl";
/// Longest such file that is read.
const RUNS_BYTES_MAX: u64 = 256 << 20;
/// A cell that has failed so often in a row is not tried again until the study is
/// gone on with.
const FAILURES_MAX: usize = 2;

/// How far it is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// Runs that are over.
    pub done: u64,
    /// All runs.
    pub of: u64,
    /// What comes next; `None` at the end.
    pub next: Option<&'a str>,
    /// What has just come to an end, if anything has: label, run.
    pub last: Option<(&'a str, &'a RunRecord)>,
    /// About how long the rest takes.
    pub left: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Study {
    /// Every run there is, also of earlier times.
    pub records: Vec<RunRecord>,
    /// What is to be known about them, one sentence each.
    pub notes: Vec<String>,
}

/// Refuses limits of open files that no process here can be given.
///
/// # Errors
/// A sentence that says which.
pub fn check_fd_limits(plan: &Plan) -> Result<(), String> {
    let mut limits: Vec<u64> = plan.cells.iter().map(|cell| cell.fd_limit).collect();
    limits.sort_unstable();
    limits.dedup();
    for limit in limits {
        if !super::stage::can_have_fds(limit) {
            return Err(format!(
                "no process here can have {limit} open files: raise the hard limit (ulimit -Hn), or name \
                 another --fd-limit"
            ));
        }
    }
    Ok(())
}

/// Runs what is left of the plan, in `out`.
///
/// # Errors
/// When there are runs already that are not to be gone on with, or of another plan; when a run cannot
/// be kept.
pub fn run(
    plan: &Plan,
    out: &Path,
    resume: bool,
    stop: &AtomicBool,
    mut show: impl FnMut(&Progress<'_>),
) -> anyhow::Result<Study> {
    let hash = plan.hash();
    let (mut file, mut study) = open(out, &hash, resume)?;
    let labels = labels(&plan.cells);
    let turns = left(plan, &study.records);
    let of = plan.runs();
    let shared = Shared { plan, hash: &hash, out, stop };
    let mut took = Vec::new();
    let mut failures = vec![0_usize; plan.cells.len()];
    let mut last: Option<(Turn, RunRecord)> = None;
    for (place, turn) in turns.iter().enumerate() {
        let rest = turns.len() - place;
        show(&Progress {
            done: of - rest as u64,
            of,
            next: Some(&labels[turn.cell]),
            last: last.as_ref().map(|(turn, record)| (labels[turn.cell].as_str(), record)),
            left: time_left(plan, rest, &took),
        });
        last = None;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if failures[turn.cell] >= FAILURES_MAX {
            continue;
        }
        let record = run::run(&shared, *turn);
        if stop.load(Ordering::Relaxed) {
            // It was broken off, and is no result.
            break;
        }
        keep(&mut file, &record).with_context(|| format!("cannot write {}", out.display()))?;
        took.push(Duration::from_secs_f64(record.took_s));
        failures[turn.cell] = if record.is_measured() { 0 } else { failures[turn.cell] + 1 };
        let same = |other: &RunRecord| (&other.cell, other.round) == (&record.cell, record.round);
        study.records.retain(|other| !same(other));
        study.records.push(record.clone());
        last = Some((*turn, record));
    }
    show(&Progress {
        done: study.records.len() as u64,
        of,
        next: None,
        last: last.as_ref().map(|(turn, record)| (labels[turn.cell].as_str(), record)),
        left: Duration::ZERO,
    });
    for (label, failures) in labels.iter().zip(failures) {
        if failures >= FAILURES_MAX {
            study.notes.push(format!("{label}: given up after {failures} failures"));
        }
    }
    Ok(study)
}

/// The file of the runs, ready for the next one, and what it holds.
fn open(out: &Path, hash: &str, resume: bool) -> anyhow::Result<(File, Study)> {
    let path = out.join(RUNS);
    let shown = path.display();
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .append(true)
        .create(true)
        .open(&path)
        .with_context(|| format!("cannot open {shown}"))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("another study is being written to {shown}");
    }
    let bytes = file.metadata().with_context(|| format!("cannot read {shown}"))?.len();
    ensure!(bytes <= RUNS_BYTES_MAX, "{shown} is too long to be a file of runs");
    let mut content = Vec::new();
    file.read_to_end(&mut content).with_context(|| format!("cannot read {shown}"))?;
    let text = String::from_utf8_lossy(&content);
    let Kept { records, foreign, broken, is_torn } = kept(&text, hash);
    let out = out.display();
    if !text.is_empty() && !resume {
        bail!(
            "there are runs in {out} already: go on with them by --resume, or name another --out"
        );
    }
    if foreign > 0 {
        bail!(
            "the runs in {out} are of another study (other cells, times, or another build of \
             stallscope): name another --out"
        );
    }
    let mut notes = Vec::new();
    if is_torn {
        let end = content.iter().rposition(|byte| *byte == b'\n');
        let whole = end.map_or(0, |end| end as u64 + 1);
        file.set_len(whole).with_context(|| format!("cannot write {shown}"))?;
        file.seek(SeekFrom::End(0)).with_context(|| format!("cannot write {shown}"))?;
        notes.push(String::from("the last line of runs.jsonl was torn: that run is done again"));
    }
    if broken > 0 {
        notes.push(format!("{broken} lines of runs.jsonl cannot be read and are left out"));
    }
    if !records.is_empty() {
        notes.push(format!("{} runs were there already", records.len()));
    }
    Ok((file, Study { records, notes }))
}

/// Adds a run to the file, in one write.
fn keep(file: &mut File, record: &RunRecord) -> anyhow::Result<()> {
    let line = format!("{}\n", serde_json::to_string(record)?);
    file.write_all(line.as_bytes())?;
    file.sync_data()?;
    Ok(())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests tear files")]
mod tests {
    use super::*;
    use crate::lab::bench::record::tests::measured;
    use crate::lab::bench::summary::tests::plan;

    #[test]
    fn runs_are_kept_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let hash = plan(1, 1).hash();
        let record = RunRecord { plan: hash.clone(), ..measured("a", 0, 1.0) };
        {
            let (mut file, study) = open(folder.path(), &hash, false).unwrap();
            assert!(study.records.is_empty() && study.notes.is_empty());
            keep(&mut file, &record).unwrap();
            let other = open(folder.path(), &hash, true).unwrap_err();
            assert!(other.to_string().contains("another study is being written"), "{other}");
        }
        let refused = open(folder.path(), &hash, false).unwrap_err();
        assert!(refused.to_string().contains("--resume"), "{refused}");
        let refused = open(folder.path(), "other", true).unwrap_err();
        assert!(refused.to_string().contains("of another study"), "{refused}");

        let path = folder.path().join(RUNS);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}{}", &whole[..30])).unwrap();
        {
            let (mut file, study) = open(folder.path(), &hash, true).unwrap();
            assert_eq!(study.records, std::slice::from_ref(&record));
            assert!(study.notes[0].contains("torn"), "{:?}", study.notes);
            keep(&mut file, &RunRecord { round: 1, ..record.clone() }).unwrap();
        }
        let (_file, study) = open(folder.path(), &hash, true).unwrap();
        assert_eq!((study.records.len(), study.notes.len()), (2, 1), "{:?}", study.notes);
    }

    #[test]
    fn what_is_over_is_not_run_again() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(1, 1);
        let record = RunRecord { plan: plan.hash(), ..measured(&plan.cells[0].key(), 0, 1.0) };
        let (mut file, _) = open(folder.path(), &plan.hash(), false).unwrap();
        keep(&mut file, &record).unwrap();
        drop(file);
        let stop = AtomicBool::new(false);
        let mut shown = Vec::new();
        let study = run(&plan, folder.path(), true, &stop, |progress| {
            shown.push((progress.done, progress.of, progress.next.is_some()));
        });
        assert_eq!(study.unwrap().records, [record]);
        assert_eq!(shown, [(1, 1, false)]);
    }

    #[test]
    fn limits_that_cannot_be_had_are_refused() {
        let mut plan = plan(1, 1);
        assert_eq!(check_fd_limits(&plan), Ok(()));
        plan.cells[0].fd_limit = u64::MAX;
        assert!(check_fd_limits(&plan).unwrap_err().contains("ulimit -Hn"));
    }
}
