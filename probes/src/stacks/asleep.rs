//! The stack of a thread that sleeps, without stopping it.
//!
//! `/proc/PID/task/TID/syscall` tells the instruction and stack pointer with which the thread went
//! into the kernel, `process_vm_readv(2)` copies its stack, `/proc/PID/task/TID/stack` tells the
//! kernel's own frames. None of them stops, signals or attaches to the thread. That it slept all
//! the while is checked afterwards: had it run, the number of times it was put on a CPU would have
//! grown.

use std::io;
use std::path::Path;

use super::unwind::{Unwinder, Walk};
use crate::files;
use crate::reading::{Absence, Reading, Why};
use crate::threads::{parse_schedstat, parse_stack};

/// Bytes copied of a stack at most.
pub const STACK_BYTES_MAX: usize = 128 * 1024;
/// Looks at a thread that moves meanwhile.
const ATTEMPTS_MAX: usize = 3;
/// Bytes read of the small files.
const TEXT_MAX_BYTES: u64 = 16 * 1024;

/// What a thread waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Number of the system call; -1: it waits, but in none (a page fault).
    pub nr: i64,
    /// Its arguments, as the registers had them.
    pub args: [u64; 6],
    /// Stack pointer.
    pub sp: u64,
    /// Instruction pointer.
    pub ip: u64,
}

/// A sleeping thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asleep {
    /// What it waits in.
    pub call: Call,
    /// Times it has been put on a CPU so far: as long as this stays, it is the same wait.
    pub timeslices: u64,
    /// Names of the kernel's frames, innermost first.
    pub kernel: Reading<Vec<String>>,
    /// The program's frames.
    pub walk: Reading<Walk>,
}

/// Looks at thread `tid` of process `pid`.
///
/// # Errors
/// [`Why::NotSampled`] when it runs, or moved at every attempt; as for `syscall` in proc(5).
pub fn look(unwinder: &mut Unwinder, proc_root: &Path, pid: i32, tid: i32) -> Reading<Asleep> {
    for _ in 0..ATTEMPTS_MAX {
        let before = state(proc_root, pid, tid);
        let (call, timeslices) = match &before {
            Reading::Got(state) => *state,
            Reading::Absent(absence) => return Reading::Absent(absence.clone()),
        };
        let kernel = files::read(&task(proc_root, pid, tid).join("stack"), TEXT_MAX_BYTES)
            .map(|bytes| parse_stack(&bytes));
        let stack = copy_stack(pid, call.sp);
        if state(proc_root, pid, tid) == before {
            let memory = |address| word_of(pid, address);
            let walk = stack.map(|stack| unwinder.walk_asleep(call.ip, call.sp, &stack, &memory));
            return Reading::Got(Asleep { call, timeslices, kernel, walk });
        }
    }
    Reading::absent(Why::NotSampled, "the thread ran between looks: it does not sleep for long")
}

fn task(proc_root: &Path, pid: i32, tid: i32) -> std::path::PathBuf {
    files::process(proc_root, pid).join("task").join(tid.to_string())
}

/// What thread `tid` waits in, and how often it has been put on a CPU.
///
/// # Errors
/// As [`look`].
pub fn state(proc_root: &Path, pid: i32, tid: i32) -> Reading<(Call, u64)> {
    let task = task(proc_root, pid, tid);
    files::read(&task.join("syscall"), TEXT_MAX_BYTES)
        .and_then(|bytes| parse_call(&bytes))
        .and_then(|call| {
            files::read(&task.join("schedstat"), TEXT_MAX_BYTES)
                .and_then(|bytes| parse_schedstat(&bytes))
                .map(|sched| (call, sched.timeslices))
        })
}

/// `nr arg0 … arg5 sp pc`, `-1 sp pc`, or `running` (proc(5)).
pub fn parse_call(bytes: &[u8]) -> Reading<Call> {
    let text = String::from_utf8_lossy(bytes);
    let mut words = text.split_whitespace();
    let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let parse = |first: &str, rest: Vec<&str>| {
        let nr: i64 = first.parse().ok()?;
        let values: Vec<u64> = rest.into_iter().map(hex).collect::<Option<_>>()?;
        let (args, ends) = values.split_at_checked(values.len().checked_sub(2)?)?;
        let [sp, ip] = ends else { return None };
        let mut kept = [0; 6];
        for (kept, arg) in kept.iter_mut().zip(args) {
            *kept = *arg;
        }
        Some(Call { nr, args: kept, sp: *sp, ip: *ip })
    };
    match words.next() {
        Some("running") => Reading::absent(Why::NotSampled, "the thread runs"),
        Some(first) => parse(first, words.collect()).map_or_else(
            || Reading::absent(Why::Malformed, "the file syscall is not of the known shape"),
            Reading::Got,
        ),
        None => Reading::absent(Why::Malformed, "the file syscall is empty"),
    }
}

/// Eight bytes of the process at `address`.
fn word_of(pid: i32, address: u64) -> Option<[u8; 8]> {
    let mut bytes = [0; 8];
    let from = libc::iovec {
        iov_base: std::ptr::without_provenance_mut(usize::try_from(address).ok()?),
        iov_len: bytes.len(),
    };
    (read_memory(pid, &mut bytes, &[from]).ok()? == bytes.len()).then_some(bytes)
}

/// Copies memory of another process; how many bytes.
fn read_memory(pid: i32, into: &mut [u8], from: &[libc::iovec]) -> io::Result<usize> {
    let into = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: `into` is all of a slice that outlives the call; `from` are addresses of the other
    // process, which the kernel checks.
    let copied = unsafe {
        libc::process_vm_readv(pid, &raw const into, 1, from.as_ptr(), from.len() as u64, 0)
    };
    usize::try_from(copied).map_err(|_| io::Error::last_os_error())
}

/// Copies what lies above `sp`, to the end of the mapping or [`STACK_BYTES_MAX`].
fn copy_stack(pid: i32, sp: u64) -> Reading<Vec<u8>> {
    let page_bytes = rustix::param::page_size();
    let mut bytes = vec![0_u8; STACK_BYTES_MAX];
    // A piece for each page: a piece is copied whole or not at all, and the stack may end sooner.
    let mut pieces = Vec::new();
    let mut at = sp as usize;
    let end = at.saturating_add(STACK_BYTES_MAX);
    while at < end {
        let next = (at / page_bytes).saturating_add(1).saturating_mul(page_bytes).min(end);
        pieces.push(libc::iovec {
            iov_base: std::ptr::without_provenance_mut(at),
            iov_len: next - at,
        });
        at = next;
    }
    match read_memory(pid, &mut bytes, &pieces) {
        Ok(copied) => {
            bytes.truncate(copied);
            Reading::Got(bytes)
        }
        Err(error) => {
            let Absence { why, detail } = Absence::from(&error);
            Reading::absent(why, format!("cannot read the stack of process {pid}: {detail}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_its_arguments_and_where_it_was_made() {
        let text = b"202 0x7f01 0x80 0x0 0x0 0x0 0x5 0x7ffd10 0x7f33\n";
        let Reading::Got(call) = parse_call(text) else { panic!("no call") };
        assert_eq!((call.nr, call.args), (202, [0x7f01, 0x80, 0, 0, 0, 5]));
        assert_eq!((call.sp, call.ip), (0x7f_fd10, 0x7f33));
        let Reading::Got(call) = parse_call(b"-1 0x7ffd10 0x7f33\n") else { panic!("no call") };
        assert_eq!((call.nr, call.sp, call.ip), (-1, 0x7f_fd10, 0x7f33));
    }

    #[test]
    fn a_running_thread_and_nonsense_have_none() {
        let why = |text: &[u8]| parse_call(text).absence().map(|absence| absence.why);
        assert_eq!(why(b"running\n"), Some(Why::NotSampled));
        for text in [&b""[..], b"x", b"1", b"1 0x1", b"1 zz 0x1 0x2"] {
            assert_eq!(why(text), Some(Why::Malformed));
        }
    }
}
