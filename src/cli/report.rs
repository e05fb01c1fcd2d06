//! `stallscope report`.

use std::process::ExitCode;

/// Arguments of `stallscope report`.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
