//! `stallscope demo`.

#![expect(clippy::disallowed_methods, reason = "this is where the demo's report is written")]

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use stallscope_probes::sample::{Fault, RingState};

use super::args::{PROFILE_HZ, duration};
use super::{EXIT_ERROR, EXIT_OK, live, stop};
use crate::lab::scenario::{self, Plan, Running};
use crate::lab::truth;
use crate::model::Model;
use crate::report;
use crate::watch::event::{Anchor, Event};
use crate::watch::recorder::Recorder;
use crate::watch::replay;
use crate::watch::session::{Pacing, Probes, Session, Tick, Until};
use crate::watch::target::Selection;

/// The watcher's ordinary interval.
/// With room for a build without optimisation, whose ticks cost ten times as much.
const PACING: Pacing =
    Pacing { interval: Duration::from_millis(50), budget_ppm: 100_000, probes: Probes::Auto };
/// Well below the 256 entries of the submission queue, beyond which a stalled tokio-uring runtime
/// would submit after all.
const CONNECTIONS: u32 = 64;
/// Time for the verdict after the fault, and for the load to outlast the watch.
const SLACK: Duration = Duration::from_secs(8);
/// How long the TUI stays after the end.
const CLOSE_AFTER: Duration = Duration::from_secs(3);
const PROGRESS_EVERY_NS: u64 = 2_000_000_000;

/// See a server stall, and why, in under 90 seconds.
///
/// Starts a server with an embedded Kafka, puts load on it, watches it from outside, lets it stall
/// for real, and writes a report. On a terminal with the TUI; without one it prints progress
/// lines. Exit status: 0 if and only if the stall was seen and named correctly.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which server
    #[arg(long, value_enum, default_value = "tokio-uring")]
    stack: Stack,
    /// Which fault: sq-not-flushed (tokio-uring only), fd-exhausted, runtime-blocked, process-stopped
    #[arg(long, value_name = "ID", default_value = "sq-not-flushed", value_parser = fault)]
    fault: Fault,
    /// How long the server runs healthy
    #[arg(long, value_name = "DURATION", default_value = "12s", value_parser = duration)]
    healthy: Duration,
    /// How long to go on after the stall was named
    #[arg(long, value_name = "DURATION", default_value = "6s", value_parser = duration)]
    stalled: Duration,
    /// Where to put the folder `demo` with the recording and the report; default: reports/out where
    /// there is a folder reports, else stallscope-out
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Progress lines instead of the TUI
    #[arg(long)]
    headless: bool,
}

/// The instrumented servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stack {
    Tokio,
    TokioUring,
}

fn fault(text: &str) -> Result<Fault, String> {
    // Those of Kafka need requests that wait for the broker, which the demo's do not.
    let offered = || Fault::ALL.into_iter().filter(|fault| !fault.is_of_kafka());
    offered().find(|fault| fault.id() == text).ok_or_else(|| {
        let ids: Vec<&str> = offered().map(Fault::id).collect();
        format!("there is no fault '{text}'; there are {}", ids.join(", "))
    })
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        args.fault != Fault::SqNotFlushed || args.stack == Stack::TokioUring,
        "the tokio server has no io_uring, so sq-not-flushed cannot happen to it"
    );
    let stop = stop::on_signal()?;
    let out = args.out.clone().unwrap_or_else(default_folder).join("demo");
    scenario::folder(&out)?;
    let tui = !args.headless && std::io::stdout().is_terminal();
    let plan = plan(args, out);
    let recording = plan.out.join("demo.stallrec");
    say(tui, &format!("starting a {} server with an embedded Kafka", plan.stack));
    let mut running = Running::start(&plan)?;
    running.load(&plan)?;
    say(tui, &format!("load on {}: {} connections", running.url, plan.connections));
    let mut session = Session::attach(Selection::Pid(running.pid), PACING)?;
    if let Err(absence) = session.catch_stacks(PROFILE_HZ) {
        session.note_limit(format!("profiles: {}", absence.detail));
    }
    say(tui, &format!("watching process {} from outside", running.pid));
    watch(session, args, &recording, tui, &stop)?;
    running.end();
    conclude(&recording)
}

fn default_folder() -> PathBuf {
    let reports = PathBuf::from("reports");
    if reports.is_dir() { reports.join("out") } else { PathBuf::from("stallscope-out") }
}

fn plan(args: &Args, out: PathBuf) -> Plan {
    Plan {
        stack: match args.stack {
            Stack::Tokio => "tokio",
            Stack::TokioUring => "tokio-uring",
        },
        fault: Some(format!("{}@{}", args.fault.id(), args.healthy.as_secs().max(1))),
        load_for: args.healthy + args.stalled + SLACK + SLACK,
        connections: CONNECTIONS,
        // fds run out only when connections keep coming.
        close: args.fault == Fault::FdExhausted,
        out,
    }
}

/// Watches until some time after the verdict, or until it is clear that none will come.
fn watch(
    session: Session,
    args: &Args,
    recording: &Path,
    tui: bool,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let anchor = session.anchor;
    let mut recorder = Recorder::begin(recording, &session, None)
        .with_context(|| format!("cannot record to {}", recording.display()))?;
    let mut progress = Progress::new(anchor, !tui);
    let until = Until {
        duration: Some(args.healthy + SLACK + args.stalled),
        stall: false,
        after_verdict: Some(args.stalled),
    };
    let listen = |tick: &Tick<'_>| -> anyhow::Result<()> {
        recorder.tick(tick).context("cannot write the recording")?;
        progress.tick(tick);
        Ok(())
    };
    let (mut session, reason) = if tui {
        live::run(session, until, stop, Some(CLOSE_AFTER), listen)?
    } else {
        let mut session = session;
        let reason = session.run(until, stop, listen)?;
        (session, reason)
    };
    recorder.last(&session.last_profiles())?;
    recorder.end(reason).context("cannot end the recording")?;
    anyhow::ensure!(!stop.load(Ordering::Relaxed) || tui, "interrupted");
    Ok(())
}

/// Writes the report, prints the verdict, and compares it with what the server wrote down.
fn conclude(recording: &Path) -> anyhow::Result<ExitCode> {
    let incident =
        replay::load(recording).with_context(|| format!("cannot read {}", recording.display()))?;
    let path = recording.with_extension("html");
    std::fs::write(&path, report::html(&incident))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("\n{}\n", report::verdict_paragraph(&incident));
    let judgement = truth::judge(&incident);
    if let (Some(truth), Some(error_ms), Some(after_ms)) =
        (judgement.truth, judgement.onset_error_ms, judgement.named_after_ms)
    {
        println!(
            "The server itself recorded {} at {}: the onset found is {error_ms:+.0} ms from it, and it was named {after_ms:.0} ms after it.",
            truth.fault.id(),
            incident.anchor.clock_time(truth.begin_ns)
        );
    }
    for failure in &judgement.failures {
        println!("WRONG: {failure}");
    }
    println!("report: {}", path.display());
    println!("replay: stallscope replay {}", recording.display());
    Ok(ExitCode::from(if judgement.failures.is_empty() { EXIT_OK } else { EXIT_ERROR }))
}

fn say(tui: bool, line: &str) {
    if !tui {
        println!("{line}");
    }
}

/// Progress lines for a run without a terminal.
struct Progress {
    anchor: Anchor,
    spoken: bool,
    next_ns: u64,
}

impl Progress {
    const fn new(anchor: Anchor, spoken: bool) -> Self {
        Self { anchor, spoken, next_ns: 0 }
    }

    fn tick(&mut self, tick: &Tick<'_>) {
        if !self.spoken {
            return;
        }
        let model = &tick.step.model;
        let time = self.anchor.clock_time(model.at_ns);
        for event in &tick.step.events {
            match event {
                Event::Onset(onset) => println!(
                    "{time}  ONSET at {}: {}",
                    self.anchor.clock_time(onset.at_ns),
                    onset.demand
                ),
                Event::Verdict(verdict) => println!(
                    "{time}  VERDICT {} ({}): {}",
                    verdict.cause.id(),
                    verdict.confidence.id(),
                    verdict.summary
                ),
                Event::Recovered { stalled_ms, .. } => {
                    println!("{time}  RECOVERED after {stalled_ms:.0} ms");
                }
                Event::Forecast(forecast) => println!("{time}  AHEAD {}", forecast.text),
                Event::Note { text, .. } => println!("{time}  {text}"),
            }
        }
        if model.at_ns >= self.next_ns {
            println!("{time}  {}", state(model));
            self.next_ns = model.at_ns.saturating_add(PROGRESS_EVERY_NS);
        }
    }
}

fn state(model: &Model) -> String {
    let rate = model.app.got().and_then(|app| app.responses_per_s.got().copied());
    let rate = rate.map_or_else(|| String::from("?"), |rate| format!("{rate:.0}"));
    let queued = model.queued().map_or_else(|| String::from("?"), |queued| queued.to_string());
    let fds = model.fds.got().map_or_else(|| String::from("?"), |fds| fds.open.to_string());
    let rings = model.all_rings().iter();
    let pending: Option<u32> =
        rings.filter_map(|ring| ring.state.got()).map(RingState::sq_pending).reduce(|a, b| a + b);
    let pending = pending.map_or_else(String::new, |pending| format!(", {pending} unsubmitted"));
    format!("{rate} responses/s, {queued} in accept queues, {fds} fds{pending}")
}
