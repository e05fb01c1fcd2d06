//! CPU time and memory of a server: of its process group, so that servers of several processes are
//! seen whole.
#![expect(clippy::disallowed_methods, reason = "this is where the server's usage is read")]

use std::path::Path;

use stallscope_probes::{Reading, Why};

/// Processes looked at.
const PROCESSES_MAX: usize = 100_000;

/// Which of a process's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// Resident now, counted page by page (`smaps_rollup`): takes a lock of the process for a moment.
    Now,
    /// The most that ever was resident (`VmHWM`): costs nothing.
    Peak,
}

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    group: i32,
    /// Own CPU time and that of children who have been waited for, clock ticks.
    ticks: u64,
}

/// The name in brackets may hold anything, brackets too: what counts comes after the last one.
fn stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // proc_pid_stat(5) numbers them from 1; the first after the name is the third.
    let field = |number: usize| fields.get(number - 3);
    let ticks = |number: usize| field(number)?.parse::<u64>().ok();
    Some(Stat {
        group: field(5)?.parse().ok()?,
        ticks: ticks(14)? + ticks(15)? + ticks(16)? + ticks(17)?,
    })
}

/// The processes of `group`: pid, clock ticks.
fn members(proc_root: &Path, group: i32) -> Vec<(i32, u64)> {
    let Ok(entries) = std::fs::read_dir(proc_root) else { return Vec::new() };
    let of = |entry: std::fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = stat(&std::fs::read_to_string(entry.path().join("stat")).ok()?)?;
        (stat.group == group).then_some((pid, stat.ticks))
    };
    entries.flatten().take(PROCESSES_MAX).filter_map(of).collect()
}

/// CPU time that `group` has used, s.
pub(super) fn cpu_s(group: i32) -> Reading<f64> {
    let members = members(Path::new("/proc"), group);
    if members.is_empty() {
        return Reading::absent(Why::Gone, "the server has no process left");
    }
    let ticks: u64 = members.iter().map(|(_, ticks)| ticks).sum();
    Reading::Got(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Resident memory of `group`, bytes. What processes share counts for each.
pub(super) fn memory(group: i32, which: Memory) -> Reading<u64> {
    let proc_root = Path::new("/proc");
    let (file, key) = match which {
        Memory::Now => ("smaps_rollup", "Rss:"),
        Memory::Peak => ("status", "VmHWM:"),
    };
    let mut sum: Option<u64> = None;
    for (pid, _) in members(proc_root, group) {
        match std::fs::read_to_string(proc_root.join(pid.to_string()).join(file)) {
            // One that is ending has no memory left, and no such line.
            Ok(text) => {
                if let Some(kib) = kib(&text, key) {
                    sum = Some(sum.unwrap_or_default() + kib);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                return Reading::absent(
                    Why::NotPermitted,
                    format!("/proc/{pid}/{file} may not be read"),
                );
            }
            // It has just ended.
            Err(_) => {}
        }
    }
    match sum {
        Some(kib) => Reading::Got(kib * 1024),
        None => Reading::absent(Why::Gone, "the server has no process with memory left"),
    }
}

/// `VmHWM:     1234 kB`.
fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_is_read_whatever_the_process_is_called() {
        let rest = "S 1 77 77 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 8 0 9";
        for name in ["server", "a) S 1 5 (b", ""] {
            let text = format!("42 ({name}) {rest}\n");
            assert_eq!(stat(&text), Some(Stat { group: 77, ticks: 127 }), "{name}");
        }
        for text in ["", "42 (x", "42 (x) S 1", "42 (x) S 1 y 77"] {
            assert_eq!(stat(text), None, "{text}");
        }
    }

    #[test]
    fn the_own_group_uses_something() {
        let group = rustix::process::getpgrp().as_raw_nonzero().get();
        assert!(cpu_s(group).got().is_some());
        let (now, peak) = (memory(group, Memory::Now), memory(group, Memory::Peak));
        assert!(
            now.got().zip(peak.got()).is_some_and(|(now, peak)| *now > 1 << 20 && *peak > 1 << 20)
        );
        assert!(cpu_s(i32::MAX).absence().is_some());
        assert_eq!(kib("VmHWM:\t  12 kB\n", "VmHWM:"), Some(12));
    }
}
