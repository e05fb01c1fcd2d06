//! Version 1 of cgroups (cgroups(7)): each controller has a hierarchy, and a mount, of its own. Read are
//! the CPU controller's `cpu.stat` and the freezer's `freezer.state`.

use std::path::{Path, PathBuf};

use crate::files::{self, Buffer, Kept};
use crate::reading::{Absence, Reading, Why};
use crate::sample::CgroupRaw;

/// Bytes read of `mountinfo`: some thousands of mounts, as a host of many containers has them.
const MOUNTINFO_MAX_BYTES: u64 = 1024 * 1024;
/// Mounts of version 1 that are kept of it: there are a dozen controllers.
pub const MOUNTS_MAX: usize = 64;
/// Lines that are heeded of `/proc/PID/cgroup`.
const MEMBERSHIPS_MAX: usize = 64;

/// The controllers whose files are read.
const CPU: &str = "cpu";
const FREEZER: &str = "freezer";

/// The files of the cgroups of version 1 of a process, kept open: three fds.
#[derive(Debug)]
pub(super) struct Watch {
    membership: Kept,
    mountinfo: PathBuf,
    /// The text that the files were found by.
    known: Vec<u8>,
    cpu_stat: Reading<Kept>,
    freezer_state: Reading<Kept>,
}

impl Watch {
    pub(super) fn new(proc_root: &Path, pid: i32) -> Self {
        let none = || Reading::absent(Why::NotSampled, "not looked for yet");
        Self {
            membership: Kept::new(files::process(proc_root, pid).join("cgroup")),
            mountinfo: proc_root.join("self/mountinfo"),
            known: Vec::new(),
            cpu_stat: none(),
            freezer_state: none(),
        }
    }

    /// Reads both; what a controller does not tell is `None`. Absent when there is neither.
    pub(super) fn read(&mut self, buffer: &mut Buffer) -> Reading<CgroupRaw> {
        match self.membership.read(buffer) {
            Reading::Got(bytes) if !bytes.is_empty() && bytes == self.known => {}
            Reading::Got(bytes) => {
                self.known.clear();
                self.known.extend_from_slice(bytes);
                self.find();
            }
            Reading::Absent(absence) => {
                self.known.clear();
                return Reading::Absent(absence);
            }
        }
        let mut raw = CgroupRaw::default();
        let cpu = read_one(&mut self.cpu_stat, buffer, |bytes| {
            let counts = parse_cpu_stat(bytes);
            (raw.nr_periods, raw.nr_throttled) = (counts.nr_periods, counts.nr_throttled);
            raw.throttled_usec = counts.throttled_usec;
        });
        let freezer = read_one(&mut self.freezer_state, buffer, |bytes| {
            raw.frozen = parse_freezer_state(bytes);
        });
        match (cpu, freezer) {
            (Err(absence), Err(_)) => {
                if [&self.cpu_stat, &self.freezer_state].iter().any(|kept| is_gone(kept)) {
                    // Removed, and perhaps made again: looked for anew the next time.
                    self.known.clear();
                }
                Reading::Absent(absence)
            }
            _ => Reading::Got(raw),
        }
    }

    fn find(&mut self) {
        let memberships = parse_memberships(&self.known);
        let mounts =
            files::read(&self.mountinfo, MOUNTINFO_MAX_BYTES).map(|bytes| parse_mounts(&bytes));
        let file = |controller: &str, name: &str| {
            mounts.as_ref().and_then(|mounts| {
                folder(controller, &memberships, mounts).map(|folder| Kept::new(folder.join(name)))
            })
        };
        self.cpu_stat = file(CPU, "cpu.stat");
        self.freezer_state = file(FREEZER, "freezer.state");
    }
}

fn is_gone(kept: &Reading<Kept>) -> bool {
    kept.got().is_some_and(Kept::is_gone)
}

fn read_one(
    kept: &mut Reading<Kept>,
    buffer: &mut Buffer,
    see: impl FnOnce(&[u8]),
) -> Result<(), Absence> {
    let kept = match kept {
        Reading::Got(kept) => kept,
        Reading::Absent(absence) => return Err(absence.clone()),
    };
    match kept.read(buffer) {
        Reading::Got(bytes) => {
            see(bytes);
            Ok(())
        }
        // The root of the freezer's hierarchy has no such file: it cannot be frozen.
        Reading::Absent(absence) => Err(absence),
    }
}

/// A mount of version 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Which cgroup of the hierarchy is at its root.
    pub root: String,
    /// Where.
    pub point: PathBuf,
    /// The controllers of the hierarchy.
    pub controllers: Vec<String>,
}

/// The cgroups of version 1 in `/proc/PID/cgroup` (lines `N:controller,controller:/path`): controllers
/// and path.
pub fn parse_memberships(bytes: &[u8]) -> Vec<(Vec<String>, String)> {
    let text = String::from_utf8_lossy(bytes);
    let one = |line: &str| {
        let (number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        // Hierarchy 0 is that of version 2; one without a controller has only a name.
        (number != "0" && !controllers.is_empty()).then(|| {
            let path = path.strip_suffix(" (deleted)").unwrap_or(path);
            (controllers.split(',').map(str::to_owned).collect(), path.to_owned())
        })
    };
    text.lines().filter_map(one).take(MEMBERSHIPS_MAX).collect()
}

/// The mounts of version 1 in `mountinfo` (`proc_pid_mountinfo(5)`), at most [`MOUNTS_MAX`]. The line
/// that a cut left unfinished is dropped, or its options are cut: such a mount has fewer controllers.
pub fn parse_mounts(bytes: &[u8]) -> Vec<Mount> {
    let text = String::from_utf8_lossy(bytes);
    let one = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        if kind.next()? != "cgroup" {
            return None;
        }
        let options = kind.nth(1)?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        Some(Mount {
            root: unescaped(root),
            point: PathBuf::from(unescaped(point)),
            controllers: options.split(',').map(str::to_owned).collect(),
        })
    };
    text.lines().filter_map(one).take(MOUNTS_MAX).collect()
}

/// Blanks, newlines and backslashes are written in octal (`seq_path`, `fs/seq_file.c`).
fn unescaped(text: &str) -> String {
    let mut plain = text.to_owned();
    for (escape, letter) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        plain = plain.replace(escape, letter);
    }
    plain
}

/// The folder of the cgroup in the hierarchy of this controller.
fn folder(
    controller: &str,
    memberships: &[(Vec<String>, String)],
    mounts: &[Mount],
) -> Reading<PathBuf> {
    let has = |controllers: &[String]| controllers.iter().any(|one| one == controller);
    let Some((_, path)) = memberships.iter().find(|(controllers, _)| has(controllers)) else {
        return Reading::absent(
            Why::Unsupported,
            format!("the controller `{controller}` has no hierarchy of version 1"),
        );
    };
    if path.split('/').any(|part| part == "..") {
        return Reading::absent(
            Why::NotPermitted,
            "the process's cgroup lies outside this cgroup namespace; run in the host's",
        );
    }
    let inside = |mount: &Mount| {
        let below = if mount.root == "/" { path } else { path.strip_prefix(&mount.root)? };
        // `/ab` is not below `/a`.
        let is_below = below.is_empty() || below.starts_with('/');
        is_below.then(|| mount.point.join(below.trim_start_matches('/')))
    };
    let mut of_controller = mounts.iter().filter(|mount| has(&mount.controllers));
    of_controller.find_map(inside).map_or_else(
        || {
            Reading::absent(
                Why::Unsupported,
                format!(
                    "the hierarchy of the controller `{controller}` (cgroup version 1) is not mounted"
                ),
            )
        },
        Reading::Got,
    )
}

/// Parses `cpu.stat` of version 1 (`Documentation/scheduler/sched-bwc.rst`), which tells the time in
/// ns.
pub fn parse_cpu_stat(bytes: &[u8]) -> CgroupRaw {
    CgroupRaw {
        nr_periods: super::value(bytes, "nr_periods"),
        nr_throttled: super::value(bytes, "nr_throttled"),
        throttled_usec: super::value(bytes, "throttled_time").map(|ns| ns / 1_000),
        ..CgroupRaw::default()
    }
}

/// Parses `freezer.state` (`Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst`), which tells
/// of the cgroups above, too. One that is FREEZING has tasks that run until they next enter or leave
/// the kernel: it counts as frozen.
pub fn parse_freezer_state(bytes: &[u8]) -> Option<bool> {
    match bytes.trim_ascii() {
        b"THAWED" => Some(false),
        b"FREEZING" | b"FROZEN" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cgroup::read;
    use crate::fake::Tree;

    /// Of a hybrid host: systemd with version 2 beside the controllers of version 1.
    const MEMBERSHIPS: &str = "9:name=systemd:/\n6:freezer:/f\n3:cpu,cpuacct:/a/b\n0::/\n";

    /// A tree with these mounts (controllers, root) at `sys/CONTROLLERS`, and process 42 in them.
    fn tree(memberships: &str, mounts: &[(&str, &str)]) -> Tree {
        let tree = Tree::new();
        tree.file("proc/42/cgroup", memberships);
        let at = |controllers: &str| tree.root().join("sys").join(controllers);
        let line = |(controllers, root): &(&str, &str)| {
            let point = at(controllers);
            let point = point.display();
            format!("32 31 0:29 {root} {point} rw,relatime - cgroup cgroup rw,{controllers}\n")
        };
        let mounts: String = mounts.iter().map(line).collect();
        tree.file(
            "proc/self/mountinfo",
            &format!("23 1 254:0 / / rw - ext4 /dev/vda rw\n{mounts}"),
        );
        tree
    }

    fn reading(tree: &Tree) -> Reading<CgroupRaw> {
        read(&tree.root().join("proc"), &tree.root().join("sys"), 42)
    }

    #[test]
    fn throttled_and_frozen_by_their_own_hierarchies() {
        let tree = tree(MEMBERSHIPS, &[("cpu,cpuacct", "/"), ("freezer", "/")]);
        tree.file(
            "sys/cpu,cpuacct/a/b/cpu.stat",
            "nr_periods 10\nnr_throttled 3\nthrottled_time 900123\nnr_bursts 0\nburst_time 0\n",
        );
        tree.file("sys/freezer/f/freezer.state", "THAWED\n");
        let expected = CgroupRaw {
            frozen: Some(false),
            nr_throttled: Some(3),
            throttled_usec: Some(900),
            nr_periods: Some(10),
            ..CgroupRaw::default()
        };
        assert_eq!(reading(&tree), Reading::Got(expected));
        for (state, frozen) in [("FROZEN\n", Some(true)), ("FREEZING\n", Some(true)), ("?", None)] {
            tree.file("sys/freezer/f/freezer.state", state);
            let expected = CgroupRaw { frozen, ..expected };
            assert_eq!(reading(&tree), Reading::Got(expected), "{state}");
        }
    }

    #[test]
    fn version_2_wins_where_it_has_the_controller() {
        let memberships = "6:freezer:/f\n3:cpu:/a\n0::/v2\n";
        let tree = tree(memberships, &[("cpu", "/"), ("freezer", "/")]);
        tree.file("sys/cpu/a/cpu.stat", "nr_periods 1\nnr_throttled 1\nthrottled_time 1000\n");
        tree.file("sys/freezer/f/freezer.state", "THAWED\n");
        tree.file("sys/unified/v2/cgroup.controllers", "");
        tree.file("sys/unified/v2/cgroup.events", "populated 1\nfrozen 0\n");
        tree.file("sys/unified/v2/memory.events", "oom_kill 7\n");
        let throttled = |raw: &CgroupRaw| (raw.nr_periods, raw.nr_throttled, raw.throttled_usec);
        let raw = *reading(&tree).got().unwrap();
        assert_eq!(throttled(&raw), (Some(1), Some(1), Some(1)));
        assert_eq!((raw.frozen, raw.oom_kill), (Some(false), Some(7)));
        // Without the controller `cpu`, version 2 has a `cpu.stat` with the time used alone.
        tree.file("sys/unified/v2/cpu.stat", "usage_usec 5\n");
        assert_eq!(throttled(reading(&tree).got().unwrap()), (Some(1), Some(1), Some(1)));
        tree.file(
            "sys/unified/v2/cpu.stat",
            "usage_usec 5\nnr_periods 9\nnr_throttled 8\nthrottled_usec 7\n",
        );
        assert_eq!(throttled(reading(&tree).got().unwrap()), (Some(9), Some(8), Some(7)));
        // Either can hold it.
        tree.file("sys/freezer/f/freezer.state", "FROZEN\n");
        assert_eq!(reading(&tree).got().unwrap().frozen, Some(true));
        tree.file("sys/freezer/f/freezer.state", "THAWED\n");
        tree.file("sys/unified/v2/cgroup.events", "frozen 1\n");
        assert_eq!(reading(&tree).got().unwrap().frozen, Some(true));
    }

    #[test]
    fn a_mount_may_show_a_part_of_its_hierarchy() {
        let cases = [
            ("/docker/x", Some("sys/cpu/cpu.stat")),
            ("/docker/x/y", Some("sys/cpu/y/cpu.stat")),
            ("/docker/xy", None),
            ("/elsewhere", None),
            ("/docker/x/y (deleted)", Some("sys/cpu/y/cpu.stat")),
        ];
        for (path, file) in cases {
            let tree = tree(&format!("3:cpu:{path}\n"), &[("cpu", "/docker/x")]);
            if let Some(file) = file {
                tree.file(file, "nr_throttled 5\n");
            }
            let raw = reading(&tree);
            assert_eq!(raw.got().and_then(|raw| raw.nr_throttled), file.map(|_| 5), "{path}");
            let why = raw.absence().map(|absence| absence.why);
            assert_eq!(why, file.is_none().then_some(Why::Unsupported), "{path}");
        }
        let outside = tree("3:cpu:/../x\n6:freezer:/../x\n", &[("cpu", "/"), ("freezer", "/")]);
        assert_eq!(reading(&outside).absence().unwrap().why, Why::NotPermitted);
    }

    #[test]
    fn a_move_is_followed_and_a_cgroup_that_comes_back_is_found() {
        let tree = tree("3:cpu:/a\n", &[("cpu", "/")]);
        tree.file("sys/cpu/a/cpu.stat", "nr_throttled 1\n");
        tree.file("sys/cpu/b/cpu.stat", "nr_throttled 2\n");
        let proc_root = tree.root().join("proc");
        let mut watch = crate::cgroup::Watch::new(&proc_root, &tree.root().join("sys"), 42);
        let mut throttled = || watch.read().got().and_then(|raw| raw.nr_throttled);
        assert_eq!(throttled(), Some(1));
        tree.file("proc/42/cgroup", "3:cpu:/b\n");
        assert_eq!(throttled(), Some(2));
        tree.file("proc/42/cgroup", "3:cpu:/c\n");
        assert_eq!(throttled(), None);
        tree.file("sys/cpu/c/cpu.stat", "nr_throttled 3\n");
        assert_eq!(throttled(), Some(3));
    }

    #[test]
    fn mounts_by_line() {
        let text = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                    33 31 0:30 /x /a\\040b rw - cgroup none rw,freezer\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                    42 31 0:39 / /cut rw - cgroup\n\
                    43 31\n";
        let mounts = parse_mounts(text.as_bytes());
        assert_eq!(mounts.len(), 2, "{mounts:?}");
        assert_eq!(mounts[0].controllers, ["rw", "cpu", "cpuacct"]);
        assert_eq!((mounts[1].root.as_str(), mounts[1].point.to_str()), ("/x", Some("/a b")));
        let many = text.repeat(MOUNTS_MAX);
        assert_eq!(parse_mounts(many.as_bytes()).len(), MOUNTS_MAX);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let memberships = parse_memberships(&bytes);
            let mounts = parse_mounts(&bytes);
            folder(CPU, &memberships, &mounts);
            parse_cpu_stat(&bytes);
            parse_freezer_state(&bytes);
        }
    }
}
