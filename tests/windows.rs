//! Each cause by what was really sampled while it took hold: windows of runs of the lab, kept with
//! their labels in `tests/windows` (its README says how they were made).
#![cfg(feature = "servers")]
#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests read their data")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use stallscope::detect::Onset;
use stallscope::diagnose::verdict::{Cause, Confidence, Verdict};
use stallscope::lab::record::{HEALTHY, Way};
use stallscope::lab::windows::{LABELS, Label};
use stallscope::watch::event::Event;
use stallscope::watch::replay;

/// From the truth, at most: what is asked of the 95th percentile of all runs.
const ONSET_ERROR_NS_MAX: u64 = 250_000_000;
/// All windows together: they are to stay small.
const BYTES_MAX: u64 = 1_500_000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/windows")
}

fn labels() -> Vec<Label> {
    serde_json::from_slice(&std::fs::read(folder().join(LABELS)).unwrap()).unwrap()
}

/// What the pipe makes of one window.
struct Said {
    onsets: Vec<Onset>,
    verdicts: Vec<Verdict>,
}

fn said(label: &Label) -> Said {
    let file = std::fs::File::open(folder().join(&label.file)).unwrap();
    let incident = replay::read(GzDecoder::new(file)).unwrap();
    assert!(incident.losses.is_empty(), "{}: {:?}", label.file, incident.losses);
    let mut said = Said { onsets: Vec::new(), verdicts: Vec::new() };
    for event in incident.events {
        match event {
            Event::Onset(onset) => said.onsets.push(onset),
            Event::Verdict(verdict) if verdict.cause.is_stall() => said.verdicts.push(verdict),
            _ => {}
        }
    }
    said
}

#[test]
fn every_cause_has_a_window_for_each_way_of_watching_and_all_are_small() {
    let labels = labels();
    let labelled: BTreeSet<(&str, &str)> =
        labels.iter().map(|label| (label.expected.as_str(), label.way.id())).collect();
    for cause in Cause::STALLS {
        for way in Way::ALL {
            assert!(labelled.contains(&(cause.id(), way.id())), "{} {}", cause.id(), way.id());
        }
    }
    let sizes = labels.iter().map(|label| folder().join(&label.file).metadata().unwrap().len());
    assert!(sizes.sum::<u64>() < BYTES_MAX);
}

#[test]
fn each_cause_is_named_and_dated_from_what_was_sampled() {
    for label in labels().iter().filter(|label| label.expected != HEALTHY) {
        let name = &label.file;
        let Said { onsets, verdicts } = said(label);
        let last = verdicts.last().unwrap_or_else(|| panic!("{name}: nothing was named"));
        assert_eq!(last.cause.id(), label.expected, "{name}: {}", last.summary);
        // Another cause may have been thought of first, but never with any certainty.
        for other in verdicts.iter().filter(|verdict| verdict.cause != last.cause) {
            assert_eq!(other.confidence, Confidence::Possible, "{name}: {}", other.summary);
        }
        let (onset, begin_ns) = (onsets.last().unwrap(), label.begin_ns.unwrap());
        match label.way {
            Way::Before => {
                let error_ns = onset.at_ns.abs_diff(begin_ns);
                assert!(error_ns <= ONSET_ERROR_NS_MAX, "{name}: {} ms", error_ns / 1_000_000);
                assert!(!onset.before_watch, "{name}");
            }
            Way::After => assert!(onset.before_watch, "{name}: {onset:?}"),
        }
    }
}

#[test]
fn of_what_only_looks_like_a_stall_nothing_is_said() {
    let labels = labels();
    let healthy: Vec<_> = labels.iter().filter(|label| label.expected == HEALTHY).collect();
    assert!(healthy.len() >= 10);
    for label in healthy {
        let Said { onsets, verdicts } = said(label);
        assert!(onsets.is_empty() && verdicts.is_empty(), "{}: {onsets:?}", label.file);
    }
}
