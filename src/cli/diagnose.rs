//! `stallscope diagnose`: one verdict, now.

use std::cell::Cell;
use std::convert::Infallible;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use stallscope_probes::sample::ActiveRaw;
use stallscope_probes::{Reading, Why};

use super::args::{ConfigArgs, ProbeArgs};
use super::target::TargetArgs;
use super::{EXIT_ERROR, EXIT_OK, EXIT_STALLED, EXIT_USAGE, stop, text};
use crate::diagnose::verdict::{Cause, Verdict};
use crate::watch::engine::Engine;
use crate::watch::event::EndReason;
use crate::watch::session::{Pacing, Probes, Session, Tick, Until};
use crate::watch::{json, now_ns};

/// One verdict on a process, now, within 3 seconds.
///
/// Where the machine is too busy to list a process's many fds in that, within 8. Also when the
/// stall began long before; what can then no longer be known is said. Reads only: no ptrace, no
/// signals; --probe alone makes connections of its own. Exit status: 0 healthy, 3 stalled, 1 an
/// error, or too little could be seen, 2 usage.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    probe: ProbeArgs,
    #[command(flatten)]
    config: ConfigArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// A few seconds once: what matters is to be done in time.
const PACING: Pacing =
    Pacing { interval: Duration::from_millis(50), budget_ppm: 200_000, probes: Probes::Auto };
/// Long enough for the slowest cause to show: an accept queue must wait for a second.
const CALM_AFTER: Duration = Duration::from_millis(1_600);
/// With something suspicious in sight, until this long after the start: the promise is 3 s, and
/// the last look and the words take some of it.
const CLOSER_LOOK_ENDS: Duration = Duration::from_millis(2_750);
/// Until the sockets are known as the process's own nothing can be said of it: as long as that is
/// still to come, until this long after the start.
const FIRST_LOOK_ENDS: Duration = Duration::from_millis(7_750);

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let begin_ns = now_ns();
    let stop = stop::on_signal().context("cannot install a signal handler")?;
    let selection = args.target.selection();
    let plan = match args.probe.plan(selection.port()) {
        Ok(plan) => plan,
        Err(error) => {
            error.print().ok();
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let is_probing = plan.is_some();
    let mut session = Session::attach_with(selection, PACING, args.config.load()?)?;
    if let Some(plan) = plan {
        session.probe_actively(plan);
    }
    let mut probe: Reading<ActiveRaw> = Reading::absent(Why::NotSampled, "no tick was taken");
    let until = |duration| Until { duration: Some(duration), stall: true, after_verdict: None };
    let is_unread = Cell::new(true);
    let mut listen = |tick: &Tick<'_>| {
        probe.clone_from(&tick.step.model.active);
        let listeners = tick.step.model.listeners.absence();
        is_unread.set(listeners.is_some_and(|absence| absence.why == Why::NotSampled));
        Ok::<(), Infallible>(())
    };
    let mut reason = watch(session.run(until(CALM_AFTER), &stop, &mut listen));
    let left = |ends: Duration| {
        let left = ends.checked_sub(Duration::from_nanos(now_ns().saturating_sub(begin_ns)));
        left.filter(|left| !left.is_zero())
    };
    // Of a process with very many fds it takes a while until it is known whose the sockets are.
    let is_clear =
        |engine: &mut Engine| !engine.is_suspicious() && engine.conclude().cause != Cause::Unknown;
    if !is_clear(session.engine())
        && let (EndReason::TimeUp, Some(left)) = (reason, left(CLOSER_LOOK_ENDS))
    {
        reason = watch(session.run(until(left), &stop, &mut listen));
    }
    while is_unread.get()
        && let (EndReason::TimeUp, Some(left)) = (reason, left(FIRST_LOOK_ENDS))
    {
        reason = watch(session.run(until(left.min(CALM_AFTER)), &stop, &mut listen));
    }
    if reason == EndReason::TargetGone && session.ticks() == 0 {
        anyhow::bail!("the process exited before it could be looked at");
    }
    let verdict: Verdict = session.engine().conclude();
    let mut out = std::io::stdout().lock();
    if args.json {
        let mut line = json::verdict(&verdict, session.anchor);
        line["probe"] = json::last_probe(&probe, is_probing, session.anchor);
        writeln!(out, "{}", json::line(&line))?;
    } else {
        let probe = is_probing.then_some(&probe);
        write!(out, "{}", text::verdict(&session.target, &verdict, probe, session.anchor))?;
    }
    let stalled = verdict.cause.is_stall() && session.stalls() > 0;
    Ok(ExitCode::from(match verdict.cause {
        _ if stalled => EXIT_STALLED,
        Cause::Unknown => EXIT_ERROR,
        _ => EXIT_OK,
    }))
}

fn watch(run: Result<EndReason, Infallible>) -> EndReason {
    match run {
        Ok(reason) => reason,
        Err(never) => match never {},
    }
}
