//! `file-table-full`: the system's table of open files is full, so no connection can be accepted.
//!
//! accept(2) and open(2) fail with ENFILE once `fs.file-max` files are open on the whole system,
//! however few of them are the target's; who has `CAP_SYS_ADMIN` may go beyond
//! (`alloc_empty_file`, `fs/file_table.c`). On io_uring the completions carry -23.

use stallscope_probes::sample::FileTableRaw;
use stallscope_probes::{Absence, Reading};

use super::case::{Case, number};
use super::fd_exhausted::{self, Errno};
use super::thresholds::Thresholds;
use super::verdict::{Confidence, Evidence};
use super::{Account, Finding};
use crate::model::Model;
use crate::model::tiers::Tier;

pub(super) const NEXT: &[&str] = &[
    "Give the system room now: `sysctl -w fs.file-max=…` (it takes effect at the next accept).",
    "Find which process holds the files: count `/proc/*/fd`; it need not be this one, and restarting this one alone may not help.",
    "Bound the fds of each service (RLIMIT_NOFILE, LimitNOFILE=) so that the sum stays below fs.file-max.",
];

/// ENFILE of errno(3).
pub(super) const ENFILE: Errno = Errno { number: 23, name: "ENFILE" };

/// What is known of the table.
fn files(model: &Model) -> Result<&FileTableRaw, &Absence> {
    match &model.tables {
        Reading::Got(tables) => match &tables.files {
            Reading::Got(files) => Ok(files),
            Reading::Absent(absence) => Err(absence),
        },
        Reading::Absent(absence) => Err(absence),
    }
}

fn used_ratio(files: &FileTableRaw) -> f64 {
    files.open as f64 / files.max.max(1) as f64
}

fn is_full(model: &Model, set: &Thresholds) -> Option<bool> {
    Some(used_ratio(files(model).ok()?) >= set.files_full_ratio)
}

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let Some(last) = case.last() else {
        return Finding::Missing(String::from("no sample was taken."));
    };
    if let Some((open, limit)) = full_itself(last) {
        return Finding::Excluded(format!(
            "The process has reached a limit of its own: {open} of {limit} fds are open."
        ));
    }
    let refused = fd_exhausted::refusals(case, ENFILE);
    if refused.is_none() {
        match files(last) {
            Err(absence) => {
                return Finding::Missing(format!(
                    "the system's file table could not be read ({}).",
                    absence.detail
                ));
            }
            Ok(files) if used_ratio(files) < case.weights.files_full_ratio => {
                return Finding::Excluded(format!(
                    "{} of {} files are open on the whole system: there is room.",
                    files.open, files.max
                ));
            }
            Ok(files) if files.exempt == Some(true) => {
                return Finding::Excluded(format!(
                    "{} of {} files are open on the whole system, but this process may go beyond (CAP_SYS_ADMIN).",
                    files.open, files.max
                ));
            }
            Ok(_) => {}
        }
    }
    Finding::Fits(account(case, last, refused))
}

fn account(case: &Case<'_>, last: &Model, refused: Option<Evidence>) -> Account {
    let table = files(last).ok();
    let is_full = |model: &Model| is_full(model, case.weights);
    let full = is_full(last) == Some(true);
    let waits = case.queue_evidence();
    // Refusals are the kernel's own answer. Without them the table is full, and something waits.
    let confidence = match (&refused, full, &waits, table.and_then(|files| files.exempt)) {
        (Some(_), true, ..) | (None, true, Some(_), Some(false)) => Confidence::Certain,
        (Some(_), false, ..) | (None, true, Some(_), None) => Confidence::Likely,
        _ => Confidence::Possible,
    };
    let mut evidence = Vec::new();
    if let Some(files) = table {
        let signal = format!("open files of the whole system (fs.file-max {})", files.max);
        let open = files.open as f64;
        evidence.push(number(Tier::Tables, signal, open, "files", case.since(is_full)));
    }
    evidence.extend(refused);
    evidence.extend(waits);
    if let Some(fds) = last.fds.got() {
        evidence.push(number(Tier::Fds, "of them its own", fds.open as f64, "fds", None));
    }
    let counted = table.map_or_else(
        || String::from("Accepts fail with ENFILE"),
        |files| {
            format!("{} files are open on the whole system, of {} at most", files.open, files.max)
        },
    );
    Account {
        confidence,
        summary: format!(
            "{counted}: the system's file table is full, so no connection can be accepted, whoever holds the files."
        ),
        evidence,
    }
}

fn full_itself(last: &Model) -> Option<(u64, u64)> {
    let fds = last.fds.got()?;
    let limit = fds.soft_limit()?;
    (fds.open >= limit).then_some((fds.open, limit))
}

#[cfg(test)]
mod tests {
    use stallscope_probes::sample::{FdLimitRaw, RingSource, RingState};

    use super::super::fixtures::{Expect, Story, absent, hold, keep_page, queue, tables};
    use super::*;
    use crate::detect::StallKind;
    use crate::model::{FdsModel, RingModel};
    use Confidence::{Certain, Likely, Possible};
    use Expect::{Excluded, Fits, Missing};
    use Reading::Got;

    fn full(queued: u32) -> Story {
        Story::new(StallKind::Accept).stalled(move |_, model| {
            tables(model, |files, _| files.open = 99_990);
            queue(model, queued);
        })
    }

    /// A ring in whose last completions accepts failed.
    fn refused(model: &mut Model, errno: i32, since: usize) {
        model.rings = Got([RingModel {
            fd: 9,
            at_ns: model.at_ns,
            source: RingSource::Memory { confirmed: true },
            state: Got(RingState {
                cq_head: since as u32,
                cq_tail: since as u32,
                recent: Got(vec![(errno, 8)]),
                ..RingState::default()
            }),
            armed: absent(),
            submissions_per_s: Got(10.0),
            completions_per_s: Got(10.0),
        }]
        .into());
    }

    #[test]
    fn a_full_table_is_told_from_a_limit_of_its_own() {
        let refusing = |errno| {
            Story::new(StallKind::Accept).stalled(move |since, model| refused(model, errno, since))
        };
        hold(
            examine,
            vec![
                ("full", full(3), Fits(Certain, "99990 files are open")),
                ("full, nothing waits", full(0), Fits(Possible, "99990")),
                (
                    "ENFILE in the ring and full",
                    full(3).stalled(|since, model| refused(model, 23, since)),
                    Fits(Certain, "completions with ENFILE in the ring: 8"),
                ),
                ("ENFILE in the ring", refusing(23), Fits(Likely, "ENFILE")),
                ("EMFILE in the ring", refusing(24), Excluded("there is room")),
                (
                    "ENFILE, by the page",
                    full(3).stalled(|since, model| {
                        keep_page(model, |page| {
                            page.accept_errno = Some(23);
                            page.accept_errors = since as u64;
                        });
                    }),
                    Fits(Certain, "accepts refused with ENFILE"),
                ),
                ("room", Story::new(StallKind::Accept), Excluded("2000 of 100000 files")),
                (
                    "may go beyond",
                    full(3).stalled(|_, model| tables(model, |files, _| files.exempt = Some(true))),
                    Excluded("CAP_SYS_ADMIN"),
                ),
                (
                    "its rights are unknown",
                    full(3).stalled(|_, model| tables(model, |files, _| files.exempt = None)),
                    Fits(Likely, "99990"),
                ),
                (
                    "a limit of its own",
                    full(3).stalled(|_, model| {
                        let limit = Got(FdLimitRaw { soft: Some(64), hard: Some(64) });
                        model.fds = Got(FdsModel { open: 64, limit });
                    }),
                    Excluded("64 of 64 fds"),
                ),
                (
                    "unreadable",
                    full(3).throughout(|_, model| model.tables = absent()),
                    Missing("permission denied"),
                ),
            ],
        );
    }
}
