//! The table, the JSON and the closing sentence.

use super::*;
use crate::load::plan::Method;

fn outcome(fill: impl FnOnce(&mut Tally)) -> Outcome {
    let mut plan = Plan::new("http://server.test:8080".parse().unwrap());
    plan.method = Method::Post { data_bytes: 64 };
    let mut tally = Tally::new();
    fill(&mut tally);
    Outcome {
        plan,
        address: "127.0.0.1:8080".parse().unwrap(),
        tally,
        elapsed: Duration::from_millis(2500),
        overdue: None,
    }
}

fn busy() -> Outcome {
    let mut outcome = outcome(|tally| {
        tally.requests = 1_234_580;
        tally.connections_opened = 66;
        for _ in 0..1_000 {
            tally.on_response(202, 1_234_000);
        }
        tally.on_response(503, 12_345_678_000);
        for _ in 0..2 {
            let reset = Failure { kind: FailureKind::Reset, errno: Some(104) };
            tally.on_request_failure(reset);
        }
        tally.on_connect_failure(Failure { kind: FailureKind::ConnectFailed, errno: Some(4095) });
    });
    outcome.plan.rate = Some(12_000);
    outcome.overdue = Some(7);
    outcome
}

#[test]
fn the_table_is_for_people() {
    insta::assert_snapshot!(busy().to_table(), @r"
    POST         http://server.test:8080/events
                 64 connections, keep-alive, open loop at 12 000/s
    duration     2.50 s
    responses    1 001 (400/s)
                        1 000  HTTP status 202
                            1  HTTP status 503
    connections  66 opened
    unfinished   1 233 577 under way at the end
    overdue      7 due, never sent: no connection was free
    latency      p50 1.23 ms  p90 1.23 ms  p99 1.23 ms  p99.9 1.23 ms  max 12.4 s
    errors                  2  connection reset (ECONNRESET)
                            1  connect failed (errno 4095)
                            1  HTTP status 503
    ");
}

#[test]
fn the_json_is_as_documented() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&busy().to_json()).unwrap(), @r#"
    {
      "accepted_2xx": 1000,
      "address": "127.0.0.1:8080",
      "close": false,
      "connections": 64,
      "connections_opened": 66,
      "duration_s": 2.5,
      "errors": [
        {
          "count": 2,
          "errno": 104,
          "kind": "reset"
        },
        {
          "count": 1,
          "errno": 4095,
          "kind": "connect_failed"
        },
        {
          "count": 1,
          "errno": null,
          "kind": "http_503"
        }
      ],
      "latency_us": {
        "max": 12353535,
        "mean": 13569.87012987013,
        "p50": 1234,
        "p90": 1234,
        "p99": 1234,
        "p999": 1234
      },
      "method": "POST",
      "overdue": 7,
      "rate": 400.4,
      "rate_asked": 12000,
      "requests": 1234580,
      "responses": 1001,
      "responses_by_status": {
        "202": 1000,
        "503": 1
      },
      "unfinished": 1233577,
      "url": "http://server.test:8080/events"
    }
    "#);
}

#[test]
fn no_response_has_no_latency() {
    let outcome = outcome(|_| ());
    assert_eq!(outcome.to_json()["latency_us"], Value::Null);
    assert_eq!(outcome.to_json()["overdue"], Value::Null);
    assert!(outcome.to_table().contains("no response, so none"));
}

#[test]
fn a_run_without_success_says_what_stood_in_the_way() {
    assert_eq!(busy().failure(), None);
    let failure = |kind, errno| {
        let sentence = outcome(|tally| {
            tally.on_connect_failure(Failure::of(FailureKind::Io));
            for _ in 0..3 {
                tally.on_connect_failure(Failure { kind, errno });
            }
        });
        sentence.failure().unwrap()
    };
    let refused = failure(FailureKind::ConnectRefused, Some(111));
    assert!(refused.contains("mostly connection refused (ECONNREFUSED) (3 times)"), "{refused}");
    assert!(refused.contains("start the server"), "{refused}");
    assert!(failure(FailureKind::NoFd, Some(24)).contains("ulimit"));
    assert!(failure(FailureKind::RequestTimeout, None).contains("stallscope diagnose"));

    let statuses = outcome(|tally| tally.on_response(404, 1)).failure().unwrap();
    assert!(statuses.contains("HTTP status 404"), "{statuses}");
    let silent = outcome(|_| ()).failure().unwrap();
    assert!(silent.contains("neither answered nor failed"), "{silent}");
}

#[test]
fn numbers_are_easy_to_read() {
    let grouped_cases = [(0, "0"), (999, "999"), (1000, "1 000"), (1_234_567, "1 234 567")];
    for (number, text) in grouped_cases {
        assert_eq!(grouped(number), text);
    }
    let us_cases = [
        (0, "0 µs"),
        (999, "999 µs"),
        (1_000, "1.00 ms"),
        (12_345, "12.3 ms"),
        (123_456, "123 ms"),
        (2_000_000, "2.00 s"),
    ];
    for (us, text) in us_cases {
        assert_eq!(human_us(us), text);
    }
}
