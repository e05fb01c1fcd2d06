//! The probes' own fds: looking for hours must not use any up. Alone in its process, so that the
//! count is its own.

use std::path::Path;

use stallscope_probes::sockets::{Diag, Peers, Wanted, local_port_range, procnet};
use stallscope_probes::{cgroup, discover, fds, netstat, process, ring, threads};

#[test]
fn many_rounds_leave_as_many_fds_open_as_one() {
    let proc_root = Path::new("/proc");
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
        cgroup::read(proc_root, Path::new("/sys/fs/cgroup"), pid);
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
}
