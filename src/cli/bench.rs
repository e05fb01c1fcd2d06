//! `stallscope lab bench`.
#![expect(clippy::disallowed_methods, reason = "this is where the study is written")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::ProgressBar;

use super::args::duration;
use super::bar::bar;
use super::lab::{folder, on_signal, print};
use super::{EXIT_ERROR, EXIT_OK, EXIT_USAGE};
use crate::lab::bench::plan::{Axes, Client, Foreign, Kafka, ROUNDS_MAX, Saturation, labels};
use crate::lab::bench::{self, Machine, Plan, Progress, Study, Summary, study};
use crate::load::plan::CONNECTIONS_MAX;
use crate::servers::{Cures, ProducerKind, Stack, Tuning, Work};
use crate::watch::json::line;

const AFTER: &str = "\
Every list is crossed with every other; what makes no difference to a server (a producer without
Kafka) is not varied for it. The cells take turns: round by round each is run once, as a new
process. Ratios are taken within a round. docs/bench.md says how each figure is measured.

In the command of --server, {port} stands for the port, {kafka} for the brokers, {topic} for the
topic. There is no shell: for one, write 'name=sh -c \"…\"'. The server must answer POST /events with
2xx, and end on SIGTERM.

Ctrl-C ends the run under way; --resume goes on with what is left. Exit status: 0 when all is
measured without an error and every acknowledged event is in Kafka, 1 otherwise, 2 for wrong usage.";

/// Hold servers against each other: a study in one command
///
/// Leaves bench.md, bench.json, bench.html and every run (runs.jsonl) in the folder, and prints the
/// Markdown.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER)]
pub struct Args {
    #[command(flatten)]
    crossed: Crossed,
    #[command(flatten)]
    course: Course,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What is crossed")]
struct Crossed {
    /// Servers of this project [default: tokio,tokio-uring; with --server: none]
    #[arg(long, value_name = "STACK,…", value_enum, value_delimiter = ',')]
    stack: Vec<Stack>,
    /// What they do with a request
    #[arg(
        long,
        value_name = "WORK,…",
        value_enum,
        value_delimiter = ',',
        default_value = "events"
    )]
    work: Vec<Work>,
    /// Where records go: none, embedded (a broker inside the server), mock (the same inside the lab),
    /// remote (mock, 20 ms away), or a broker of your own
    #[arg(
        long,
        value_name = "none|embedded|mock|remote|HOST:PORT,…",
        value_delimiter = ',',
        default_value = "embedded"
    )]
    kafka: Vec<Kafka>,
    /// How records are produced
    #[arg(
        long,
        value_name = "PRODUCER,…",
        value_enum,
        value_delimiter = ',',
        default_value = "threaded"
    )]
    producer: Vec<ProducerKind>,
    /// Settings of the producer
    #[arg(
        long,
        value_name = "TUNING,…",
        value_enum,
        value_delimiter = ',',
        default_value = "default"
    )]
    tuning: Vec<Tuning>,
    /// Cures of tokio-uring that are on, as `serve` takes them; give it several times to compare
    #[arg(long, value_name = "all|none|LIST", value_parser = cure)]
    cure: Vec<String>,
    /// Threads that serve
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: Vec<u32>,
    /// Limit of open files of the server
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1024", value_parser = clap::value_parser!(u64).range(64..=1 << 30))]
    fd_limit: Vec<u64>,
    /// How clients use their connections
    #[arg(
        long,
        value_name = "CLIENT,…",
        value_enum,
        value_delimiter = ',',
        default_value = "keep-alive,close"
    )]
    client: Vec<Client>,
    /// Connections held at once
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "64", value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX as i64))]
    connections: Vec<u32>,
    /// A server of your own; may be given several times
    #[arg(long, value_name = "NAME=COMMAND")]
    server: Vec<Foreign>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "How it is measured")]
struct Course {
    /// How long each run is measured
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = measured)]
    time: Duration,
    /// How long it is loaded before that
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = measured)]
    warm_up: Duration,
    /// How often each cell is run
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=i64::from(ROUNDS_MAX)))]
    rounds: u32,
    /// Connections held open to see what memory each takes; 0: not measured
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(0..=CONNECTIONS_MAX as i64))]
    idle_connections: u32,
    /// Search for the highest rate that is carried in time and without errors
    #[arg(long)]
    saturation: bool,
    /// Greatest 99th percentile of the latency that is in time
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = duration, requires = "saturation")]
    p99_max: Duration,
    /// How long each rate is tried
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = measured, requires = "saturation")]
    step: Duration,
    /// Cell that the others are compared with, by a part of its name [default: the first]
    #[arg(long, value_name = "TEXT")]
    baseline: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What is left of it")]
struct Output {
    /// Where to put the files; default: bench-DATE in reports/out where there is a folder reports,
    /// else in stallscope-out
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Go on with the runs in the folder
    #[arg(long, requires = "out")]
    resume: bool,
    /// Say what would be run, and how long it would take
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object instead of Markdown
    #[arg(long)]
    json: bool,
}

/// A time in which something can be measured.
fn measured(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if (Duration::from_millis(100)..=Duration::from_hours(1)).contains(&time) {
        Ok(time)
    } else {
        Err(format!("{text} cannot be measured: between 100ms and 1h can"))
    }
}

/// As `serve` takes it.
fn cure(text: &str) -> Result<String, String> {
    text.parse::<Cures>().map(|_| text.to_owned())
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let plan = match plan(args) {
        Ok(plan) => plan,
        Err(sentence) => {
            eprintln!("stallscope: {sentence}");
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    if args.output.dry_run {
        print(&announced(&plan))?;
        return Ok(ExitCode::from(EXIT_OK));
    }
    let machine = Machine::look(command_line());
    let name = format!("bench-{}", machine.date.replace(['-', ':'], ""));
    let out = folder(args.output.out.as_ref(), &name)?;
    std::fs::create_dir_all(&out)
        .with_context(|| format!("cannot make the folder {}", out.display()))?;
    let stop = on_signal()?;
    eprintln!("{}files: {}", announced(&plan), out.display());
    let display = Display::new();
    let study =
        study::run(&plan, &out, args.output.resume, &stop, |progress| display.show(progress));
    display.bar.finish_and_clear();
    let Study { records, notes } = study?;
    let summary = Summary::of(plan, machine, records, notes);
    write(&out, &summary)?;
    ended(args, &out, &summary, &stop)
}

/// What is printed at the end, and the exit status.
fn ended(
    args: &Args,
    out: &Path,
    summary: &Summary,
    stop: &AtomicBool,
) -> anyhow::Result<ExitCode> {
    let text = if args.output.json {
        format!("{}\n", line(&bench::json(summary)))
    } else {
        bench::markdown(summary)
    };
    print(&text)?;
    if stop.load(Ordering::Relaxed) {
        bail!("interrupted; the same command with --resume --out {} goes on", out.display());
    }
    Ok(ExitCode::from(if summary.is_fine() { EXIT_OK } else { EXIT_ERROR }))
}

fn plan(args: &Args) -> Result<Plan, String> {
    let own = match (args.crossed.stack.as_slice(), args.crossed.server.is_empty()) {
        ([], true) => &[Stack::Tokio, Stack::TokioUring][..],
        (given, _) => given,
    };
    let axes = Axes {
        stacks: own
            .iter()
            .map(|stack| (stack.name().to_owned(), stack.is_on_tokio_uring()))
            .collect(),
        works: args.crossed.work.clone(),
        producers: args.crossed.producer.clone(),
        tunings: args.crossed.tuning.iter().map(value_name).collect(),
        kafkas: args.crossed.kafka.clone(),
        cures: args.crossed.cure.clone(),
        threads: args.crossed.threads.clone(),
        fd_limits: args.crossed.fd_limit.clone(),
        clients: args.crossed.client.clone(),
        connections: args.crossed.connections.clone(),
        servers: args.crossed.server.clone(),
    };
    let cells = axes.cells()?;
    let baseline = match &args.course.baseline {
        None => 0,
        Some(text) => {
            let labels = labels(&cells);
            labels.iter().position(|label| label.contains(text.as_str())).ok_or_else(|| {
                format!("no cell is called {text}: there are {}", labels.join("; "))
            })?
        }
    };
    let ms = |time: Duration| time.as_millis() as u64;
    let plan = Plan {
        cells,
        rounds: args.course.rounds,
        time_ms: ms(args.course.time),
        warm_up_ms: ms(args.course.warm_up),
        idle_connections: args.course.idle_connections,
        saturation: args.course.saturation.then(|| Saturation {
            p99_max_us: args.course.p99_max.as_micros() as u64,
            step_ms: ms(args.course.step),
        }),
        baseline,
        build: bench::build_hash().map_err(|error| format!("cannot read this program: {error}"))?,
    };
    study::check_fd_limits(&plan)?;
    Ok(plan)
}

/// As on the command line.
fn value_name(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// This command line, as a shell would take it.
fn command_line() -> String {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let words = std::iter::once("stallscope").chain(words.iter().map(String::as_str));
    shlex::try_join(words).unwrap_or_else(|_| String::from("stallscope lab bench"))
}

/// What will be done, and how long it takes.
fn announced(plan: &Plan) -> String {
    let labels = labels(&plan.cells);
    let all = plan.run_takes() * u32::try_from(plan.runs()).unwrap_or(u32::MAX);
    let mut text = format!(
        "{} cells × {} rounds = {} runs, about {}:\n",
        labels.len(),
        plan.rounds,
        plan.runs(),
        spoken(all)
    );
    for label in labels {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {label}");
    }
    text
}

/// `3 min 20 s`.
fn spoken(time: Duration) -> String {
    match time.as_secs() {
        s @ ..60 => format!("{s} s"),
        s @ 60..3_600 => format!("{} min {:02} s", s / 60, s % 60),
        s => format!("{} h {:02} min", s / 3_600, s % 3_600 / 60),
    }
}

fn write(out: &Path, summary: &Summary) -> anyhow::Result<()> {
    let json = format!("{:#}\n", bench::json(summary));
    let files = [
        ("bench.md", bench::markdown(summary).into_bytes()),
        ("bench.json", json.into_bytes()),
        ("bench.html", bench::html(summary)),
    ];
    for (name, bytes) in files {
        let path = out.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
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
        if let Some((label, record)) = progress.last {
            let line = bench::run_line(label, record);
            if self.bar.is_hidden() {
                eprintln!("{}/{}  {line}", progress.done, progress.of);
            } else if !record.problems().is_empty() {
                self.bar.suspend(|| eprintln!("{line}"));
            }
        }
        self.bar.set_length(progress.of);
        self.bar.set_position(progress.done);
        let left = spoken(progress.left);
        self.bar.set_message(format!("{left} left  {}", progress.next.unwrap_or_default()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_bounds_and_are_spoken() {
        assert!(measured("100ms").is_ok() && measured("1h").is_ok());
        for text in ["99ms", "61m", "5", "soon"] {
            assert!(measured(text).is_err(), "{text}");
        }
        for (s, text) in [(59, "59 s"), (200, "3 min 20 s"), (3_700, "1 h 01 min")] {
            assert_eq!(spoken(Duration::from_secs(s)), text);
        }
        assert!(cure("all").is_ok() && cure("submit,close").is_ok());
        assert!(cure("").is_err() && cure("a b").is_err());
    }
}
