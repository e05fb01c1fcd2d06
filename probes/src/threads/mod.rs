//! The threads of a process: `/proc/PID/task/TID/{stat,schedstat,syscall,wchan,stack,status}`.
//!
//! CPU time of one read on 6.18, of a thread that sleeps in a system call:
//!
//! | file | kept open | opened anew |
//! |---|---|---|
//! | `schedstat` | 0.4 us | 2.0 us |
//! | `syscall` | 1.0 to 1.2 us | 2.9 us |
//! | `wchan` | 1.1 to 1.4 us | 2.4 to 3.3 us |
//! | `stat` | 1.1 to 1.8 us | 2.6 to 3.8 us |
//! | `stack` | 2.8 to 3.4 us | 4.7 to 5.4 us |
//! | `status` | 3.6 to 4.5 us | 5.7 to 6.6 us |
//!
//! Listing ten threads: 4.5 to 5.9 us. So a [`Watch`] reads `schedstat` always and the rest when
//! there may be something new in it.

mod watch;

use std::path::Path;

use crate::files;
use crate::process::{TaskStat, read_stat};
use crate::reading::{Absence, Reading, Why};
use crate::sample::{SchedRaw, SwitchesRaw, SyscallRaw, THREADS_MAX, TaskState, ThreadRaw};

pub use watch::{Ask, IMPORTANT_MAX, Watch};

/// Threads listed, of which the lowest [`THREADS_MAX`] are read.
const LISTED_MAX: usize = 65_536;
/// Frames kept of a kernel stack (the kernel itself stops at 64, fs/proc/base.c).
const FRAMES_MAX: usize = 64;

/// Reads the threads of a process once, lowest tids first; [`Watch`] for again and again. A thread
/// that ends while they are read is left out; the main thread is kept even when its tid is not among
/// the lowest.
pub fn read(proc_root: &Path, pid: i32, want_stacks: bool) -> Reading<Vec<ThreadRaw>> {
    let folder = files::process(proc_root, pid).join("task");
    files::numbers(&folder, LISTED_MAX).map(|(mut tids, _)| {
        // Pids wrap: a thread made after the wrap has a lower tid than the main thread.
        if let Ok(at) = tids.binary_search(&pid)
            && at >= THREADS_MAX
        {
            tids.swap(at, THREADS_MAX - 1);
        }
        tids.truncate(THREADS_MAX);
        tids.into_iter().filter_map(|tid| read_one(&folder, tid, want_stacks)).collect()
    })
}

/// Reads one thread of a process, without its kernel stack.
///
/// # Errors
/// [`Why::Gone`] when it has ended.
pub fn read_one_of(proc_root: &Path, pid: i32, tid: i32) -> Reading<ThreadRaw> {
    read_one(&files::process(proc_root, pid).join("task"), tid, false).map_or_else(
        || Reading::absent(Why::Gone, format!("thread {tid} of process {pid} has ended")),
        Reading::Got,
    )
}

fn read_one(tasks: &Path, tid: i32, want_stack: bool) -> Option<ThreadRaw> {
    let folder = tasks.join(tid.to_string());
    let stat = match read_stat(&folder) {
        Reading::Got(stat) => stat,
        Reading::Absent(_) => return None,
    };
    let small = |name: &str| files::read(&folder.join(name), files::SMALL_MAX_BYTES);
    let sched = small("schedstat").and_then(|bytes| parse_schedstat(&bytes));
    let syscall = small("syscall").and_then(|bytes| parse_syscall(&bytes));
    let wchan = small("wchan").map(|bytes| parse_wchan(&bytes));
    let mut raw = assemble(tid, stat, sched, syscall, wchan);
    if want_stack {
        raw.kernel_stack = read_stack(&folder);
    }
    Some(raw)
}

/// A thread of what its files said.
fn assemble(
    tid: i32,
    stat: TaskStat,
    sched: Reading<SchedRaw>,
    syscall: Reading<SyscallRaw>,
    wchan: Reading<String>,
) -> ThreadRaw {
    let wchan = optional(wchan, "CONFIG_KALLSYMS");
    ThreadRaw {
        tid,
        comm: stat.comm,
        state: stat.state,
        utime_ticks: stat.utime_ticks,
        stime_ticks: stat.stime_ticks,
        sched: optional(sched, "CONFIG_SCHED_INFO"),
        wchan: permitted_wchan(wchan, &syscall, stat.state),
        syscall: optional(syscall, "CONFIG_HAVE_ARCH_TRACEHOOK"),
        kernel_stack: Reading::absent(Why::NotSampled, "kernel stacks are read only on suspicion"),
        switches: Reading::absent(Why::NotSampled, "context switches are read only on suspicion"),
    }
}

fn read_stack(folder: &Path) -> Reading<Vec<String>> {
    let stack = files::read(&folder.join("stack"), files::SMALL_MAX_BYTES);
    optional(stack, "CONFIG_STACKTRACE").map(|bytes| parse_stack(&bytes))
}

fn read_switches(folder: &Path) -> Reading<SwitchesRaw> {
    files::read(&folder.join("status"), files::SMALL_MAX_BYTES)
        .and_then(|bytes| parse_switches(&bytes))
}

/// The thread was there a moment ago: a file it lacks is one this kernel does not have.
fn optional<T>(reading: Reading<T>, option: &str) -> Reading<T> {
    match reading {
        Reading::Absent(Absence { why: Why::Gone, detail }) => Reading::absent(
            Why::Unsupported,
            format!("{detail}; the thread has ended or the kernel is built without {option}"),
        ),
        other => other,
    }
}

/// Without rights `wchan` reads as "0" too (`proc_pid_wchan`, fs/proc/base.c), as if the thread
/// did not sleep. `syscall`, which needs the same rights, gives it away.
fn permitted_wchan(
    wchan: Reading<String>,
    syscall: &Reading<SyscallRaw>,
    state: TaskState,
) -> Reading<String> {
    let hidden = wchan.got().is_some_and(String::is_empty) && state != TaskState::Running;
    match syscall.absence() {
        Some(absence) if hidden && absence.why == Why::NotPermitted => {
            Reading::Absent(absence.clone())
        }
        _ => wchan,
    }
}

/// Parses `schedstat`: time on a CPU, time waiting for one (ns), times put on one.
pub fn parse_schedstat(bytes: &[u8]) -> Reading<SchedRaw> {
    let text = String::from_utf8_lossy(bytes);
    let mut words = text.split_ascii_whitespace();
    let mut number = || words.next().and_then(|word| word.parse().ok());
    match (number(), number(), number()) {
        (Some(run_ns), Some(delay_ns), Some(timeslices)) => {
            Reading::Got(SchedRaw { run_ns, delay_ns, timeslices })
        }
        _ => Reading::absent(Why::Malformed, "schedstat does not hold three numbers"),
    }
}

/// Parses the two `ctxt_switches` lines of `status`. The name of the thread stands on a line of its
/// own with its newlines escaped (`proc_task_name`, fs/proc/array.c).
pub fn parse_switches(bytes: &[u8]) -> Reading<SwitchesRaw> {
    let text = String::from_utf8_lossy(bytes);
    let number = |key: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok()
    };
    match (number("voluntary_ctxt_switches:"), number("nonvoluntary_ctxt_switches:")) {
        (Some(voluntary), Some(involuntary)) => {
            Reading::Got(SwitchesRaw { voluntary, involuntary })
        }
        _ => Reading::absent(Why::Malformed, "status has not both lines of ctxt_switches"),
    }
}

/// Parses `syscall`: "running", "-1 SP PC", or the number and six arguments (proc(5)).
pub fn parse_syscall(bytes: &[u8]) -> Reading<SyscallRaw> {
    // `procfs` demands the arguments even after -1, where proc(5) says there are none.
    let text = String::from_utf8_lossy(bytes);
    let mut words = text.split_whitespace();
    let parsed = match words.next() {
        Some("running") => Some(SyscallRaw::Running),
        Some("-1") => Some(SyscallRaw::NotInSyscall),
        Some(number) => number.parse().ok().and_then(|nr| {
            let argument = words.next()?.strip_prefix("0x")?;
            Some(SyscallRaw::In { nr, arg0: u64::from_str_radix(argument, 16).ok()? })
        }),
        None => None,
    };
    parsed.map_or_else(
        || Reading::absent(Why::Malformed, "the syscall line is not as proc(5) has it"),
        Reading::Got,
    )
}

/// Parses `wchan`: the kernel function a thread sleeps in, empty for "0".
pub fn parse_wchan(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.trim() {
        "0" => String::new(),
        name => name.to_owned(),
    }
}

/// Parses `stack`: lines of `[<0>] function+0x1b/0x2c [module]`, innermost first.
pub fn parse_stack(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    text.lines()
        .filter_map(|line| {
            let frame = line.split_once("] ").map_or(line, |(_, frame)| frame);
            let name = frame.split(['+', ' ']).next()?.trim();
            (!name.is_empty()).then(|| name.to_owned())
        })
        .take(FRAMES_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fake::Tree;

    pub(super) fn stat(tid: i32, comm: &str, state: char) -> String {
        format!(
            "{tid} ({comm}) {state} 1 1 1 0 -1 0 0 0 0 0 5 6 0 0 20 0 2 0 9 0 0 0{}",
            " 0".repeat(27)
        )
    }

    #[test]
    fn syscalls_by_line() {
        let cases: [(&str, Option<SyscallRaw>); 7] = [
            ("running\n", Some(SyscallRaw::Running)),
            ("-1 0x7ffc0 0x7f00\n", Some(SyscallRaw::NotInSyscall)),
            (
                "232 0x5 0x1 0x2 0x3 0x4 0x5 0x7ffe 0x7f\n",
                Some(SyscallRaw::In { nr: 232, arg0: 5 }),
            ),
            ("202 0xffffffffffffffff 0x0", Some(SyscallRaw::In { nr: 202, arg0: u64::MAX })),
            ("", None),
            ("232", None),
            ("232 five", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_syscall(text.as_bytes()).got().copied(), expected, "{text:?}");
        }
    }

    #[test]
    fn schedstats_by_line() {
        let sched = |run_ns, delay_ns, timeslices| Some(SchedRaw { run_ns, delay_ns, timeslices });
        let cases: [(&str, Option<SchedRaw>); 6] = [
            ("10 20 30\n", sched(10, 20, 30)),
            ("18446744073709551615 0 1", sched(u64::MAX, 0, 1)),
            ("18446744073709551616 0 1", None),
            ("10 20", None),
            ("10 -20 30", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_schedstat(text.as_bytes()).got().copied(), expected, "{text:?}");
        }
    }

    #[test]
    fn switches_by_file() {
        let cases = [
            (
                "Name:\ta\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t7\n",
                Some((5, 7)),
            ),
            ("Name:\tvoluntary_ctxt_switches:\t1\nvoluntary_ctxt_switches:\t5\n", None),
            ("nonvoluntary_ctxt_switches:\t7\n", None),
            ("voluntary_ctxt_switches:\t\nnonvoluntary_ctxt_switches:\t7\n", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let switches = parse_switches(text.as_bytes());
            let switches = switches.got().map(|got| (got.voluntary, got.involuntary));
            assert_eq!(switches, expected, "{text:?}");
        }
    }

    #[test]
    fn stacks_lose_their_offsets() {
        let text = b"[<0>] futex_do_wait+0x38/0x70\n[<0>] nf_hook+0x1/0x2 [nf_tables]\n\n";
        assert_eq!(parse_stack(text), ["futex_do_wait", "nf_hook"]);
        assert!(parse_stack(b"").is_empty());
    }

    #[test]
    fn a_thread_that_vanished_is_left_out_and_the_rest_is_in_order() {
        let tree = Tree::new();
        for tid in [30, 20] {
            tree.file(&format!("20/task/{tid}/stat"), &stat(tid, "a) R 1 (b", 'S'));
            tree.file(&format!("20/task/{tid}/schedstat"), "10 20 30\n");
            tree.file(&format!("20/task/{tid}/wchan"), "0");
        }
        tree.folder("20/task/25");
        let threads = read(tree.root(), 20, false);
        let threads = threads.got().unwrap();
        assert_eq!(threads.iter().map(|thread| thread.tid).collect::<Vec<_>>(), [20, 30]);
        let first = &threads[0];
        assert_eq!(first.comm, "a) R 1 (b");
        assert_eq!(first.sched.got().unwrap().delay_ns, 20);
        assert_eq!(first.wchan.got().map(String::as_str), Some(""));
        assert_eq!(first.syscall.absence().unwrap().why, Why::Unsupported);
        assert_eq!(first.kernel_stack.absence().unwrap().why, Why::NotSampled);
        assert_eq!(read(tree.root(), 21, false).absence().unwrap().why, Why::Gone);
    }

    #[test]
    fn at_the_bound_the_main_thread_stays() {
        let tree = Tree::new();
        let tids: Vec<i32> = (100..100 + THREADS_MAX as i32 + 5).collect();
        let main = *tids.last().unwrap();
        for tid in &tids {
            tree.file(&format!("{main}/task/{tid}/stat"), &stat(*tid, "w", 'R'));
        }
        let threads = read(tree.root(), main, false);
        let threads = threads.got().unwrap();
        assert_eq!(threads.len(), THREADS_MAX);
        assert_eq!(threads[0].tid, 100);
        assert_eq!(threads[THREADS_MAX - 1].tid, main);
    }

    #[test]
    fn a_hidden_wchan_is_not_taken_for_a_running_thread() {
        let refused = Reading::absent(Why::NotPermitted, "no");
        let zero = || Reading::Got(String::new());
        let hidden = permitted_wchan(zero(), &refused, TaskState::Sleeping);
        assert_eq!(hidden.absence().unwrap().why, Why::NotPermitted);
        assert!(permitted_wchan(zero(), &refused, TaskState::Running).got().is_some());
        let allowed = Reading::Got(SyscallRaw::NotInSyscall);
        assert!(permitted_wchan(zero(), &allowed, TaskState::Sleeping).got().is_some());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse_schedstat(&bytes);
            parse_syscall(&bytes);
            parse_wchan(&bytes);
            parse_stack(&bytes);
            parse_switches(&bytes);
        }
    }
}
