//! Cgroups of the lab's own, v1 or v2 as the machine has them: a folder `stallscope-lab-PID` at the
//! root of a hierarchy. It outlives the process it is named after; [`clean_up`] removes it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// Where hierarchies are mounted: v1 by their controller, v2 as the only one or beside those.
const ROOTS: [&str; 4] =
    ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/freezer", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
/// How long a cgroup may still be busy with the end of its last process.
const BUSY_MAX: Duration = Duration::from_secs(2);
const BUSY_RETRY: Duration = Duration::from_millis(10);

/// CPU time per period: the kernel's default period, in which quotas are counted.
const PERIOD_US: u64 = 100_000;

/// A cgroup, prepared. It holds its `cgroup.procs` open, so that entering it takes one write.
#[derive(Debug)]
pub(super) struct Cgroup {
    folder: PathBuf,
    procs: File,
}

impl Cgroup {
    /// Makes one whose processes get `percent` of one CPU, for process `pid`.
    ///
    /// # Errors
    /// When no hierarchy has the `cpu` controller, or this process may not change it.
    pub(super) fn with_quota(pid: u32, percent: u64) -> anyhow::Result<Self> {
        let quota_us = PERIOD_US * percent / 100;
        if let Ok(cgroup) = Self::make("/sys/fs/cgroup/cpu", pid, "cpu.cfs_quota_us") {
            cgroup.set("cpu.cfs_period_us", &PERIOD_US.to_string())?;
            cgroup.set("cpu.cfs_quota_us", &quota_us.to_string())?;
            return Ok(cgroup);
        }
        // A controller must be handed down to the children; done already, or not to be had.
        write("/sys/fs/cgroup/cgroup.subtree_control".as_ref(), "+cpu").ok();
        let cgroup = Self::make("/sys/fs/cgroup", pid, "cpu.max")?;
        cgroup.set("cpu.max", &format!("{quota_us} {PERIOD_US}"))?;
        Ok(cgroup)
    }

    /// Makes one that can be frozen, for process `pid`: v1 where there is its controller.
    ///
    /// # Errors
    /// When there is no hierarchy for it, or this process may not change it.
    pub(super) fn freezer(pid: u32) -> anyhow::Result<Self> {
        Self::make("/sys/fs/cgroup/freezer", pid, "freezer.state")
            .or_else(|_| Self::freezer_v2(pid))
    }

    /// The same, v2 only.
    ///
    /// # Errors
    /// As [`Self::freezer`].
    pub(super) fn freezer_v2(pid: u32) -> anyhow::Result<Self> {
        Self::make("/sys/fs/cgroup/unified", pid, "cgroup.freeze")
            .or_else(|_| Self::make("/sys/fs/cgroup", pid, "cgroup.freeze"))
    }

    /// `file` is one that only cgroups of the wanted kind have.
    fn make(root: &str, pid: u32, file: &str) -> anyhow::Result<Self> {
        let folder = folder(root, pid);
        if !Path::new(root).join("cgroup.procs").exists() {
            bail!("{root} is no cgroup hierarchy");
        }
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            outcome => outcome.with_context(|| format!("cannot make {}", folder.display()))?,
        }
        if !folder.join(file).exists() {
            std::fs::remove_dir(&folder).ok();
            bail!("a cgroup in {root} has no {file}");
        }
        let procs = OpenOptions::new()
            .write(true)
            .open(folder.join("cgroup.procs"))
            .with_context(|| format!("cannot put processes into {}", folder.display()))?;
        Ok(Self { folder, procs })
    }

    fn set(&self, file: &str, value: &str) -> anyhow::Result<()> {
        let path = self.folder.join(file);
        write(&path, value).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Puts process `pid` into it, with all its threads.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub(super) fn take_in(&mut self, pid: u32) -> anyhow::Result<()> {
        self.procs
            .write_all(pid.to_string().as_bytes())
            .with_context(|| format!("process {pid} is not let into {}", self.folder.display()))
    }

    /// Freezes all that is in it.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub(super) fn freeze(&self) -> anyhow::Result<()> {
        if self.folder.join("freezer.state").exists() {
            self.set("freezer.state", "FROZEN")
        } else {
            self.set("cgroup.freeze", "1")
        }
    }

    /// Thaws what is in it and removes it, once that has ended or was put out.
    ///
    /// # Errors
    /// When it is still busy after [`BUSY_MAX`].
    pub(super) fn remove(self) -> anyhow::Result<()> {
        remove(&self.folder)
    }
}

fn folder(root: &str, pid: u32) -> PathBuf {
    Path::new(root).join(format!("stallscope-lab-{pid}"))
}

/// Files of cgroups are never created: a name that is not there is an error.
fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// Removes every cgroup named after process `pid`, which may still be in it, even frozen.
///
/// # Errors
/// When one cannot be removed.
pub(super) fn clean_up(pid: u32) -> anyhow::Result<()> {
    ROOTS.iter().map(|root| folder(root, pid)).filter(|folder| folder.exists()).try_for_each(
        |folder| {
            for process in std::fs::read_to_string(folder.join("cgroup.procs"))?.lines() {
                thaw(&folder);
                // It may have ended in between.
                write(&folder.join("../cgroup.procs"), process).ok();
            }
            remove(&folder)
        },
    )
}

fn thaw(folder: &Path) {
    // One of the two is there, or none when it cannot be frozen.
    write(&folder.join("freezer.state"), "THAWED").ok();
    write(&folder.join("cgroup.freeze"), "0").ok();
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    thaw(folder);
    let deadline = Instant::now() + BUSY_MAX;
    loop {
        match std::fs::remove_dir(folder) {
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                std::thread::sleep(BUSY_RETRY);
            }
            outcome => {
                return outcome.with_context(|| format!("cannot remove {}", folder.display()));
            }
        }
    }
}
