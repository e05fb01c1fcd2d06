//! The cgroup (v2) of a process: whether it is frozen, and how often it was throttled.

use std::path::Path;

use crate::files;
use crate::reading::{Absence, Reading, Why};
use crate::sample::CgroupRaw;

/// Reads the cgroup of process `pid`; `cgroup_root` is normally `/sys/fs/cgroup`.
pub fn read(proc_root: &Path, cgroup_root: &Path, pid: i32) -> Reading<CgroupRaw> {
    let membership = files::process(proc_root, pid).join("cgroup");
    files::read(&membership, files::SMALL_MAX_BYTES)
        .and_then(|bytes| parse_membership(&bytes))
        .and_then(|path| {
            let inside = path.trim_start_matches('/');
            // A hybrid set-up (v1 with v2 beside it) mounts v2 one level down (systemd).
            match read_folder(&cgroup_root.join(inside)) {
                Reading::Got(raw) => Reading::Got(raw),
                Reading::Absent(first) => read_folder(&cgroup_root.join("unified").join(inside))
                    .got()
                    .map_or(Reading::Absent(first), |raw| Reading::Got(*raw)),
            }
        })
}

/// The files of one cgroup. The root cgroup has no `cgroup.events` and can be neither frozen nor
/// throttled; any cgroup has `cgroup.procs`.
fn read_folder(folder: &Path) -> Reading<CgroupRaw> {
    let file = |name: &str| files::read(&folder.join(name), files::SMALL_MAX_BYTES);
    let is_v2 = folder.join("cgroup.controllers").exists();
    if !is_v2 {
        return Reading::absent(
            Why::Unsupported,
            format!("{} is no cgroup of version 2 (no cgroup.controllers)", folder.display()),
        );
    }
    let events = missing_is_empty(file("cgroup.events"));
    events.and_then(|events| missing_is_empty(file("cpu.stat")).map(|cpu| parse(&events, &cpu)))
}

fn missing_is_empty(reading: Reading<Vec<u8>>) -> Reading<Vec<u8>> {
    match reading {
        Reading::Absent(Absence { why: Why::Gone, .. }) => Reading::Got(Vec::new()),
        other => other,
    }
}

/// The path of the v2 cgroup in `/proc/PID/cgroup`: the line that begins with `0::` (cgroups(7)).
pub fn parse_membership(bytes: &[u8]) -> Reading<String> {
    let text = String::from_utf8_lossy(bytes);
    let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::")) else {
        return Reading::absent(
            Why::Unsupported,
            "the process is in no cgroup of version 2; version 1 is not read",
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

/// Parses `cgroup.events` and `cpu.stat`; keys that are missing stay `None`.
pub fn parse(events: &[u8], cpu_stat: &[u8]) -> CgroupRaw {
    CgroupRaw {
        frozen: value(events, "frozen").map(|frozen| frozen != 0),
        nr_throttled: value(cpu_stat, "nr_throttled"),
        throttled_usec: value(cpu_stat, "throttled_usec"),
        nr_periods: value(cpu_stat, "nr_periods"),
        ..CgroupRaw::default()
    }
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
        tree.file("sys/a/b/cpu.stat", "usage_usec 5\nnr_throttled 3\nthrottled_usec 900\n");
        let (proc_root, root) = (tree.root().join("proc"), tree.root().join("sys"));
        let full = CgroupRaw {
            frozen: Some(true),
            nr_throttled: Some(3),
            throttled_usec: Some(900),
            ..CgroupRaw::default()
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

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse_membership(&bytes);
            parse(&bytes, &bytes);
        }
    }
}
