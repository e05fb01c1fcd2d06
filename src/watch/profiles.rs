//! Collects the windows that the target's own profiler leaves in shared memory.

use std::path::{Path, PathBuf};

use stallscope_probes::Reading;
use stallscope_probes::spool::{self, SpoolReader};

use super::clock::now_ns;
use super::event::ProfileWindow;
use crate::profile::stacks::{Kind, Maker};

/// Windows are a second long: looking oftener finds nothing.
const LOOK_EVERY_NS: u64 = 500_000_000;
/// Windows taken at one look; a watcher that comes late finds two minutes of them.
const TAKEN_MAX: usize = 128;

/// A target that keeps no spool is asked again now and then: it may only be starting.
const SEEK_EVERY_NS: u64 = 2_000_000_000;

/// Collects one process's profile windows, each once.
#[derive(Debug)]
pub struct Profiles {
    proc_root: PathBuf,
    pid: i32,
    spool: Reading<SpoolReader>,
    sought_ns: u64,
    looked_ns: u64,
    newest_begin_ns: u64,
}

impl Profiles {
    /// For the process `pid`.
    pub fn new(pid: i32) -> Self {
        let proc_root = Path::new("/proc");
        Self {
            spool: spool::find(proc_root, pid),
            proc_root: proc_root.to_owned(),
            pid,
            sought_ns: now_ns(),
            looked_ns: 0,
            newest_begin_ns: 0,
        }
    }

    /// The windows that are new, oldest first.
    pub fn collect(&mut self, now_ns: u64) -> Vec<ProfileWindow> {
        if now_ns.saturating_sub(self.looked_ns) < LOOK_EVERY_NS {
            return Vec::new();
        }
        self.looked_ns = now_ns;
        let missing = self.spool.got().is_none();
        if missing && now_ns.saturating_sub(self.sought_ns) >= SEEK_EVERY_NS {
            self.spool = spool::find(&self.proc_root, self.pid);
            self.sought_ns = now_ns;
        }
        self.take()
    }

    /// What has come since the last look.
    pub fn collect_rest(&mut self) -> Vec<ProfileWindow> {
        self.looked_ns = now_ns();
        self.take()
    }

    fn take(&mut self) -> Vec<ProfileWindow> {
        // A process that keeps no profile is the ordinary case: nothing to report.
        let Some(spool) = self.spool.got() else { return Vec::new() };
        let listed = spool.newer_than(self.newest_begin_ns);
        let mut windows = Vec::new();
        for name in listed.got().into_iter().flatten().take(TAKEN_MAX) {
            let text = spool.read(name);
            if let Some(folded) = text.got() {
                windows.push(ProfileWindow {
                    begin_ns: name.begin_ns,
                    end_ns: name.end_ns,
                    kind: Kind::Cpu,
                    maker: Maker::Itself,
                    hz: name.hz,
                    folded: folded.clone(),
                    notes: Vec::new(),
                });
            }
            self.newest_begin_ns = self.newest_begin_ns.max(name.begin_ns);
        }
        windows
    }
}
