//! Who was watched, under what conditions, and what happened.

use serde_json::{Value as Json, json};
use stallscope_probes::{Reading, Why};

use super::{instant, spread};
use crate::report::facts::{Episode, Facts, Outcome};
use crate::report::figures::{Phase, Phases, Spread};
use crate::report::method::skipped;
use crate::watch;

/// Events listed.
const EVENTS_MAX: usize = 1_000;
/// Stalls listed.
const EPISODES_MAX: usize = 200;

/// The process, as in the line `target`.
pub(in crate::report) fn target(facts: &Facts<'_>) -> Json {
    let target = &facts.incident.target;
    json!({
        "pid": target.pid,
        "comm": target.comm,
        "cmdline": target.cmdline,
        "exe": target.exe.as_ref().map(|exe| exe.to_string_lossy()),
        "start_time_ticks": target.start_time_ticks,
        "siblings": target.siblings,
        "foreign_netns": target.foreign_netns,
    })
}

/// The machine and the conditions.
pub(in crate::report) fn environment(facts: &Facts<'_>) -> Json {
    let environment = &facts.incident.environment;
    json!({
        "kernel": environment.kernel,
        "cpus": environment.cpus,
        "version": environment.version,
        "interval_ms": environment.interval_ms,
        "ticks_per_s": environment.ticks_per_s,
        "fd_limits": environment.fd_limits,
        "limits": environment.limits,
        "thresholds": facts.incident.config,
    })
}

/// From when to when, how it went, and how evenly it was looked at.
pub(in crate::report) fn run(facts: &Facts<'_>) -> Json {
    let models = &facts.incident.models;
    let phases = Phases::of(facts);
    let part = |phase: Phase| {
        let ticks = models.iter().filter(|model| phases.at(model.at_ns) == phase).count();
        json!({ "length_ms": phases.length_ms(phase).round(), "ticks": ticks })
    };
    let late = Spread::of(models.iter().map(|model| model.late_ms).collect());
    let late = match late {
        Some(late) => Reading::Got(spread(&late)),
        None => Reading::absent(Why::NotSampled, "no tick was taken"),
    };
    json!({
        "outcome": outcome(facts.outcome),
        "begin": instant(facts, facts.begin_ns),
        "end": instant(facts, facts.end_ns),
        "end_reason": facts.incident.end,
        "ticks": models.len(),
        "ticks_skipped": skipped(facts),
        "late_ms": late,
        "phases": {
            "healthy": part(Phase::Healthy),
            "stalled": part(Phase::Stalled),
            "recovered": part(Phase::Recovered),
        },
    })
}

const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Stalled => "stalled",
        Outcome::Recovered => "recovered",
        Outcome::Healthy => "healthy",
        Outcome::NoData => "no-data",
    }
}

/// Every stall, oldest first.
pub(in crate::report) fn episodes(facts: &Facts<'_>) -> Json {
    let main = facts.episode().map(std::ptr::from_ref);
    let list: Vec<Json> = facts
        .episodes
        .iter()
        .take(EPISODES_MAX)
        .map(|one| episode(facts, one, main == Some(std::ptr::from_ref(one))))
        .collect();
    json!({ "list": list, "left_out": facts.episodes.len().saturating_sub(EPISODES_MAX) })
}

fn episode(facts: &Facts<'_>, episode: &Episode<'_>, is_main: bool) -> Json {
    let at = |at_ns: Option<u64>, none: &str| match at_ns {
        Some(at_ns) => Reading::Got(instant(facts, at_ns)),
        None => Reading::absent(Why::NotSampled, none),
    };
    let of_onset = |detail: &str| Reading::<Json>::absent(Why::NotSampled, detail);
    let onset = episode.onset;
    let single = "a single diagnosis has no onset of its own";
    let verdict = match episode.verdict() {
        Some(verdict) => Reading::Got(json!({
            "cause": verdict.cause.id(),
            "confidence": verdict.confidence.id(),
            "summary": verdict.summary,
        })),
        None => of_onset("watching ended before the cause was named"),
    };
    let end_ns = episode.recovered.map_or(facts.end_ns, |(at_ns, _)| at_ns);
    let stalled_ms = match (episode.recovered, episode.begin_ns()) {
        (Some((_, stalled_ms)), _) => Reading::Got(stalled_ms.round()),
        (None, Some(begin_ns)) => {
            Reading::Got((end_ns.saturating_sub(begin_ns) as f64 / 1e6).round())
        }
        (None, None) => Reading::absent(Why::NotSampled, "its beginning is not known"),
    };
    json!({
        "is_main": is_main,
        "onset": at(episode.onset_ns(), "it had begun before the first look"),
        "before_watch": episode.began_before_watch(),
        "within_ms": onset.map_or_else(
            || of_onset(single),
            |onset| Reading::Got(json!(onset.within_ns as f64 / 1e6)),
        ),
        "detected": at(episode.detected_ns(), "it was not noticed"),
        "recovered": at(
            episode.recovered.map(|(at_ns, _)| at_ns),
            "it still lasted when watching ended",
        ),
        "stalled_ms": stalled_ms,
        "kind": onset.map_or_else(|| of_onset(single), |onset| Reading::Got(json!(onset.kind))),
        "verdict": verdict,
    })
}

/// The lines of `watch --headless`: onsets, all verdicts, recoveries, forecasts, notes.
pub(super) fn events(facts: &Facts<'_>) -> Json {
    let events = &facts.incident.events;
    let list: Vec<Json> = events
        .iter()
        .take(EVENTS_MAX)
        .map(|event| watch::json::event(event, facts.incident.anchor))
        .collect();
    json!({ "list": list, "left_out": events.len().saturating_sub(EVENTS_MAX) })
}

/// Faults that the process made on purpose, and recorded.
pub(super) fn faults(facts: &Facts<'_>) -> Json {
    let fault = |fault: &stallscope_probes::sample::FaultRaw| {
        let end = match fault.end_ns {
            Some(end_ns) => Reading::Got(instant(facts, end_ns)),
            None => Reading::absent(Why::NotSampled, "it was not undone while it was watched"),
        };
        json!({ "fault": fault.fault.id(), "begin": instant(facts, fault.begin_ns), "end": end })
    };
    facts.faults.iter().map(fault).collect()
}
