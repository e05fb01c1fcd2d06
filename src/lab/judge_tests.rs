//! Every way in which a run can come out, from the events that a watcher may give.

use super::*;
use crate::detect::{Onset, StallKind};

const MS: u64 = 1_000_000;
const TRUTH_NS: u64 = 10_000 * MS;
const CAUSE: Cause = Cause::RuntimeBlocked;
use Confidence::{Certain, Likely, Possible};

fn onset(detected_ns: u64) -> Event {
    Event::Onset(Onset {
        kind: StallKind::Runtime,
        at_ns: detected_ns,
        within_ns: 0,
        before_watch: false,
        detected_ns,
        demand: String::new(),
        last_progress: String::new(),
        partial: None,
    })
}

/// Detected so many ms after the truth, with an onset so many ms after it.
fn verdict(cause: Cause, confidence: Confidence, detected_ms: u64, onset_ms: i64) -> Verdict {
    Verdict {
        onset_ns: Some(TRUTH_NS.wrapping_add_signed(onset_ms * MS as i64)),
        before_watch: false,
        detected_ns: TRUTH_NS + detected_ms * MS,
        cause,
        confidence,
        summary: String::new(),
        evidence: Vec::new(),
        ruled_out: Vec::new(),
        rests_on: Vec::new(),
        missing: Vec::new(),
        chain: Vec::new(),
        unknowable: Vec::new(),
        next: Vec::new(),
    }
}

fn said(cause: Cause, confidence: Confidence) -> Event {
    Event::Verdict(verdict(cause, confidence, 300, 10))
}

fn truth(cause: &str) -> Truth {
    Truth { cause: cause.to_owned(), begin_ns: TRUTH_NS }
}

fn before(events: &[Event]) -> WayRecord {
    let seen = Seen {
        way: Way::Before,
        inborn_ns: TRUTH_NS - 2_100 * MS,
        begin_ns: TRUTH_NS - 2_000 * MS,
        end_ns: u64::MAX,
        events,
    };
    judge(Expected::Stall(CAUSE), Duration::ZERO, Some(&truth(CAUSE.id())), &seen)
}

fn after(events: &[Event]) -> WayRecord {
    let seen = Seen {
        way: Way::After,
        inborn_ns: 0,
        begin_ns: TRUTH_NS + 5_000 * MS,
        end_ns: u64::MAX,
        events,
    };
    judge(Expected::Stall(CAUSE), Duration::ZERO, Some(&truth(CAUSE.id())), &seen)
}

fn wrong(cause: Cause) -> Outcome {
    Outcome::Wrong { cause: cause.id().to_owned() }
}

fn recovered() -> Event {
    Event::Recovered { at_ns: TRUTH_NS + 1_000 * MS, stalled_ms: 990.0 }
}

#[test]
fn what_was_said_and_what_it_amounts_to() {
    let busy = Cause::RuntimeBusy;
    let cases: [(&[Event], Outcome); 14] = [
        (&[], Outcome::Missed),
        (&[said(Cause::HealthyBusy, Certain)], Outcome::Missed),
        (&[said(CAUSE, Certain)], Outcome::Right),
        (&[said(CAUSE, Possible)], Outcome::Right),
        (&[said(Cause::Unknown, Possible), said(CAUSE, Likely)], Outcome::Right),
        (&[said(busy, Possible), said(CAUSE, Likely)], Outcome::Right),
        (&[said(busy, Likely), said(CAUSE, Certain)], wrong(busy)),
        (&[said(CAUSE, Certain), said(busy, Possible), said(CAUSE, Certain)], wrong(busy)),
        (
            &[said(CAUSE, Certain), said(Cause::Unknown, Possible), said(CAUSE, Certain)],
            Outcome::Unknown,
        ),
        (&[said(CAUSE, Likely), said(Cause::Unknown, Possible)], Outcome::Unknown),
        (&[said(CAUSE, Likely), said(busy, Possible)], wrong(busy)),
        (&[said(busy, Certain)], wrong(busy)),
        (&[onset(TRUTH_NS - 1), said(CAUSE, Certain)], Outcome::FalseAlarm),
        (&[onset(TRUTH_NS), said(CAUSE, Certain), recovered()], Outcome::Right),
    ];
    for (events, outcome) in cases {
        assert_eq!(before(events).outcome, outcome, "{events:#?}");
    }
}

#[test]
fn an_onset_is_judged_to_a_quarter_of_a_second() {
    for (error_ms, outcome) in [
        (-251, Outcome::Misdated),
        (-250, Outcome::Right),
        (250, Outcome::Right),
        (251, Outcome::Misdated),
    ] {
        let record = before(&[Event::Verdict(verdict(CAUSE, Certain, 400, error_ms))]);
        assert_eq!(record.outcome, outcome, "{error_ms}");
        assert_eq!(record.onset_error_ms, Some(error_ms as f64));
    }
    let mut undated = verdict(CAUSE, Certain, 400, 0);
    undated.onset_ns = None;
    assert_eq!(before(&[Event::Verdict(undated.clone())]).outcome, Outcome::Misdated);
    undated.onset_ns = Some(TRUTH_NS);
    undated.before_watch = true;
    assert_eq!(before(&[Event::Verdict(undated)]).outcome, Outcome::Misdated);
}

#[test]
fn the_last_word_on_the_first_stall_dates_it() {
    let better = [
        Event::Verdict(verdict(CAUSE, Possible, 400, 2_000)),
        Event::Verdict(verdict(CAUSE, Certain, 800, 20)),
        recovered(),
        onset(TRUTH_NS + 3_000 * MS),
        Event::Verdict(verdict(CAUSE, Certain, 3_400, 3_000)),
    ];
    let record = before(&better);
    assert_eq!((record.outcome, record.onset_error_ms), (Outcome::Right, Some(20.0)));
    assert_eq!((record.delay_ms, record.flips, record.notes.len()), (Some(400.0), 0, 1));
}

#[test]
fn who_comes_later_owes_no_onset_but_has_to_say_so() {
    let mut late = verdict(CAUSE, Certain, 5_400, 5_000);
    assert_eq!(after(&[Event::Verdict(late.clone())]).outcome, Outcome::Misdated);
    let mut recorded = late.clone();
    recorded.onset_ns = Some(TRUTH_NS + 250 * MS);
    assert_eq!(after(&[Event::Verdict(recorded)]).outcome, Outcome::Right);
    late.before_watch = true;
    let record = after(&[Event::Verdict(late)]);
    assert_eq!((record.outcome, record.onset_error_ms), (Outcome::Right, None));
    assert_eq!((record.delay_ms, record.in_time), (Some(400.0), Some(true)));
    assert!(record.healthy_s.abs() < f64::EPSILON);
}

#[test]
fn a_fault_as_old_as_the_server_is_not_dated() {
    let mut verdict = verdict(CAUSE, Certain, 1_000, 600);
    for (before_watch, inborn_ns, outcome) in [
        (true, TRUTH_NS, Outcome::Right),
        (false, TRUTH_NS, Outcome::Right),
        (
            true,
            TRUTH_NS - 1,
            Outcome::Broken {
                why: String::from("the fault took hold before the watcher was there"),
            },
        ),
    ] {
        verdict.before_watch = before_watch;
        let events = [Event::Verdict(verdict.clone())];
        let (way, begin_ns, end_ns) = (Way::Before, TRUTH_NS + 500 * MS, u64::MAX);
        let seen = Seen { way, inborn_ns, begin_ns, end_ns, events: &events };
        let truth = truth(CAUSE.id());
        let record = judge(Expected::Stall(CAUSE), Duration::ZERO, Some(&truth), &seen);
        assert_eq!((record.outcome, record.onset_error_ms), (outcome, None));
    }
}

#[test]
fn a_definition_gives_time() {
    let events = [Event::Verdict(verdict(CAUSE, Certain, 3_400, 0))];
    let seen = Seen { way: Way::Before, inborn_ns: 0, begin_ns: 0, end_ns: 0, events: &events };
    for (definition_s, in_time) in [(2, false), (3, true)] {
        let definition = Duration::from_secs(definition_s);
        let record = judge(Expected::Stall(CAUSE), definition, Some(&truth(CAUSE.id())), &seen);
        assert_eq!((record.outcome, record.in_time), (Outcome::Right, Some(in_time)));
    }
}

#[test]
fn a_run_that_went_wrong_is_never_right() {
    let events = [said(CAUSE, Certain)];
    let seen =
        |way, begin_ns| Seen { way, inborn_ns: 0, begin_ns, end_ns: u64::MAX, events: &events };
    let cases = [
        (None, seen(Way::Before, 0)),
        (Some(truth("fd-exhausted")), seen(Way::Before, 0)),
        (Some(truth(CAUSE.id())), seen(Way::Before, TRUTH_NS + 1)),
        (Some(truth(CAUSE.id())), seen(Way::After, TRUTH_NS - 1)),
    ];
    for (truth, seen) in cases {
        let record = judge(Expected::Stall(CAUSE), Duration::ZERO, truth.as_ref(), &seen);
        assert!(!record.outcome.is_judged(), "{record:?}");
    }
}

#[test]
fn health_is_silence() {
    let minute = |events: &[Event]| {
        let seen =
            Seen { way: Way::Before, inborn_ns: 0, begin_ns: 0, end_ns: 60_000 * MS, events };
        judge(Expected::Healthy, Duration::ZERO, None, &seen)
    };
    let calm = minute(&[said(Cause::HealthyIdle, Certain)]);
    assert_eq!((calm.outcome, calm.alarms), (Outcome::Right, 0));
    assert!((calm.healthy_s - 60.0).abs() < 1e-9);
    let onset_only = minute(&[onset(5)]);
    assert_eq!((onset_only.outcome, onset_only.alarms), (Outcome::FalseAlarm, 1));
    let named = minute(&[said(Cause::Unknown, Possible)]);
    assert_eq!((named.outcome, named.named.as_deref()), (Outcome::FalseAlarm, Some("unknown")));
}
