//! `stallscope report`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::EXIT_OK;
use super::document::{self, Format, Place};
use crate::report;
use crate::watch::replay;

/// Turn a recording into a report: a page, Markdown, or JSON.
///
/// The page is one self-contained file: it opens from disk, without a network. Markdown and JSON go
/// to stdout where no file is named: `stallscope report RECORDING --format json | jq .verdict.got`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recording (`watch --record FILE`)
    #[arg(value_name = "RECORDING")]
    recording: PathBuf,
    #[command(flatten)]
    document: document::Output,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let incident = replay::load(&args.recording)
        .with_context(|| format!("cannot read {}", args.recording.display()))?;
    let beside = args.recording.with_extension("");
    let place = args.document.place(&beside, &[&args.recording])?;
    let bytes = match args.document.format() {
        Format::Html => report::html(&incident),
        Format::Md => report::markdown(&incident).into_bytes(),
        Format::Json => report::json(&incident),
    };
    document::write(&place, &bytes)?;
    if let Place::File(path) = &place {
        println!("{}", report::verdict_paragraph(&incident));
        println!("report: {}", path.display());
    }
    Ok(ExitCode::from(EXIT_OK))
}
