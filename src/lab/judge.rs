//! Compares what a watcher said with what the faulting process wrote down. Pure.

use std::time::Duration;

use super::catalogue::Expected;
use super::record::{Outcome, Way, WayRecord};
use super::truth::ONSET_ERROR_MS_MAX;
use super::victims::Truth;
use crate::diagnose::verdict::{Cause, Confidence, Verdict};
use crate::watch::event::Event;

/// A verdict is to come this long after the fault, and after what its definition takes.
pub const NAMED_WITHIN: Duration = Duration::from_millis(500);

/// What one watcher saw.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// How it came to the process.
    pub way: Way,
    /// Until when a fault counts as old as the server, `CLOCK_MONOTONIC` ns: no watcher could come
    /// before.
    pub inborn_ns: u64,
    /// When it came, ns.
    pub begin_ns: u64,
    /// When it went, ns.
    pub end_ns: u64,
    /// What it said, oldest first.
    pub events: &'a [Event],
}

impl<'a> Seen<'a> {
    /// Every verdict on a stall, with the number of the stall it is on.
    fn verdicts(&self) -> Vec<(usize, &'a Verdict)> {
        let mut stall = 0;
        let mut verdicts = Vec::new();
        for event in self.events {
            match event {
                Event::Recovered { .. } => stall += 1,
                Event::Verdict(verdict) if verdict.cause.is_stall() => {
                    verdicts.push((stall, verdict));
                }
                _ => {}
            }
        }
        verdicts
    }

    /// Onsets noticed before `until_ns`.
    fn alarms(&self, until_ns: u64) -> u32 {
        let early =
            |event: &&Event| matches!(event, Event::Onset(onset) if onset.detected_ns < until_ns);
        self.events.iter().filter(early).count() as u32
    }
}

/// Judges one way of watching one run.
pub fn judge(
    expected: Expected,
    definition: Duration,
    truth: Option<&Truth>,
    seen: &Seen<'_>,
) -> WayRecord {
    let verdicts = seen.verdicts();
    let mut record = WayRecord::bare(seen.way, Outcome::Right);
    if let Some((_, last)) = verdicts.last() {
        record.named = Some(last.cause.id().to_owned());
        record.confidence = Some(last.confidence.id().to_owned());
    }
    record.flips = verdicts
        .windows(2)
        .filter(|pair| pair[0].0 == pair[1].0 && pair[0].1.cause != pair[1].1.cause)
        .count() as u32;
    match expected {
        Expected::Healthy => healthy(&mut record, seen, &verdicts),
        Expected::Stall(cause) => match truth {
            None => {
                let why = String::from("the victim recorded no fault");
                record.outcome = Outcome::Broken { why };
            }
            Some(truth) => stall(&mut record, cause, definition, truth, seen, &verdicts),
        },
    }
    record
}

fn healthy(record: &mut WayRecord, seen: &Seen<'_>, verdicts: &[(usize, &Verdict)]) {
    record.alarms = seen.alarms(u64::MAX);
    record.healthy_s = seconds(seen.begin_ns, seen.end_ns);
    if record.alarms > 0 || !verdicts.is_empty() {
        record.outcome = Outcome::FalseAlarm;
    }
    for (_, verdict) in verdicts {
        record.notes.push(said(verdict));
    }
}

fn stall(
    record: &mut WayRecord,
    cause: Cause,
    definition: Duration,
    truth: &Truth,
    seen: &Seen<'_>,
    verdicts: &[(usize, &Verdict)],
) {
    if let Some(why) = unfit(cause, truth, seen) {
        record.outcome = Outcome::Broken { why };
        return;
    }
    // Some faults are made when the server is: nobody can be there before.
    let inborn = truth.begin_ns <= seen.inborn_ns;
    if inborn && seen.way == Way::Before {
        record
            .notes
            .push(String::from("the fault is as old as the server: the onset is not judged"));
    }
    record.alarms = seen.alarms(truth.begin_ns);
    if seen.way == Way::Before {
        record.healthy_s = seconds(seen.begin_ns, truth.begin_ns);
    }
    let right = |verdict: &Verdict| verdict.cause == cause;
    if let Some((_, first)) = verdicts.iter().find(|(_, verdict)| right(verdict)) {
        let from_ns = truth.begin_ns.max(seen.begin_ns);
        let delay_ms = difference_ms(first.detected_ns, from_ns);
        record.delay_ms = Some(delay_ms);
        record.in_time = Some(delay_ms <= (NAMED_WITHIN + definition).as_secs_f64() * 1e3);
    }
    for (_, verdict) in verdicts.iter().filter(|(_, verdict)| !right(verdict)) {
        record.notes.push(said(verdict));
    }
    let again = verdicts.last().map_or(0, |(stall, _)| *stall);
    if again > 0 {
        record.notes.push(format!("called it over {again} times, and noticed it again"));
    }
    record.outcome = if record.alarms > 0 {
        Outcome::FalseAlarm
    } else {
        named(cause, verdicts).unwrap_or_else(|| dated(record, cause, truth, inborn, verdicts))
    };
}

/// Why this run says nothing about the watcher.
fn unfit(cause: Cause, truth: &Truth, seen: &Seen<'_>) -> Option<String> {
    if truth.cause != cause.id() {
        return Some(format!(
            "the victim recorded {}, the scenario is one of {}",
            truth.cause,
            cause.id()
        ));
    }
    match seen.way {
        Way::Before if (seen.inborn_ns + 1..seen.begin_ns).contains(&truth.begin_ns) => {
            Some(String::from("the fault took hold before the watcher was there"))
        }
        Way::After if truth.begin_ns > seen.begin_ns => {
            Some(String::from("the watcher came before the fault"))
        }
        _ => None,
    }
}

/// What is wrong with the causes that were named; nothing when the right one was, and no other with
/// any certainty.
fn named(cause: Cause, verdicts: &[(usize, &Verdict)]) -> Option<Outcome> {
    let Some((_, last)) = verdicts.last() else { return Some(Outcome::Missed) };
    let wrong = |cause: Cause| match cause {
        Cause::Unknown => Outcome::Unknown,
        other => Outcome::Wrong { cause: other.id().to_owned() },
    };
    if last.cause != cause {
        return Some(wrong(last.cause));
    }
    let mut certain = false;
    for (_, verdict) in verdicts {
        let other = verdict.cause != cause;
        let sure = verdict.confidence > Confidence::Possible && verdict.cause != Cause::Unknown;
        if other && (sure || certain) {
            return Some(wrong(verdict.cause));
        }
        certain |= verdict.confidence == Confidence::Certain;
    }
    None
}

/// Judges the date of the first stall that was given the right cause.
fn dated(
    record: &mut WayRecord,
    cause: Cause,
    truth: &Truth,
    inborn: bool,
    verdicts: &[(usize, &Verdict)],
) -> Outcome {
    let mut right = verdicts.iter().filter(|(_, verdict)| verdict.cause == cause);
    let Some((stall, first)) = right.next() else { return Outcome::Missed };
    // The last word on that stall: a surer verdict may date it better.
    let verdict =
        right.take_while(|(other, _)| other == stall).last().map_or(first, |(_, last)| last);
    let error_ms = verdict.onset_ns.map(|at_ns| difference_ms(at_ns, truth.begin_ns));
    let exact = error_ms.is_some_and(|error_ms| error_ms.abs() <= ONSET_ERROR_MS_MAX);
    // A fault from the start shows with the first client, before or after the watcher came.
    let failure = if inborn && record.way == Way::Before {
        None
    } else if record.way == Way::After {
        // A server that keeps a page has recorded the onset, which is better still.
        let known = verdict.before_watch || exact;
        (!known).then(|| String::from("it did not say that the stall is older than the watch"))
    } else {
        record.onset_error_ms = error_ms;
        match error_ms {
            _ if verdict.before_watch => {
                Some(String::from("it said that the stall is older than the watch"))
            }
            None => Some(String::from("it gave no onset")),
            Some(_) if exact => None,
            Some(error_ms) => Some(format!("its onset is {error_ms:+.0} ms from the truth")),
        }
    };
    match failure {
        None => Outcome::Right,
        Some(note) => {
            record.notes.push(note);
            Outcome::Misdated
        }
    }
}

fn said(verdict: &Verdict) -> String {
    format!("said {} ({}): {}", verdict.cause.id(), verdict.confidence.id(), verdict.summary)
}

fn difference_ms(at_ns: u64, from_ns: u64) -> f64 {
    (at_ns as f64 - from_ns as f64) / 1e6
}

fn seconds(begin_ns: u64, end_ns: u64) -> f64 {
    end_ns.saturating_sub(begin_ns) as f64 / 1e9
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
