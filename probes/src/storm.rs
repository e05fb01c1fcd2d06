//! For the fault lab: accepts through an `io_uring` that are not to wait. No safe crate offers them.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use io_uring::{IoUring, opcode, squeue, types};

/// Whether an accept waits for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// It completes with the next connection.
    Yes,
    /// With none there it completes at once, with EAGAIN.
    No,
}

/// `IORING_ACCEPT_DONTWAIT` (`linux/io_uring.h`, Linux 6.10): in `ioprio`.
const ACCEPT_DONTWAIT: u16 = 1 << 1;
/// Where `ioprio` is in a `struct io_uring_sqe` (`linux/io_uring.h`), in units of its own size.
const IOPRIO_AT: usize = 1;

const _: () = assert!(size_of::<squeue::Entry>() == 64, "an entry is one struct io_uring_sqe");

/// A ring with one accept at a time.
pub struct AcceptRing {
    ring: IoUring,
}

impl AcceptRing {
    /// Sets up the ring.
    ///
    /// # Errors
    /// Of `io_uring_setup(2)`.
    pub fn new() -> io::Result<Self> {
        Ok(Self { ring: IoUring::new(32)? })
    }

    /// Accepts a connection.
    ///
    /// # Errors
    /// Of accept(2).
    ///
    /// # Panics
    /// When `io_uring_enter(2)` fails: nothing is known of the accept then, which borrows the fd.
    pub fn accept(&mut self, listener: BorrowedFd<'_>, waits: Waits) -> io::Result<OwnedFd> {
        let fd = types::Fd(listener.as_raw_fd());
        let mut entry = opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).build();
        if waits == Waits::No {
            // SAFETY: the entry is a `struct io_uring_sqe` (its size is asserted above), whose bytes
            // 2 and 3 are `ioprio`; any value is valid there, and `entry` is borrowed by nobody else.
            unsafe { (&raw mut entry).cast::<u16>().add(IOPRIO_AT).write(ACCEPT_DONTWAIT) };
        }
        // SAFETY: the entry points to no memory, and its fd is borrowed until its completion has
        // been taken, below: this returns with none in flight.
        unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)?;
        let result = loop {
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("io_uring_enter failed: {error}"),
                Ok(_) => {}
            }
            if let Some(completion) = self.ring.completion().next() {
                break completion.result();
            }
        };
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        // SAFETY: a completed accept gives a new fd that nobody else knows.
        Ok(unsafe { OwnedFd::from_raw_fd(result) })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn an_accept_waits_for_a_connection_or_fails_with_eagain() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut ring = AcceptRing::new().unwrap();
        let none = ring.accept(listener.as_fd(), Waits::No).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
        for waits in [Waits::Yes, Waits::No] {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let served = TcpStream::from(ring.accept(listener.as_fd(), waits).unwrap());
            assert_eq!(served.peer_addr().unwrap(), client.local_addr().unwrap());
        }
    }
}
