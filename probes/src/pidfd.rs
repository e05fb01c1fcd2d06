//! A process held by its pidfd: whether it has exited, and copies of its fds.
//!
//! A pidfd keeps the kernel's `struct pid` alive and nothing else of the process: no memory, no
//! files, no zombie.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::reading::{Absence, Reading, Why};

/// One process, not one pid: when the pid is used again, this still means the first owner.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    pid: i32,
}

impl PidFd {
    /// Opens process `pid` (of the caller's own pid namespace). Needs no rights, and Linux 5.3.
    ///
    /// The pid may have been used again before this call. So whoever means a certain process reads
    /// its start time (`/proc/PID/stat`) *after* opening and compares it with the one it knows: if
    /// they are equal, the pidfd is that process, for a pid is not given away while it is in use.
    pub fn open(pid: i32) -> Reading<Self> {
        // `Pid::from_raw` panics below zero.
        let fd = Pid::from_raw(pid.max(0))
            .ok_or(Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        match fd {
            Ok(fd) => Reading::Got(Self { fd, pid }),
            Err(errno) => {
                let Absence { why, detail } = Absence::from(&io::Error::from(errno));
                let advice = if errno == Errno::NOSYS { " (Linux 5.3 has it)" } else { "" };
                Reading::absent(why, format!("cannot open process {pid}: {detail}{advice}"))
            }
        }
    }

    /// Waits until the process has exited, for `timeout` at most; whether it has. A pidfd turns
    /// readable when the process exits, before it is reaped (`pidfd_open(2)`).
    ///
    /// `false` may come early, after a signal: ask again.
    pub fn wait_exit(&self, timeout: Duration) -> bool {
        let timeout = Timespec::try_from(timeout).ok();
        let mut polled = [PollFd::new(&self.fd, PollFlags::IN)];
        let ready = poll(&mut polled, timeout.as_ref());
        ready.is_ok_and(|ready| ready > 0) && polled[0].revents().contains(PollFlags::IN)
    }

    /// A copy of the process's fd (`pidfd_getfd(2)`), which keeps what it refers to open: to be
    /// closed at once. The process is neither stopped nor attached to; the kernel only checks for
    /// the right to do so.
    pub fn dup_fd(&self, fd: i32) -> Reading<OwnedFd> {
        // rustix asserts that an fd is not below zero.
        let copy = if fd < 0 {
            Err(Errno::BADF)
        } else {
            pidfd_getfd(self.fd.as_fd(), fd, PidfdGetfdFlags::empty())
        };
        match copy {
            Ok(copy) => Reading::Got(copy),
            Err(errno) => Reading::Absent(self.explain(fd, errno)),
        }
    }

    fn explain(&self, fd: i32, errno: Errno) -> Absence {
        let Absence { why, detail } = Absence::from(&io::Error::from(errno));
        let (why, advice) = match errno {
            Errno::PERM => (
                why,
                "; run as root (CAP_SYS_PTRACE), or as the user of the process with \
                 kernel.yama.ptrace_scope 0",
            ),
            Errno::NOSYS => (why, " (Linux 5.6 has it)"),
            Errno::BADF => (Why::Gone, ""),
            _ => (why, ""),
        };
        Absence {
            why,
            detail: format!("cannot copy fd {fd} of process {}: {detail}{advice}", self.pid),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::process::Command;

    use super::*;

    #[test]
    fn errnos_say_what_would_permit_it() {
        let own = PidFd::open(std::process::id() as i32);
        let own = own.got().unwrap();
        let cases = [
            (Errno::PERM, Why::NotPermitted, "ptrace_scope 0"),
            (Errno::NOSYS, Why::Unsupported, "5.6"),
            (Errno::BADF, Why::Gone, "fd 7"),
            (Errno::SRCH, Why::Gone, "fd 7"),
            (Errno::MFILE, Why::Failed, "fd 7"),
        ];
        for (errno, why, word) in cases {
            let absence = own.explain(7, errno);
            assert_eq!(absence.why, why, "{errno:?}");
            assert!(absence.detail.contains(word), "{absence:?}");
        }
    }

    #[test]
    fn no_process_has_these_pids() {
        for pid in [0, -1, i32::MAX] {
            assert_eq!(PidFd::open(pid).absence().map(|absence| absence.why), Some(Why::Gone));
        }
    }

    #[test]
    fn a_copy_is_the_same_file_and_a_closed_fd_is_gone() {
        let own = PidFd::open(std::process::id() as i32);
        let own = own.got().unwrap();
        let file = tempfile::tempfile().unwrap();
        let copy = own.dup_fd(file.as_raw_fd());
        let inode = |fd: &dyn AsFd| rustix::fs::fstat(fd.as_fd()).unwrap().st_ino;
        assert_eq!(inode(copy.got().unwrap()), inode(&file));
        for closed in [-1, i32::MAX] {
            assert_eq!(own.dup_fd(closed).absence().map(|absence| absence.why), Some(Why::Gone));
        }
    }

    #[test]
    fn an_exit_is_seen_before_the_process_is_reaped() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let watched = PidFd::open(child.id() as i32);
        let watched = watched.got().unwrap();
        assert!(!watched.wait_exit(Duration::ZERO));
        child.kill().unwrap();
        assert!((0..100).any(|_| watched.wait_exit(Duration::from_millis(100))));
        assert_eq!(watched.dup_fd(0).absence().unwrap().why, Why::Gone);
        child.wait().unwrap();
        assert!(watched.wait_exit(Duration::ZERO));
    }
}
