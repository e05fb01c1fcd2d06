use std::net::TcpListener;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, squeue, types};
use stallscope_probes::ring::Parsed;
use stallscope_probes::{Reading, fds, ring};

use crate::{got, own_pid, proc_root, until};

pub fn push(ring: &mut IoUring, entry: &squeue::Entry) {
    // SAFETY: no entry of these tests refers to memory.
    unsafe { ring.submission().push(entry) }.unwrap();
}

pub fn seen(ring: &impl AsRawFd) -> Parsed {
    let fd = ring.as_raw_fd();
    // A single read may find the ring locked.
    until("the ring's section", || ring::read_fdinfo(proc_root(), own_pid(), fd).got().cloned())
}

/// A ring, or none where the kernel forbids them (`io_uring_disabled`, seccomp).
pub fn make(entries: u32) -> Option<IoUring> {
    IoUring::new(entries).inspect_err(|error| println!("did not run: no io_uring: {error}")).ok()
}

#[test]
fn entries_and_completions_are_seen_as_they_are_made() {
    let Some(mut ring) = make(8) else { return };
    let state = seen(&ring).state;
    assert_eq!((state.sq_entries, state.cq_entries), (8, 16));
    for _ in 0..3 {
        push(&mut ring, &opcode::Nop::new().build());
    }
    let prepared = seen(&ring).state;
    assert_eq!((prepared.sq_pending(), prepared.cq_pending()), (3, 0));
    assert_eq!(prepared.pending, Reading::Got(vec![("NOP".to_owned(), -1); 3]));

    ring.submit().unwrap();
    let posted = seen(&ring).state;
    assert_eq!((posted.sq_pending(), posted.cq_pending(), posted.overflowing), (0, 3, false));

    for _ in 0..3 {
        for _ in 0..8 {
            push(&mut ring, &opcode::Nop::new().build());
        }
        ring.submit().unwrap();
    }
    let full = seen(&ring);
    assert_eq!((full.state.cq_pending(), full.armed.overflow), (16, 3 + 24 - 16));

    assert_eq!(ring.completion().count(), 16);
    assert_eq!(seen(&ring).state.cq_pending(), 0);
}

#[test]
fn an_armed_accept_is_seen_until_a_client_comes() {
    let Some(mut ring) = make(8) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let fd = types::Fd(listener.as_raw_fd());
    push(&mut ring, &opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).build());
    ring.submit().unwrap();
    assert_eq!(seen(&ring).armed.operations, [(opcode::Accept::CODE, 1)]);
    assert!(got(fds::census(proc_root(), own_pid())).rings.contains(&ring.as_raw_fd()));

    let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    ring.submit_and_wait(1).unwrap();
    let accepted = seen(&ring);
    assert_eq!((accepted.armed.of(opcode::Accept::CODE), accepted.state.cq_pending()), (0, 1));
}

#[test]
fn a_failed_completion_shows_its_errno() {
    let Some(mut ring) = make(8) else { return };
    let nowhere = types::Fd(1_000_000);
    push(&mut ring, &opcode::Fsync::new(nowhere).build());
    push(&mut ring, &opcode::Fsync::new(nowhere).build());
    ring.submit_and_wait(1).unwrap();
    let errno = rustix::io::Errno::BADF.raw_os_error();
    until("two failures", || {
        (seen(&ring).state.failed == Reading::Got(vec![(errno, 2)])).then_some(())
    });
}
