//! A server on a machine whose table of open files is full. The limit is that of the whole host
//! (`fs.file-max`) and spares whoever has `CAP_SYS_ADMIN` (`fs/file_table.c`,
//! `alloc_empty_file`), so the server gives its capabilities away, and the limit is lowered for
//! some seconds by a guard: a process of its own, which puts it back when its pipe closes, when
//! it is told to end, and in any case after [`LOWERED_MAX`].

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{getpid, getppid};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tokio::net::TcpListener;

use super::super::{Ground, Options, say_ready};
use super::server::{BACKLOG, idle, listen, on_tokio, serve};

/// Name of the guard among the victims.
pub(super) const GUARD: &str = "file-max-guard";
/// How long the limit may stay lowered.
pub const LOWERED_MAX: Duration = Duration::from_secs(15);

const FILE_MAX: &str = "/proc/sys/fs/file-max";
const FILE_NR: &str = "/proc/sys/fs/file-nr";
/// Whose victim lowered the limit, and what it was: for whoever finds the guard killed.
const NOTE: &str = "/run/stallscope-lab.file-max";
/// The limit falls to this part of the files that are open: those who close some in the meantime
/// make no room.
const LOWERED_TO: u64 = 2;

/// Runs the server.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let ground = Ground::open(options)?;
    let mut guard = Guard::start()?;
    // Nothing of this process runs beside this thread yet, so that all of it loses them.
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, sets).context("cannot give the capabilities away")?;
    on_tokio(async {
        let listener = TcpListener::from_std(listen(options.listen, BACKLOG)?)?;
        say_ready(Some(listener.local_addr()?))?;
        let lowered = async {
            tokio::time::sleep(options.after).await;
            guard.lower()
        };
        let served = serve(&listener, idle, |error| {
            if error.raw_os_error() == Some(Errno::NFILE.raw_os_error()) {
                ground.fault_begins("file-table-full");
            }
        });
        let (lowered, ()) = tokio::join!(lowered, served);
        lowered
    })
}

/// The guard, seen from the victim. The pipe closes with the victim, however that ends.
struct Guard(Child);

impl Guard {
    fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        // In a process group of its own: what ends the victim's group must not end it.
        let mut command = Command::new(program);
        command.args(["lab-victim", GUARD]).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        command.spawn().map(Self).context("cannot start the guard of fs.file-max")
    }

    fn lower(&mut self) -> anyhow::Result<()> {
        let pipe = self.0.stdin.as_mut().ok_or_else(|| anyhow!("the guard has no pipe"))?;
        pipe.write_all(b"!").context("the guard of fs.file-max is gone")
    }
}

/// Runs the guard: lowers the limit when a byte comes, and puts it back.
pub(super) fn guard(_: &Options) -> anyhow::Result<()> {
    let victim = getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    let end = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&end))?;
    }
    let mut pipe = std::io::stdin().lock();
    if pipe.read(&mut [0]).unwrap_or(0) == 0 {
        return Ok(());
    }
    let lowered = Lowered::lower(victim)?;
    let deadline = Instant::now() + LOWERED_MAX;
    while !end.load(Ordering::Relaxed) {
        let left = deadline.saturating_duration_since(Instant::now());
        let closed =
            poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Timespec::try_from(left).ok().as_ref());
        // A signal has set the flag; all else ends the guard's duty.
        if closed != Err(Errno::INTR) {
            break;
        }
    }
    lowered.restore()
}

/// The lowered limit.
struct Lowered {
    before: u64,
}

impl Lowered {
    fn lower(victim: i32) -> anyhow::Result<Self> {
        let mut before = number(&read(FILE_MAX)?)?;
        if let Some((other, left)) = note()? {
            if alive(other) {
                bail!("process {other} has lowered fs.file-max already");
            }
            before = left;
        }
        // Written down first: whatever happens from here on, somebody can put it back.
        std::fs::write(NOTE, format!("{victim} {before}\n"))
            .with_context(|| format!("cannot write {NOTE}"))?;
        let open = number(&read(FILE_NR)?)?;
        let lowered = Self { before };
        match std::fs::write(FILE_MAX, (open / LOWERED_TO).to_string()) {
            Ok(()) => Ok(lowered),
            Err(error) => {
                lowered.restore()?;
                Err(error).with_context(|| format!("cannot write {FILE_MAX}"))
            }
        }
    }

    fn restore(&self) -> anyhow::Result<()> {
        std::fs::write(FILE_MAX, self.before.to_string())
            .with_context(|| format!("cannot put fs.file-max back to {}", self.before))?;
        std::fs::remove_file(NOTE).with_context(|| format!("cannot remove {NOTE}"))
    }
}

/// Puts the limit back that victim `pid` had lowered, in case its guard was killed.
///
/// # Errors
/// When there is something to put back, and that cannot be done.
pub(super) fn clean_up(pid: u32) -> anyhow::Result<()> {
    match note()? {
        Some((victim, before)) if u32::try_from(victim) == Ok(pid) => Lowered { before }.restore(),
        _ => Ok(()),
    }
}

/// Who lowered the limit, and what it was.
fn note() -> anyhow::Result<Option<(i32, u64)>> {
    if !Path::new(NOTE).exists() {
        return Ok(None);
    }
    let text = read(NOTE)?;
    let (pid, before) = text.split_once(' ').ok_or_else(|| anyhow!("{NOTE} says: {text}"))?;
    Ok(Some((pid.parse().with_context(|| format!("{NOTE} says: {text}"))?, number(before)?)))
}

fn alive(pid: i32) -> bool {
    pid != getpid().as_raw_nonzero().get() && Path::new(&format!("/proc/{pid}")).exists()
}

fn read(path: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// The first number of a text.
fn number(text: &str) -> anyhow::Result<u64> {
    let word = text.split_whitespace().next().unwrap_or_default();
    word.parse().with_context(|| format!("'{text}' is no number"))
}
