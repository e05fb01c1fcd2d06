use super::*;
use crate::lab::bench::plan::{Axes, Client, Kafka};
use crate::lab::bench::record::tests::{failed, measured};
use crate::lab::bench::record::{Outcome, Records};
use crate::servers::{ProducerKind, Work};

/// A plan of so many stacks and rounds.
pub fn plan(stacks: usize, rounds: u32) -> Plan {
    let names = ["tokio", "tokio-uring", "tokio-hyper", "tokio-uring-hyper"];
    let axes = Axes {
        stacks: names.iter().take(stacks).map(|name| ((*name).to_owned(), false)).collect(),
        ..axes()
    };
    Plan {
        cells: axes.cells().unwrap(),
        rounds,
        time_ms: 2_000,
        warm_up_ms: 500,
        idle_connections: 500,
        saturation: None,
        baseline: 0,
        build: "0123456789abcdef".repeat(4),
    }
}

pub fn axes() -> Axes {
    Axes {
        works: vec![Work::Events],
        producers: vec![ProducerKind::Threaded],
        tunings: vec![String::from("default")],
        kafkas: vec![Kafka::Embedded],
        threads: vec![1],
        fd_limits: vec![1_024],
        clients: vec![Client::KeepAlive],
        connections: vec![64],
        ..Axes::default()
    }
}

fn machine() -> Machine {
    Machine {
        cpu: Some(String::from("Test CPU")),
        cpus: Some(2),
        memory_bytes: 8 << 30,
        kernel: String::from("Linux 6.18.0, x86_64"),
        load_average: Some(0.5),
        date: String::from("2026-01-01T00:00:00Z"),
        version: String::from("0.1.0"),
        is_release: true,
        librdkafka: String::from("2.12.0"),
        command: String::from("stallscope lab bench"),
    }
}

/// Two stacks with and without Kafka, three rounds; the second stack is twice as fast; one run failed,
/// one lost events.
pub fn study() -> Summary {
    let axes = Axes {
        stacks: vec![(String::from("tokio"), false), (String::from("tokio-uring"), true)],
        kafkas: vec![Kafka::None, Kafka::Embedded],
        ..axes()
    };
    let plan = Plan { cells: axes.cells().unwrap(), ..plan(1, 3) };
    let mut records = Vec::new();
    for round in 0..3 {
        // The machine becomes slower with each round.
        let machine = 1.0 / f64::from(round + 1);
        for (cell, factor) in plan.cells.iter().zip([10.0, 20.0, 5.0, 10.0]) {
            let mut record = measured(&cell.key(), round, factor * machine);
            if let Outcome::Measured(run) = &mut record.outcome
                && *cell.kafka() == Kafka::None
            {
                run.records = None;
            }
            records.push(record);
        }
    }
    records[2] = failed(&plan.cells[2].key(), 0, "the server does not listen");
    if let Outcome::Measured(run) = &mut records[7].outcome {
        run.load.errors = vec![(String::from("reset"), 3)];
        run.records = run.records.map(|it| Records { in_kafka: it.acknowledged - 7, ..it });
    }
    Summary::of(plan, machine(), records, vec![String::from("8 runs were there already")])
}

/// A study in which every text is out to do harm.
pub fn hostile() -> Summary {
    let evil = "<script>alert(1)</script>|`\u{1b}[31m\u{202e}";
    let mut summary = study();
    for row in &mut summary.rows {
        evil.clone_into(&mut row.label);
        row.axes[0].1 = evil.to_owned();
        row.problems = vec![(evil.to_owned(), 1)];
        row.server_command = Some(format!("```\n{evil}"));
    }
    for step in &mut summary.steps {
        evil.clone_into(&mut step.with);
    }
    evil.clone_into(&mut summary.machine.command);
    summary.notes = vec![evil.to_owned()];
    summary
}

#[test]
fn medians_ratios_and_steps() {
    let summary = study();
    let rate = |row: usize| summary.rows[row].figures[RATE].got().unwrap().median;
    assert!((rate(0) - 5_000.0).abs() < 1e-6 && (rate(1) - 10_000.0).abs() < 1e-6);
    // The machine's drift is in the medians, not in the ratios.
    let ratio = summary.rows[1].ratios[RATE].unwrap();
    assert_eq!((ratio.rounds, ratio.min, ratio.median, ratio.max), (3, 2.0, 2.0, 2.0));
    let steps: Vec<_> = summary
        .steps
        .iter()
        .map(|step| (step.with.as_str(), step.what.as_str(), step.rate.map(|it| it.median)))
        .collect();
    assert_eq!(
        steps,
        [
            (
                "tokio, Kafka embedded, threaded, default",
                "embedded Kafka / without Kafka",
                Some(0.5)
            ),
            (
                "tokio-uring, Kafka embedded, threaded, default",
                "embedded Kafka / without Kafka",
                Some(0.5)
            ),
        ]
    );
    assert_eq!(summary.missing, 0);
}

#[test]
fn what_was_wrong_is_in_the_row_and_in_the_verdict() {
    let summary = study();
    assert!(!summary.is_fine());
    assert_eq!((summary.rows[2].measured, summary.rows[2].failed), (2, 1));
    assert_eq!(summary.rows[2].problems, [(String::from("the server does not listen"), 1)]);
    assert_eq!((summary.rows[3].errors, summary.rows[3].records), (3, Some((6_300, 6_293))));
    assert_eq!(summary.rows[3].problems.len(), 3, "{:?}", summary.rows[3].problems);
}

#[test]
fn a_study_without_runs_is_not_fine_and_has_a_summary() {
    let summary = Summary::of(plan(2, 2), machine(), Vec::new(), Vec::new());
    assert_eq!((summary.missing, summary.is_fine()), (4, false));
    assert!(summary.rows[0].figures[RATE].absence().is_some());
    let round = measured(&summary.plan.cells[0].key(), 7, 1.0);
    let other = measured("another cell", 0, 1.0);
    let summary = Summary::of(plan(2, 2), machine(), vec![round, other], Vec::new());
    assert_eq!(summary.runs.len(), 0, "runs that the plan does not have");
}
