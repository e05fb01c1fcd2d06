//! Sums over made-up runs.

use super::*;

pub(in crate::lab) fn run(scenario: &str, expected: &str, ways: Vec<WayRecord>) -> RunRecord {
    RunRecord {
        scenario: scenario.to_owned(),
        rep: 0,
        seed: 1,
        version: String::from("1.0.0"),
        expected: expected.to_owned(),
        definition_ms: 1_000.0,
        truth: None,
        took_s: 10.0,
        ways,
    }
}

pub(in crate::lab) fn way(way: Way, outcome: Outcome, named: Option<&str>) -> WayRecord {
    WayRecord { named: named.map(str::to_owned), ..WayRecord::bare(way, outcome) }
}

/// A matrix with one of everything.
pub(in crate::lab) fn mixed() -> Vec<RunRecord> {
    let mut right = way(Way::Before, Outcome::Right, Some("kafka-slow"));
    (right.onset_error_ms, right.delay_ms, right.in_time) = (Some(-40.0), Some(900.0), Some(true));
    right.healthy_s = 1_800.0;
    let mut late = way(Way::After, Outcome::Right, Some("kafka-slow"));
    (late.delay_ms, late.in_time, late.flips) = (Some(1_600.0), Some(false), 1);
    late.notes.push(String::from("said unknown (possible): <b>"));
    let wrong = || Outcome::Wrong { cause: String::from("kafka-queue-full") };
    let mut alarm = way(Way::Before, Outcome::FalseAlarm, Some("unknown"));
    (alarm.alarms, alarm.healthy_s) = (2, 1_800.0);
    let why = || String::from("the victim died");
    vec![
        run("kafka-a", "kafka-slow", vec![right, late]),
        run("kafka-a", "kafka-slow", vec![way(Way::Before, wrong(), Some("kafka-slow"))]),
        run("kafka-a", "kafka-slow", vec![way(Way::After, Outcome::Missed, None)]),
        run("kafka-a", "kafka-slow", vec![way(Way::After, Outcome::Unknown, Some("unknown"))]),
        run("twin", HEALTHY, vec![alarm, way(Way::After, Outcome::Right, None)]),
        run("b", "fd-exhausted", vec![way(Way::Before, Outcome::Broken { why: why() }, None)]),
        run("c", "conntrack-full", vec![way(Way::Before, Outcome::NotRun { why: why() }, None)]),
    ]
}

#[test]
fn outcomes_are_counted_by_scenario_and_way() {
    let summary = Summary::of(&mixed());
    let row = summary.scenarios.iter().find(|row| row.scenario == "kafka-a").unwrap();
    assert_eq!((row.before.right, row.before.wrong, row.before.judged()), (1, 1, 2));
    assert_eq!((row.after.right, row.after.missed, row.after.unknown), (1, 1, 1));
    assert_eq!((summary.total.broken, summary.total.not_run, summary.total.judged()), (1, 1, 7));
    assert_eq!(summary.runs, 7);
    assert!(row.notes.contains(&String::from("after: missed")), "{:?}", row.notes);
    let broken = summary.scenarios.iter().find(|row| row.scenario == "b").unwrap();
    assert_eq!(broken.notes, ["before: broken: the victim died"]);
}

#[test]
fn confusion_counts_what_was_judged_and_nothing_else() {
    let confusion = Summary::of(&mixed()).confusion;
    assert_eq!(confusion.columns, ["kafka-queue-full", "kafka-slow", "unknown", "nothing"]);
    let expected = [
        (String::from("kafka-slow"), vec![1, 2, 1, 1]),
        (String::from("healthy"), vec![0, 0, 1, 1]),
    ];
    assert_eq!(confusion.rows, expected);
    assert!(Confusion::is_right(HEALTHY, NOTHING) && Confusion::is_right("x", "x"));
    assert!(!Confusion::is_right("x", NOTHING) && !Confusion::is_right(HEALTHY, "unknown"));
}

#[test]
fn figures_are_those_of_the_cause() {
    let summary = Summary::of(&mixed());
    assert_eq!(summary.causes.len(), 1, "nothing was measured of the others");
    let row = &summary.causes[0];
    assert_eq!(row.cause, "kafka-slow");
    assert_eq!(row.onset_error_ms, Some(Spread { median: 40.0, p95: 40.0 }));
    assert_eq!(row.delay_after_ms, Some(Spread { median: 1_600.0, p95: 1_600.0 }));
    assert_eq!(row.allowed_ms, (1_500.0, 1_500.0));
    assert_eq!((row.in_time, row.named), (1, 2));
    assert_eq!((summary.false_alarms, summary.flips), (2, 1));
    assert_eq!(summary.false_alarms_per_h(), Some(2.0));
    assert_eq!(Summary::of(&[]).false_alarms_per_h(), None);
}

#[test]
fn percentiles_are_values_that_were_measured() {
    type Case = (&'static [f64], Option<(f64, f64)>);
    let cases: [Case; 4] = [
        (&[], None),
        (&[3.0], Some((3.0, 3.0))),
        (&[4.0, 1.0, 3.0, 2.0], Some((2.0, 4.0))),
        (&[2.0, 1.0, 3.0], Some((2.0, 3.0))),
    ];
    for (values, expected) in cases {
        let spread = Spread::of(values.to_vec()).map(|spread| (spread.median, spread.p95));
        assert_eq!(spread, expected, "{values:?}");
    }
    let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
    assert_eq!(Spread::of(hundred), Some(Spread { median: 50.0, p95: 95.0 }));
}

#[test]
fn only_right_and_not_run_are_fine() {
    assert!(!Summary::of(&mixed()).is_fine());
    let fine = [
        run("a", "x", vec![way(Way::Before, Outcome::Right, Some("x"))]),
        run("b", "y", vec![way(Way::Before, Outcome::NotRun { why: String::new() }, None)]),
    ];
    assert!(Summary::of(&fine).is_fine());
}
