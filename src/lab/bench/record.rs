//! What came of one run. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use stallscope_probes::{Reading, Why};

use super::search::Tried;

/// Connections from which it can be told what each takes: with fewer, pages that come and go
/// otherwise are more than theirs.
pub const CONNECTIONS_MIN: u32 = 100;
/// Kinds of errors kept of one load.
const KINDS_MAX: usize = 16;

/// One run: a line of `runs.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Hash of the plan it is a run of.
    pub plan: String,
    /// Key of its cell.
    pub cell: String,
    /// Which round, from 0.
    pub round: u32,
    /// When it began, RFC 3339.
    pub begun: String,
    /// How long it took, s.
    pub took_s: f64,
    /// What came of it.
    pub outcome: Outcome,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Outcome {
    /// With figures.
    Measured(Box<Measured>),
    /// Without.
    Failed {
        /// Why, in one sentence.
        why: String,
    },
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The measured load.
    pub load: Load,
    /// CPU time of the server for each response, µs.
    pub cpu_us_per_request: Reading<f64>,
    /// CPU time of the server in a second of the measured load, s.
    pub cpu_cores: Reading<f64>,
    /// Greatest resident memory of the server, bytes.
    pub rss_peak_bytes: Reading<u64>,
    /// What a connection that is held open takes, bytes.
    pub connection_bytes: Reading<f64>,
    /// The search for the highest rate, if there was one.
    pub saturation: Option<Saturated>,
    /// What became of the records; `None` without Kafka.
    pub records: Option<Records>,
    /// What was wrong, one sentence each.
    pub problems: Vec<String>,
    /// The server's command, as a shell would take it.
    pub server_command: String,
    /// The command of the measured load.
    pub load_command: String,
}

/// What a load said of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// How long it took, s.
    pub duration_s: f64,
    /// Requests begun.
    pub requests: u64,
    /// Whole responses, of any status.
    pub responses: u64,
    /// Of those, with a status from 200 to 299.
    pub accepted_2xx: u64,
    /// Responses a second.
    pub rate: f64,
    /// Due and never sent; 0 in a closed loop.
    pub overdue: u64,
    /// What went wrong, and how often.
    pub errors: Vec<(String, u64)>,
    /// Latencies; `None` without a response.
    pub latency_us: Option<Latency>,
}

/// Percentiles of the latency, µs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Half were faster.
    pub p50: u64,
    /// 90 % were faster.
    pub p90: u64,
    /// 99 % were faster.
    pub p99: u64,
    /// 99.9 % were faster.
    pub p999: u64,
    /// The slowest.
    pub max: u64,
}

impl Load {
    /// Of the one JSON object that `stallscope load --json` prints.
    pub fn of(printed: &Value) -> Option<Self> {
        let error =
            |error: &Value| Some((error["kind"].as_str()?.to_owned(), error["count"].as_u64()?));
        let errors: Option<_> =
            printed["errors"].as_array()?.iter().take(KINDS_MAX).map(error).collect();
        let overdue = match &printed["overdue"] {
            // In a closed loop nothing falls due.
            Value::Null => 0,
            overdue => overdue.as_u64()?,
        };
        let latency = &printed["latency_us"];
        let latency_us = || {
            Some(Latency {
                p50: latency["p50"].as_u64()?,
                p90: latency["p90"].as_u64()?,
                p99: latency["p99"].as_u64()?,
                p999: latency["p999"].as_u64()?,
                max: latency["max"].as_u64()?,
            })
        };
        Some(Self {
            duration_s: printed["duration_s"].as_f64()?,
            requests: printed["requests"].as_u64()?,
            responses: printed["responses"].as_u64()?,
            accepted_2xx: printed["accepted_2xx"].as_u64()?,
            rate: printed["rate"].as_f64()?,
            overdue,
            errors: errors?,
            latency_us: latency_us(),
        })
    }

    /// Everything that went wrong, counted.
    pub fn errors_total(&self) -> u64 {
        self.errors.iter().map(|(_, count)| count).sum()
    }

    /// `3 × reset, 1 × http_503`.
    pub fn errors_said(&self) -> String {
        let said = self.errors.iter().map(|(kind, count)| format!("{count} × {kind}"));
        said.collect::<Vec<_>>().join(", ")
    }
}

/// The highest rate carried, and how it was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Saturated {
    /// Requests a second; `None` when not even the lowest was carried.
    pub rate_per_s: Option<u64>,
    /// Each rate that was tried: asked for, reached, 99th percentile of the latency (µs), errors,
    /// whether it was carried.
    pub steps: Vec<(u64, f64, Option<u64>, u64, bool)>,
}

impl Saturated {
    /// Adds a rate that was tried.
    pub fn add(&mut self, tried: &Tried, carried: bool) {
        self.steps.push((tried.asked, tried.reached, tried.p99_us, tried.errors, carried));
    }
}

/// Events on their way: promised to clients, taken and delivered by the server's own account, found
/// in Kafka.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// Requests answered 2xx, of all loads of the run.
    pub acknowledged: u64,
    /// Requests of all loads that were begun and not answered 2xx: each may have left a record.
    pub unsure: u64,
    /// Taken into the producer's queue, as the server says.
    pub accepted: Option<u64>,
    /// Acknowledged by the broker, as the server says.
    pub delivered: Option<u64>,
    /// Given up, as the server says.
    pub failed: Option<u64>,
    /// Records in the topic, counted by a consumer.
    pub in_kafka: u64,
}

impl Records {
    /// Acknowledged events that are not in Kafka.
    pub const fn lost(&self) -> u64 {
        self.acknowledged.saturating_sub(self.in_kafka)
    }

    /// What does not add up, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let Self { acknowledged, unsure, delivered, failed, in_kafka, .. } = *self;
        let mut problems = Vec::new();
        if self.lost() > 0 {
            problems.push(format!(
                "{} events are lost: {acknowledged} were acknowledged to clients and {in_kafka} are in Kafka",
                self.lost()
            ));
        }
        if in_kafka > acknowledged + unsure {
            problems.push(format!(
                "{} records too many: {in_kafka} are in Kafka, and clients sent {}",
                in_kafka - acknowledged - unsure,
                acknowledged + unsure
            ));
        }
        if let Some(delivered) = delivered.filter(|delivered| *delivered != in_kafka) {
            problems.push(format!(
                "the server says that {delivered} records were delivered, and {in_kafka} are in Kafka"
            ));
        }
        if let Some(failed) = failed.filter(|failed| *failed > 0) {
            problems.push(format!("the server says that the delivery of {failed} events failed"));
        }
        problems
    }
}

impl RunRecord {
    /// The figures, if there are any.
    pub fn measured(&self) -> Option<&Measured> {
        match &self.outcome {
            Outcome::Measured(measured) => Some(measured),
            Outcome::Failed { .. } => None,
        }
    }

    /// Whether it has figures.
    pub fn is_measured(&self) -> bool {
        self.measured().is_some()
    }

    /// What was wrong with it, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        match &self.outcome {
            Outcome::Failed { why } => vec![why.clone()],
            Outcome::Measured(measured) => {
                let mut problems = measured.problems.clone();
                if measured.load.errors_total() > 0 {
                    problems.push(format!("errors: {}", measured.load.errors_said()));
                }
                if let Some(records) = &measured.records {
                    problems.extend(records.problems());
                }
                problems
            }
        }
    }
}

/// CPU time for each response, µs.
pub fn per_request(cpu: &Reading<f64>, load: &Load) -> Reading<f64> {
    match cpu {
        Reading::Got(_) if load.responses == 0 => {
            Reading::absent(Why::Unsupported, "there was no response")
        }
        Reading::Got(cpu_s) => Reading::Got(cpu_s * 1e6 / load.responses as f64),
        Reading::Absent(absence) => Reading::Absent(absence.clone()),
    }
}

/// What one of `connections` takes, bytes: what the memory grew by while they were held.
pub fn per_connection(
    before: &Reading<u64>,
    with: &Reading<u64>,
    connections: u32,
) -> Reading<f64> {
    match (before, with) {
        _ if connections < CONNECTIONS_MIN => Reading::absent(
            Why::Unsupported,
            format!("{connections} connections are too few to tell theirs from other memory"),
        ),
        (Reading::Got(before), Reading::Got(with)) if with < before => {
            Reading::absent(Why::Unsupported, "other memory was given back meanwhile")
        }
        (Reading::Got(before), Reading::Got(with)) => {
            Reading::Got((*with - *before) as f64 / f64::from(connections))
        }
        (Reading::Absent(absence), _) | (_, Reading::Absent(absence)) => {
            Reading::Absent(absence.clone())
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A run in which everything grows with `factor`.
    pub fn measured(cell: &str, round: u32, factor: f64) -> RunRecord {
        let us = |us: f64| (us * factor) as u64;
        let measured = Measured {
            load: Load {
                duration_s: 2.0,
                requests: 2_000,
                responses: 2_000,
                accepted_2xx: 2_000,
                rate: 1_000.0 * factor,
                overdue: 0,
                errors: Vec::new(),
                latency_us: Some(Latency {
                    p50: us(100.0),
                    p90: us(200.0),
                    p99: us(900.0),
                    p999: us(4_000.0),
                    max: us(9_000.0),
                }),
            },
            cpu_us_per_request: Reading::Got(20.0 * factor),
            cpu_cores: Reading::Got(0.5),
            rss_peak_bytes: Reading::Got(us(20e6)),
            connection_bytes: Reading::absent(Why::NotSampled, "it was not asked for"),
            saturation: None,
            records: Some(Records {
                acknowledged: 2_100,
                unsure: 0,
                accepted: Some(2_100),
                delivered: Some(2_100),
                failed: Some(0),
                in_kafka: 2_100,
            }),
            problems: Vec::new(),
            server_command: String::from("stallscope serve tokio"),
            load_command: String::from("stallscope load http://127.0.0.1:1"),
        };
        RunRecord {
            plan: String::from("p"),
            cell: cell.to_owned(),
            round,
            begun: String::from("2026-01-01T00:00:00Z"),
            took_s: 5.0,
            outcome: Outcome::Measured(Box::new(measured)),
        }
    }

    pub fn failed(cell: &str, round: u32, why: &str) -> RunRecord {
        let outcome = Outcome::Failed { why: why.to_owned() };
        RunRecord { outcome, ..measured(cell, round, 1.0) }
    }

    #[test]
    fn what_a_load_prints_is_read() {
        let printed = json!({
            "duration_s": 2.5, "requests": 12, "responses": 11, "accepted_2xx": 10, "rate": 4.4,
            "overdue": null, "errors": [
                {"kind": "reset", "errno": 104, "count": 1}, {"kind": "http_503", "errno": null, "count": 1},
            ],
            "latency_us": {"p50": 1, "p90": 2, "p99": 3, "p999": 4, "max": 5, "mean": 1.5},
        });
        let load = Load::of(&printed).unwrap();
        assert_eq!((load.responses, load.errors_total(), load.overdue), (11, 2, 0));
        assert_eq!(load.errors_said(), "1 × reset, 1 × http_503");
        assert_eq!(load.latency_us.map(|latency| latency.p999), Some(4));
        assert_eq!(Load::of(&json!({"responses": 1})), None);
    }

    #[test]
    fn records_that_do_not_add_up_are_told() {
        let fine = Records {
            acknowledged: 10,
            unsure: 2,
            accepted: Some(11),
            delivered: Some(11),
            failed: Some(0),
            in_kafka: 11,
        };
        let foreign = Records { accepted: None, delivered: None, failed: None, ..fine };
        let cases = [
            (fine, vec![]),
            (foreign, vec![]),
            (Records { in_kafka: 9, ..foreign }, vec!["1 events are lost"]),
            (Records { in_kafka: 13, ..foreign }, vec!["1 records too many"]),
            (Records { in_kafka: 10, ..fine }, vec!["says that 11 records were delivered"]),
            (Records { failed: Some(3), ..fine }, vec!["delivery of 3 events failed"]),
        ];
        for (records, expected) in cases {
            let problems = records.problems();
            assert_eq!(problems.len(), expected.len(), "{problems:?}");
            for (problem, words) in problems.iter().zip(expected) {
                assert!(problem.contains(words), "{problem}");
            }
        }
    }

    #[test]
    fn what_a_connection_takes_is_told_where_there_are_enough() {
        let got = |bytes| Reading::Got(bytes);
        assert_eq!(per_connection(&got(1_000), &got(3_000), 200), Reading::Got(10.0));
        assert!(per_connection(&got(3_000), &got(1_000), 200).absence().is_some(), "memory fell");
        assert!(per_connection(&got(1_000), &got(3_000), 99).absence().is_some());
        let absent = Reading::absent(Why::Gone, "it has gone");
        assert!(per_connection(&absent, &got(1), 200).absence().is_some());
    }

    #[test]
    fn cpu_time_is_shared_out_among_responses() {
        let load = Load { responses: 1_000, ..Load::default() };
        assert_eq!(per_request(&Reading::Got(0.5), &load), Reading::Got(500.0));
        assert!(per_request(&Reading::Got(0.5), &Load::default()).absence().is_some());
    }
}
