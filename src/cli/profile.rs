//! `stallscope profile`: where a process's time goes, for some seconds.
#![expect(clippy::disallowed_methods, reason = "this is where profiles are written")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::builder::{PathBufValueParser, TypedValueParser as _};

use super::args::duration;
use super::bar::bar;
use super::target::TargetArgs;
use super::{EXIT_ERROR, EXIT_OK, stop};
use crate::profile::fold::fold;
use crate::profile::folded::{self, Folded};
use crate::profile::stacks::{Kind, Profile};
use crate::profile::{firefox, pprof, roles, runtime, svg, table};
use crate::watch::event::Target;
use crate::watch::stacks::run::{self, Made, Plan};
use crate::watch::{anchor, target};

/// Longest profile.
const LENGTH_MAX: Duration = Duration::from_mins(10);
/// Most samples a second: more is felt, and tells no more.
const HZ_MAX: i64 = 1_000;

/// Profile a process for some seconds, from outside.
///
/// Flamegraph, folded stacks, pprof or Firefox Profiler. Nothing in the target is stopped or
/// changed: the kernel takes the samples, threads that sleep are read from outside. Needs root, or
/// the process's own user and `kernel.perf_event_paranoid` 2 or less.
///
/// Exit status: 0 a profile was made, 1 an error, or nothing was caught and no file written,
/// 2 usage.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// What to look at
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// How long, 10m at most
    #[arg(long = "for", value_name = "DURATION", default_value = "10s", value_parser = length)]
    time: Duration,
    /// Samples a second of CPU time, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 99, value_parser = clap::value_parser!(u32).range(1..=HZ_MAX))]
    hz: u32,
    /// Where to write it; may be given several times. The ending says the format: .svg, .folded,
    /// .pb.gz (go tool pprof), .json or .json.gz (profiler.firefox.com) [default:
    /// stallscope-PID-MODE.svg]
    #[arg(short, long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(Output::to))]
    output: Vec<Output>,
    /// In .svg and .folded: each thread on its own, and the frames of async runtimes too
    #[arg(long)]
    full: bool,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

/// What to look at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// Threads that run
    #[default]
    Cpu,
    /// Threads that wait, by how long
    OffCpu,
    /// All threads, whatever they do
    Wall,
}

impl Mode {
    const fn kind(self) -> Kind {
        match self {
            Self::Cpu => Kind::Cpu,
            Self::OffCpu => Kind::OffCpu,
            Self::Wall => Kind::Wall,
        }
    }

    const fn id(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::OffCpu => "off-cpu",
            Self::Wall => "wall",
        }
    }
}

fn length(text: &str) -> Result<Duration, String> {
    let length = duration(text)?;
    if length <= LENGTH_MAX {
        Ok(length)
    } else {
        Err(format!("{text} is too long: a profile lasts 10m at most"))
    }
}

/// A file format, by the ending of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Svg,
    Folded,
    Pprof,
    Firefox { gzipped: bool },
}

impl Format {
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let endings = [
            (".svg", Self::Svg),
            (".folded", Self::Folded),
            (".txt", Self::Folded),
            (".pb.gz", Self::Pprof),
            (".json.gz", Self::Firefox { gzipped: true }),
            (".json", Self::Firefox { gzipped: false }),
        ];
        endings.into_iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, format)| format)
    }
}

/// A file to write.
#[derive(Debug, Clone)]
struct Output {
    path: PathBuf,
    format: Format,
}

impl Output {
    fn to(path: PathBuf) -> Result<Self, &'static str> {
        let format = Format::of(&path).ok_or(
            "the ending of the name says the format: .svg, .folded, .pb.gz, .json or .json.gz",
        )?;
        Ok(Self { path, format })
    }
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let stop = stop::on_signal().context("cannot install a signal handler")?;
    let target = target::resolve(args.target.selection())?;
    let outputs = if args.output.is_empty() {
        let path = PathBuf::from(format!("stallscope-{}-{}.svg", target.pid, args.mode.id()));
        vec![Output { path, format: Format::Svg }]
    } else {
        args.output.clone()
    };
    let anchor = anchor();
    let bar = bar(args.time.as_millis() as u64, "{bar:24} profiling, {eta} left");
    let plan = Plan { kind: args.mode.kind(), hz: args.hz, length: args.time };
    let made = run::run(&target, plan, &stop, |passed| {
        bar.set_position(passed.min(args.time).as_millis() as u64);
    });
    bar.finish_and_clear();
    let made = made?;
    let real_ns_of = |mono_ns| anchor.real_ns_at(mono_ns);
    let seen = view(&made.profile, args.full);
    let caught = !made.profile.samples.is_empty();
    // Of nothing there is no picture: what that means is said instead.
    let outputs = if caught { outputs } else { Vec::new() };
    for Output { path, format } in &outputs {
        let bytes = encode(&made.profile, &seen, *format, &target, real_ns_of)
            .with_context(|| format!("cannot make {}", path.display()))?;
        std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let text = if args.json {
        format!("{}\n", summary(&made, &target, &seen, &outputs))
    } else {
        table::table(&made.profile, &seen, &files(&outputs), &cost(&made))
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to stdout")?;
    Ok(ExitCode::from(if caught { EXIT_OK } else { EXIT_ERROR }))
}

/// As it is shown: threads by role, and the runtimes' own frames folded, unless all is wanted.
fn view(profile: &Profile, full: bool) -> Folded {
    let folded = folded::merge([fold(profile).as_str()]);
    if full { folded } else { runtime::collapse(&roles::group(&folded)) }
}

fn encode(
    profile: &Profile,
    seen: &Folded,
    format: Format,
    target: &Target,
    real_ns_of: impl Fn(u64) -> u64,
) -> anyhow::Result<Vec<u8>> {
    Ok(match format {
        Format::Svg => {
            let title = format!("{} ({}), {}", target.comm, target.pid, table::title(profile.kind));
            svg::draw(seen, profile.kind, &title, &table::scope(profile))?
        }
        Format::Folded => {
            let mut text = seen.lines(usize::MAX).join("\n");
            text.push('\n');
            text.into_bytes()
        }
        Format::Pprof => pprof::encode(profile, real_ns_of)?,
        Format::Firefox { gzipped: false } => firefox::encode(profile, real_ns_of)?,
        Format::Firefox { gzipped: true } => {
            let json = firefox::encode(profile, real_ns_of)?;
            let mut gzip =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            gzip.write_all(&json)?;
            gzip.finish()?
        }
    })
}

fn files(outputs: &[Output]) -> Vec<String> {
    outputs.iter().map(|output| output.path.display().to_string()).collect()
}

fn cost(made: &Made) -> String {
    format!(
        "catching took {:.2} % of one CPU of this program's, naming {:.1} s",
        made.cpu_share * 100.0,
        made.naming.as_secs_f64()
    )
}

fn summary(made: &Made, target: &Target, seen: &Folded, outputs: &[Output]) -> serde_json::Value {
    let mut summary = table::json(&made.profile, seen);
    if let Some(fields) = summary.as_object_mut() {
        fields.insert(String::from("pid"), target.pid.into());
        fields.insert(String::from("files"), files(outputs).into());
        fields.insert(String::from("watcher_cpu_ratio"), made.cpu_share.into());
        fields.insert(String::from("naming_ms"), (made.naming.as_millis() as u64).into());
    }
    summary
}
