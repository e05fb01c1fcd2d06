//! For servers on an `io_uring` of their own: hands its entries to the kernel, whether or not the
//! runtime that owns the ring gets round to it. No safe crate offers that for a ring it did not make.

#![expect(clippy::disallowed_methods, reason = "this is `read` code")]

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use rustix::io_uring::{IoringEnterFlags, io_uring_enter};

/// The fds of this process that are rings.
///
/// # Errors
/// When `/proc/self/fd` cannot be read.
pub fn own_rings() -> io::Result<Vec<RawFd>> {
    let mut rings = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let fd = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // It may have been closed meanwhile.
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        if let Some(fd) = fd
            && target.as_os_str() == "anon_inode:[io_uring]"
        {
            rings.push(fd);
        }
    }
    Ok(rings)
}

/// Submits what is in the submission queue of the ring `fd`, at most `entries_max`, and says how
/// many entries that were. Does not wait.
///
/// # Errors
/// Of `io_uring_enter(2)`: EAGAIN or EBUSY when the kernel has no room for the moment.
pub fn submit(fd: RawFd, entries_max: u32) -> io::Result<u32> {
    if fd < 0 {
        return Err(io::Error::from(rustix::io::Errno::BADF));
    }
    // SAFETY: the fd is used within this call only, and only named to the kernel: one that is closed
    // or no ring is refused (EBADF, EOPNOTSUPP). The call reads and writes no memory of ours by
    // itself; that of the entries is in the keeping of whoever put them into the queue.
    let submitted = unsafe {
        let fd = BorrowedFd::borrow_raw(fd);
        io_uring_enter(fd, entries_max, 0, IoringEnterFlags::empty())
    }?;
    Ok(submitted)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use io_uring::{IoUring, opcode};

    use super::*;

    #[test]
    fn entries_that_nobody_submits_are_submitted() {
        let mut ring = IoUring::new(8).unwrap();
        let fd = ring.as_raw_fd();
        assert!(own_rings().unwrap().contains(&fd));
        assert_eq!(submit(fd, 64).unwrap(), 0);
        for _ in 0..3 {
            // SAFETY: a nop points to nothing.
            unsafe { ring.submission().push(&opcode::Nop::new().build()) }.unwrap();
        }
        assert_eq!(ring.completion().len(), 0);
        assert_eq!(submit(fd, 64).unwrap(), 3);
        assert_eq!(ring.completion().len(), 3);
    }

    #[test]
    fn what_is_no_ring_is_refused() {
        assert!(submit(-1, 1).is_err());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(submit(file.as_raw_fd(), 1).is_err());
    }
}
