//! `stallscope watch`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use stallscope_probes::sample::ActiveOutcome;

use super::args::{ConfigArgs, ProbeArgs, ProfileArgs, budget_ppm, duration};
use super::target::TargetArgs;
use super::{EXIT_OK, EXIT_STALLED, EXIT_USAGE, live, stop};
use crate::diagnose::verdict::Cause;
use crate::model::Model;
use crate::watch::event::EndReason;
use crate::watch::keep::{KEEP_MAX, KEEP_MIN};
use crate::watch::recorder::Recorder;
use crate::watch::session::{Pacing, Probes, Session, Tick, Until};
use crate::watch::{json, now_ns};

/// Watch a process from outside until it stalls, ends, or you quit.
///
/// Reads procfs, sock_diag and, read-only, the memory of rings: no ptrace, no signals; nothing in
/// the target changes; --probe alone makes connections of its own. On a terminal it shows a TUI (? for help); with --headless, or when stdout
/// is no terminal, one JSON object a line.
///
/// Exit status: 0 healthy to the end, 3 a stall was seen, 1 an error, or too little could be seen,
/// 2 usage.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// Time between samples, 5ms to 10s
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = interval)]
    interval: Duration,
    /// CPU time that sampling may use, in percent of one core; it keeps to that by slowing down
    #[arg(long, value_name = "PERCENT", default_value = "1%", value_parser = budget_ppm)]
    budget: u32,
    /// What to read from
    #[arg(long, value_name = "WHICH", value_enum, default_value_t)]
    probes: Probes,
    #[command(flatten)]
    probe: ProbeArgs,
    #[command(flatten)]
    config: ConfigArgs,
    /// End after this long
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    time: Option<Duration>,
    /// End once a stall has been named
    #[arg(long)]
    until_stall: bool,
    /// Record to FILE, for `report` and `replay`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// With --record: keep the last DURATION, 10s to 24h, and up to a minute around each onset
    #[arg(long, value_name = "DURATION", requires = "record", value_parser = keep)]
    keep: Option<Duration>,
    #[command(flatten)]
    profile: ProfileArgs,
    /// JSON lines on stdout instead of the TUI
    #[arg(long)]
    headless: bool,
    /// With --headless: a `sample` line for every tick too
    #[arg(long, requires = "headless")]
    samples: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if (Duration::from_millis(5)..=Duration::from_secs(10)).contains(&interval) {
        Ok(interval)
    } else {
        Err(format!("{text} is out of range: the interval lies between 5ms and 10s"))
    }
}

fn keep(text: &str) -> Result<Duration, String> {
    let keep = duration(text)?;
    if (KEEP_MIN..=KEEP_MAX).contains(&keep) {
        Ok(keep)
    } else {
        Err(format!("{text} is out of range: a recording is kept for between 10s and 24h"))
    }
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let stop = stop::on_signal().context("cannot install a signal handler")?;
    let pacing = Pacing { interval: args.interval, budget_ppm: args.budget, probes: args.probes };
    let selection = args.target.selection();
    let plan = match args.probe.plan(selection.port()) {
        Ok(plan) => plan,
        Err(error) => {
            error.print().ok();
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let mut session = Session::attach_with(selection, pacing, args.config.load()?)?;
    if let Some(plan) = plan {
        session.probe_actively(plan);
    }
    args.profile.begin(&mut session, args.record.is_some())?;
    let mut recorder = match &args.record {
        Some(path) => Some(
            Recorder::begin(path, &session, args.keep)
                .with_context(|| format!("cannot record to {}", path.display()))?,
        ),
        None => None,
    };
    let until = Until { duration: args.time, stall: args.until_stall, after_verdict: None };
    let mut record = |tick: &Tick<'_>| -> anyhow::Result<()> {
        match recorder.as_mut() {
            Some(recorder) => recorder.tick(tick).context("cannot write the recording"),
            None => Ok(()),
        }
    };
    let (mut session, reason) = if args.headless || !std::io::stdout().is_terminal() {
        headless(session, until, &stop, args.samples, &mut record)?
    } else {
        live::run(session, until, &stop, None, &mut record)?
    };
    if let Some(mut recorder) = recorder {
        recorder.last(&session.last_profiles())?;
        let (path, complete) = recorder.end(reason).context("cannot end the recording")?;
        // The terminal may be gone by now; the recording is not.
        let mut err = std::io::stderr();
        writeln!(err, "recorded to {}", path.display()).ok();
        if !complete {
            writeln!(err, "the recording reached its bound of 1 GiB; what came after is not in it")
                .ok();
        }
    }
    if session.stalls() > 0 {
        return Ok(ExitCode::from(EXIT_STALLED));
    }
    let verdict = session.engine().conclude();
    anyhow::ensure!(verdict.cause != Cause::Unknown, "{}", verdict.summary);
    Ok(ExitCode::from(EXIT_OK))
}

fn headless(
    mut session: Session,
    until: Until,
    stop: &Arc<AtomicBool>,
    samples: bool,
    record: &mut dyn FnMut(&Tick<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<(Session, EndReason)> {
    let anchor = session.anchor;
    let mut out = std::io::stdout().lock();
    let mut line = |value: serde_json::Value| -> std::io::Result<()> {
        writeln!(out, "{}", json::line(&value))?;
        out.flush()
    };
    let begun = line(json::target(&session.target, &session.environment, anchor));
    let mut tiers_of: Option<Arc<Model>> = None;
    let mut attempts = 0;
    let outcome = begun.map_err(anyhow::Error::from).and_then(|()| {
        session.run(until, stop, |tick| {
            record(tick)?;
            let model = &tick.step.model;
            if tiers_of.as_ref().is_none_or(|before| json::tiers_changed(before, model)) {
                line(json::tiers(model, anchor))?;
                tiers_of = Some(Arc::clone(model));
            }
            if samples {
                line(json::sample(&tick.step.model, anchor))?;
            }
            let ended = model.active.got().filter(|probe| probe.outcome != ActiveOutcome::Pending);
            if let Some(probe) = ended.filter(|probe| probe.attempts > attempts) {
                attempts = probe.attempts;
                line(json::probe(probe, anchor))?;
            }
            for event in &tick.step.events {
                line(json::event(event, anchor))?;
            }
            // A calm server gives nothing to write, so a write would not tell for a long time.
            if reader_is_gone() {
                return Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into());
            }
            Ok(())
        })
    });
    match outcome {
        Ok(reason) => {
            line(json::end(reason, now_ns(), session.stalls(), session.ticks(), anchor)).ok();
            Ok((session, reason))
        }
        // The reader of our lines has had enough: that is an end, not an error.
        Err(error) if is_broken_pipe(&error) => Ok((session, EndReason::Interrupted)),
        Err(error) => Err(error),
    }
}

/// Whether nobody reads our lines any more: poll(2) reports a pipe without readers as an error,
/// asked for or not.
fn reader_is_gone() -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdout = std::io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&at_once)).is_ok() && fds[0].revents().contains(PollFlags::ERR)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
