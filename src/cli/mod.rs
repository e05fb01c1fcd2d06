//! The command line: one file per subcommand. Each is a door to the same pipe.

pub(crate) mod args;
mod bar;
mod compare;
mod diagnose;
mod document;
mod live;
mod profile;
mod replay;
mod report;
mod stacks;
mod stop;
mod target;
mod text;
mod watch;

#[cfg(feature = "servers")]
mod bench;
#[cfg(feature = "servers")]
mod demo;
#[cfg(feature = "servers")]
mod endure;
#[cfg(feature = "servers")]
mod lab;
#[cfg(feature = "servers")]
mod load;
#[cfg(feature = "servers")]
mod serve;
#[cfg(feature = "servers")]
mod victim;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit status: healthy to the end.
pub const EXIT_OK: u8 = 0;
/// Exit status: an error, with one sentence on stderr.
pub const EXIT_ERROR: u8 = 1;
/// Exit status: wrong usage.
pub const EXIT_USAGE: u8 = 2;
/// Exit status: a stall was seen.
pub const EXIT_STALLED: u8 = 3;

/// Says when a network service stalled, and why.
///
/// Watches any Linux process from outside, without stopping, signalling or tracing it; dates the
/// onset of a stall, names its cause with the evidence, and keeps a recording for a report.
#[derive(Debug, Parser)]
#[command(name = "stallscope", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

// A comment here would hide that on the arguments, which says more: `serve` and `load` say theirs
// after the options.
#[derive(Debug, Subcommand)]
enum Command {
    Watch(watch::Args),
    Diagnose(diagnose::Args),
    Replay(replay::Args),
    Report(report::Args),
    Profile(profile::Args),
    Stacks(stacks::Args),
    Compare(compare::Args),
    /// Run an instrumented HTTP-to-Kafka server
    #[cfg(feature = "servers")]
    Serve(serve::Args),
    /// Put load on an HTTP server
    #[cfg(feature = "servers")]
    Load(load::Args),
    #[cfg(feature = "servers")]
    Demo(demo::Args),
    #[cfg(feature = "servers")]
    Lab(lab::Args),
    #[cfg(feature = "servers")]
    #[command(hide = true)]
    LabVictim(victim::Args),
}

/// Parses the arguments, runs the command, turns errors into one sentence and an exit code.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Watch(args) => watch::run(&args),
        Command::Diagnose(args) => diagnose::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Stacks(args) => stacks::run(&args),
        Command::Compare(args) => compare::run(&args),
        #[cfg(feature = "servers")]
        Command::Serve(args) => serve::run(args),
        #[cfg(feature = "servers")]
        Command::Load(args) => load::run(args),
        #[cfg(feature = "servers")]
        Command::Demo(args) => demo::run(&args),
        #[cfg(feature = "servers")]
        Command::Lab(args) => lab::run(&args),
        #[cfg(feature = "servers")]
        Command::LabVictim(args) => victim::run(args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("stallscope: {}", sentence(&error));
            ExitCode::from(EXIT_ERROR)
        }
    }
}

/// The error and its causes, each once: many an error names its cause itself.
fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !sentence.contains(&cause) {
            sentence.push_str(": ");
            sentence.push_str(&cause);
        }
    }
    sentence
}
