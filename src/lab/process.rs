//! Processes of a run: each leads a group of its own, and is ended with everybody in it.
#![expect(clippy::disallowed_methods, reason = "this is where processes are started")]

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::place::Room;

/// How long between two looks at a process that is to end.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A killed process that is not gone by then sits in the kernel, and nobody can help it.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// What becomes of a process's stdout.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stdout<'a> {
    /// It is read.
    Piped,
    /// It goes to this file.
    File(&'a str),
}

/// A process, of this same binary as a rule. Dropping it kills its group.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    group: Pid,
    /// What it is, for messages.
    pub(super) name: String,
    /// Where its stderr goes.
    pub(super) log: PathBuf,
    /// Whether it has been reaped.
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `stallscope ARGUMENTS…` in `room`, with its files `NAME.…` in `out`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(
        room: &Room,
        out: &Path,
        name: &str,
        arguments: &[String],
        stdout: Stdout<'_>,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command.args(arguments);
        Self::launch(room, out, name, command, stdout)
    }

    /// Starts `command`, as [`Self::start`] does.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn launch(
        room: &Room,
        out: &Path,
        name: &str,
        mut command: Command,
        stdout: Stdout<'_>,
    ) -> anyhow::Result<Self> {
        let log = out.join(format!("{name}.log"));
        let create = |path: &Path| {
            File::create(path).with_context(|| format!("cannot write {}", path.display()))
        };
        command.stdin(Stdio::null()).stderr(create(&log)?).process_group(0);
        match stdout {
            Stdout::Piped => command.stdout(Stdio::piped()),
            Stdout::File(file) => command.stdout(create(&out.join(file))?),
        };
        let child = room.spawn(&mut command).with_context(|| format!("cannot start the {name}"))?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let group = group.ok_or_else(|| anyhow!("the {name} has no pid"))?;
        Ok(Self { child, group, name: name.to_owned(), log, ended: None })
    }

    /// Its pid, which is its group's too.
    pub(super) const fn pid(&self) -> i32 {
        self.group.as_raw_nonzero().get()
    }

    /// Its stdout, once.
    pub(super) fn stdout(&mut self) -> anyhow::Result<ChildStdout> {
        self.child.stdout.take().ok_or_else(|| anyhow!("the {} has no stdout", self.name))
    }

    /// How it has ended, if it has.
    pub(super) fn exit(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() && self.has_exited() {
            self.reap();
        }
        self.ended
    }

    /// Asks the group to end; a stopped process has to go on to see that.
    pub(super) fn ask_to_end(&self) {
        if self.ended.is_none() {
            kill_process_group(self.group, Signal::TERM).ok();
            kill_process_group(self.group, Signal::CONT).ok();
        }
    }

    /// Waits until it has ended, and kills its group when that takes too long; who is left in the
    /// group is killed in any case. Says whether it ended by itself.
    pub(super) fn await_end(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while !self.has_exited() && Instant::now() < deadline {
            std::thread::sleep(LOOK_EVERY);
        }
        let by_itself = self.has_exited();
        self.reap();
        by_itself
    }

    /// Whether it has exited. It is not reaped, so that its pid stays its group's until that has
    /// been ended too.
    fn has_exited(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.ended.is_some()
            || matches!(waitid(WaitId::Pid(self.group), look), Ok(Some(_)) | Err(_))
    }

    /// Kills the group, and takes note of the end.
    fn reap(&mut self) {
        if self.ended.is_none() {
            kill_process_group(self.group, Signal::KILL).ok();
            let deadline = Instant::now() + KILL_PATIENCE;
            while !self.has_exited() && Instant::now() < deadline {
                std::thread::sleep(LOOK_EVERY);
            }
            self.ended = self.child.try_wait().ok().flatten();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A frozen process cannot be killed, and would be waited for in vain.
        super::place::thaw(self.pid());
        self.reap();
    }
}
