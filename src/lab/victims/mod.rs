//! Victims: small servers that stall for real, one way each, and clients that wear them out. Each
//! runs as a process of its own (`stallscope lab-victim NAME`), keeps no heartbeat page, and
//! writes down itself when its fault takes hold.

mod healthy;
mod kafka;
pub mod network;
mod runtime;

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::kit::now_ns;

/// How a victim is to run: the same for all.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// For clients: the server they wear out.
    pub connect: Option<SocketAddr>,
    /// How long after readiness the fault begins.
    pub after: Duration,
    /// Where the ground truth goes.
    pub truth: Option<PathBuf>,
    /// For whatever is left to chance.
    pub seed: u64,
}

/// What a victim writes down about its fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truth {
    /// Id of the cause.
    pub cause: String,
    /// When it took hold, `CLOCK_MONOTONIC` ns.
    pub begin_ns: u64,
}

/// The ground truth of one run, to be written at the instant the fault takes hold. The file is
/// opened in advance: a fault may leave no fd, no thread and no time to open one. It stays open
/// afterwards: the fd of a closed one would end a lack of fds as soon as it is written down.
#[derive(Debug)]
pub struct Ground {
    file: Option<File>,
    written: AtomicBool,
}

impl Ground {
    /// Opens the file named in `options`; without one the truth goes nowhere.
    ///
    /// # Errors
    /// When the file cannot be made.
    #[expect(clippy::disallowed_methods, reason = "the lab leaves the truth behind as a file")]
    pub fn open(options: &Options) -> anyhow::Result<Self> {
        let open = |path: &PathBuf| {
            File::create(path).with_context(|| format!("cannot write {}", path.display()))
        };
        let file = options.truth.as_ref().map(open).transpose()?;
        Ok(Self { file, written: AtomicBool::new(false) })
    }

    /// The fault `cause` takes hold now. Only the first call counts.
    pub fn fault_begins(&self, cause: &str) {
        self.fault_began(cause, now_ns());
    }

    /// The fault `cause` took hold at `begin_ns`. Only the first call counts.
    pub fn fault_began(&self, cause: &str, begin_ns: u64) {
        let Some(mut file) = self.file.as_ref() else { return };
        if self.written.swap(true, Ordering::Relaxed) {
            return;
        }
        let truth = Truth { cause: cause.to_owned(), begin_ns };
        if let Ok(line) = serde_json::to_string(&truth) {
            // One write: a reader sees the whole line or nothing.
            file.write_all(format!("{line}\n").as_bytes()).ok();
        }
    }
}

/// Says on stdout, as one line of JSON, that the server listens; clients that they have begun.
///
/// # Errors
/// When stdout is gone.
pub fn say_ready(listening: Option<SocketAddr>) -> anyhow::Result<()> {
    let url = listening.map(|address| format!("http://{address}/"));
    let line = serde_json::json!({ "ready": true, "url": url, "pid": std::process::id() });
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("cannot say that it is ready")
}

/// A victim or client: runs until it is killed, or has done what it does.
pub type Run = fn(&Options) -> anyhow::Result<()>;

/// Every victim and client by name.
pub fn find(name: &str) -> Option<Run> {
    [runtime::VICTIMS, network::VICTIMS, kafka::VICTIMS, healthy::VICTIMS]
        .into_iter()
        .flatten()
        .find(|(known, _)| *known == name)
        .map(|(_, run)| *run)
}
