//! Prints the rings and accept queues of any process: `cargo run --example peek -- PID`.

use std::path::Path;

use stallscope_probes::fds;
use stallscope_probes::ring::{RingAccess, Rings};
use stallscope_probes::sockets::Diag;

fn main() {
    let Some(pid) = std::env::args().nth(1).and_then(|pid| pid.parse().ok()) else {
        eprintln!("usage: peek PID");
        std::process::exit(2);
    };
    let proc_root = Path::new("/proc");
    let census = fds::census(proc_root, pid);
    if let Some(absence) = census.absence() {
        println!("its fds are unknown: {}", absence.detail);
    }
    let mut rings = Rings::new(proc_root, pid, RingAccess::Memory);
    rings.follow(census.got().map_or(&[][..], |census| &census.rings));
    for _ in rings.fds() {
        rings.read_fdinfo(|| 0);
    }
    for ring in rings.read() {
        println!("ring {}: {:?}", ring.fd, ring.source);
        println!("  {:?}\n  armed: {:?}", ring.state, ring.armed);
    }
    let listeners = Diag::open(proc_root, pid).and_then(|diag| diag.listeners());
    if let Some(absence) = listeners.absence() {
        println!("its accept queues are unknown: {}", absence.detail);
    }
    for listener in listeners.got().into_iter().flatten() {
        let inode = u64::from(listener.inode);
        if census.got().is_none_or(|census| census.socket_inodes.contains(&inode)) {
            let (queued, limit) = (listener.queued, listener.limit);
            println!(
                "{}: {queued} of {limit:?} queued, drops {:?}",
                listener.local, listener.drops
            );
        }
    }
}
