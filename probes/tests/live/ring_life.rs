//! Rings of other processes: that none outlives its owner by more than one look.
//!
//! A ring keeps its registered files open. So each of these has a listening socket registered and
//! no other fd for it, and the witness of the ring's end is that its port can be bound again.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use io_uring::{opcode, types};
use rustix::process::{Resource, Rlimit, setrlimit};
use stallscope_probes::pidfd::PidFd;
use stallscope_probes::ring::{RingAccess, Rings};
use stallscope_probes::sample::{RingRaw, RingSource};
use stallscope_probes::{Reading, Why};

use crate::child::{Child, say_and_wait};
use crate::rings::{make, push};
use crate::{got, proc_root, rights, until};

/// No other test binds here, so that a port that is free stays so.
const ADDRESS: &str = "127.44.0.1:0";

#[test]
#[ignore = "run as a child by the tests below"]
fn child_with_a_listener_in_a_ring() {
    let Some(ring) = make(64) else {
        say_and_wait("none");
        return;
    };
    let listener = TcpListener::bind(ADDRESS).unwrap();
    let address = listener.local_addr().unwrap();
    ring.submitter().register_files(&[listener.as_raw_fd()]).unwrap();
    drop(listener);
    say_and_wait(&format!("{} {address}", ring.as_raw_fd()));
    drop(ring);
    if !say_and_wait("closed") {
        return;
    }
    say_and_wait("end");
}

#[test]
#[ignore = "run as a child by the tests below"]
fn child_that_becomes_another_program() {
    let Some(ring) = make(64) else {
        say_and_wait("none");
        return;
    };
    let listener = TcpListener::bind(ADDRESS).unwrap();
    let address = listener.local_addr().unwrap();
    ring.submitter().register_files(&[listener.as_raw_fd()]).unwrap();
    drop(listener);
    if say_and_wait(&format!("{} {address}", ring.as_raw_fd())) {
        let error = Command::new("sleep").arg("600").exec();
        panic!("not executed: {error}");
    }
}

#[test]
#[ignore = "run as a child by the test below"]
fn child_without_fds_to_accept_with() {
    let Some(mut ring) = make(64) else {
        say_and_wait("none");
        return;
    };
    let listener = TcpListener::bind(ADDRESS).unwrap();
    let fd = types::Fd(listener.as_raw_fd());
    let limit = Rlimit { current: Some(3), maximum: Some(3) };
    setrlimit(Resource::Nofile, limit).unwrap();
    for _ in 0..5 {
        let null = std::ptr::null_mut();
        push(&mut ring, &opcode::Accept::new(fd, null, std::ptr::null_mut()).build());
    }
    ring.submit_and_wait(5).unwrap();
    assert_eq!(ring.completion().count(), 5);
    say_and_wait(&format!("{} {}", ring.as_raw_fd(), listener.local_addr().unwrap()));
}

/// A child with a ring, and the rings as they are followed.
struct Watched {
    child: Child,
    rings: Rings,
    fd: i32,
    address: SocketAddr,
}

/// Starts a child and maps its ring; `None` where the kernel gives it none.
fn watch(name: &str) -> Option<Watched> {
    let mut child = Child::start(&format!("ring_life::{name}"), None);
    let said = child.hears();
    if said == "none" {
        println!("did not run: no io_uring");
        return None;
    }
    let (fd, address) = said.split_once(' ').unwrap();
    let (fd, address) = (fd.parse().unwrap(), address.parse().unwrap());
    let mut rings = Rings::new(proc_root(), child.pid(), RingAccess::Memory);
    rings.follow(&[fd]);
    let watched = rings.read();
    assert_eq!(watched.len(), 1);
    assert_eq!(watched[0].source, RingSource::Memory { confirmed: false });
    Some(Watched { child, rings, fd, address })
}

/// A child like it that nobody looks at.
fn unwatched(name: &str) -> (Child, SocketAddr) {
    let mut child = Child::start(&format!("ring_life::{name}"), None);
    let said = child.hears();
    let (_, address) = said.split_once(' ').unwrap();
    (child, address.parse().unwrap())
}

fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

fn until_free(address: SocketAddr) {
    until("the port is free", || is_free(address).then_some(()));
}

fn signal(child: &Child) {
    let pid = rustix::process::Pid::from_raw(child.pid()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_process_that_was_killed_gets_its_port_back_once_its_rings_are_released() {
    let name = "child_with_a_listener_in_a_ring";
    let Some(mut watched) = watch(name) else { return };
    let (twin, twin_address) = unwatched(name);
    assert!(!is_free(watched.address) && !is_free(twin_address));
    let pidfd = got(PidFd::open(watched.child.pid()));
    assert!(!pidfd.wait_exit(Duration::ZERO));
    signal(&watched.child);
    signal(&twin);
    assert!((0..100).any(|_| pidfd.wait_exit(Duration::from_millis(100))));
    until_free(twin_address);
    // The price of a mapping, and why it must go.
    assert!(!is_free(watched.address), "the mapping keeps the ring");
    watched.rings.release();
    until_free(watched.address);
}

#[test]
fn one_read_after_its_exit_lets_go_of_a_process() {
    let Some(mut watched) = watch("child_with_a_listener_in_a_ring") else { return };
    let pidfd = got(PidFd::open(watched.child.pid()));
    signal(&watched.child);
    assert!((0..100).any(|_| pidfd.wait_exit(Duration::from_millis(100))));
    assert_eq!((watched.rings.read(), watched.rings.is_stale()), (vec![], true));
    until_free(watched.address);
}

#[test]
fn one_read_after_its_close_lets_go_of_a_ring() {
    let Some(mut watched) = watch("child_with_a_listener_in_a_ring") else { return };
    watched.child.go_on();
    assert_eq!(watched.child.hears(), "closed");
    assert!(!is_free(watched.address), "the mapping keeps the ring");
    assert_eq!((watched.rings.read(), watched.rings.is_stale()), (vec![], true));
    until_free(watched.address);
}

#[test]
fn one_read_after_an_exec_lets_go_of_a_ring() {
    let Some(mut watched) = watch("child_that_becomes_another_program") else { return };
    watched.child.go_on();
    let comm = format!("/proc/{}/comm", watched.child.pid());
    until("the other program", || {
        (std::fs::read_to_string(&comm).unwrap() == "sleep\n").then_some(())
    });
    assert_eq!((watched.rings.read(), watched.rings.is_stale()), (vec![], true));
    until_free(watched.address);
}

#[test]
fn accepts_that_found_no_fd_are_seen_after_they_were_reaped() {
    let Some(mut watched) = watch("child_without_fds_to_accept_with") else { return };
    let state = got(watched.rings.read().remove(0).state);
    let emfile = rustix::io::Errno::MFILE.raw_os_error();
    assert_eq!((state.cq_pending(), state.failed), (0, Reading::Got(vec![])));
    assert_eq!(state.recent, Reading::Got(vec![(emfile, 5)]));
}

#[test]
fn without_rights_it_says_what_would_permit_it() {
    if !rustix::process::geteuid().is_root() {
        println!("did not run: needs root, to look as another user");
        return;
    }
    let Some(watched) = watch("child_with_a_listener_in_a_ring") else { return };
    let (pid, fd) = (watched.child.pid(), watched.fd);
    let read: Vec<RingRaw> = rights::as_nobody(|| {
        let mut rings = Rings::new(proc_root(), pid, RingAccess::Memory);
        rings.follow(&[fd]);
        rings.read_fdinfo(|| 0);
        rings.read()
    });
    let RingSource::Fdinfo(absence) = &read[0].source else { panic!("{read:?}") };
    assert_eq!(absence.why, Why::NotPermitted);
    assert!(absence.detail.contains("CAP_SYS_PTRACE"), "{absence:?}");
    let refusal = read[0].state.absence().unwrap();
    assert_eq!(refusal.why, Why::NotPermitted, "fdinfo needs rights as well");
}
