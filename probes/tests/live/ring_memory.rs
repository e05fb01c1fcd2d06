//! The memory of rings of this process, with fdinfo or the ring's owner as the witness.

use std::net::TcpListener;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use stallscope_probes::ring::{RingAccess, Rings};
use stallscope_probes::sample::{RingRaw, RingSource, RingState};
use stallscope_probes::{Reading, Why};

use crate::rings::{make, push, seen};
use crate::{got, own_pid, proc_root, until};

fn follow(fds: &[i32]) -> Rings {
    let mut rings = Rings::new(proc_root(), own_pid(), RingAccess::Memory);
    rings.follow(fds);
    rings
}

fn only(rings: &mut Rings) -> RingRaw {
    let mut read = rings.read();
    assert_eq!(read.len(), 1, "{read:?}");
    read.remove(0)
}

#[track_caller]
fn state(rings: &mut Rings) -> RingState {
    let raw = only(rings);
    assert!(matches!(raw.source, RingSource::Memory { .. }), "{raw:?}");
    got(raw.state)
}

/// Reads fdinfo until the ring was not locked.
fn told(rings: &mut Rings) -> RingRaw {
    until("the ring's section", || {
        rings.read_fdinfo(|| 7);
        let raw = only(rings);
        raw.armed.got().is_some().then_some(raw)
    })
}

fn fd_of(ring: &IoUring) -> BorrowedFd<'_> {
    // SAFETY: the fd is the ring's, which is borrowed for as long.
    unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) }
}

fn heads_and_tails(state: &RingState) -> [u32; 4] {
    [state.sq_head, state.sq_tail, state.cq_head, state.cq_tail]
}

#[test]
fn counters_are_those_of_fdinfo_at_every_step() {
    let Some(mut ring) = make(256) else { return };
    let mut rings = follow(&[ring.as_raw_fd()]);
    for step in 0..40 {
        for _ in 0..step {
            push(&mut ring, &opcode::Nop::new().build());
        }
        let prepared = state(&mut rings);
        assert_eq!(prepared.sq_pending(), step);
        assert_eq!(heads_and_tails(&prepared), heads_and_tails(&seen(&ring).state));
        ring.submit().unwrap();
        let posted = state(&mut rings);
        assert_eq!((posted.sq_pending(), posted.cq_pending()), (0, step));
        assert_eq!(heads_and_tails(&posted), heads_and_tails(&seen(&ring).state));
        assert_eq!(ring.completion().count() as u32, step);
    }
    let last = state(&mut rings);
    let total: u32 = (0..40).sum();
    assert_eq!(heads_and_tails(&last), [total; 4]);
    assert_eq!((last.sq_entries, last.cq_entries), (256, 512));
    assert_eq!((last.sq_dropped, last.cq_lost, last.overflowing), (Some(0), Some(0), false));
    assert_eq!(only(&mut rings).source, RingSource::Memory { confirmed: false });
    let told = told(&mut rings);
    assert_eq!(told.source, RingSource::Memory { confirmed: true });
    assert_eq!(got(told.state).sqpoll, Some(false));
    assert_eq!(got(told.armed).at_ns, 7);
}

#[test]
fn every_operation_has_the_name_that_fdinfo_gives_it() {
    let mut named = 0;
    for code in 0..=u8::MAX {
        let Some(mut ring) = make(64) else { return };
        let mut rings = follow(&[ring.as_raw_fd()]);
        // An entry of 64 bytes, of which the first is the opcode and the fifth begins the fd.
        let mut words = [0_u64; 8];
        words[0] = u64::from_ne_bytes([code, 0, 0, 0, 77, 0, 0, 0]);
        // SAFETY: `Entry` is `struct io_uring_sqe` and nothing else, 64 bytes of plain numbers. It
        // is not submitted.
        let entry = unsafe { std::mem::transmute::<[u64; 8], squeue::Entry>(words) };
        push(&mut ring, &entry);
        let by_memory = got(state(&mut rings).pending);
        let by_fdinfo = got(seen(&ring).state.pending);
        if by_fdinfo.is_empty() || by_fdinfo[0].0 == "INVALID" {
            // No operation of this kernel.
            continue;
        }
        if by_memory[0].0 == format!("OP_{code}") {
            println!("this version has no name for {:?}", by_fdinfo[0]);
            continue;
        }
        assert_eq!(by_memory, by_fdinfo, "{code}");
        named += 1;
    }
    // As many as 5.16 has, the first kernel to print them.
    assert!(named >= 40, "{named}");
}

#[test]
fn entries_not_submitted_are_named_with_their_fds() {
    let Some(mut ring) = make(256) else { return };
    let mut rings = follow(&[ring.as_raw_fd()]);
    let null = std::ptr::null_mut::<u8>();
    // Beyond the first entries, so that head, tail and index are not all small.
    for _ in 0..250 {
        push(&mut ring, &opcode::Nop::new().build());
    }
    ring.submit().unwrap();
    for fd in 1..=10 {
        push(&mut ring, &opcode::Accept::new(types::Fd(fd), null.cast(), null.cast()).build());
        push(&mut ring, &opcode::Write::new(types::Fd(100 + fd), null.cast(), 0).build());
    }
    let pending = got(state(&mut rings).pending);
    assert_eq!(pending.len(), 20);
    assert_eq!(pending[0], ("ACCEPT".to_owned(), 1));
    assert_eq!(pending[19], ("WRITE".to_owned(), 110));
    assert_eq!(pending, got(seen(&ring).state.pending));
}

#[test]
fn failures_are_seen_before_and_after_they_are_reaped() {
    let Some(mut ring) = make(256) else { return };
    let mut rings = follow(&[ring.as_raw_fd()]);
    for _ in 0..3 {
        push(&mut ring, &opcode::Close::new(types::Fd(1_000_000)).build());
    }
    ring.submit_and_wait(3).unwrap();
    let badf = Reading::Got(vec![(rustix::io::Errno::BADF.raw_os_error(), 3)]);
    let posted = state(&mut rings);
    assert_eq!((&posted.failed, &posted.recent), (&badf, &badf));
    assert_eq!(posted.failed, seen(&ring).state.failed);
    assert_eq!(ring.completion().count(), 3);
    let reaped = state(&mut rings);
    assert_eq!((&reaped.failed, &reaped.recent), (&Reading::Got(vec![]), &badf));
    // Successes push them out of sight.
    for _ in 0..32 {
        push(&mut ring, &opcode::Nop::new().build());
    }
    ring.submit_and_wait(32).unwrap();
    assert_eq!(state(&mut rings).recent, Reading::Got(vec![]));
}

#[test]
fn completions_beyond_the_queue_raise_the_overflow_flag() {
    let Some(mut ring) = make(8) else { return };
    let mut rings = follow(&[ring.as_raw_fd()]);
    for round in 1..=3 {
        assert!(!state(&mut rings).overflowing, "{round}");
        for _ in 0..8 {
            push(&mut ring, &opcode::Nop::new().build());
        }
        ring.submit().unwrap();
    }
    let full = state(&mut rings);
    assert_eq!((full.cq_pending(), full.overflowing), (16, true));
    assert_eq!(ring.completion().count(), 16);
    // Entering the kernel for completions moves the list into the queue.
    ring.submit_and_wait(1).unwrap();
    let drained = state(&mut rings);
    assert_eq!((drained.cq_pending(), drained.overflowing), (8, false));
}

#[test]
fn a_closed_ring_is_let_go_of_in_the_next_read() {
    let (Some(ring), Some(stays)) = (make(64), make(64)) else { return };
    let copy = rustix::io::dup(fd_of(&ring)).unwrap();
    let mut rings = follow(&[copy.as_raw_fd(), stays.as_raw_fd()]);
    assert_eq!((rings.read().len(), rings.is_stale()), (2, false));
    drop(copy);
    let left = only(&mut rings);
    assert_eq!((left.fd, rings.is_stale()), (stays.as_raw_fd(), true));
    rings.follow(&[stays.as_raw_fd()]);
    assert!(!rings.is_stale());
    rings.follow(&[]);
    assert_eq!(rings.read(), []);
}

#[test]
fn another_ring_under_the_same_number_is_noticed() {
    let (Some(first), Some(mut second)) = (make(64), make(128)) else { return };
    let mut copy = rustix::io::dup(fd_of(&first)).unwrap();
    let fd = copy.as_raw_fd();
    let mut rings = follow(&[fd]);
    assert_eq!(state(&mut rings).sq_entries, 64);
    push(&mut second, &opcode::Nop::new().build());
    rustix::io::dup2(fd_of(&second), &mut copy).unwrap();
    assert_eq!(copy.as_raw_fd(), fd);
    assert_eq!((rings.read(), rings.is_stale()), (vec![], true));
    rings.follow(&[fd]);
    let other = state(&mut rings);
    assert_eq!((other.sq_entries, other.sq_pending()), (128, 1));

    // A census may come before a read has noticed.
    rustix::io::dup2(fd_of(&first), &mut copy).unwrap();
    rings.follow(&[fd]);
    assert_eq!(state(&mut rings).sq_entries, 64);
    // And the fd may be no ring at all any more, before or after the census.
    let file = tempfile::tempfile().unwrap();
    rustix::io::dup2(&file, &mut copy).unwrap();
    rings.follow(&[fd]);
    let raw = only(&mut rings);
    let RingSource::Fdinfo(absence) = &raw.source else { panic!("{raw:?}") };
    assert_eq!(absence.why, Why::Gone);
}

#[test]
fn several_rings_are_told_apart_and_their_fdinfo_is_read_in_turn() {
    let made: Vec<_> = [64, 128, 256].into_iter().filter_map(make).collect();
    if made.len() < 3 {
        return;
    }
    let mut fds: Vec<i32> = made.iter().map(AsRawFd::as_raw_fd).collect();
    fds.reverse();
    let mut rings = follow(&fds);
    fds.sort_unstable();
    assert_eq!(rings.fds(), fds);
    let by_fd = |read: &[RingRaw], fd| {
        let raw = read.iter().find(|raw| raw.fd == fd).unwrap();
        got(raw.state.clone()).sq_entries
    };
    let read = rings.read();
    for (ring, entries) in made.iter().zip([64, 128, 256]) {
        assert_eq!(by_fd(&read, ring.as_raw_fd()), entries);
    }
    let in_turn: Vec<_> = (0..6).filter_map(|_| rings.read_fdinfo(|| 0)).collect();
    assert_eq!(in_turn, [fds.clone(), fds].concat());
    rings.release();
    assert_eq!((rings.read(), rings.read_fdinfo(|| 0)), (vec![], None));
}

const NOWHERE: types::Fd = types::Fd(1_000_000);

/// Every other operation fails, and each of these has an fd of its own.
fn operation(number: u32) -> squeue::Entry {
    match number % 2 {
        0 => opcode::Nop::new().build(),
        _ => opcode::Close::new(types::Fd(NOWHERE.0 + number as i32)).build(),
    }
}

fn named(number: u32) -> (String, i32) {
    match number % 2 {
        0 => ("NOP".to_owned(), -1),
        _ => ("CLOSE".to_owned(), NOWHERE.0 + number as i32),
    }
}

/// Prepares, submits and fails operations on a ring of any make, and looks on.
fn exercise<S, C>(mut ring: IoUring<S, C>, entries: u32)
where
    S: squeue::EntryMarker + From<squeue::Entry>,
    C: cqueue::EntryMarker,
{
    let mut rings = follow(&[ring.as_raw_fd()]);
    let badf = rustix::io::Errno::BADF.raw_os_error();
    // More than once around both queues, and each time from another slot on.
    let each = entries * 3 / 4;
    for round in 0..5 {
        for number in 0..each {
            // SAFETY: the entries of these tests refer to no memory.
            unsafe { ring.submission().push(&operation(number).into()) }.unwrap();
        }
        let stuck = state(&mut rings);
        assert_eq!((stuck.sq_entries, stuck.sq_pending()), (entries, each), "{round}");
        let pending: Vec<_> = (0..32).map(named).collect();
        assert_eq!(stuck.pending, Reading::Got(pending), "{round}");
        ring.submit_and_wait(each as usize).unwrap();
        let posted = state(&mut rings);
        let failed = Reading::Got(vec![(badf, each / 2)]);
        assert_eq!((posted.cq_pending(), &posted.failed), (each, &failed), "{round}");
        assert_eq!(ring.completion().count() as u32, each);
        assert_eq!(state(&mut rings).recent, Reading::Got(vec![(badf, 16)]), "{round}");
    }
    assert_eq!(told(&mut rings).source, RingSource::Memory { confirmed: true });
}

#[test]
fn rings_of_larger_entries_and_without_an_index_array() {
    fn both_orders<S, C>(entries: u32)
    where
        S: squeue::EntryMarker + From<squeue::Entry>,
        C: cqueue::EntryMarker,
    {
        exercise(IoUring::<S, C>::builder().build(entries).unwrap(), entries);
        match IoUring::<S, C>::builder().setup_no_sqarray().build(entries) {
            Ok(ring) => exercise(ring, entries),
            Err(_) => println!("did not run: no IORING_SETUP_NO_SQARRAY before 6.6"),
        }
    }
    if make(8).is_none() {
        return;
    }
    for entries in [64, 256, 1024] {
        both_orders::<squeue::Entry, cqueue::Entry>(entries);
        both_orders::<squeue::Entry, cqueue::Entry32>(entries);
        both_orders::<squeue::Entry128, cqueue::Entry>(entries);
        both_orders::<squeue::Entry128, cqueue::Entry32>(entries);
    }
}

/// In rings of a few entries, their size is not told by the length of the memory.
fn exercise_small<S, C>(entries: u32, nop: &impl Fn() -> S, fail: &impl Fn() -> S)
where
    S: squeue::EntryMarker,
    C: cqueue::EntryMarker,
{
    let builder = IoUring::<S, C>::builder();
    for mut ring in [builder.build(entries), builder.clone().setup_no_sqarray().build(entries)]
        .into_iter()
        .flatten()
    {
        let mut rings = follow(&[ring.as_raw_fd()]);
        let before = state(&mut rings);
        assert_eq!((before.sq_entries, before.cq_entries), (entries, 2 * entries));
        for _ in 0..entries {
            // SAFETY: the entries of these tests refer to no memory.
            unsafe { ring.submission().push(&nop()) }.unwrap();
        }
        // Either the truth or an absence with its reason, and the truth once fdinfo listed them.
        let all = Reading::Got(vec![("NOP".to_owned(), -1); entries as usize]);
        let untold = state(&mut rings);
        assert_eq!(untold.sq_pending(), entries);
        if untold.pending != all {
            assert_eq!(untold.pending.absence().map(|absence| absence.why), Some(Why::Unsupported));
        }
        let lists_submissions = seen(&ring).state.pending == all;
        told(&mut rings);
        ring.submit_and_wait(entries as usize).unwrap();
        for _ in 0..entries {
            // SAFETY: as above.
            unsafe { ring.submission().push(&fail()) }.unwrap();
        }
        ring.submit_and_wait(2 * entries as usize).unwrap();
        told(&mut rings);
        let posted = state(&mut rings);
        let badf = rustix::io::Errno::BADF.raw_os_error();
        assert_eq!(posted.cq_pending(), 2 * entries);
        assert_eq!(posted.failed, Reading::Got(vec![(badf, entries)]));
        assert_eq!(posted.recent, posted.failed);
        for _ in 0..entries {
            // SAFETY: as above.
            unsafe { ring.submission().push(&nop()) }.unwrap();
        }
        if lists_submissions {
            assert_eq!(state(&mut rings).pending, all);
        }
    }
}

#[test]
fn small_rings_learn_the_size_of_their_entries_from_fdinfo() {
    if make(8).is_none() {
        return;
    }
    for entries in [1, 2, 4, 16] {
        let (nop, fail) = (|| opcode::Nop::new().build(), || opcode::Close::new(NOWHERE).build());
        exercise_small::<squeue::Entry, cqueue::Entry>(entries, &nop, &fail);
        exercise_small::<squeue::Entry, cqueue::Entry32>(entries, &nop, &fail);
        let (nop, fail) = (|| nop().into(), || fail().into());
        exercise_small::<squeue::Entry128, cqueue::Entry>(entries, &nop, &fail);
        exercise_small::<squeue::Entry128, cqueue::Entry32>(entries, &nop, &fail);
    }
}

#[test]
fn a_queue_that_the_kernel_polls() {
    if make(8).is_none() {
        return;
    }
    let ring: IoUring = IoUring::builder().setup_sqpoll(2_000).build(64).unwrap();
    let mut rings = follow(&[ring.as_raw_fd()]);
    assert_eq!(state(&mut rings).sqpoll, None, "not known before fdinfo was read");
    told(&mut rings);
    assert_eq!(state(&mut rings).sqpoll, Some(true));
}

#[test]
fn armed_operations_are_told_by_fdinfo_and_keep_their_time() {
    let Some(mut ring) = make(64) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let fd = types::Fd(listener.as_raw_fd());
    push(&mut ring, &opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).build());
    ring.submit().unwrap();
    let mut rings = follow(&[ring.as_raw_fd()]);
    assert_eq!(only(&mut rings).armed.absence().map(|absence| absence.why), Some(Why::NotSampled));
    let armed = got(told(&mut rings).armed);
    assert_eq!((armed.of(opcode::Accept::CODE), armed.at_ns), (1, 7));
}

#[test]
fn without_the_memory_fdinfo_tells() {
    let Some(mut ring) = make(64) else { return };
    let mut rings = Rings::new(proc_root(), own_pid(), RingAccess::FdinfoOnly);
    rings.follow(&[ring.as_raw_fd()]);
    let raw = only(&mut rings);
    let RingSource::Fdinfo(absence) = &raw.source else { panic!("{raw:?}") };
    assert_eq!(absence.why, Why::NotSampled);
    assert_eq!(raw.state.absence().map(|absence| absence.why), Some(Why::NotSampled));
    push(&mut ring, &opcode::Nop::new().build());
    let raw = told(&mut rings);
    assert_eq!(got(raw.state).sq_pending(), 1);
    assert!(matches!(raw.source, RingSource::Fdinfo(_)));
}

#[test]
fn a_resized_ring_is_mapped_anew() {
    /// `IORING_REGISTER_RESIZE_RINGS`, 6.13.
    const RESIZE_RINGS: libc::c_uint = 33;
    if make(8).is_none() {
        return;
    }
    let mut builder = IoUring::builder();
    let builder = builder.setup_single_issuer().setup_defer_taskrun();
    let ring: IoUring = builder.build(64).unwrap();
    let mut rings = follow(&[ring.as_raw_fd()]);
    told(&mut rings);
    // struct io_uring_params: the entries of both queues come first.
    let mut params = [0_u32; 30];
    params[0] = 256;
    params[1] = 512;
    // SAFETY: the structure lives through the call. The crate's own mapping of the ring is of no
    // use after it, and is not used.
    let resized = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            RESIZE_RINGS,
            params.as_mut_ptr(),
            1,
        )
    };
    if resized < 0 {
        println!("did not run: {}", std::io::Error::last_os_error());
        return;
    }
    assert_eq!(state(&mut rings).sq_entries, 64, "the memory it had before");
    until("the new memory", || {
        rings.read_fdinfo(|| 8);
        (state(&mut rings).sq_entries == 256).then_some(())
    });
    until("a confirmation", || {
        rings.read_fdinfo(|| 8);
        (only(&mut rings).source == RingSource::Memory { confirmed: true }).then_some(())
    });
}

#[test]
fn a_ring_in_memory_of_the_application_is_left_to_fdinfo() {
    /// `IORING_SETUP_NO_MMAP`, 6.5.
    const NO_MMAP: u64 = 1 << 14;
    if make(8).is_none() {
        return;
    }
    let page = || memmap2::MmapMut::map_anon(rustix::param::page_size()).unwrap();
    let (sqes, queues) = (page(), page());
    // struct io_uring_params, in words of 64 bits: flags are the lower half of the second, and each
    // of the two lists of offsets, 40 bytes long from byte 40 on, ends in an address.
    let mut params = [0_u64; 15];
    params[1] = NO_MMAP;
    params[9] = sqes.as_ptr() as u64;
    params[14] = queues.as_ptr() as u64;
    // SAFETY: the structure lives through the call, both pages until after the ring is closed.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 8, params.as_mut_ptr()) };
    if fd < 0 {
        println!("did not run: {}", std::io::Error::last_os_error());
        return;
    }
    // SAFETY: the call has just made this fd, and nobody else knows it.
    let ring = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let mut rings = follow(&[ring.as_raw_fd()]);
    let raw = only(&mut rings);
    let RingSource::Fdinfo(absence) = &raw.source else { panic!("{raw:?}") };
    assert_eq!(absence.why, Why::Unsupported, "{absence:?}");
    assert!(absence.detail.contains("IORING_SETUP_NO_MMAP"), "{absence:?}");
    assert_eq!(got(told(&mut rings).state).sq_entries, 8);
    drop(ring);
}
