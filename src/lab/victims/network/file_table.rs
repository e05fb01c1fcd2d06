//! A server on a machine whose table of open files is full. The limit is that of the whole host
//! (`fs.file-max`) and spares whoever has `CAP_SYS_ADMIN` (`fs/file_table.c`,
//! `alloc_empty_file`), so the server gives its capabilities away, and the limit is lowered for
//! some seconds by a guard: a process of its own, which puts it back when its pipe closes, when
//! it is told to end, and in any case after [`LOWERED_MAX`].

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::getppid;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tokio::net::TcpListener;

use super::super::{Ground, Options, say_ready};
use super::server::{BACKLOG, idle, listen, on_tokio, serve};

/// Name of the guard among the victims.
pub(super) const GUARD: &str = "file-max-guard";
/// How long the limit may stay lowered.
pub const LOWERED_MAX: Duration = Duration::from_secs(15);

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
    let lowered = Table::host().lower(victim)?;
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

/// The files that the limit is read from, set by, and remembered in.
#[derive(Debug, Clone)]
struct Table {
    /// The limit.
    max: PathBuf,
    /// How many files are open, first of three numbers.
    open: PathBuf,
    /// Which victim has it lowered, and what it was: for whoever finds the guard killed.
    note: PathBuf,
}

impl Table {
    /// That of this host.
    fn host() -> Self {
        Self {
            max: PathBuf::from("/proc/sys/fs/file-max"),
            open: PathBuf::from("/proc/sys/fs/file-nr"),
            note: PathBuf::from("/run/stallscope-lab.file-max"),
        }
    }

    fn lower(self, victim: i32) -> anyhow::Result<Lowered> {
        let mut before = number(&read(&self.max)?)?;
        if let Some((other, left)) = self.noted()? {
            if Path::new("/proc").join(other.to_string()).exists() {
                bail!("process {other} has lowered fs.file-max already");
            }
            before = left;
        }
        // Written down first: whatever happens from here on, somebody can put it back.
        write(&self.note, &format!("{victim} {before}\n"))?;
        let open = number(&read(&self.open)?)?;
        let lowered = Lowered { table: self, before };
        if let Err(error) = write(&lowered.table.max, &(open / LOWERED_TO).to_string()) {
            lowered.restore()?;
            return Err(error);
        }
        Ok(lowered)
    }

    /// Which victim lowered the limit, and what it was.
    fn noted(&self) -> anyhow::Result<Option<(i32, u64)>> {
        if !self.note.exists() {
            return Ok(None);
        }
        let text = read(&self.note)?;
        let wrong = || format!("{} says: {text}", self.note.display());
        let (pid, before) = text.split_once(' ').with_context(wrong)?;
        Ok(Some((pid.parse().with_context(wrong)?, number(before)?)))
    }

    fn clean_up(self, pid: u32) -> anyhow::Result<()> {
        match self.noted()? {
            Some((victim, before)) if u32::try_from(victim) == Ok(pid) => {
                Lowered { table: self, before }.restore()
            }
            _ => Ok(()),
        }
    }
}

/// The lowered limit.
#[derive(Debug)]
struct Lowered {
    table: Table,
    before: u64,
}

impl Lowered {
    fn restore(&self) -> anyhow::Result<()> {
        write(&self.table.max, &self.before.to_string())
            .with_context(|| format!("cannot put fs.file-max back to {}", self.before))?;
        let note = &self.table.note;
        match std::fs::remove_file(note) {
            // Somebody else has put it back, too.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            outcome => outcome.with_context(|| format!("cannot remove {}", note.display())),
        }
    }
}

/// Puts the limit back that victim `pid` had lowered, in case its guard was killed.
///
/// # Errors
/// When there is something to put back, and that cannot be done.
pub(super) fn clean_up(pid: u32) -> anyhow::Result<()> {
    Table::host().clean_up(pid)
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The first number of a text.
fn number(text: &str) -> anyhow::Result<u64> {
    let word = text.split_whitespace().next().unwrap_or_default();
    word.parse().with_context(|| format!("'{text}' is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No process has this pid (`/proc/sys/kernel/pid_max` is 4194304 at most).
    const NOBODY: i32 = 4_194_305;

    fn table(folder: &Path) -> Table {
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let max = file("file-max", "5000\n");
        let open = file("file-nr", "640\t0\t5000\n");
        Table { max, open, note: folder.join("note") }
    }

    fn limit(table: &Table) -> u64 {
        number(&read(&table.max).unwrap()).unwrap()
    }

    #[test]
    fn the_limit_falls_below_what_is_open_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let table = table(folder.path());
        let lowered = table.clone().lower(NOBODY).unwrap();
        assert_eq!(limit(&table), 320);
        lowered.restore().unwrap();
        assert_eq!((limit(&table), table.note.exists()), (5_000, false));
        lowered.restore().unwrap();
    }

    #[test]
    fn what_a_killed_guard_left_is_put_back_to_what_it_was_first() {
        let folder = tempfile::tempdir().unwrap();
        let table = table(folder.path());
        table.clone().lower(NOBODY).unwrap();
        let again = table.clone().lower(NOBODY + 1).unwrap();
        assert_eq!(again.before, 5_000);
        table.clone().clean_up(NOBODY as u32).unwrap();
        assert_eq!(limit(&table), 320, "another victim's");
        table.clone().clean_up(NOBODY as u32 + 1).unwrap();
        assert_eq!((limit(&table), table.note.exists()), (5_000, false));
    }

    #[test]
    fn two_do_not_lower_it_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let table = table(folder.path());
        let lowered = table.clone().lower(std::process::id().cast_signed()).unwrap();
        assert!(table.clone().lower(NOBODY).is_err());
        lowered.restore().unwrap();
        table.lower(NOBODY).unwrap();
    }
}
