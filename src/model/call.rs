//! A system call with its arguments, as a person would write it.

use super::syscall;

/// Calls whose first argument is an fd, with the number of arguments that matter.
const OF_FDS: [(&str, usize); 38] = [
    ("accept", 1),
    ("accept4", 1),
    ("close", 1),
    ("connect", 1),
    ("epoll_ctl", 3),
    ("epoll_pwait", 4),
    ("epoll_pwait2", 3),
    ("epoll_wait", 4),
    ("fallocate", 4),
    ("fcntl", 3),
    ("fdatasync", 1),
    ("flock", 2),
    ("fstat", 1),
    ("fsync", 1),
    ("ftruncate", 2),
    ("getdents64", 1),
    ("io_uring_enter", 4),
    ("ioctl", 2),
    ("lseek", 3),
    ("pread64", 4),
    ("preadv", 3),
    ("preadv2", 3),
    ("pwrite64", 4),
    ("pwritev", 3),
    ("pwritev2", 3),
    ("read", 3),
    ("readv", 3),
    ("recvfrom", 4),
    ("recvmmsg", 3),
    ("recvmsg", 3),
    ("sendfile", 4),
    ("sendmmsg", 3),
    ("sendmsg", 3),
    ("sendto", 4),
    ("shutdown", 2),
    ("splice", 6),
    ("write", 3),
    ("writev", 3),
];

/// Other calls that threads wait in, with the number of their arguments.
const OTHERS: [(&str, usize); 15] = [
    ("clock_nanosleep", 2),
    ("futex", 4),
    ("futex_wait", 4),
    ("futex_waitv", 3),
    ("io_getevents", 3),
    ("msync", 3),
    ("nanosleep", 1),
    ("pause", 0),
    ("poll", 3),
    ("ppoll", 3),
    ("pselect6", 4),
    ("restart_syscall", 0),
    ("rt_sigtimedwait", 3),
    ("select", 4),
    ("wait4", 3),
];

/// `FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME` (`linux/futex.h`).
const FUTEX_FLAGS: u64 = 128 | 256;
/// Operations of futex(2) in which a thread waits.
const FUTEX_WAITS: [(u64, &str); 5] = [
    (0, "FUTEX_WAIT"),
    (6, "FUTEX_LOCK_PI"),
    (9, "FUTEX_WAIT_BITSET"),
    (11, "FUTEX_WAIT_REQUEUE_PI"),
    (13, "FUTEX_LOCK_PI2"),
];

/// The fd that a call is about.
pub fn fd_of(nr: i64, args: &[u64; 6]) -> Option<i32> {
    let name = syscall::name(nr)?;
    OF_FDS.binary_search_by_key(&name, |(name, _)| name).ok()?;
    i32::try_from(args[0]).ok()
}

/// The call with the arguments it has; `file` is what its fd refers to.
pub fn describe(nr: i64, args: &[u64; 6], file: Option<&str>) -> String {
    let Some(name) = syscall::name(nr) else {
        return format!("system call {nr}");
    };
    let count = |table: &[(&str, usize)]| {
        let at = table.binary_search_by_key(&name, |(name, _)| name).ok()?;
        table.get(at).map(|(_, count)| *count)
    };
    let (of_fd, count) = match (count(&OF_FDS), count(&OTHERS)) {
        (Some(count), _) => (true, count),
        (None, Some(count)) => (false, count),
        (None, None) => (false, args.len()),
    };
    let argument = |(nth, value): (usize, &u64)| match (nth, file) {
        (0, Some(file)) if of_fd => format!("{value} \u{2192} {file}"),
        (0, None) if of_fd => value.to_string(),
        (1, _) if name == "futex" => futex(*value),
        _ if *value < 65_536 => value.to_string(),
        _ => format!("{value:#x}"),
    };
    let arguments: Vec<String> = args.iter().take(count).enumerate().map(argument).collect();
    format!("{name}({})", arguments.join(", "))
}

fn futex(operation: u64) -> String {
    let plain = operation & !FUTEX_FLAGS;
    FUTEX_WAITS
        .iter()
        .find(|(number, _)| *number == plain)
        .map_or_else(|| operation.to_string(), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_so_that_the_search_finds_every_entry() {
        assert!(OF_FDS.is_sorted_by_key(|(name, _)| *name));
        assert!(OTHERS.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn a_call_is_written_with_what_matters() {
        let cases: [(i64, [u64; 6], Option<&str>, &str); 6] = [
            (
                202,
                [0x7f00_0000_1000, 137, 0, 0, 9, 9],
                None,
                "futex(0x7f0000001000, FUTEX_WAIT_BITSET, 0, 0)",
            ),
            (
                1,
                [1, 0x5555_0000_0000, 4096, 7, 7, 7],
                Some("pipe:[12]"),
                "write(1 \u{2192} pipe:[12], 0x555500000000, 4096)",
            ),
            (
                232,
                [5, 0x7ffd_0000_0000, 1024, 0xffff_ffff_ffff_ffff, 0, 0],
                None,
                "epoll_wait(5, 0x7ffd00000000, 1024, 0xffffffffffffffff)",
            ),
            (34, [1, 2, 3, 4, 5, 6], None, "pause()"),
            (101, [1, 2, 0, 0, 0, 0], None, "ptrace(1, 2, 0, 0, 0, 0)"),
            (9_999, [0; 6], None, "system call 9999"),
        ];
        for (nr, args, file, text) in cases {
            assert_eq!(describe(nr, &args, file), text);
        }
        assert_eq!(fd_of(1, &[7, 0, 0, 0, 0, 0]), Some(7));
        assert_eq!(fd_of(202, &[7, 0, 0, 0, 0, 0]), None);
        assert_eq!(fd_of(1, &[u64::MAX, 0, 0, 0, 0, 0]), None);
    }
}
