//! The cgroup of a process: whether it is frozen, how often it was throttled, and what its memory
//! limits did to it. From version 2, and where that has not the controller (a hybrid host, or one
//! of version 1 alone) from the controllers `cpu` and `freezer` of version 1.
//!
//! Cost on 6.18, kept open: 1.5 to 2.2 us for the membership, 0.3 to 0.6 us for each file of the
//! cgroup; opened anew 3 to 4 us each.

mod v1;

use std::path::{Path, PathBuf};

use crate::files::{self, Buffer, Kept};
use crate::reading::{Absence, Reading, Why};
use crate::sample::CgroupRaw;

pub use v1::{MOUNTS_MAX, Mount, parse_memberships, parse_mounts};

/// Reads the cgroup of process `pid`, once; [`Watch`] for again and again. `cgroup_root` is normally
/// `/sys/fs/cgroup`.
pub fn read(proc_root: &Path, cgroup_root: &Path, pid: i32) -> Reading<CgroupRaw> {
    Watch::new(proc_root, cgroup_root, pid).read()
}

/// The cgroup of a process, kept open: four fds, and three more where there is version 1. A move to
/// another cgroup is noticed at the next read.
#[derive(Debug)]
pub struct Watch {
    membership: Membership,
    /// The files of the folder that was found.
    files: Option<Files>,
    older: v1::Watch,
    buffer: Buffer,
}

#[derive(Debug)]
struct Files {
    events: Kept,
    cpu_stat: Kept,
    memory_events: Kept,
}

impl Watch {
    /// Of the process `pid`; opens nothing yet.
    pub fn new(proc_root: &Path, cgroup_root: &Path, pid: i32) -> Self {
        Self {
            membership: Membership::new(proc_root, cgroup_root, pid),
            files: None,
            older: v1::Watch::new(proc_root, pid),
            buffer: Buffer::default(),
        }
    }

    /// Reads it. Which figures there are depends on the controllers that are switched on for the
    /// cgroup: those that are missing are `None`. The root of version 2 has none of them, that of
    /// version 1 no freezer.
    pub fn read(&mut self) -> Reading<CgroupRaw> {
        let newer = self.read_v2();
        let older = self.older.read(&mut self.buffer);
        match (newer, older) {
            // The process, or a cgroup that was removed and made again: the next read finds it, and
            // half of the figures would pass for all until then.
            (newer @ Reading::Absent(Absence { why: Why::Gone, .. }), _) => newer,
            (Reading::Got(newer), Reading::Got(older)) => Reading::Got(joined(newer, &older)),
            (Reading::Got(raw), Reading::Absent(_)) | (Reading::Absent(_), Reading::Got(raw)) => {
                Reading::Got(raw)
            }
            // What rights would permit is the better reason.
            (Reading::Absent(Absence { why: Why::Unsupported, .. }), Reading::Absent(older))
                if older.why == Why::NotPermitted =>
            {
                Reading::Absent(older)
            }
            (Reading::Absent(newer), Reading::Absent(_)) => Reading::Absent(newer),
        }
    }

    fn read_v2(&mut self) -> Reading<CgroupRaw> {
        match self.membership.folder(&mut self.buffer) {
            Folder::Same => {}
            Folder::Moved(Reading::Got(folder)) => {
                let kept = |name: &str| Kept::new(folder.join(name));
                self.files = Some(Files {
                    events: kept("cgroup.events"),
                    cpu_stat: kept("cpu.stat"),
                    memory_events: kept("memory.events"),
                });
            }
            Folder::Moved(Reading::Absent(absence)) => {
                self.files = None;
                return Reading::Absent(absence);
            }
        }
        let raw = match &mut self.files {
            Some(files) => files.read(&mut self.buffer),
            None => Reading::absent(Why::Failed, "the cgroup was not found"),
        };
        if raw.got().is_none() {
            self.membership.forget();
        }
        raw
    }
}

/// What both versions say: a controller is in one of them at a time, but the freezer, which each has
/// its own of.
fn joined(newer: CgroupRaw, older: &CgroupRaw) -> CgroupRaw {
    let throttling = if newer.nr_periods.is_some() { &newer } else { older };
    CgroupRaw {
        frozen: match (newer.frozen, older.frozen) {
            (Some(newer), Some(older)) => Some(newer || older),
            (newer, older) => newer.or(older),
        },
        nr_throttled: throttling.nr_throttled,
        throttled_usec: throttling.throttled_usec,
        nr_periods: throttling.nr_periods,
        ..newer
    }
}

/// Adds what one file says.
type Parse = fn(&mut CgroupRaw, &[u8]);

impl Files {
    fn read(&mut self, buffer: &mut Buffer) -> Reading<CgroupRaw> {
        let mut raw = CgroupRaw::default();
        let parts: [(&mut Kept, Parse); 3] = [
            (&mut self.events, parse_events),
            (&mut self.cpu_stat, parse_cpu_stat),
            (&mut self.memory_events, parse_memory_events),
        ];
        for (kept, parse) in parts {
            match kept.read(buffer) {
                Reading::Got(bytes) => parse(&mut raw, bytes),
                // The root has no `cgroup.events`; the others hang on their controllers.
                Reading::Absent(Absence { why: Why::Gone, .. }) if !kept.is_gone() => {}
                Reading::Absent(absence) => return Reading::Absent(absence),
            }
        }
        Reading::Got(raw)
    }
}

/// Where the cgroup of a process is: `/proc/PID/cgroup`, kept open.
#[derive(Debug)]
pub(crate) struct Membership {
    file: Kept,
    root: PathBuf,
    /// The text that the folder was found by.
    known: Vec<u8>,
}

/// What came of asking for the folder.
pub(crate) enum Folder {
    /// The one of the last call.
    Same,
    /// Another one, or none.
    Moved(Reading<PathBuf>),
}

impl Membership {
    pub(crate) fn new(proc_root: &Path, cgroup_root: &Path, pid: i32) -> Self {
        Self {
            file: Kept::new(files::process(proc_root, pid).join("cgroup")),
            root: cgroup_root.to_owned(),
            known: Vec::new(),
        }
    }

    /// Finds the folder of the cgroup.
    pub(crate) fn folder(&mut self, buffer: &mut Buffer) -> Folder {
        let bytes = match self.file.read(buffer) {
            Reading::Got(bytes) => bytes,
            Reading::Absent(absence) => {
                self.known.clear();
                return Folder::Moved(Reading::Absent(absence));
            }
        };
        if !self.known.is_empty() && bytes == self.known {
            return Folder::Same;
        }
        let folder = parse_membership(bytes).and_then(|path| find(&self.root, &path));
        self.known.clear();
        if folder.got().is_some() {
            self.known.extend_from_slice(bytes);
        }
        Folder::Moved(folder)
    }

    /// Looks for the folder anew at the next call: it may have been removed and made again.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }
}

/// The folder of a cgroup of version 2: such a one has `cgroup.controllers`.
fn find(root: &Path, path: &str) -> Reading<PathBuf> {
    let inside = path.trim_start_matches('/');
    // A hybrid set-up (v1 with v2 beside it) mounts v2 one level down (systemd).
    let folders = [root.join(inside), root.join("unified").join(inside)];
    let absent =
        format!("{} is no cgroup of version 2 (no cgroup.controllers)", folders[0].display());
    folders
        .into_iter()
        .find(|folder| files::inode(&folder.join("cgroup.controllers")).is_some())
        .map_or_else(|| Reading::absent(Why::Unsupported, absent), Reading::Got)
}

/// The path of the v2 cgroup in `/proc/PID/cgroup`: the line that begins with `0::` (cgroups(7)).
pub fn parse_membership(bytes: &[u8]) -> Reading<String> {
    let text = String::from_utf8_lossy(bytes);
    let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::")) else {
        return Reading::absent(
            Why::Unsupported,
            "the process is in no cgroup of version 2, and those of version 1 do not tell",
        );
    };
    if path.split('/').any(|part| part == "..") {
        return Reading::absent(
            Why::NotPermitted,
            "the process's cgroup lies outside this cgroup namespace; run in the host's",
        );
    }
    Reading::Got(path.strip_suffix(" (deleted)").unwrap_or(path).to_owned())
}

/// Parses `cgroup.events`, `cpu.stat` and `memory.events`; keys that are missing stay `None`.
pub fn parse(events: &[u8], cpu_stat: &[u8], memory_events: &[u8]) -> CgroupRaw {
    let mut raw = CgroupRaw::default();
    parse_events(&mut raw, events);
    parse_cpu_stat(&mut raw, cpu_stat);
    parse_memory_events(&mut raw, memory_events);
    raw
}

fn parse_events(raw: &mut CgroupRaw, bytes: &[u8]) {
    raw.frozen = value(bytes, "frozen").map(|frozen| frozen != 0);
}

fn parse_cpu_stat(raw: &mut CgroupRaw, bytes: &[u8]) {
    raw.nr_periods = value(bytes, "nr_periods");
    raw.nr_throttled = value(bytes, "nr_throttled");
    raw.throttled_usec = value(bytes, "throttled_usec");
}

fn parse_memory_events(raw: &mut CgroupRaw, bytes: &[u8]) {
    raw.memory_high = value(bytes, "high");
    raw.memory_max = value(bytes, "max");
    raw.oom = value(bytes, "oom");
    raw.oom_kill = value(bytes, "oom_kill");
}

fn value(bytes: &[u8], key: &str) -> Option<u64> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().find_map(|line| {
        let (name, number) = line.split_once(' ')?;
        (name == key).then(|| number.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fake::Tree;

    #[test]
    fn memberships_by_file() {
        let cases: [(&str, Result<&str, Why>); 6] = [
            ("0::/system.slice/a.service\n", Ok("/system.slice/a.service")),
            ("9:name=systemd:/\n1:cpu:/x\n0::/\n", Ok("/")),
            ("0::/gone (deleted)\n", Ok("/gone")),
            ("4:memory:/x\n", Err(Why::Unsupported)),
            ("", Err(Why::Unsupported)),
            ("0::/../../host.slice\n", Err(Why::NotPermitted)),
        ];
        for (text, expected) in cases {
            let path = parse_membership(text.as_bytes());
            match expected {
                Ok(expected) => assert_eq!(path.got().map(String::as_str), Some(expected)),
                Err(why) => assert_eq!(path.absence().unwrap().why, why, "{text:?}"),
            }
        }
    }

    #[test]
    fn a_throttled_cgroup_and_the_root() {
        let tree = Tree::new();
        tree.file("proc/42/cgroup", "0::/a/b\n");
        tree.file("proc/43/cgroup", "0::/\n");
        tree.file("proc/44/cgroup", "0::/removed\n");
        tree.file("sys/cgroup.controllers", "cpu");
        tree.file("sys/cpu.stat", "usage_usec 5\n");
        tree.file("sys/a/b/cgroup.controllers", "cpu");
        tree.file("sys/a/b/cgroup.events", "populated 1\nfrozen 1\n");
        tree.file(
            "sys/a/b/cpu.stat",
            "usage_usec 5\nnr_periods 10\nnr_throttled 3\nthrottled_usec 900\n",
        );
        tree.file(
            "sys/a/b/memory.events",
            "low 0\nhigh 7\nmax 2\noom 1\noom_kill 4\noom_group_kill 5\n",
        );
        let (proc_root, root) = (tree.root().join("proc"), tree.root().join("sys"));
        let full = CgroupRaw {
            frozen: Some(true),
            nr_throttled: Some(3),
            throttled_usec: Some(900),
            nr_periods: Some(10),
            memory_high: Some(7),
            memory_max: Some(2),
            oom: Some(1),
            oom_kill: Some(4),
        };
        assert_eq!(read(&proc_root, &root, 42), Reading::Got(full));
        assert_eq!(read(&proc_root, &root, 43), Reading::Got(CgroupRaw::default()));
        assert_eq!(read(&proc_root, &root, 44).absence().unwrap().why, Why::Unsupported);
        assert_eq!(read(&proc_root, &root, 45).absence().unwrap().why, Why::Gone);
    }

    #[test]
    fn a_hybrid_set_up_has_version_2_one_level_down() {
        let tree = Tree::new();
        tree.file("proc/42/cgroup", "4:memory:/x\n0::/a\n");
        tree.file("sys/unified/a/cgroup.controllers", "");
        tree.file("sys/unified/a/cgroup.events", "populated 1\nfrozen 0\n");
        let raw = read(&tree.root().join("proc"), &tree.root().join("sys"), 42);
        assert_eq!(raw.got().unwrap().frozen, Some(false));
    }

    #[test]
    fn a_move_is_followed_and_a_cgroup_that_comes_back_is_found() {
        let tree = Tree::new();
        let frozen = |path: &str, frozen: &str| {
            tree.file(&format!("sys/{path}/cgroup.controllers"), "");
            tree.file(&format!("sys/{path}/cgroup.events"), &format!("frozen {frozen}\n"));
        };
        tree.file("proc/42/cgroup", "0::/a\n");
        frozen("a", "0");
        frozen("b", "1");
        let mut watch = Watch::new(&tree.root().join("proc"), &tree.root().join("sys"), 42);
        assert_eq!(watch.read().got().unwrap().frozen, Some(false));
        frozen("a", "1");
        assert_eq!(watch.read().got().unwrap().frozen, Some(true));
        tree.file("proc/42/cgroup", "0::/none\n");
        for _ in 0..2 {
            assert_eq!(watch.read().absence().unwrap().why, Why::Unsupported);
        }
        frozen("none", "0");
        assert_eq!(watch.read().got().unwrap().frozen, Some(false));
        tree.file("proc/42/cgroup", "0::/b\n");
        assert_eq!(watch.read().got().unwrap().frozen, Some(true));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse_membership(&bytes);
            parse(&bytes, &bytes, &bytes);
        }
    }
}
