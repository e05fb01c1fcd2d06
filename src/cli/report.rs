//! `stallscope report`.
#![expect(clippy::disallowed_methods, reason = "this is where the report is written")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::EXIT_OK;
use crate::report;
use crate::watch::replay;

/// Turn a recording into one HTML file.
///
/// The file is self-contained: it opens from disk, without a network.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recording (`watch --record FILE`)
    #[arg(value_name = "RECORDING")]
    recording: PathBuf,
    /// Where to write it; default: the recording's name with .html
    #[arg(short, long, value_name = "FILE.html")]
    output: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let incident = replay::load(&args.recording)
        .with_context(|| format!("cannot read {}", args.recording.display()))?;
    let output = args.output.clone().unwrap_or_else(|| args.recording.with_extension("html"));
    anyhow::ensure!(
        output != args.recording,
        "{} would be overwritten by its own report: name another file with -o",
        output.display()
    );
    std::fs::write(&output, report::html(&incident))
        .with_context(|| format!("cannot write {}", output.display()))?;
    println!("{}", report::verdict_paragraph(&incident));
    println!("report: {}", output.display());
    Ok(ExitCode::from(EXIT_OK))
}
