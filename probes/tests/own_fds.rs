//! The probes' own fds and mappings: looking for hours must not use any up. Alone in its process,
//! so that the count is its own.
#![expect(clippy::disallowed_methods, reason = "the witness reads /proc itself")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use io_uring::IoUring;
use stallscope_probes::fds::CensusWalk;
use stallscope_probes::ring::{RingAccess, Rings};
use stallscope_probes::sockets::{Diag, Peers, Wanted, local_port_range, procnet};
use stallscope_probes::stacks::capture::{self, Capture, Waits};
use stallscope_probes::threads::Ask;
use stallscope_probes::{
    Reading, Why, cgroup, discover, fds, netstat, own, pressure, process, ring, threads,
};

/// Each test counts what the whole process holds.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn many_rounds_leave_as_many_fds_open_as_one() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let proc_root = Path::new("/proc");
    let cgroups = Path::new("/sys/fs/cgroup");
    let pid = std::process::id() as i32;
    let diag = Diag::open(proc_root, pid);
    let open = || fds::read(proc_root, pid).got().unwrap().open;
    let round = || {
        process::read(proc_root, pid);
        process::identity(proc_root, pid);
        threads::read(proc_root, pid, true);
        fds::census(proc_root, pid);
        ring::read_fdinfo(proc_root, pid, 0);
        netstat::read(proc_root, pid);
        cgroup::read(proc_root, cgroups, pid);
        pressure::read(proc_root, cgroups, pid);
        local_port_range(proc_root, pid);
        let diag = diag.got().unwrap();
        diag.listeners();
        let wanted = Wanted::new(&[80], (32_768, 60_999));
        diag.connections_alive(&wanted);
        diag.connections(&Wanted { sockets_max: 0, ..wanted });
        if let Some(census) = diag.connections(&wanted).got() {
            let mut peers = Peers::default();
            peers.found(census);
            peers.refresh(diag);
        }
        procnet::connections(proc_root, pid, &wanted);
        discover::holders_of_port(proc_root, diag, 80);
        Diag::open(proc_root, pid);
    };
    round();
    let before = open();
    (0..20).for_each(|_| round());
    assert_eq!(open(), before);
    assert_eq!(own::usage().open_fds.got(), Some(&before));

    // What is kept open: so many, and no more with time.
    let mut process = process::Watch::new(proc_root, pid);
    let mut count = fds::Watch::new(proc_root, pid);
    let mut walk = CensusWalk::new(proc_root, pid);
    let mut all = threads::Watch::new(proc_root, pid);
    let mut counters = netstat::Watch::new(proc_root, pid);
    let mut cgroup = cgroup::Watch::new(proc_root, cgroups, pid);
    let mut stalls = pressure::Watch::new(proc_root, cgroups, pid);
    let mut watch_all = || {
        // Threads that come and go, and each read in full.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(std::thread::yield_now);
            }
            let threads = process.read().got().map(|process| process.threads);
            let (important, full_within) = (&[pid], 1);
            all.read(&Ask { threads, important, full_within, stacks: true, switches: true });
        });
        count.read();
        while let Some(None) = walk.advance(4, || true).got() {}
        counters.read();
        cgroup.read();
        stalls.read();
        let last = all.read(&Ask {
            threads: None,
            important: &[],
            full_within: 1,
            stacks: true,
            switches: true,
        });
        (open() - before, last.got().unwrap().len() as u64)
    };
    for _ in 0..50 {
        let (kept, threads) = watch_all();
        // One for the process, two for the fds, two of the network, one and four a thread, four for
        // the cgroup and four for the pressure.
        assert!(kept <= 14 + 4 * threads, "{kept} for {threads} threads");
    }
    drop((process, count, walk, all, counters, cgroup, stalls));
    assert_eq!(open(), before);
}

/// Mapped parts of rings that a child does not get (`dc`, proc(5)); those of the rings' owner are
/// not among them.
fn not_inherited() -> usize {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut of_ring = false;
    let mut count = 0;
    for line in smaps.lines() {
        // Each mapping begins with its addresses.
        if line.split_once(' ').is_some_and(|(first, _)| first.contains('-')) {
            of_ring = line.contains("[io_uring]");
        }
        let is_marked = line.strip_prefix("VmFlags:").is_some_and(|flags| flags.contains(" dc"));
        count += usize::from(of_ring && is_marked);
    }
    count
}

#[test]
fn rings_that_come_and_go_leave_no_fd_and_no_mapping() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let proc_root = Path::new("/proc");
    let pid = std::process::id() as i32;
    // The fds' numbers and the mappings' files: more than their count.
    let held = || {
        let mut fds: Vec<String> = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        fds.sort_unstable();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        (fds, maps.lines().filter(|line| line.contains("[io_uring]")).count())
    };
    let before = held();
    let mut rings = Rings::new(proc_root, pid, RingAccess::Memory);
    for round in 0..20 {
        let Ok(ring) = IoUring::new(64) else {
            println!("did not run: no io_uring");
            return;
        };
        let alone = held();
        rings.follow(&[ring.as_raw_fd()]);
        let followed = held();
        assert_eq!(followed.0, alone.0, "no copy of the ring's fd stays open");
        // Both parts of the ring.
        assert_eq!(followed.1, alone.1 + 2);
        assert_eq!(not_inherited(), 2, "a child must not hold the ring");
        assert_eq!(rings.read().len(), 1);
        rings.read_fdinfo(|| 0);
        match round % 3 {
            0 => rings.release(),
            1 => rings.follow(&[]),
            _ => {
                drop(ring);
                assert_eq!(rings.read(), []);
                continue;
            }
        }
        assert_eq!(held(), alone);
    }
    drop(rings);
    assert_eq!(held(), before);
}

/// A process that runs without end, killed and reaped with the value.
struct Spinner(std::process::Child);

impl Spinner {
    fn end(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.end();
    }
}

#[test]
fn a_process_that_ends_while_it_is_caught_is_no_error_and_leaves_nothing_open() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let proc_root = Path::new("/proc");
    let held = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let rings = maps.lines().filter(|line| line.contains("[perf_event]")).count();
        (fds::read(proc_root, std::process::id() as i32).got().unwrap().open, rings)
    };
    let now_ns = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    };
    let before = held();
    let mut spinner =
        Spinner(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap());
    let pid = spinner.0.id() as i32;
    let ask = capture::Ask { hz: 199, waits: Waits::All };
    let begun = Capture::begin(proc_root, pid, ask, now_ns());
    if begun.absence().is_some_and(|absence| absence.why == Why::NotPermitted) {
        assert!(!rustix::process::geteuid().is_root(), "{begun:?}");
        println!("did not run: {begun:?}");
        return;
    }
    let Reading::Got(mut capture) = begun else { panic!("{begun:?}") };
    let catching = held();
    assert_eq!(catching.0, before.0 + capture.events() as u64);
    assert!(catching.1 >= 1, "a ring for each CPU");
    let caught = (0..5_000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(1));
        !capture.drain(now_ns()).is_empty()
    });
    assert!(caught, "it spins, and is never caught");

    spinner.end();
    capture.drain(now_ns());
    capture.look_at_sleepers(now_ns());
    assert_eq!(capture.drain(now_ns()), [], "nothing runs or waits any more");
    assert_eq!(capture.away(now_ns()).count(), 0, "the thread has ended");
    assert_eq!(capture.losses().records, 0);
    drop(capture);
    assert_eq!(held(), before);
    let again = Capture::begin(proc_root, pid, ask, now_ns());
    assert_eq!(again.absence().map(|absence| absence.why), Some(Why::Gone), "{again:?}");
    assert_eq!(held(), before);
}
