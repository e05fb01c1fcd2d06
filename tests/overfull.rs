//! More clients than a server may hold: 3,000 connections and 1,024 fds. It refuses or queues what
//! it cannot hold, serves the rest, spins on nothing, and is itself again within a second.
#![cfg(feature = "servers")]
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is the one who waits"
)]
#![expect(dead_code, reason = "the harness is that of the tests of `serve`, which use all of it")]

mod serve_harness;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use serve_harness::{Broker, STACKS, Server, event, eventually};
use socket2::{Domain, Socket, Type};
use stallscope_probes::{fds, process};

/// Fds that the server may have, and clients that come.
const FDS: u64 = 1_024;
const CLIENTS: usize = 3_000;
/// Of those, clients that leave.
const LEAVING: usize = 2_500;
/// Fewest clients that the server holds: it needs some dozens of fds itself.
const HELD_MIN: usize = 900;
/// How long the server is watched while nobody sends, and the most CPU time it may take then, cores.
const QUIET: Duration = Duration::from_secs(2);
const QUIET_CORES_MAX: f64 = 0.2;
/// Accepts that may fail in that time: the pause after each is 100 ms.
const FAILURES_MAX: u64 = 40;
/// When nobody was answered for so long, nobody will be.
const SETTLED: Duration = Duration::from_millis(700);
const EMFILE: i32 = 24;
/// Within this it must be itself again.
const RECOVERED_WITHIN: Duration = Duration::from_secs(1);
/// A client whose SYN found the queue full is not heard for a second (the kernel's first
/// retransmission): so clients that ask whether the server is back do not wait, but ask anew.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(150);

/// A client whose connection may be under way still.
fn begin_to_connect(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    match socket.connect(&address.into()) {
        Err(error)
            if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
        {
            panic!("cannot connect: {error}")
        }
        _ => socket,
    }
}

/// Raises the limit of this process as far as it may; says whether that is enough.
fn may_hold(clients: usize) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let needed = clients as u64 + 200;
    let raised = limit.maximum.map_or(needed, |hard| hard.min(needed));
    let raised = raised.max(limit.current.unwrap_or(u64::MAX));
    let raised_limit = Rlimit { current: Some(raised), maximum: limit.maximum };
    raised >= needed && setrlimit(Resource::Nofile, raised_limit).is_ok()
}

fn cpu_s(server: &Server) -> f64 {
    let read = process::read(Path::new("/proc"), server.pid());
    let process = read.got().unwrap();
    let ticks = process.utime_ticks + process.stime_ticks;
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

fn open_fds(server: &Server) -> u64 {
    fds::read(Path::new("/proc"), server.pid()).got().unwrap().open
}

/// One of the many clients.
struct Client {
    socket: Socket,
    has_asked: bool,
    /// What came of it: whether its event was taken, or that it was turned away.
    told: Option<bool>,
}

impl Client {
    fn new(address: SocketAddr) -> Self {
        Self { socket: begin_to_connect(address), has_asked: false, told: None }
    }

    /// Sends once it is connected, and listens for the answer.
    fn go_on(&mut self) {
        if !self.has_asked {
            self.has_asked = self.socket.write_all(&event("many", "")).is_ok();
        }
        let mut bytes = [0; 512];
        match self.socket.read(&mut bytes) {
            Ok(read) => self.told = Some(bytes[..read].starts_with(b"HTTP/1.1 20")),
            Err(error) => match error.kind() {
                ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => {
                    self.told = Some(false);
                }
                // It is not connected yet, or not answered.
                _ => {}
            },
        }
    }
}

/// Has every client ask, until nobody has been answered for a while; says how many were.
fn served(clients: &mut [Client]) -> usize {
    let count = |clients: &[Client]| clients.iter().filter(|one| one.told == Some(true)).count();
    let (mut before, mut last) = (0, Instant::now());
    while last.elapsed() < SETTLED {
        clients.iter_mut().filter(|client| client.told.is_none()).for_each(Client::go_on);
        let now = count(clients);
        if now > before {
            (before, last) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    before
}

/// Whether a new client is served, soon.
fn serves_anew(address: SocketAddr) -> bool {
    let Ok(mut client) = TcpStream::connect_timeout(&address, ASK_AGAIN_AFTER) else {
        return false;
    };
    client.set_read_timeout(Some(RECOVERED_WITHIN)).unwrap();
    client.write_all(&event("new", "Connection: close\r\n")).unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).is_ok() && received.starts_with(b"HTTP/1.1 202 ")
}

/// It spins on nothing: nobody sends, and it cannot accept.
fn is_calm(stack: &str, server: &Server) {
    let (begun, before_s) = (Instant::now(), cpu_s(server));
    let failures_before = server.heartbeat().accept_errors;
    std::thread::sleep(QUIET);
    let cores = (cpu_s(server) - before_s) / begun.elapsed().as_secs_f64();
    let failures = server.heartbeat().accept_errors - failures_before;
    assert!(cores < QUIET_CORES_MAX, "{stack}: {cores:.2} cores for nothing");
    assert!(failures < FAILURES_MAX, "{stack}: {failures} accepts failed in {QUIET:?}");
}

fn limit_fds(server: &Server) {
    let limit = Rlimit { current: Some(FDS), maximum: Some(FDS) };
    prlimit(Pid::from_raw(server.pid()), Resource::Nofile, limit).unwrap();
}

fn overfull(stack: &str) {
    let server = Server::start(stack, &[]);
    limit_fds(&server);
    let first = server.connect();
    let address = first.peer_addr().unwrap();
    drop(first);
    // The connection to the broker is made for the first event, and takes an fd.
    assert!(serves_anew(address), "{stack}");
    eventually("it is delivered", || server.heartbeat().delivered == 1);

    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::new(address)).collect();
    eventually("the server has no fd left", || open_fds(&server) >= FDS);
    eventually("it says so", || server.heartbeat().accept_errno == Some(EMFILE));
    is_calm(stack, &server);
    let held = served(&mut clients);
    assert!((HELD_MIN..CLIENTS).contains(&held), "{stack}: {held} of {CLIENTS} are served");

    // Those stay who came last: nobody has heard of most of them yet.
    let mut staying = clients.split_off(LEAVING);
    drop(clients);
    let left = Instant::now();
    while !serves_anew(address) {
        assert!(left.elapsed() < RECOVERED_WITHIN, "{stack}: no answer to a new client");
    }
    let took = left.elapsed();
    assert!(took < RECOVERED_WITHIN, "{stack}: a new client is served after {took:?}");
    eventually("all who stayed are served", || {
        staying.iter_mut().filter(|client| client.told.is_none()).for_each(Client::go_on);
        staying.iter().all(|client| client.told.is_some())
    });
    let refused = staying.iter().filter(|client| client.told == Some(false)).count();
    eprintln!("{stack}: {held} held; back after {took:?}; {refused} of those who stayed refused");
    let (status, end) = server.stop();
    assert!(status.success() && end.accepted == end.delivered, "{stack}: {end:?}");
}

#[test]
fn a_server_with_too_many_clients_serves_those_it_holds_and_recovers() {
    if !may_hold(CLIENTS) {
        eprintln!("NOT TESTED: takes {CLIENTS} fds");
        return;
    }
    for stack in STACKS {
        overfull(stack);
    }
}

/// Has all clients go on until so many are told that their event is delivered.
fn until_delivered(what: &str, clients: &mut [Client], count: usize) {
    eventually(what, || {
        clients.iter_mut().filter(|client| client.told.is_none()).for_each(Client::go_on);
        clients.iter().filter(|client| client.told == Some(true)).count() >= count
    });
}

/// Clients who wait for the delivery of their events hold all fds, and librdkafka, who is to
/// deliver them, needs some to reach the broker: at first, and after the broker was away.
fn delivers_in_need(stack: &str) {
    let broker = Broker::start();
    let server = Server::start(stack, &["--ack", "delivery", "--kafka", &broker.bootstrap]);
    limit_fds(&server);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::new(server.address())).collect();
    until_delivered(&format!("{stack}: the first events"), &mut clients, HELD_MIN);

    let (mut held, mut waiting): (Vec<_>, Vec<_>) =
        clients.into_iter().partition(|client| client.told == Some(true));
    let taken_before = server.heartbeat().requests;
    broker.goes_away();
    for client in &mut held {
        (client.has_asked, client.told) = (false, None);
        client.go_on();
    }
    // Some of those who wait may have got an fd as librdkafka's came free.
    let again = held.len() as u64;
    eventually("their next events are taken", || {
        server.heartbeat().requests >= taken_before + again
    });
    broker.comes_back();
    let count = held.len();
    until_delivered(&format!("{stack}: the next events"), &mut held, count);
    eprintln!("{stack}: {count} held, and served again after the broker was away");
    waiting.clear();
    drop(held);
    let (status, end) = server.stop();
    assert!(status.success() && end.accepted == end.delivered, "{stack}: {end:?}");
}

#[test]
fn clients_who_hold_all_fds_do_not_keep_the_producer_from_its_broker() {
    if !may_hold(CLIENTS) {
        eprintln!("NOT TESTED: takes {CLIENTS} fds");
        return;
    }
    for stack in STACKS {
        delivers_in_need(stack);
    }
}
