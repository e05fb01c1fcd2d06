//! The sampler on a live process: this test program again, running one of its ignored tests.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::sockopt::set_socket_reuseport;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
use stallscope_probes::sample::{Holder, ListenerRaw};

use super::*;

const MARK: &str = "child: ";
const INTERVAL_NS: u64 = 50 * MS;

fn listen_shared(address: SocketAddr) -> OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    let listener = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    set_socket_reuseport(&listener, true).unwrap();
    bind(&listener, &address).unwrap();
    listen(&listener, 16).unwrap();
    listener
}

/// Says a line, and waits for one.
fn say_and_wait(line: &str) {
    println!("{MARK}{line}");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Listens, watches the listener with epoll, accepts one connection and never reads it, then closes
/// the listener and lives on.
#[test]
#[ignore = "run as a child by the tests below"]
fn child_that_stops_listening() {
    let listener = TcpListener::from(listen_shared("127.0.0.1:0".parse().unwrap()));
    let set = epoll::create(CreateFlags::CLOEXEC).unwrap();
    epoll::add(&set, &listener, EventData::new_u64(1), EventFlags::IN | EventFlags::ET).unwrap();
    say_and_wait(&listener.local_addr().unwrap().to_string());
    let _accepted = listener.accept().unwrap();
    say_and_wait("accepted");
    drop(listener);
    say_and_wait("closed");
}

struct Child {
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Child {
    fn start() -> Self {
        let name = "watch::sampler::live_tests::child_that_stops_listening";
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "--test-threads=1", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, input, output }
    }

    fn hears(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the child has ended");
            if let Some((_, said)) = line.split_once(MARK) {
                return said.trim_end().to_owned();
            }
        }
    }

    fn go_on(&mut self) {
        self.input.write_all(b"\n").unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

struct Watched {
    sampler: Sampler,
    budget: Budget,
}

impl Watched {
    fn new(child: &Child) -> Self {
        let pid = i32::try_from(child.process.id()).unwrap();
        let start = process::read(Path::new("/proc"), pid).got().unwrap().start_time_ticks;
        let sampler = Sampler::new(pid, start, None, Probes::Auto);
        Self { sampler, budget: Budget::new(1_000_000, now_ns()) }
    }

    fn tick(&mut self, suspicious: bool) -> Sample {
        self.sampler.sample(&Due {
            due_ns: now_ns(),
            suspicious,
            important_tids: &[],
            interval_asked_ns: INTERVAL_NS,
            interval_ns: INTERVAL_NS,
            budget: &self.budget,
        })
    }

    /// Suspicious ticks until `look` finds what it wants, for twenty seconds at most.
    fn until<T>(&mut self, what: &str, look: impl Fn(&Sample) -> Option<T>) -> T {
        for _ in 0..2_000 {
            if let Some(found) = look(&self.tick(true)) {
                return found;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("never seen: {what}");
    }
}

fn holders(sample: &Sample, at: SocketAddr) -> Vec<Holder> {
    let all: &Vec<ListenerRaw> = sample.listeners.got().unwrap();
    all.iter().filter(|one| one.local == at).map(|one| one.holder).collect()
}

#[test]
fn what_suspicion_asks_for_is_in_the_samples() {
    let mut child = Child::start();
    let address: SocketAddr = child.hears().parse().unwrap();
    let mut watched = Watched::new(&child);
    let calm = watched.tick(false);
    assert_eq!(holders(&calm, address), [Holder::Target]);
    assert_eq!(calm.epolls.reading.absence().unwrap().why, Why::NotSampled, "not while calm");
    let tables = calm.tables.got().unwrap();
    let files = tables.files.got().unwrap();
    assert!(files.open > 0 && files.open < files.max && files.exempt.is_some(), "{files:?}");

    let epolls = watched.until("epolls", |sample| sample.epolls.got().cloned());
    let listeners: Vec<bool> =
        epolls.iter().flat_map(|epoll| &epoll.listeners).map(|(_, asks)| *asks).collect();
    assert_eq!(listeners, [true], "{epolls:?}");

    // Accepted, and never read.
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"question").unwrap();
    child.go_on();
    assert_eq!(child.hears(), "accepted");
    let answers = watched.until("a question that waits", |sample| {
        let answers = sample.sockets.got()?.served.first()?.answers?;
        (answers.awaiting_unread == 1).then_some(answers)
    });
    assert_eq!((answers.awaiting, answers.never_answered), (1, 1));
}

#[test]
fn siblings_and_the_end_of_listening_are_seen_at_once() {
    let mut child = Child::start();
    let address: SocketAddr = child.hears().parse().unwrap();
    let mut watched = Watched::new(&child);
    assert_eq!(holders(&watched.tick(false), address), [Holder::Target]);
    let sibling = listen_shared(address);
    watched.until("a sibling", |sample| (holders(sample, address).len() == 2).then_some(()));
    for _ in 0..20 {
        assert_eq!(holders(&watched.tick(true), address), [Holder::Target, Holder::Other]);
    }
    drop(sibling);
    // A child that another test is just starting holds copies of all fds until its exec.
    watched.until("alone again", |sample| (holders(sample, address).len() == 1).then_some(()));

    let _client = TcpStream::connect(address).unwrap();
    child.go_on();
    assert_eq!(child.hears(), "accepted");
    child.go_on();
    assert_eq!(child.hears(), "closed");
    // In the very next tick: none of its own, which is not "not known".
    for suspicious in [false, true] {
        let sample = watched.tick(suspicious);
        assert_eq!(sample.listeners.got(), Some(&Vec::new()));
        assert!(sample.process.got().is_some());
    }
}
