use super::*;

/// A healthy run of so many seconds, with memory as `rss_kib` says by the second.
fn fine(time_s: u32, rss_kib: impl Fn(f64) -> Option<f64>) -> Seen {
    let point = |second| {
        let at_s = f64::from(second) + 0.5;
        Point { at_s, rss_kib: rss_kib(at_s), ..Point::default() }
    };
    Seen {
        time_s: f64::from(time_s),
        warm_up_s: f64::from(time_s) / 10.0,
        rss_change_max: None,
        has_broker: false,
        is_broker_full: false,
        onsets: 0,
        verdicts: Vec::new(),
        told: Told {
            requests: 1_064,
            responses: 1_000,
            acknowledged: 990,
            refused: 10,
            unfinished: 64,
            errors: BTreeMap::new(),
        },
        silence_s: Ok(0.2),
        end: Ok(End { accepted: 1_000, delivered: 1_000, failed: 0 }),
        exit: Some(0),
        points: (0..time_s).map(point).collect(),
        rss_absent: None,
        fds_before: Ok(20),
        fds_after: Ok(20),
    }
}

fn flat() -> Seen {
    fine(3_600, |_| Some(50_000.0))
}

fn outcome(seen: &Seen, rule: &str) -> (Outcome, String) {
    let findings = judge(seen);
    let finding = findings.into_iter().find(|finding| finding.rule == rule).unwrap();
    (finding.outcome, finding.why)
}

#[test]
fn a_fine_run_holds_every_rule() {
    let findings = judge(&flat());
    assert_eq!(findings.len(), 5);
    assert!(findings.iter().all(|finding| finding.outcome == Outcome::Held), "{findings:#?}");
}

#[test]
fn every_alarm_is_a_stall() {
    let onset = Seen { onsets: 1, ..flat() };
    assert_eq!(outcome(&onset, "stalls").0, Outcome::Broken);
    let verdict = Seen { verdicts: vec![String::from("runtime-busy")], ..flat() };
    let (outcome, why) = outcome(&verdict, "stalls");
    assert_eq!(outcome, Outcome::Broken);
    assert!(why.contains("runtime-busy"), "{why}");
}

#[test]
fn answers_come_in_every_second_and_without_errors() {
    let silence = |silence_s| Seen { silence_s, ..flat() };
    assert_eq!(outcome(&silence(Ok(0.9)), "answers").0, Outcome::Held);
    assert_eq!(outcome(&silence(Ok(1.0)), "answers").0, Outcome::Broken);
    let unknown = silence(Err(String::from("no page")));
    assert_eq!(outcome(&unknown, "answers"), (Outcome::NotJudged, String::from("no page")));
    let mut none = flat();
    none.told = Told::default();
    assert_eq!(outcome(&none, "answers").0, Outcome::Broken);
    let mut reset = flat();
    reset.told.errors.insert(String::from("reset"), 3);
    let (outcome, why) = outcome(&reset, "answers");
    assert_eq!(outcome, Outcome::Broken);
    assert!(why.contains("reset 3"), "{why}");
}

#[test]
fn no_acknowledged_event_is_lost_and_none_is_made_up() {
    let events = |acknowledged, accepted, delivered, failed, exit| {
        let mut seen = flat();
        seen.told.acknowledged = acknowledged;
        seen.end = Ok(End { accepted, delivered, failed });
        seen.exit = exit;
        outcome(&seen, "events").0
    };
    let ok = Some(0);
    // 64 requests have no known end: so many may have been taken besides.
    for accepted in [990, 1_000, 990 + 64] {
        assert_eq!(events(990, accepted, accepted, 0, ok), Outcome::Held, "{accepted}");
    }
    assert_eq!(events(990, 1_055, 1_055, 0, ok), Outcome::Broken, "more than anybody sent");
    assert_eq!(events(990, 989, 989, 0, ok), Outcome::Broken, "one is lost");
    assert_eq!(events(990, 1_000, 999, 0, ok), Outcome::Broken, "one is not delivered");
    assert_eq!(events(990, 1_000, 999, 1, ok), Outcome::Broken, "one failed");
    assert_eq!(events(990, 1_000, 1_000, 0, Some(1)), Outcome::Broken, "it says so itself");
    assert_eq!(events(990, 1_000, 1_000, 0, None), Outcome::Broken, "it was killed");
    assert_eq!(events(0, 0, 0, 0, ok), Outcome::Broken, "nothing happened");
    let silent = Seen { end: Err(String::from("no last line")), ..flat() };
    assert_eq!(outcome(&silent, "events").0, Outcome::Broken);
}

#[test]
fn memory_must_be_flat() {
    // By the second: what memory does, and whether that is flat over an hour.
    type Course = fn(f64) -> f64;
    let cases: [(&str, Course, Outcome); 7] = [
        ("level", |_| 50_000.0, Outcome::Held),
        ("up and down", |at| 50_000.0 + 5_000.0 * (at / 5.0).sin(), Outcome::Held),
        ("4 % more", |at| 50_000.0 + at * 0.6, Outcome::Held),
        ("7 % more", |at| 50_000.0 + at * 1.1, Outcome::Broken),
        ("growth only in warm-up", |at| 50_000.0 - (300.0 - at).max(0.0) * 100.0, Outcome::Held),
        ("a step", |at| if at < 2_000.0 { 50_000.0 } else { 56_000.0 }, Outcome::Broken),
        ("much less", |at| 50_000.0 - at * 2.0, Outcome::Broken),
    ];
    for (name, course, expected) in cases {
        let (outcome, why) = outcome(&fine(3_600, |at| Some(course(at))), "memory");
        assert_eq!(outcome, expected, "{name}: {why}");
    }
    // A leak that is hidden at both ends is seen by the slope.
    let hidden = fine(3_600, |at| Some(if at > 3_200.0 { 50_000.0 } else { 50_000.0 + at * 3.0 }));
    assert_eq!(outcome(&hidden, "memory").0, Outcome::Broken);
}

#[test]
fn a_short_look_at_memory_has_a_wider_bound() {
    let grown = |time_s: u32, share: f64| {
        fine(time_s, move |at| Some(50_000.0 * (1.0 + share * at / f64::from(time_s))))
    };
    assert_eq!(outcome(&grown(20, 0.15), "memory").0, Outcome::Held);
    assert_eq!(outcome(&grown(20, 0.40), "memory").0, Outcome::Broken);
    assert_eq!(outcome(&grown(700, 0.15), "memory").0, Outcome::Broken);
    let filling = Seen { has_broker: true, ..grown(20, 0.60) };
    assert_eq!(outcome(&filling, "memory").0, Outcome::Held, "50 MiB, and 20 for the broker");
    let more = Seen { has_broker: true, ..grown(20, 0.95) };
    assert_eq!(outcome(&more, "memory").0, Outcome::Broken);
    let slow = Seen { has_broker: true, ..grown(700, 0.30) };
    assert_eq!(outcome(&slow, "memory").0, Outcome::Held, "it was not full by then");
    let full = Seen { has_broker: true, is_broker_full: true, ..grown(700, 0.15) };
    assert_eq!(outcome(&full, "memory").0, Outcome::Broken, "by then it is full");
    let asked = Seen { rss_change_max: Some(0.2), ..grown(700, 0.15) };
    assert_eq!(outcome(&asked, "memory").0, Outcome::Held);
}

#[test]
fn what_was_not_read_is_not_judged() {
    let blind = fine(3_600, |at| (at < 3_000.0).then_some(50_000.0));
    let blind = Seen { rss_absent: Some(String::from("no rights")), ..blind };
    let (outcome_, why) = outcome(&blind, "memory");
    assert_eq!(outcome_, Outcome::NotJudged);
    assert!(why.contains("no rights"), "{why}");
    assert_eq!(outcome(&fine(9, |_| Some(1.0)), "memory").0, Outcome::NotJudged);
    let fds = |fds_before, fds_after| outcome(&Seen { fds_before, fds_after, ..flat() }, "fds").0;
    assert_eq!(fds(Err(String::from("no rights")), Ok(3)), Outcome::NotJudged);
    assert_eq!(fds(Ok(3), Err(String::from("no rights"))), Outcome::NotJudged);
    assert_eq!(fds(Ok(20), Ok(19)), Outcome::Held);
    assert_eq!(fds(Ok(20), Ok(21)), Outcome::Broken);
}

#[test]
fn results_of_loads_add_up() {
    let json = br#"{"requests":110,"responses":100,"accepted_2xx":90,"unfinished":8,"rate":5.0,
        "responses_by_status":{"202":90,"503":7,"404":3},
        "errors":[{"kind":"http_503","errno":null,"count":7},{"kind":"http_404","errno":null,"count":3},
        {"kind":"reset","errno":104,"count":1},{"kind":"reset","errno":32,"count":1}]}"#;
    let mut told = Told::default();
    told.add(json).unwrap();
    told.add(json).unwrap();
    let errors = [("http_404", 6), ("reset", 4)];
    let expected = Told {
        requests: 220,
        responses: 200,
        acknowledged: 180,
        refused: 14,
        unfinished: 16,
        errors: errors.map(|(kind, count)| (kind.to_owned(), count)).into(),
    };
    assert_eq!(told, expected);
    assert_eq!(told.unknown(), 20, "under way, or broken off");
    assert!(told.add(b"").is_err());
}
