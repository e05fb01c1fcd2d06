//! The probes' own fds: looking for hours must not use any up. Alone in its process, so that the
//! count is its own.

use std::path::Path;

use stallscope_probes::fds::CensusWalk;
use stallscope_probes::sockets::{Diag, local_port_range};
use stallscope_probes::threads::Ask;
use stallscope_probes::{cgroup, discover, fds, netstat, own, pressure, process, ring, threads};

#[test]
fn many_rounds_leave_as_many_fds_open_as_one() {
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
        diag.connections(&[80], (32_768, 60_999));
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
