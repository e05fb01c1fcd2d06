//! `stallscope lab endure`.
#![expect(clippy::disallowed_methods, reason = "this is where its results are written")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use clap::error::ErrorKind;
use indicatif::ProgressBar;
use serde_json::json;

use super::args::duration;
use super::bar::bar;
use super::lab::{folder, on_signal, print};
use super::{EXIT_ERROR, EXIT_OK, EXIT_STALLED, serve};
use crate::lab::endure::record::Endured;
use crate::lab::endure::{self, Client, Plan, Progress, table};
use crate::servers::{Ack, Kafka, ProducerKind, Stack};
use crate::watch::json::line;

/// Shortest and longest load.
const TIME: (Duration, Duration) = (Duration::from_secs(5), Duration::from_hours(7 * 24));
/// Most connections of a load.
const CONNECTIONS_MAX: i64 = 10_000;

/// Keep the servers under full load for a long time, and hold them to it
///
/// Each stack is served, watched, and loaded without a pause by clients that ask again as soon as
/// they are answered. It must not stall, must answer in every second, must lose no event it has
/// acknowledged, must not change in memory by more than 5 % after warm-up (docs/soak.md has the wider
/// bound for less than 10 minutes), and must have its fds back at the end. Leaves endure.md, endure.json and the
/// files of every process in the folder. Exit status: 0 when all of that held, 3 when something did
/// not, 1 when something could not be judged, or an error.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which stacks; default: all
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_enum)]
    stack: Vec<Stack>,
    /// How long each is under load, 5s to 168h
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    time: Duration,
    /// How much of that memory is not looked at; at most half. It is longer where the broker inside
    /// the server takes longer to fill and 10 minutes are left all the same
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration)]
    warm_up: Duration,
    /// Connections of the load
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=CONNECTIONS_MAX))]
    connections: u32,
    /// How clients use them
    #[arg(long, value_enum, default_value = "keep-alive")]
    client: Client,
    /// Kafka brokers, or `embedded` for one inside each server
    #[arg(long, value_name = "HOST:PORT[,HOST:PORT...]", default_value = "embedded", value_parser = kafka)]
    kafka: String,
    /// When an event is answered
    #[arg(long, value_enum, default_value_t = Ack::Queue)]
    ack: Ack,
    /// Which producer of the servers' [default: the servers' own default]
    #[arg(long, value_name = "NAME", value_enum)]
    producer: Option<ProducerKind>,
    /// Most that memory may change after warm-up, per cent [default: 5; more where less than 10
    /// minutes are left after it]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    rss_change: Option<f64>,
    /// All stacks at the same time, instead of one after another
    #[arg(long)]
    together: bool,
    /// Where to put the files; default: reports/out/lab-endure where there is a folder reports, else
    /// stallscope-out/lab-endure
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// More arguments for `stallscope serve`, after --
    #[arg(last = true, value_name = "SERVER_ARGUMENT")]
    server: Vec<String>,
}

/// Checked as the server checks it, and passed on as it is.
fn kafka(text: &str) -> Result<String, String> {
    match serve::kafka(text)? {
        Kafka::None => Err(String::from("a soak is one of events: they need a Kafka")),
        Kafka::Embedded | Kafka::Bootstrap(_) => Ok(text.to_owned()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.strip_suffix('%').unwrap_or(text).trim().parse().ok();
    number
        .filter(|percent| (0.1..=1_000.0).contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| String::from("write it like 5 or 7.5%, between 0.1 and 1000"))
}

/// The name by which the command line knows a value.
fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    check(args).unwrap_or_else(|error| error.exit());
    let plan = plan(args)?;
    std::fs::create_dir_all(&plan.out)
        .with_context(|| format!("cannot make the folder {}", plan.out.display()))?;
    let stop = on_signal()?;
    let display = Display::new();
    let all = endure::run(&plan, &stop, |progress| display.show(progress));
    display.bar.finish_and_clear();
    let whole = json!({
        "fine": all.iter().all(Endured::is_fine),
        "version": env!("CARGO_PKG_VERSION"),
        "machine": machine(),
        "stacks": all,
    });
    let page = plan.out.join("endure.md");
    write(&plan.out.join("endure.json"), &format!("{}\n", line(&whole)))?;
    write(&page, &table::markdown(&all))?;
    let text = if args.json {
        format!("{}\n", line(&whole))
    } else {
        format!("{}page: {}\n", table::text(&all), page.display())
    };
    print(&text)?;
    ensure!(!stop.load(Ordering::Relaxed), "interrupted");
    Ok(ExitCode::from(status(&all)))
}

fn status(all: &[Endured]) -> u8 {
    if all.iter().all(Endured::is_fine) {
        EXIT_OK
    } else if all.iter().any(Endured::is_broken) {
        EXIT_STALLED
    } else {
        EXIT_ERROR
    }
}

fn check(args: &Args) -> Result<(), clap::Error> {
    let wrong = |sentence: &str| Err(clap::Error::raw(ErrorKind::ValueValidation, sentence));
    if !(TIME.0..=TIME.1).contains(&args.time) {
        return wrong("--time lies between 5s and 168h\n");
    }
    if args.warm_up * 2 > args.time {
        return wrong("--warm-up may take half of --time at most\n");
    }
    Ok(())
}

fn plan(args: &Args) -> anyhow::Result<Plan> {
    let mut stacks: Vec<String> = Vec::new();
    for stack in args.stack.iter().map(name) {
        if !stacks.contains(&stack) {
            stacks.push(stack);
        }
    }
    if stacks.is_empty() {
        stacks = Stack::value_variants().iter().map(name).collect();
    }
    Ok(Plan {
        stacks,
        time: args.time,
        warm_up: args.warm_up,
        connections: args.connections,
        client: args.client,
        kafka: args.kafka.clone(),
        ack: name(&args.ack),
        producer: args.producer.as_ref().map(name),
        server_arguments: args.server.clone(),
        together: args.together,
        out: folder(args.out.as_ref(), "lab-endure")?,
        rss_change_max: args.rss_change,
    })
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// `uname -sr`, and the number of CPUs this process may use.
fn machine() -> String {
    let uname = rustix::system::uname();
    let (system, release) = (uname.sysname().to_string_lossy(), uname.release().to_string_lossy());
    let cpus = std::thread::available_parallelism()
        .map_or_else(|_| String::from("unknown number of"), |count| count.to_string());
    format!("{system} {release}, {cpus} CPUs")
}

/// The progress bar, on stderr; hidden when that is no terminal.
struct Display {
    bar: ProgressBar,
}

impl Display {
    fn new() -> Self {
        Self { bar: bar(1_000, "{bar:24} {msg}") }
    }

    fn show(&self, progress: &Progress<'_>) {
        let left_s = progress.left.as_secs();
        let (minutes, seconds) = (left_s / 60, left_s % 60);
        let Progress { stack, alarms, .. } = progress;
        self.bar.set_position((progress.share * 1e3) as u64);
        self.bar.set_message(format!("{stack}  {alarms} alarms  {minutes}:{seconds:02} left"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percent() {
        for (text, share) in [("5", Some(0.05)), ("7.5%", Some(0.075)), ("0", None), ("x", None)] {
            assert_eq!(percent(text).ok(), share, "{text}");
        }
        assert_eq!(percent("NaN").ok(), None);
    }
}
