//! `stallscope lab-victim`: a process of the lab.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;

use super::EXIT_OK;
use super::args::duration;
use crate::lab::victims::{self, Options};

/// Run one process of the lab: a server that will stall, or a client that wears one out.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which
    name: String,
    /// Address to listen on; port 0 lets the kernel choose
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// For clients: the server they wear out
    #[arg(long, value_name = "ADDRESS")]
    connect: Option<SocketAddr>,
    /// How long after readiness the fault begins
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    after: Duration,
    /// Where to write the ground truth
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
    /// For whatever is left to chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let victim = victims::find(&args.name)
        .ok_or_else(|| anyhow!("there is no victim or client '{}'", args.name))?;
    let Args { listen, connect, after, truth, seed, .. } = args;
    victim(&Options { listen, connect, after, truth, seed })?;
    Ok(ExitCode::from(EXIT_OK))
}
