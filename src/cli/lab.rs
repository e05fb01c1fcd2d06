//! `stallscope lab`.
#![expect(clippy::disallowed_methods, reason = "this is where the page is written")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use clap::{Subcommand, ValueEnum};
use indicatif::ProgressBar;
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::args::duration;
use super::bar::bar;
use super::{EXIT_ERROR, EXIT_OK, EXIT_STALLED, endure};
use crate::lab::catalogue::{self, Scenario};
use crate::lab::matrix::{self, Matrix, Progress};
use crate::lab::record::Way;
use crate::lab::{healthy, html, names, run, table, windows};
use crate::watch::json::line;

/// Make servers stall for real, and hold the watcher to the truth.
///
/// Each scenario starts a process of its own, lets a fault take hold of it, and has it write down the
/// instant itself; watchers that know nothing of it must say what happened and when. And `bench`
/// holds servers against each other.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(ListArgs),
    Run(RunArgs),
    Matrix(MatrixArgs),
    Healthy(HealthyArgs),
    Bench(Box<super::bench::Args>),
    Endure(endure::Args),
    #[command(hide = true)]
    Windows(WindowsArgs),
}

/// List the scenarios
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Print one JSON array instead of a table
    #[arg(long)]
    json: bool,
}

/// Run one scenario
///
/// Leaves recordings, verdicts, reports and the truth in the folder. Exit status: 0 when every
/// verdict was right, 3 when one was not, 1 when it cannot be run here or the run itself went wrong.
#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Which; `stallscope lab list` has them all
    name: String,
    /// Where to put its files; default: reports/out/lab/NAME where there is a folder reports, else
    /// stallscope-out/lab/NAME
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Where the instant of the fault and the size of the load come from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Watch only from before the fault, or only from five seconds after it; default: both
    #[arg(long, value_name = "WHEN", value_enum)]
    attach: Option<Attach>,
    /// Permit scenarios that change a limit of the whole host for some seconds
    #[arg(long)]
    allow_host_changes: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Attach {
    Before,
    After,
}

/// Run all scenarios, several times, in random order
///
/// Prints what was right by scenario, what was named for what, how exactly and how soon. Exit
/// status: 0 when every run was right or not possible here, 3 when one was not, 1 an error.
#[derive(Debug, clap::Args)]
struct MatrixArgs {
    /// How often each
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    reps: u32,
    /// Only scenarios of these names; * stands for any letters
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<String>,
    /// Where to put the files, a folder for each run; default: reports/out/lab where there is a
    /// folder reports, else stallscope-out/lab
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// Where to put the page; default: matrix.html in the folder
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Take finished runs of the same seed from the folder, and go on
    #[arg(long)]
    resume: bool,
    /// Begin no run that is not expected to be over by then
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    time_max: Option<Duration>,
    /// Where order, instants and loads come from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Permit scenarios that change a limit of the whole host for some seconds
    #[arg(long)]
    allow_host_changes: bool,
}

/// Watch healthy servers under changing loads, and count the alarms
///
/// Exit status: 0 without any, 3 with one, 1 an error.
#[derive(Debug, clap::Args)]
struct HealthyArgs {
    /// How long
    #[arg(long = "for", value_name = "DURATION", default_value = "30m", value_parser = duration)]
    time: Duration,
    /// Where to put the files; default: reports/out/lab-healthy where there is a folder reports,
    /// else stallscope-out/lab-healthy
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Where the loads come from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Keep small windows of the right runs of a matrix, as data for tests
#[derive(Debug, clap::Args)]
struct WindowsArgs {
    /// Folder of the matrix
    from: PathBuf,
    /// Where to put them
    into: PathBuf,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::List(args) => list(args),
        Command::Run(args) => one(args),
        Command::Matrix(args) => all(args),
        Command::Healthy(args) => healthy(args),
        Command::Bench(args) => super::bench::run(args),
        Command::Endure(args) => endure::run(args),
        Command::Windows(args) => keep_windows(args),
    }
}

/// A flag that signals set. A second one does not end the program at once, as it does elsewhere:
/// what was started has to be ended, which takes a second or two.
pub(super) fn on_signal() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .context("cannot install a signal handler")?;
    }
    Ok(stop)
}

/// Our own folder below the one for what is not to be kept, absolute: victims are told of it.
pub(super) fn folder(given: Option<&PathBuf>, name: &str) -> anyhow::Result<PathBuf> {
    let out = given.cloned().unwrap_or_else(|| {
        let reports = Path::new("reports");
        let out = if reports.is_dir() { reports.join("out") } else { "stallscope-out".into() };
        out.join(name)
    });
    std::path::absolute(&out).with_context(|| format!("cannot find {}", out.display()))
}

pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot print the result")
}

fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let text = if args.json {
        let scenarios: Vec<_> = catalogue::all().map(described).collect();
        format!("{}\n", line(&json!(scenarios)))
    } else {
        table::list(catalogue::all())
    };
    print(&text)?;
    Ok(ExitCode::from(EXIT_OK))
}

fn described(scenario: &Scenario) -> serde_json::Value {
    json!({
        "name": scenario.name,
        "what": scenario.what,
        "expected": table::expected(scenario.expected),
        "victim": table::victim(scenario.victim),
        "loads": scenario.loads.len(),
        "place": table::place(scenario.place),
        "needs": scenario.needs.iter().map(|need| table::one_need(*need)).collect::<Vec<_>>(),
        "definition_ms": scenario.takes().as_secs_f64() * 1e3,
    })
}

fn keep_windows(args: &WindowsArgs) -> anyhow::Result<ExitCode> {
    let missing = windows::keep(&args.from, &args.into)?;
    ensure!(missing.is_empty(), "no run was right in both ways of: {}", missing.join(", "));
    Ok(ExitCode::from(EXIT_OK))
}

fn one(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let known = || catalogue::all().map(|scenario| scenario.name);
    let scenario = catalogue::find(&args.name)
        .ok_or_else(|| anyhow!("{}", names::unknown("scenario", &args.name, known())))?;
    let out = folder(args.out.as_ref(), &format!("lab/{}", scenario.name))?;
    let stop = on_signal()?;
    let options = run::Options {
        out: out.clone(),
        seed: args.seed,
        rep: 0,
        ways: match args.attach {
            None => Way::ALL.to_vec(),
            Some(Attach::Before) => vec![Way::Before],
            Some(Attach::After) => vec![Way::After],
        },
        allow_host_changes: args.allow_host_changes,
    };
    let record = run::run(scenario, &options, &stop);
    let text = if args.json {
        format!("{}\n", line(&json!(record)))
    } else {
        format!("{}files: {}\n", table::run(&record), out.display())
    };
    print(&text)?;
    let judged = record.ways.iter().all(|way| way.outcome.is_judged());
    Ok(ExitCode::from(match (judged, record.is_fine()) {
        (false, _) => EXIT_ERROR,
        (true, true) => EXIT_OK,
        (true, false) => EXIT_STALLED,
    }))
}

fn chosen(only: &[String]) -> anyhow::Result<Vec<&'static Scenario>> {
    let known = || catalogue::all().map(|scenario| scenario.name);
    for pattern in only {
        ensure!(
            known().any(|name| names::matches(pattern, name)),
            "{}",
            names::unknown("scenario", pattern, known())
        );
    }
    let wanted = |scenario: &&Scenario| {
        only.is_empty() || only.iter().any(|pattern| names::matches(pattern, scenario.name))
    };
    Ok(catalogue::all().filter(wanted).collect())
}

fn all(args: &MatrixArgs) -> anyhow::Result<ExitCode> {
    let out = folder(args.out.as_ref(), "lab")?;
    let plan = matrix::Plan {
        scenarios: chosen(&args.only)?,
        reps: args.reps,
        seed: args.seed,
        out: out.clone(),
        resume: args.resume,
        time_max: args.time_max,
        allow_host_changes: args.allow_host_changes,
    };
    std::fs::create_dir_all(&out)
        .with_context(|| format!("cannot make the folder {}", out.display()))?;
    let stop = on_signal()?;
    let display = Display::new();
    let matrix = matrix::run(&plan, &stop, |progress| display.show(progress));
    display.bar.finish_and_clear();
    let page = args.html.clone().unwrap_or_else(|| out.join("matrix.html"));
    std::fs::write(&page, html::page(&matrix.summary, &matrix.records))
        .with_context(|| format!("cannot write {}", page.display()))?;
    print(&printed(args, &matrix, &page))?;
    ensure!(!stop.load(Ordering::Relaxed), "interrupted");
    Ok(ExitCode::from(if matrix.summary.is_fine() { EXIT_OK } else { EXIT_STALLED }))
}

fn printed(args: &MatrixArgs, matrix: &Matrix, page: &Path) -> String {
    if args.json {
        let rate = matrix.summary.false_alarms_per_h();
        let whole = json!({
            "fine": matrix.summary.is_fine(),
            "false_alarms_per_h": rate,
            "summary": matrix.summary,
            "runs": matrix.records,
        });
        return format!("{}\n", line(&whole));
    }
    format!("{}page: {}\n", table::summary(&matrix.summary), page.display())
}

fn healthy(args: &HealthyArgs) -> anyhow::Result<ExitCode> {
    let out = folder(args.out.as_ref(), "lab-healthy")?;
    let stop = on_signal()?;
    let display = Display::new();
    let plan = healthy::Plan { out, time: args.time, seed: args.seed };
    let hours = healthy::run(&plan, &stop, |share, alarms| display.share(share, alarms))?;
    display.bar.finish_and_clear();
    let text = if args.json {
        let whole = json!({
            "fine": hours.is_fine(),
            "healthy_s": hours.healthy_s(),
            "alarms": hours.alarms(),
            "watched": hours.watched,
            "notes": hours.notes,
        });
        format!("{}\n", line(&whole))
    } else {
        let mut lines = hours.notes.clone();
        lines.push(hours.line());
        format!("{}\n", lines.join("\n"))
    };
    print(&text)?;
    Ok(ExitCode::from(if hours.is_fine() { EXIT_OK } else { EXIT_STALLED }))
}

/// The progress bar, on stderr; where that is no terminal, a line for each run.
struct Display {
    bar: ProgressBar,
}

impl Display {
    fn new() -> Self {
        Self { bar: bar(1, "{bar:24} {pos}/{len}  {msg}") }
    }

    fn show(&self, progress: &Progress<'_>) {
        if self.bar.is_hidden() {
            if let Some(last) = progress.last {
                eprint!("{}", table::run(last));
            }
            return;
        }
        if let Some(last) = progress.last.filter(|last| !last.is_fine()) {
            self.bar.suspend(|| eprint!("{}", table::run(last)));
        }
        self.bar.set_length(progress.of);
        self.bar.set_position(progress.done);
        let left_s = progress.left.as_secs();
        let left = format!("{}:{:02} left", left_s / 60, left_s % 60);
        self.bar.set_message(format!("{}  {left}", progress.next.unwrap_or_default()));
    }

    fn share(&self, share: f64, alarms: u32) {
        self.bar.set_length(100);
        self.bar.set_position((share * 100.0) as u64);
        self.bar.set_message(format!("{alarms} alarms"));
    }
}
