//! Servers that the host does not let run: by a quota of CPU time, or frozen.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::getppid;
use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

use super::super::{Ground, Options};
use super::cgroup::Cgroup;
use super::server::{BACKLOG, FaultAt, Work, idle, plain};
use crate::kit::now_ns;

/// CPU time that a request costs.
const WORK_NS: u64 = 250_000;
/// Rounds of SHA-256 over one block between two looks at that.
const ROUNDS: u32 = 50;
/// Of one CPU, percent: next to nothing.
const QUOTA_HARD_PERCENT: u64 = 1;
/// Less than half of what the load of 1,000 requests a second asks for.
const QUOTA_MODERATE_PERCENT: u64 = 10;
/// Some four times what a load of 200 requests a second asks for.
const QUOTA_ROOMY_PERCENT: u64 = 30;

/// Names of the process that freezes a server among the victims: for v1 where there is one, and
/// for v2.
pub(super) const FREEZER: &str = "freezer";
pub(super) const FREEZER_V2: &str = "freezer-v2";
/// How often it looks whether the frozen server is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a server stays frozen at most.
const FROZEN_MAX: Duration = Duration::from_mins(1);

/// What a request computes. The cost is counted in CPU time, so that it is the same in every build
/// and under every quota.
fn hash() {
    let end_ns = cpu_ns() + WORK_NS;
    let mut block = [0; 32];
    while cpu_ns() < end_ns {
        for _ in 0..ROUNDS {
            block = Sha256::digest(block).into();
        }
    }
    std::hint::black_box(block);
}

/// CPU time of this thread.
fn cpu_ns() -> u64 {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    used.tv_sec.unsigned_abs() * 1_000_000_000 + used.tv_nsec.unsigned_abs()
}

/// A server that puts itself under a quota at the time of the fault.
fn under_quota(options: &Options, percent: u64, cause: Option<&str>) -> anyhow::Result<()> {
    let ground = Ground::open(options)?;
    let pid = std::process::id();
    let mut cgroup = Cgroup::with_quota(pid, percent)?;
    plain(options, BACKLOG, hash as Work, async |_: Rc<TcpListener>| {
        tokio::time::sleep(options.after).await;
        // Dated first: there may be no CPU time left to do so afterwards.
        let begin_ns = now_ns();
        cgroup.take_in(pid)?;
        if let Some(cause) = cause {
            ground.fault_began(cause, begin_ns);
        }
        Ok(())
    })
}

/// A quota that leaves next to nothing.
pub(super) fn quota_hard(options: &Options) -> anyhow::Result<()> {
    under_quota(options, QUOTA_HARD_PERCENT, Some("cpu-throttled"))
}

/// A quota under which it crawls.
pub(super) fn quota_moderate(options: &Options) -> anyhow::Result<()> {
    under_quota(options, QUOTA_MODERATE_PERCENT, Some("cpu-throttled"))
}

/// Healthy: a quota with room for what comes.
pub(super) fn quota_roomy(options: &Options) -> anyhow::Result<()> {
    under_quota(options, QUOTA_ROOMY_PERCENT, None)
}

/// A server that is frozen with its cgroup.
pub(super) fn frozen(options: &Options) -> anyhow::Result<()> {
    frozen_by(FREEZER, options)
}

/// The same, in a cgroup of v2.
pub(super) fn frozen_v2(options: &Options) -> anyhow::Result<()> {
    frozen_by(FREEZER_V2, options)
}

fn frozen_by(name: &str, options: &Options) -> anyhow::Result<()> {
    plain(options, BACKLOG, idle, async |_: Rc<TcpListener>| {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command.args(["lab-victim", name, "--after"]);
        command.arg(format!("{}ms", options.after.as_millis()));
        if let Some(truth) = &options.truth {
            command.arg("--truth").arg(truth);
        }
        // In a process group of its own: what ends the server's group must not end it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
        command.spawn().map(drop).context("cannot start the process that freezes")
    })
}

/// Freezes the process that started this one.
pub(super) fn freezer(options: &Options) -> anyhow::Result<()> {
    freeze_parent(options, Cgroup::freezer)
}

/// The same, by a cgroup of v2.
pub(super) fn freezer_v2(options: &Options) -> anyhow::Result<()> {
    freeze_parent(options, Cgroup::freezer_v2)
}

fn freeze_parent(
    options: &Options,
    make: impl FnOnce(u32) -> anyhow::Result<Cgroup>,
) -> anyhow::Result<()> {
    let due = FaultAt::of(options);
    let ground = Ground::open(options)?;
    let parent = getppid().context("the server has ended already")?;
    let pid = parent.as_raw_nonzero().get().unsigned_abs();
    let mut cgroup = make(pid)?;
    cgroup.take_in(pid)?;
    due.wait();
    let begin_ns = now_ns();
    cgroup.freeze()?;
    ground.fault_began("process-stopped", begin_ns);
    let deadline = Instant::now() + FROZEN_MAX;
    while getppid() == Some(parent) && !told_to_end(pid) && Instant::now() < deadline {
        std::thread::sleep(LOOK_EVERY);
    }
    cgroup.remove()
}

/// Whether a signal that ends process `pid` waits for it. In a frozen cgroup of v1 even SIGKILL
/// waits (`SigPnd` and `ShdPnd` of `proc_pid_status(5)`; a signal that ends the whole process
/// becomes a SIGKILL of each thread, `kernel/signal.c`, `complete_signal`).
fn told_to_end(pid: u32) -> bool {
    const SIGKILL_BIT: u64 = 1 << 8;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .filter_map(|line| line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:")))
        .filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .any(|mask| mask & SIGKILL_BIT != 0)
}
