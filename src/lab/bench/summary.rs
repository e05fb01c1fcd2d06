//! What came of all runs, cell by cell. Pure.

use serde::Serialize;
use stallscope_probes::{Reading, Why};

use super::machine::Machine;
use super::plan::{Plan, labels};
use super::record::{Measured, RunRecord};
use super::stats::{self, Spread};

/// Different sentences kept of what was wrong with a cell.
const PROBLEMS_MAX: usize = 6;

/// Something that is measured in each run.
pub struct Figure {
    /// Its name in JSON.
    pub id: &'static str,
    /// Its name in tables.
    pub title: &'static str,
    /// Its unit, after [`Self::shown_by`].
    pub unit: &'static str,
    /// What a value is divided by to be shown.
    pub shown_by: f64,
    /// Whether more of it is better.
    pub more_is_better: bool,
    /// Where it stands in a run.
    pub of: fn(&Measured) -> Reading<f64>,
}

/// Everything that is measured in each run, in the order of the tables.
pub const FIGURES: [Figure; 9] = [
    Figure {
        id: "requests_per_s",
        title: "Throughput",
        unit: "requests/s",
        shown_by: 1.0,
        more_is_better: true,
        of: |run| Reading::Got(run.load.rate),
    },
    Figure {
        id: "cpu_us_per_request",
        title: "CPU per request",
        unit: "µs",
        shown_by: 1.0,
        more_is_better: false,
        of: |run| run.cpu_us_per_request.clone(),
    },
    Figure {
        id: "p50_us",
        title: "p50",
        unit: "ms",
        shown_by: 1e3,
        more_is_better: false,
        of: |run| latency(run, |latency| latency.p50),
    },
    Figure {
        id: "p90_us",
        title: "p90",
        unit: "ms",
        shown_by: 1e3,
        more_is_better: false,
        of: |run| latency(run, |latency| latency.p90),
    },
    Figure {
        id: "p99_us",
        title: "p99",
        unit: "ms",
        shown_by: 1e3,
        more_is_better: false,
        of: |run| latency(run, |latency| latency.p99),
    },
    Figure {
        id: "p999_us",
        title: "p99.9",
        unit: "ms",
        shown_by: 1e3,
        more_is_better: false,
        of: |run| latency(run, |latency| latency.p999),
    },
    Figure {
        id: "connection_bytes",
        title: "Memory per connection",
        unit: "KiB",
        shown_by: 1024.0,
        more_is_better: false,
        of: |run| run.connection_bytes.clone(),
    },
    Figure {
        id: "rss_peak_bytes",
        title: "Peak memory",
        unit: "MiB",
        shown_by: 1_048_576.0,
        more_is_better: false,
        of: |run| match &run.rss_peak_bytes {
            Reading::Got(bytes) => Reading::Got(*bytes as f64),
            Reading::Absent(absence) => Reading::Absent(absence.clone()),
        },
    },
    Figure {
        id: "saturation_per_s",
        title: "Highest rate in time",
        unit: "requests/s",
        shown_by: 1.0,
        more_is_better: true,
        of: saturation,
    },
];

/// Place of the throughput in [`FIGURES`].
pub const RATE: usize = 0;
/// Place of the CPU time per request in [`FIGURES`].
pub const CPU: usize = 1;
/// Places of the latencies in [`FIGURES`].
pub const LATENCIES: [usize; 4] = [2, 3, 4, 5];
/// Place of the memory per connection in [`FIGURES`].
pub const MEMORY: usize = 6;
/// Place of the highest rate in [`FIGURES`].
pub const SATURATION: usize = 8;

fn latency(run: &Measured, which: fn(&super::record::Latency) -> u64) -> Reading<f64> {
    match &run.load.latency_us {
        Some(latency) => Reading::Got(which(latency) as f64),
        None => Reading::absent(Why::Unsupported, "there was no response"),
    }
}

fn saturation(run: &Measured) -> Reading<f64> {
    match &run.saturation {
        None => Reading::absent(Why::NotSampled, "it was not searched for (--saturation)"),
        Some(found) => match found.rate_per_s {
            Some(rate) => Reading::Got(rate as f64),
            None => Reading::absent(Why::Unsupported, "not even the lowest rate was carried"),
        },
    }
}

/// One cell, over all rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What it is called.
    pub label: String,
    /// Its key in the runs.
    pub key: String,
    /// Its axes and their values.
    pub axes: Vec<(&'static str, String)>,
    /// Runs with figures.
    pub measured: u32,
    /// Runs without.
    pub failed: u32,
    /// [`FIGURES`], each over all rounds.
    pub figures: Vec<Reading<Spread>>,
    /// [`FIGURES`] divided by those of the baseline in the same round; `None` without a common round.
    pub ratios: Vec<Option<Spread>>,
    /// Throughput round by round: round, requests a second.
    pub rounds: Vec<(u32, f64)>,
    /// Errors in all measured loads.
    pub errors: u64,
    /// Events acknowledged to clients, and records found in Kafka; `None` without Kafka.
    pub records: Option<(u64, u64)>,
    /// What was wrong, each sentence once, with the number of runs it was said of.
    pub problems: Vec<(String, u32)>,
    /// How its server was started last; `None` when it was never up.
    pub server_command: Option<String>,
    /// How it was loaded last.
    pub load_command: Option<String>,
}

/// What something costs that one cell has and another has not.
#[derive(Debug, Clone, Serialize)]
pub struct StepRow {
    /// What is divided by what.
    pub what: String,
    /// Label of the cell that has it.
    pub with: String,
    /// Label of the cell that has it not.
    pub without: String,
    /// Throughput with it, divided by that without, round by round.
    pub rate: Option<Spread>,
    /// CPU time per request with it, divided by that without.
    pub cpu: Option<Spread>,
}

/// A whole study.
#[derive(Debug, Clone)]
pub struct Summary {
    /// What was to be done.
    pub plan: Plan,
    /// Where it was done.
    pub machine: Machine,
    /// One row for each cell.
    pub rows: Vec<Row>,
    /// What HTTP costs, and Kafka.
    pub steps: Vec<StepRow>,
    /// Every run, by round and then by cell.
    pub runs: Vec<RunRecord>,
    /// Runs of the plan that are not there.
    pub missing: u64,
    /// What is to be known besides, one sentence each.
    pub notes: Vec<String>,
}

impl Summary {
    /// Of `records`, in any order.
    pub fn of(
        plan: Plan,
        machine: Machine,
        mut records: Vec<RunRecord>,
        mut notes: Vec<String>,
    ) -> Self {
        if !machine.is_release {
            notes.push(String::from(
                "this is a debug build: no figure here is one of a release build",
            ));
        }
        let keys: Vec<String> = plan.cells.iter().map(super::plan::Cell::key).collect();
        let place = |record: &RunRecord| keys.iter().position(|key| *key == record.cell);
        records.retain(|record| place(record).is_some() && record.round < plan.rounds);
        records.sort_by_key(|record| (record.round, place(record)));
        let of_cell = |cell: usize| {
            records.iter().filter(|record| record.cell == keys[cell]).collect::<Vec<_>>()
        };
        let base = of_cell(plan.baseline);
        let rows: Vec<Row> = labels(&plan.cells)
            .into_iter()
            .enumerate()
            .map(|(cell, label)| {
                let axes = plan.cells[cell].axes();
                row(label, keys[cell].clone(), axes, &of_cell(cell), &base)
            })
            .collect();
        let steps = steps(&plan, &rows, of_cell);
        let missing = plan.runs().saturating_sub(records.len() as u64);
        Self { plan, machine, rows, steps, runs: records, missing, notes }
    }

    /// Whether every run has figures, without an error, and no event was lost.
    pub fn is_fine(&self) -> bool {
        self.missing == 0 && self.runs.iter().all(|run| run.problems().is_empty())
    }

    /// Label of the cell that others are compared with.
    pub fn baseline(&self) -> &str {
        self.rows.get(self.plan.baseline).map_or("", |row| row.label.as_str())
    }

    /// Whether any cell has this figure.
    pub fn has(&self, figure: usize) -> bool {
        self.rows.iter().any(|row| row.figures[figure].got().is_some())
    }
}

/// A figure of each run that has it: round, value.
fn by_round(records: &[&RunRecord], figure: &Figure) -> Vec<(u32, f64)> {
    let of = |record: &&RunRecord| {
        let value = (figure.of)(record.measured()?).got().copied()?;
        Some((record.round, value))
    };
    records.iter().filter_map(of).collect()
}

fn row(
    label: String,
    key: String,
    axes: Vec<(&'static str, String)>,
    records: &[&RunRecord],
    base: &[&RunRecord],
) -> Row {
    let runs: Vec<&Measured> = records.iter().filter_map(|record| record.measured()).collect();
    let mut problems: Vec<(String, u32)> = Vec::new();
    for problem in records.iter().flat_map(|record| record.problems()) {
        match problems.iter_mut().find(|(known, _)| *known == problem) {
            Some((_, times)) => *times += 1,
            None => problems.push((problem, 1)),
        }
    }
    problems.truncate(PROBLEMS_MAX);
    let sums = runs.iter().filter_map(|run| run.records.as_ref());
    let records_sum = sums.map(|it| (it.acknowledged, it.in_kafka)).reduce(|a, b| {
        let (acknowledged, in_kafka) = b;
        (a.0 + acknowledged, a.1 + in_kafka)
    });
    Row {
        label,
        key,
        axes,
        measured: runs.len() as u32,
        failed: (records.len() - runs.len()) as u32,
        figures: FIGURES.iter().map(|figure| spread(figure, &runs)).collect(),
        ratios: FIGURES
            .iter()
            .map(|figure| stats::ratios(&by_round(records, figure), &by_round(base, figure)))
            .collect(),
        rounds: by_round(records, &FIGURES[RATE]),
        errors: runs.iter().map(|run| run.load.errors_total()).sum(),
        records: records_sum,
        problems,
        server_command: runs.last().map(|run| run.server_command.clone()),
        load_command: runs.last().map(|run| run.load_command.clone()),
    }
}

fn spread(figure: &Figure, runs: &[&Measured]) -> Reading<Spread> {
    let values: Vec<Reading<f64>> = runs.iter().map(|run| (figure.of)(run)).collect();
    let got = values.iter().filter_map(|value| value.got().copied());
    match (Spread::of(got), values.iter().find_map(Reading::absence)) {
        (Some(spread), _) => Reading::Got(spread),
        (None, Some(absence)) => Reading::Absent(absence.clone()),
        (None, None) => Reading::absent(Why::NotSampled, "no run has been measured"),
    }
}

fn steps<'a>(
    plan: &Plan,
    rows: &[Row],
    of_cell: impl Fn(usize) -> Vec<&'a RunRecord>,
) -> Vec<StepRow> {
    let mut steps = Vec::new();
    for (upper, cell) in plan.cells.iter().enumerate() {
        for (lower, below) in plan.cells.iter().enumerate() {
            let Some(what) = cell.step_from(below) else { continue };
            let ratio = |figure: usize| {
                let figure = &FIGURES[figure];
                let (with, without) = (of_cell(upper), of_cell(lower));
                stats::ratios(&by_round(&with, figure), &by_round(&without, figure))
            };
            steps.push(StepRow {
                what,
                with: rows[upper].label.clone(),
                without: rows[lower].label.clone(),
                rate: ratio(RATE),
                cpu: ratio(CPU),
            });
        }
    }
    steps
}

#[cfg(test)]
#[path = "summary_tests.rs"]
pub(super) mod tests;
