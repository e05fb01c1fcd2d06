//! Pressure stall information (`Documentation/accounting/psi.rst`): how long tasks waited for a CPU,
//! for memory, for a disk.
//!
//! Cost on 6.18, kept open: 1 us a file; opened anew 3 us. The text is made under a mutex that only
//! other readers and the kernel's own averaging take (`psi_show`, kernel/sched/psi.c).

use std::path::{Path, PathBuf};

use crate::cgroup::{Folder, Membership};
use crate::files::{self, Buffer, Kept};
use crate::reading::{Absence, Reading, Why};
use crate::sample::{PressureRaw, PressureScope, StallTimeRaw};

/// Reads the pressure on the cgroup of process `pid`, or on the machine, once; [`Watch`] for again
/// and again. `cgroup_root` is normally `/sys/fs/cgroup`.
pub fn read(proc_root: &Path, cgroup_root: &Path, pid: i32) -> Reading<PressureRaw> {
    Watch::new(proc_root, cgroup_root, pid).read()
}

/// The pressure on the cgroup of a process, or on the machine if the cgroup has no figures of its
/// own (version 1, the root, or switched off by `cgroup.pressure`). Keeps four fds open.
#[derive(Debug)]
pub struct Watch {
    membership: Membership,
    machine: PathBuf,
    files: Option<Files>,
    buffer: Buffer,
}

#[derive(Debug)]
struct Files {
    scope: PressureScope,
    cpu: Kept,
    memory: Kept,
    io: Kept,
}

impl Watch {
    /// Of the process `pid`; opens nothing yet.
    pub fn new(proc_root: &Path, cgroup_root: &Path, pid: i32) -> Self {
        Self {
            membership: Membership::new(proc_root, cgroup_root, pid),
            machine: proc_root.join("pressure"),
            files: None,
            buffer: Buffer::default(),
        }
    }

    /// Reads it; a move to another cgroup is noticed. Absent: `Unsupported` when the kernel keeps no
    /// such figures (no `CONFIG_PSI`, or `psi=0`), `Gone` with the process.
    pub fn read(&mut self) -> Reading<PressureRaw> {
        match self.membership.folder(&mut self.buffer) {
            Folder::Same => {}
            Folder::Moved(Reading::Got(folder)) => self.files = Some(self.choose(&folder)),
            Folder::Moved(Reading::Absent(Absence { why: Why::Gone, detail })) => {
                self.files = None;
                return Reading::absent(Why::Gone, detail);
            }
            // In no cgroup of version 2, as the next read will find again.
            Folder::Moved(Reading::Absent(_)) => {
                let of_machine = |files: &Files| matches!(files.scope, PressureScope::Machine);
                if !self.files.as_ref().is_some_and(of_machine) {
                    self.files = Some(self.of_machine());
                }
            }
        }
        let raw = match &mut self.files {
            Some(files) => files.read(&mut self.buffer),
            None => Reading::absent(Why::Failed, "no pressure files were chosen"),
        };
        if raw.got().is_none() {
            self.membership.forget();
        }
        raw
    }

    /// The root has no `cgroup.events`; its pressure is the machine's (`psi_system`). The root of a
    /// cgroup namespace, a container's, is a cgroup like others.
    fn choose(&self, folder: &Path) -> Files {
        let there = |name: &str| files::inode(&folder.join(name)).is_some();
        if there("cgroup.events") && there("cpu.pressure") {
            let kept = |name: &str| Kept::new(folder.join(name));
            Files {
                scope: PressureScope::Cgroup,
                cpu: kept("cpu.pressure"),
                memory: kept("memory.pressure"),
                io: kept("io.pressure"),
            }
        } else {
            self.of_machine()
        }
    }

    fn of_machine(&self) -> Files {
        let kept = |name: &str| Kept::new(self.machine.join(name));
        Files {
            scope: PressureScope::Machine,
            cpu: kept("cpu"),
            memory: kept("memory"),
            io: kept("io"),
        }
    }
}

impl Files {
    fn read(&mut self, buffer: &mut Buffer) -> Reading<PressureRaw> {
        let mut last = None;
        let mut one = |kept: &mut Kept| match kept.read(buffer).and_then(parse) {
            Reading::Got(time) => Some(time),
            Reading::Absent(mut absence) => {
                // Without CONFIG_PSI there is no file; with `psi=0` it reads as EOPNOTSUPP.
                if absence.why == Why::Gone && !kept.is_gone() {
                    absence.why = Why::Unsupported;
                    absence.detail += "; pressure needs CONFIG_PSI";
                }
                last = Some(absence);
                None
            }
        };
        let [cpu, memory, io] = [&mut self.cpu, &mut self.memory, &mut self.io].map(&mut one);
        match last {
            Some(absence) if cpu.is_none() && memory.is_none() && io.is_none() => {
                Reading::Absent(absence)
            }
            _ => Reading::Got(PressureRaw { scope: self.scope, cpu, memory, io }),
        }
    }
}

/// Parses a pressure file: lines of `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, then `full`.
/// The averages are left out: whoever keeps samples makes better ones of the totals.
pub fn parse(bytes: &[u8]) -> Reading<StallTimeRaw> {
    let text = String::from_utf8_lossy(bytes);
    let total = |kind: &str| -> Option<u64> {
        let mut words = text
            .lines()
            .map(str::split_ascii_whitespace)
            .find_map(|mut words| (words.next() == Some(kind)).then_some(words))?;
        words.find_map(|word| word.strip_prefix("total="))?.parse().ok()
    };
    total("some").map_or_else(
        || Reading::absent(Why::Malformed, "the pressure file has no line `some … total=`"),
        |some_us| Reading::Got(StallTimeRaw { some_us, full_us: total("full") }),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fake::Tree;

    fn lines(some: u64, full: u64) -> String {
        format!(
            "some avg10=0.00 avg60=3.72 avg300=4.82 total={some}\n\
             full avg10=0.00 avg60=0.00 avg300=0.00 total={full}\n"
        )
    }

    #[test]
    fn files_by_text() {
        let times = |some_us, full_us| Some(StallTimeRaw { some_us, full_us });
        let cases: [(&str, Option<StallTimeRaw>); 8] = [
            (&lines(4_359_026_697, 12), times(4_359_026_697, Some(12))),
            ("some avg10=0.00 avg60=0.00 avg300=0.00 total=9\n", times(9, None)),
            ("full avg10=0.00 total=5\nsome avg10=0.00 total=6\n", times(6, Some(5))),
            ("some total=18446744073709551616\n", None),
            ("some total=-1\n", None),
            ("some avg10=0.00\n", None),
            ("full total=5\n", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text.as_bytes()).got().copied(), expected, "{text:?}");
        }
    }

    #[test]
    fn the_cgroup_comes_before_the_machine() {
        let tree = Tree::new();
        for (at, (name, some)) in ["cpu", "memory", "io"].iter().zip([1, 2, 3]).enumerate() {
            tree.file(&format!("proc/pressure/{name}"), &lines(some * 100, 0));
            // The root has pressure files too, but is not asked.
            tree.file(&format!("sys/{name}.pressure"), &lines(0, 0));
            if at < 2 {
                tree.file(&format!("sys/a/{name}.pressure"), &lines(some, 0));
            }
        }
        tree.file("sys/cgroup.controllers", "");
        tree.file("sys/a/cgroup.controllers", "");
        tree.file("sys/a/cgroup.events", "frozen 0\n");
        tree.file("proc/42/cgroup", "0::/a\n");
        let mut watch = Watch::new(&tree.root().join("proc"), &tree.root().join("sys"), 42);
        let time = |some_us| Some(StallTimeRaw { some_us, full_us: Some(0) });
        let of_cgroup =
            PressureRaw { scope: PressureScope::Cgroup, cpu: time(1), memory: time(2), io: None };
        for _ in 0..2 {
            assert_eq!(watch.read(), Reading::Got(of_cgroup));
        }
        let of_machine = PressureRaw {
            scope: PressureScope::Machine,
            cpu: time(100),
            memory: time(200),
            io: time(300),
        };
        for membership in ["0::/\n", "4:memory:/x\n", "0::/a\n"] {
            tree.file("proc/42/cgroup", membership);
            let expected = if membership.contains("/a") { of_cgroup } else { of_machine };
            assert_eq!(watch.read(), Reading::Got(expected), "{membership}");
        }
    }

    #[test]
    fn a_kernel_without_pressure_is_told_from_a_process_that_is_gone() {
        let tree = Tree::new();
        tree.file("proc/42/cgroup", "0::/\n");
        let (proc_root, root) = (tree.root().join("proc"), tree.root().join("sys"));
        assert_eq!(read(&proc_root, &root, 42).absence().unwrap().why, Why::Unsupported);
        assert_eq!(read(&proc_root, &root, 43).absence().unwrap().why, Why::Gone);
        // What `psi=0` makes of a read.
        let refused = std::io::Error::from(rustix::io::Errno::OPNOTSUPP);
        assert_eq!(Absence::from(&refused).why, Why::Unsupported);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(&bytes);
        }

        #[test]
        fn parsing_near_misses_never_panics(text in r"((some|full)? ?(total=)?[0-9é \n=.-]{0,30}){0,6}") {
            parse(text.as_bytes());
        }
    }
}
