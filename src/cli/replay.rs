//! `stallscope replay`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::EXIT_OK;
use crate::tui::run_replay;
use crate::watch::replay;

/// Open a recording in the TUI.
///
/// Left and right step, [ and ] jump a second, o goes to the onset; ? shows all keys.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recording (`watch --record FILE`)
    #[arg(value_name = "RECORDING")]
    recording: PathBuf,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let incident = replay::load(&args.recording)
        .with_context(|| format!("cannot replay {}", args.recording.display()))?;
    anyhow::ensure!(
        std::io::stdout().is_terminal(),
        "replay draws on a terminal, and stdout is none; `stallscope report` makes a file instead"
    );
    run_replay(&incident).context("the terminal failed")?;
    Ok(ExitCode::from(EXIT_OK))
}
