//! A recording of a real stall tells what the live run told; one whose watcher was killed tells
//! all but its last second.
#![cfg(feature = "servers")]
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests run processes")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use stallscope::watch::event::{EndReason, Event};
use stallscope::watch::replay;
use support::{Killed, STALLSCOPE, Server, alone, load, stallscope};

#[test]
fn a_replay_finds_what_the_live_run_found() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.stallrec");
    let file = path.to_str().unwrap();
    let server = Server::start("tokio-uring", &["--profile", "--fault", "sq-not-flushed@3"]);
    let _load = load(&server.url, &["--connections", "64", "--for", "20s"]);
    let pid = server.pid().to_string();
    let printed = stallscope(&[
        "watch",
        "--headless",
        "--pid",
        &pid,
        "--until-stall",
        "--for",
        "15s",
        "--record",
        file,
    ]);
    assert_eq!(printed.status, 3, "{printed:?}");

    let incident = replay::load(&path).unwrap();
    assert_eq!((incident.end, incident.losses.as_slice()), (EndReason::Stalled, &[][..]));
    assert_eq!(incident.target.pid, server.pid());
    assert!(!incident.profiles.is_empty(), "the server profiled itself");
    let ticks = printed.last("end").unwrap()["samples"].as_u64().unwrap();
    assert_eq!(incident.models.len() as u64, ticks);

    // Event by event, as the lines that were printed.
    let printed_events: Vec<Value> = printed
        .lines()
        .into_iter()
        .filter(|line| !matches!(kind(line), "target" | "tiers" | "end"))
        .collect();
    let replayed: Vec<Value> = incident
        .events
        .iter()
        .map(|event| stallscope::watch::json::event(event, incident.anchor).to_string())
        .map(|line| serde_json::from_str(&line).unwrap())
        .collect();
    assert_eq!(replayed, printed_events);
    let verdict = incident.verdict().unwrap();
    assert_eq!(verdict.cause.id(), "sq-not-flushed");
    assert!(incident.events.iter().any(|event| matches!(event, Event::Onset(_))));

    let report = stallscope(&["report", file]);
    assert_eq!(report.status, 0, "{report:?}");
    assert!(report.stdout.contains("sq-not-flushed"), "{report:?}");
    let html = std::fs::read_to_string(path.with_extension("html")).unwrap();
    assert!(html.contains("sq-not-flushed") && html.contains("</html>"), "{}", html.len());
}

fn kind(line: &Value) -> &str {
    line["type"].as_str().unwrap()
}

/// What is flushed once a second is lost for at most that long; the rest is for a busy machine.
const LOST_NS_MAX: u64 = 1_500_000_000;

#[test]
fn a_killed_watcher_leaves_all_but_its_last_second() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.stallrec");
    let file = path.to_str().unwrap();
    let server = Server::start("tokio", &[]);
    let _load = load(&server.url, &["--connections", "8", "--rate", "200", "--for", "20s"]);
    let pid = server.pid().to_string();
    let args =
        ["watch", "--headless", "--samples", "--for", "20s", "--pid", &pid, "--record", file];
    let mut watcher = Killed(
        Command::new(STALLSCOPE)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut lines = BufReader::new(watcher.0.stdout.take().unwrap()).lines();
    let mut sample = || loop {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        if kind(&line) == "sample" {
            return line["model"]["at_ns"].as_u64().unwrap();
        }
    };
    let first_ns = sample();
    let mut last_ns = first_ns;
    while last_ns < first_ns + 3_500_000_000 {
        last_ns = sample();
    }
    // SIGKILL: nothing can be put in order any more.
    watcher.0.kill().unwrap();
    watcher.ended(Duration::from_secs(10));

    let incident = replay::load(&path).unwrap();
    assert_eq!(incident.end, EndReason::RecordingEnds);
    assert_eq!(incident.losses.len(), 1, "{:?}", incident.losses);
    assert!(incident.losses[0].contains("the watcher was killed"), "{:?}", incident.losses);
    assert_eq!(incident.models[0].at_ns, first_ns);
    let kept_ns = incident.models.last().unwrap().at_ns;
    assert!(last_ns.saturating_sub(kept_ns) <= LOST_NS_MAX, "lost {} ns", last_ns - kept_ns);

    let report = stallscope(&["report", file]);
    assert_eq!(report.status, 0, "{report:?}");
    let html = std::fs::read_to_string(path.with_extension("html")).unwrap();
    assert!(html.contains("the watcher was killed"), "the report does not say what is lost");
}

#[test]
fn a_recording_that_is_kept_short_is_whole_when_its_watcher_is_killed() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.stallrec");
    let file = path.to_str().unwrap();
    let server = Server::start("tokio", &["--profile"]);
    let pid = server.pid().to_string();
    let args = ["watch", "--headless", "--samples", "--for", "40s", "--pid", &pid];
    let mut watcher = Killed(
        Command::new(STALLSCOPE)
            .args(args)
            .args(["--record", file, "--keep", "10s"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut lines = BufReader::new(watcher.0.stdout.take().unwrap()).lines();
    let mut sample = || loop {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        if kind(&line) == "sample" {
            return line["model"]["at_ns"].as_u64().unwrap();
        }
    };
    let begun_ns = sample();
    let first_ns = || replay::load(&path).ok()?.models.first().map(|model| model.at_ns);
    // It is shortened once it holds 15 s, and a piece, and not before.
    let mut last_ns = begun_ns;
    while first_ns().is_none_or(|first_ns| first_ns == begun_ns) {
        last_ns = sample();
        assert!(last_ns < begun_ns + 25_000_000_000, "it is never shortened");
    }
    assert!(last_ns > begun_ns + 15_000_000_000, "shortened after {} ns", last_ns - begun_ns);
    watcher.0.kill().unwrap();
    watcher.ended(Duration::from_secs(10));

    let incident = replay::load(&path).unwrap();
    let [dropped, killed] = &incident.losses[..] else { panic!("{:?}", incident.losses) };
    assert!(dropped.contains("--keep") && killed.contains("the watcher was killed"));
    let (first, last) = (incident.models.first().unwrap(), incident.models.last().unwrap());
    assert!(last.at_ns - first.at_ns >= 9_000_000_000, "{} ns", last.at_ns - first.at_ns);
    assert!(last_ns.saturating_sub(last.at_ns) <= LOST_NS_MAX, "lost {}", last_ns - last.at_ns);
    assert!(!incident.profiles.is_empty());
}
