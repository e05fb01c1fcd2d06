//! One run: a server starts, is loaded, measured and brought to its end.
#![expect(
    clippy::disallowed_methods,
    reason = "this is where runs are timed and their folders made"
)]

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use stallscope_probes::{Reading, Why};

use super::order::Turn;
use super::plan::{Cell, Client, Plan, Saturation};
use super::record::{
    CONNECTIONS_MIN, Load, Measured, Outcome, RunRecord, Saturated, per_connection, per_request,
};
use super::search::{self, Next, Tried, Verdict};
use super::stage::{Order, Stage};
use super::usage::{self, Memory};

/// A few requests on a few connections: whatever a server does only once is done then.
const FIRST: (u32, u32, Duration) = (4, 50, Duration::from_millis(500));
/// How long the first answer may take to come: of a server that is cold, or connects to Kafka then.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(30);
/// The same once all is measured, to see whether the server answers still, and how long that may take.
const LAST: (u32, u32, Duration) = (4, 50, Duration::from_millis(200));
const LAST_ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long connections are held open to see what they take: each is used at least once.
const IDLE: Duration = Duration::from_millis(1_500);
/// How often memory is looked at meanwhile.
const MEMORY_EVERY: Duration = Duration::from_millis(200);

/// What all runs have in common.
pub(super) struct Shared<'a> {
    /// What is to be done.
    pub plan: &'a Plan,
    /// Its hash.
    pub hash: &'a str,
    /// Folder of the study.
    pub out: &'a Path,
    /// Set to end it.
    pub stop: &'a AtomicBool,
}

/// Runs one cell once. Whatever goes wrong is in the record; nothing is left running.
pub(super) fn run(context: &Shared<'_>, turn: Turn) -> RunRecord {
    let begun = Instant::now();
    let cell = &context.plan.cells[turn.cell];
    let date = jiff::Timestamp::now();
    let outcome = match attempt(context, cell, turn, date.as_second()) {
        Ok(measured) => Outcome::Measured(Box::new(measured)),
        Err(error) => Outcome::Failed { why: format!("{error:#}") },
    };
    RunRecord {
        plan: context.hash.to_owned(),
        cell: cell.key(),
        round: turn.round,
        begun: date.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        took_s: begun.elapsed().as_secs_f64(),
        outcome,
    }
}

fn attempt(
    context: &Shared<'_>,
    cell: &Cell,
    turn: Turn,
    begun_s: i64,
) -> anyhow::Result<Measured> {
    let Turn { cell: number, round } = turn;
    let out = context.out.join("runs").join(format!("{number:03}-{round:04}"));
    std::fs::create_dir_all(&out)
        .with_context(|| format!("cannot make the folder {}", out.display()))?;
    let fresh = format!("stallscope-bench-{}-{number}-{round}-{begun_s}", context.hash);
    let mut stage = Stage::start(cell, &out, &fresh, context.stop)?;
    let mut problems = Vec::new();
    let connection_bytes = before(&mut stage, context.plan, cell, &mut problems)?;

    let group = stage.group();
    let cpu_before = usage::cpu_s(group);
    let order = Order {
        name: "load",
        connections: cell.connections,
        rate: None,
        client: cell.client,
        time: Duration::from_millis(context.plan.time_ms),
    };
    let load = stage.load(order, || {})?;
    // The last records are delivered: their CPU time is part of what they cost.
    stage.settle()?;
    let cpu_s = used(&cpu_before, &usage::cpu_s(group));
    let rss_peak_bytes = usage::memory(group, Memory::Peak);
    let saturation = match context.plan.saturation {
        Some(saturation) => Some(saturate(&mut stage, cell, saturation, &load)?),
        None => None,
    };
    ensure!(
        load.responses > 0,
        "no request of the measured load was answered; {} were under way",
        load.requests
    );
    // One that hangs leaves its last requests under way, which are no errors.
    let otherwise = "the server answers no more: no answer";
    until_answered(&mut stage, "last", LAST, LAST_ANSWER_MAX, otherwise)?;
    let (server_command, load_command) = (stage.command.clone(), stage.load_command(order));
    let (records, wrong) = stage.end()?;
    problems.extend(wrong);
    Ok(Measured {
        cpu_us_per_request: per_request(&cpu_s, &load),
        cpu_cores: match cpu_s {
            Reading::Got(cpu_s) => Reading::Got(cpu_s / load.duration_s.max(f64::MIN_POSITIVE)),
            Reading::Absent(absence) => Reading::Absent(absence),
        },
        load,
        rss_peak_bytes,
        connection_bytes,
        saturation,
        records,
        problems,
        server_command,
        load_command,
    })
}

/// What comes before the measurement: first requests, connections held open, warm-up. Returns what
/// a connection takes.
fn before(
    stage: &mut Stage<'_>,
    plan: &Plan,
    cell: &Cell,
    problems: &mut Vec<String>,
) -> anyhow::Result<Reading<f64>> {
    let load = until_answered(stage, "first", FIRST, FIRST_ANSWER_MAX, "no request was answered")?;
    note(problems, "first requests", &load);

    let connection_bytes = match (plan.idle_connections, cell.client) {
        (0, _) => Reading::absent(Why::NotSampled, "it was not asked for (--idle-connections 0)"),
        (_, Client::Close) => {
            Reading::absent(Why::Unsupported, "a connection lasts for one request only")
        }
        (asked, Client::KeepAlive) => held(stage, cell.idle_connections(asked), problems)?,
    };

    let time = Duration::from_millis(plan.warm_up_ms);
    let (connections, client) = (cell.connections, cell.client);
    let load =
        stage.load(Order { name: "warm-up", connections, rate: None, client, time }, || {})?;
    note(problems, "warm-up", &load);
    stage.settle()?;
    Ok(connection_bytes)
}

/// Asks until there is an answer.
fn until_answered(
    stage: &mut Stage<'_>,
    name: &'static str,
    (connections, rate, time): (u32, u32, Duration),
    patience: Duration,
    otherwise: &str,
) -> anyhow::Result<Load> {
    let deadline = Instant::now() + patience;
    let order = Order { name, connections, rate: Some(rate), client: Client::KeepAlive, time };
    loop {
        let load = stage.load(order, || {})?;
        if load.accepted_2xx > 0 {
            return Ok(load);
        }
        let errors = load.errors_said();
        ensure!(errors.is_empty(), "no request was answered with a status of 2xx ({errors})");
        ensure!(Instant::now() < deadline, "{otherwise} within {} s", patience.as_secs());
    }
}

fn note(problems: &mut Vec<String>, what: &str, load: &Load) {
    if load.errors_total() > 0 {
        problems.push(format!("{what}: {}", load.errors_said()));
    }
}

/// What each of so many connections takes that are held open and used once or twice.
fn held(
    stage: &mut Stage<'_>,
    connections: u32,
    problems: &mut Vec<String>,
) -> anyhow::Result<Reading<f64>> {
    let group = stage.group();
    let before = usage::memory(group, Memory::Now);
    if connections < CONNECTIONS_MIN {
        return Ok(per_connection(&before, &before, connections));
    }
    let mut with = Reading::absent(Why::NotSampled, "memory was not seen while they were held");
    let mut looked = Instant::now();
    let (rate, client) = (Some(connections), Client::KeepAlive);
    let order = Order { name: "idle", connections, rate, client, time: IDLE };
    let load = stage.load(order, || {
        if looked.elapsed() >= MEMORY_EVERY {
            let now = usage::memory(group, Memory::Now);
            let is_more = match (now.got(), with.got()) {
                (Some(bytes), Some(most)) => bytes > most,
                (seen, _) => seen.is_some(),
            };
            if is_more {
                with = now;
            }
            looked = Instant::now();
        }
    })?;
    note(problems, "connections held open", &load);
    Ok(per_connection(&before, &with, connections))
}

fn used(before: &Reading<f64>, after: &Reading<f64>) -> Reading<f64> {
    match (before, after) {
        (Reading::Got(before), Reading::Got(after)) if after < before => {
            Reading::absent(Why::Gone, "processes of the server ended meanwhile")
        }
        (Reading::Got(before), Reading::Got(after)) => Reading::Got(after - before),
        (Reading::Absent(absence), _) | (_, Reading::Absent(absence)) => {
            Reading::Absent(absence.clone())
        }
    }
}

/// Searches for the highest rate that the server carries, beginning at half of what it gave in the
/// closed loop.
fn saturate(
    stage: &mut Stage<'_>,
    cell: &Cell,
    saturation: Saturation,
    closed: &Load,
) -> anyhow::Result<Saturated> {
    let start = (closed.rate / 2.0) as u64;
    let time = Duration::from_millis(saturation.step_ms);
    let mut found = Saturated::default();
    let mut steps: Vec<(u64, Verdict)> = Vec::new();
    loop {
        let asked = match search::next(start, &steps) {
            Next::Known(rate) => {
                found.rate_per_s = rate;
                return Ok(found);
            }
            Next::Try(rate) => rate,
        };
        let order = Order {
            name: "step",
            connections: cell.connections,
            rate: Some(u32::try_from(asked).unwrap_or(u32::MAX)),
            client: cell.client,
            time,
        };
        let load = stage.load(order, || {})?;
        let tried = Tried {
            asked,
            reached: load.rate,
            p99_us: load.latency_us.map(|latency| latency.p99),
            errors: load.errors_total(),
        };
        let verdict = search::judge(&tried, saturation.p99_max_us);
        found.add(&tried, verdict == Verdict::Carried);
        steps.push((asked, verdict));
        // What one rate leaves behind is not to burden the next.
        stage.settle()?;
    }
}
