//! `healthy-idle` and `healthy-busy`: no stall, and which of the two.

use std::sync::Arc;

use stallscope_probes::Absence;
use stallscope_probes::sample::HeartbeatRaw;

use super::case::number;
use super::recent;
use super::thresholds::Thresholds;
use super::verdict::{Cause, Confidence, Evidence, Verdict, missing, rests_on};
use crate::model::tiers::Tier;
use crate::model::{Model, ThreadModel};

/// Looked back over this much to tell busy from idle.
const BACK_NS: u64 = 2_000_000_000;

/// The verdict when no stall is present; `history` oldest first.
pub fn healthy(history: &[Arc<Model>], now_ns: u64, set: &Thresholds) -> Verdict {
    let ticks = recent(history, now_ns, BACK_NS);
    let (Some(first), Some(last)) = (ticks.first(), ticks.last()) else {
        return unreadable(now_ns, None);
    };
    if last.process.got().is_none() {
        return unreadable(now_ns, Some(last));
    }
    if let Some(absence) = blind(last) {
        return unseen(
            now_ns,
            format!(
                "No stall shows, but neither would most stalls: what waits for the process could not be read ({}).",
                absence.detail
            ),
            Some(last),
        );
    }
    let busy = wanted_cores(ticks) > set.busy_cores_min || signs_of_work(first, last, set);
    let evidence = evidence(last);
    let (cause, summary) = if busy {
        (Cause::HealthyBusy, String::from("The process has work and makes progress."))
    } else if serves_out_of_sight(last) {
        (
            Cause::HealthyIdle,
            String::from(
                "Nothing that can be seen waits for the process: it serves no TCP port and has no ring, and UNIX sockets are not looked at.",
            ),
        )
    } else {
        (
            Cause::HealthyIdle,
            String::from("Nothing waits for the process, and it has nothing to do."),
        )
    };
    let confidence = match last.app.got() {
        Some(_) => Confidence::Certain,
        None if !busy && serves_out_of_sight(last) => Confidence::Possible,
        None => Confidence::Likely,
    };
    Verdict {
        onset_ns: None,
        before_watch: false,
        detected_ns: now_ns,
        cause,
        confidence,
        summary,
        rests_on: rests_on(&evidence),
        missing: missing(Some(last)),
        evidence,
        ruled_out: Vec::new(),
        chain: Vec::new(),
        unknowable: Vec::new(),
        next: Vec::new(),
    }
}

/// Why nothing is known of what waits for the process: neither its sockets nor its rings could be
/// read, and it keeps no page. Absence of signs is no sign of health then.
fn blind(last: &Model) -> Option<&Absence> {
    let listeners = last.listeners.absence()?;
    let no_rings = last.rings.got().is_none();
    (no_rings && last.app.got().is_none()).then_some(listeners)
}

/// Whether it has sockets, and none that says anything: a server on a UNIX socket, behind a proxy.
fn serves_out_of_sight(last: &Model) -> bool {
    last.app.got().is_none()
        && last.own_listeners().next().is_none()
        && last.all_served().is_empty()
        && last.all_rings().is_empty()
        && last.fd_kinds.got().is_some_and(|kinds| kinds.sockets > 0)
}

/// Mean number of CPUs that its threads used or waited for. The process's own CPU time comes in
/// ticks of 10 ms, and a starved process hardly gets any; zero when shares could not be read.
fn wanted_cores(ticks: &[Arc<Model>]) -> f64 {
    let wanted: Vec<f64> = ticks
        .iter()
        .filter_map(|model| {
            let share =
                |thread: &ThreadModel| Some(thread.cpu_ratio.got()? + thread.delay_ratio.got()?);
            model.threads.got()?;
            Some(model.all_threads().filter_map(share).sum())
        })
        .collect();
    wanted.iter().sum::<f64>() / wanted.len().max(1) as f64
}

fn signs_of_work(first: &Model, last: &Model, set: &Thresholds) -> bool {
    let cpu = last.process.got().and_then(|process| process.cpu_cores.got().copied());
    let counted = |value: fn(&HeartbeatRaw) -> u64| {
        let then = first.app.got().map(|app| value(&app.raw));
        let now = last.app.got().map(|app| value(&app.raw));
        matches!((then, now), (Some(then), Some(now)) if now > then)
    };
    let seen = |model: &Model| -> Option<u64> {
        Some(
            model
                .served
                .got()?
                .iter()
                .map(|served| served.raw.accepted_seen)
                .fold(0, u64::saturating_add),
        )
    };
    let connections = |model: &Model| -> Option<u64> {
        let served = model.served.got()?.iter();
        Some(served.fold(0, |sum, served| sum.wrapping_add(served.raw.fingerprint)))
    };
    cpu.is_some_and(|cores| cores > set.busy_cores_min)
        || counted(|page| page.responses)
        || counted(|page| page.accepted)
        || matches!((seen(first), seen(last)), (Some(then), Some(now)) if now > then)
        || matches!((connections(first), connections(last)), (Some(then), Some(now)) if now != then)
}

fn evidence(last: &Model) -> Vec<Evidence> {
    let mut evidence = Vec::new();
    if let Some(queued) = last.queued() {
        evidence.push(number(Tier::Listeners, "accept queues", queued as f64, "connections", None));
    }
    if let Some(fds) = last.fds.got() {
        let signal = fds
            .soft_limit()
            .map_or_else(|| String::from("open fds"), |limit| format!("open fds (limit {limit})"));
        evidence.push(number(Tier::Fds, signal, fds.open as f64, "fds", None));
    }
    for ring in last.all_rings() {
        if let Some(state) = ring.state.got() {
            let pending = f64::from(state.sq_pending());
            evidence.push(number(
                ring.tier(),
                format!("ring {} unsubmitted entries", ring.fd),
                pending,
                "entries",
                None,
            ));
        }
    }
    if let Some(rate) = last.app.got().and_then(|app| app.responses_per_s.got().copied()) {
        evidence.push(number(Tier::Heartbeat, "responses", rate, "per second", None));
    }
    if let Some(cores) = last.process.got().and_then(|process| process.cpu_cores.got().copied()) {
        evidence.push(number(Tier::Process, "CPU", cores * 100.0, "% of one core", None));
    }
    evidence
}

fn unreadable(now_ns: u64, last: Option<&Model>) -> Verdict {
    let summary = "The process could not be read, so nothing can be said about it.";
    unseen(now_ns, String::from(summary), last)
}

fn unseen(now_ns: u64, summary: String, last: Option<&Model>) -> Verdict {
    Verdict {
        onset_ns: None,
        before_watch: false,
        detected_ns: now_ns,
        cause: Cause::Unknown,
        confidence: Confidence::Possible,
        summary,
        evidence: Vec::new(),
        ruled_out: Vec::new(),
        rests_on: Vec::new(),
        missing: missing(last),
        chain: Vec::new(),
        unknowable: Vec::new(),
        next: super::next_steps(Cause::Unknown),
    }
}
