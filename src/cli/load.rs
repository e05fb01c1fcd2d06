//! `stallscope load`.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::ProgressBar;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::bar::bar;
use super::{EXIT_ERROR, EXIT_OK};
use crate::load::plan::{CONNECTIONS_MAX, DATA_BYTES_MAX, Method, RATE_MAX};
use crate::load::{Plan, Tally, Target};

/// Fds this process needs beside its connections.
const FDS_SPARE: u64 = 64;

/// Arguments of `stallscope load`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 when at least one request succeeded (2xx), 1 when none did, \
    2 for wrong usage. Ctrl-C ends the run early and prints what there is."
)]
pub struct Args {
    /// Where to, as `http://HOST[:PORT][/PATH]`; without a path, POST goes to /events and GET to /
    #[arg(value_name = "URL")]
    url: Target,
    /// Connections held at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count(CONNECTIONS_MAX as u64))]
    connections: u64,
    /// Open loop: N requests per second over all connections, sent when due whether or not the
    /// ones before were answered [default: closed loop, as fast as the server answers]
    #[arg(long, value_name = "N", value_parser = count(RATE_MAX))]
    rate: Option<u64>,
    /// A new connection for each request
    #[arg(long)]
    close: bool,
    /// How long to go on
    #[arg(long = "for", value_name = "DURATION", default_value = "10s", value_parser = super::args::duration)]
    duration: Duration,
    /// How long a connect, and a request, may each take
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = super::args::duration)]
    timeout: Duration,
    /// Characters of data in the JSON body, {"data":"…"}
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(..=DATA_BYTES_MAX as u64))]
    data_bytes: u64,
    /// GET instead of POST
    #[arg(long, conflicts_with = "data_bytes")]
    get: bool,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

fn count(max: u64) -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=max)
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut plan = Plan::new(args.url);
    plan.connections = usize::try_from(args.connections)?;
    plan.rate = args.rate;
    plan.close = args.close;
    plan.duration = args.duration;
    plan.timeout = args.timeout;
    let data_bytes = usize::try_from(args.data_bytes)?;
    plan.method = if args.get { Method::Get } else { Method::Post { data_bytes } };
    raise_fd_limit(args.connections + FDS_SPARE);
    stop_on_signals(&plan).context("cannot catch Ctrl-C")?;

    let mut display = Display::new(&plan);
    let outcome = crate::load::run(&plan, &mut |tally| display.show(tally))?;
    display.clear();

    let text = if args.json { format!("{}\n", outcome.to_json()) } else { outcome.to_table() };
    std::io::stdout().write_all(text.as_bytes()).context("cannot print the result")?;
    Ok(match outcome.failure() {
        None => ExitCode::from(EXIT_OK),
        Some(sentence) => {
            eprintln!("stallscope: {sentence}");
            ExitCode::from(EXIT_ERROR)
        }
    })
}

/// Raises the soft fd limit as far as needed and allowed. When that is not enough, the run says so
/// itself: the connections that cannot be had are counted as `no_fd`.
fn raise_fd_limit(needed: u64) {
    let limit = getrlimit(Resource::Nofile);
    let Some(soft) = limit.current.filter(|soft| *soft < needed) else { return };
    let raised = limit.maximum.map_or(needed, |hard| needed.min(hard)).max(soft);
    let raised = Rlimit { current: Some(raised), maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// The first signal ends the run and lets it print; a second one ends the process.
fn stop_on_signals(plan: &Plan) -> std::io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&plan.stop))?;
        signal_hook::flag::register(signal, Arc::clone(&plan.stop))?;
    }
    Ok(())
}

/// The progress bar, on stderr; hidden when that is no terminal.
struct Display {
    bar: ProgressBar,
    /// The tally of the last second, to tell the present rate: calls come ten a second.
    recent: std::collections::VecDeque<u64>,
}

/// Calls of [`Display::show`] over which the rate is taken.
const RECENT_MAX: usize = 11;

impl Display {
    fn new(plan: &Plan) -> Self {
        let length_ms = u64::try_from(plan.duration.as_millis()).unwrap_or(u64::MAX);
        let bar = bar(length_ms, "{bar:24} {msg}");
        Self { bar, recent: std::collections::VecDeque::with_capacity(RECENT_MAX) }
    }

    fn show(&mut self, tally: &Tally) {
        if self.bar.is_hidden() {
            return;
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(tally.responses);
        let elapsed = self.bar.elapsed();
        let length = Duration::from_millis(self.bar.length().unwrap_or_default());
        self.bar.set_position(elapsed.as_millis() as u64);
        self.bar.set_message(format!(
            "{:>8}/s  {} errors  {} waiting  {:.0} s left",
            self.rate(),
            tally.errors_total(),
            tally.in_flight(),
            length.saturating_sub(elapsed).as_secs_f64().ceil(),
        ));
    }

    /// Responses in the last second.
    fn rate(&self) -> u64 {
        match (self.recent.front(), self.recent.back()) {
            (Some(first), Some(last)) if self.recent.len() > 1 => {
                (last - first) * 10 / (self.recent.len() as u64 - 1)
            }
            _ => 0,
        }
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
