//! Real connections to real listeners. The target is this process, or one in a namespace of its own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use super::*;

fn plan(how: ActiveHow) -> Plan {
    Plan { how, every: EVERY_MIN, path: String::from("/health"), port: None }
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap()
}

fn probe(how: ActiveHow) -> ActiveProbe {
    ActiveProbe::new(plan(how), Path::new("/proc"), own_pid())
}

fn listener() -> (TcpListener, Reading<Vec<ListenerRaw>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let listening = listening(listener.local_addr().unwrap());
    (listener, listening)
}

fn listening(local: SocketAddr) -> Reading<Vec<ListenerRaw>> {
    let holder = Holder::Target;
    let limit = Some(128);
    Reading::Got(vec![ListenerRaw { local, inode: 1, queued: 0, limit, drops: Some(0), holder }])
}

/// Ticks until the last attempt is as wanted.
fn until(
    probe: &mut ActiveProbe,
    listeners: &Reading<Vec<ListenerRaw>>,
    wanted: impl Fn(&ActiveRaw) -> bool,
) -> ActiveRaw {
    let mut last = None;
    for _ in 0..2_000 {
        let tick = probe.tick(listeners, false);
        match tick.reading {
            Reading::Got(raw) if wanted(&raw) => return raw,
            other => last = Some(other),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("never seen; last {last:?}");
}

fn ended(raw: &ActiveRaw) -> bool {
    raw.outcome != ActiveOutcome::Pending
}

/// Accepts one connection and takes in its request.
fn accept_request(listener: &TcpListener) -> (TcpStream, String) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{request:?}");
        request.push(byte[0]);
    }
    (stream, String::from_utf8(request).unwrap())
}

#[test]
fn an_answer_is_noticed_by_its_first_byte_and_taken_in_to_its_end() {
    let (listener, listening) = listener();
    let local = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, request) = accept_request(&listener);
        stream.write_all(b"H").unwrap();
        stream.write_all(&vec![b'x'; 100_000]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        (request, stream.read(&mut [0]))
    });
    let mut probe = probe(ActiveHow::Http);
    let raw = until(&mut probe, &listening, ended);
    assert!(matches!(raw.outcome, ActiveOutcome::Answered { answer_us: Some(_), .. }), "{raw:?}");
    assert_eq!((raw.attempts, raw.failures_in_a_row, raw.target), (1, 0, local));
    assert!(raw.last_success_ns >= Some(raw.began_ns));
    assert_eq!(raw.plan, ActivePlan { how: ActiveHow::Http, every_ms: 100 });
    let (request, rest) = server.join().unwrap();
    assert_eq!(
        request,
        format!(
            "GET /health HTTP/1.1\r\nhost: {local}\r\nuser-agent: stallscope-probe\r\nconnection: close\r\n\r\n"
        )
    );
    assert_eq!(rest.unwrap(), 0, "closed, not reset");
}

#[test]
fn a_connection_is_enough_for_tcp_and_is_closed_at_once() {
    let (listener, listening) = listener();
    let mut probe = probe(ActiveHow::Tcp);
    let raw = until(&mut probe, &listening, ended);
    assert!(matches!(raw.outcome, ActiveOutcome::Answered { answer_us: None, .. }), "{raw:?}");
    let (mut stream, _) = listener.accept().unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "closed, not reset");
}

#[test]
fn a_close_without_an_answer_is_none() {
    let (listener, listening) = listener();
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            drop(accept_request(&listener));
        }
    });
    let mut probe = probe(ActiveHow::Http);
    let raw = until(&mut probe, &listening, |raw| ended(raw) && raw.attempts == 2);
    assert!(matches!(raw.outcome, ActiveOutcome::NoAnswer { .. }), "{raw:?}");
    assert_eq!((raw.failures_in_a_row, raw.last_success_ns), (2, None));
    server.join().unwrap();
}

#[test]
fn silence_is_no_answer() {
    let (listener, listening) = listener();
    let mut probe = probe(ActiveHow::Http);
    let pending = until(&mut probe, &listening, |raw| raw.attempts == 1);
    assert_eq!(pending.outcome, ActiveOutcome::Pending, "the ticks do not wait for it");
    let raw = until(&mut probe, &listening, ended);
    assert!(matches!(raw.outcome, ActiveOutcome::NoAnswer { .. }), "{raw:?}");
    drop(listener);
}

#[test]
fn a_full_accept_queue_lets_nobody_in() {
    let (listener, listening) = listener();
    // A second listen(2) sets the backlog anew; a queue of 0 takes one connection.
    rustix::net::listen(&listener, 0).unwrap();
    let waiting = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut probe = probe(ActiveHow::Tcp);
    let raw = until(&mut probe, &listening, ended);
    assert_eq!(raw.outcome, ActiveOutcome::ConnectTimeout);
    drop((listener, waiting));
}

#[test]
fn a_listener_that_is_gone_refuses_where_it_was() {
    let (listener, listening) = listener();
    let mut probe = probe(ActiveHow::Tcp);
    until(&mut probe, &listening, ended);
    drop(listener);
    let none = Reading::Got(Vec::new());
    let raw = until(&mut probe, &none, |raw| raw.outcome == ActiveOutcome::Refused);
    assert!(raw.failures_in_a_row >= 1 && raw.last_success_ns.is_some(), "{raw:?}");
}

#[test]
fn without_a_listener_there_is_nothing_to_connect_to() {
    let mut probe = probe(ActiveHow::Tcp);
    let why = |probe: Probe<ActiveRaw>| probe.reading.absence().map(|absence| absence.why);
    assert_eq!(why(probe.tick(&Reading::Got(Vec::new()), false)), Some(Why::Gone));
    let hidden = Reading::absent(Why::NotPermitted, "no");
    assert_eq!(why(probe.tick(&hidden, false)), Some(Why::NotPermitted));
    let other = listening("127.0.0.1:1".parse().unwrap());
    let other = other.map(|mut all| {
        all[0].holder = Holder::Other;
        all
    });
    assert_eq!(why(probe.tick(&other, false)), Some(Why::Gone), "another's");
}

#[test]
fn the_port_asked_for_is_taken_among_several() {
    let plan = Plan { port: Some(81), ..plan(ActiveHow::Tcp) };
    let probe = ActiveProbe::new(plan, Path::new("/proc"), own_pid());
    let both = listening("0.0.0.0:80".parse().unwrap()).map(|mut all| {
        all.push(ListenerRaw { local: "0.0.0.0:81".parse().unwrap(), ..all[0].clone() });
        all
    });
    assert_eq!(probe.aim(&both), Some("0.0.0.0:81".parse().unwrap()));
}

/// The target sees every attempt as one connection, and no more of them than there are intervals.
#[test]
fn the_target_sees_one_connection_an_interval() {
    let (listener, listening) = listener();
    let mut probe = probe(ActiveHow::Tcp);
    let begin_ns = now_ns();
    let raw = until(&mut probe, &listening, |raw| ended(raw) && raw.attempts == 5);
    let intervals = now_ns().saturating_sub(begin_ns) / nanoseconds(EVERY_MIN);
    assert!(raw.attempts <= intervals + 1, "{} in {intervals} intervals", raw.attempts);
    drop(probe);
    listener.set_nonblocking(true).unwrap();
    let seen = std::iter::from_fn(|| listener.accept().ok()).count() as u64;
    assert_eq!(seen, raw.attempts);
}

#[test]
fn attempts_that_leave_something_behind_become_rarer() {
    let (tcp, http) = (probe(ActiveHow::Tcp), probe(ActiveHow::Http));
    let last = |failures_in_a_row, outcome| Probe {
        reading: Reading::Got(ActiveRaw {
            plan: ActivePlan { how: ActiveHow::Http, every_ms: 100 },
            target: "127.0.0.1:80".parse().unwrap(),
            began_ns: 0,
            outcome,
            attempts: 9,
            failures_in_a_row,
            last_success_ns: None,
        }),
        ..Probe::not_sampled("")
    };
    let silent = ActiveOutcome::NoAnswer { connect_us: 1 };
    let (often, rarely) = (EVERY_MIN, EVERY_MIN * RARER);
    assert_eq!(http.rest(&last(2, silent), true), often);
    assert_eq!(http.rest(&last(3, silent), false), rarely);
    assert_eq!(http.rest(&last(9, ActiveOutcome::Refused), true), often);
    assert_eq!(tcp.rest(&last(0, silent), true), rarely, "it cannot tell an accept from none");
    assert_eq!(tcp.rest(&last(0, silent), false), often);
    let slow = Plan { every: Duration::from_mins(1), ..plan(ActiveHow::Tcp) };
    let slow = ActiveProbe::new(slow, Path::new("/proc"), own_pid());
    assert_eq!(slow.rest(&last(9, silent), true), Duration::from_mins(1));
}

#[test]
fn nothing_is_left_once_it_is_released() {
    let (listener, listening) = listener();
    let mut probe = probe(ActiveHow::Http);
    until(&mut probe, &listening, |raw| raw.attempts == 1);
    let (mut stream, _) = accept_request(&listener);
    // The attempt waits for its answer. This returns when the thread has ended, and it ends at once:
    // had it waited until its patience was over, the attempt would have an outcome.
    let shared = Arc::clone(&probe.shared);
    probe.release();
    let last = lock(&shared).last.clone();
    assert_eq!(last.got().map(|raw| raw.outcome), Some(ActiveOutcome::Pending));
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the connection is closed");
    let after = probe.tick(&listening, false);
    assert_eq!(after.reading.absence().unwrap().why, Why::Gone);
}

/// A process in a network namespace of its own, with `lo` up.
struct Elsewhere(Child);

impl Elsewhere {
    fn start() -> Option<Self> {
        let script = "ip link set lo up && echo ready && exec sleep 60";
        let mut command = Command::new("unshare");
        command.args(["-n", "sh", "-c", script]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = Self(command.spawn().ok()?);
        let mut said = [0; 6];
        let ready = child.0.stdout.as_mut()?.read_exact(&mut said).is_ok();
        if !ready {
            eprintln!("NOT RUN: a network namespace takes root, unshare and ip");
        }
        ready.then_some(child)
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    /// Does something on a thread that is in the namespace.
    #[expect(clippy::disallowed_methods, reason = "the test enters the namespace by itself")]
    fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.pid())).unwrap();
        let inside = move || {
            let network = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), network).unwrap();
            work()
        };
        std::thread::spawn(inside).join().unwrap()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test sets what only root may")]
fn it_connects_in_the_namespace_of_the_target() {
    let Some(elsewhere) = Elsewhere::start() else { return };
    // Here somebody listens on the port; there, at first, nobody does.
    let (here, listening) = listener();
    let local = here.local_addr().unwrap();
    let mut probe = ActiveProbe::new(plan(ActiveHow::Tcp), Path::new("/proc"), elsewhere.pid());
    let raw = until(&mut probe, &listening, ended);
    assert_eq!(raw.outcome, ActiveOutcome::Refused);
    here.set_nonblocking(true).unwrap();
    assert!(here.accept().is_err(), "nobody called here");

    let there = elsewhere.within(move || TcpListener::bind(local).unwrap());
    let raw = until(&mut probe, &listening, |raw| raw.failures_in_a_row == 0 && ended(raw));
    assert!(matches!(raw.outcome, ActiveOutcome::Answered { .. }), "{raw:?}");
    drop(probe);

    // One port to go out from, and it is taken.
    let taken = elsewhere.within(move || {
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40000").unwrap();
        TcpStream::connect(local).unwrap()
    });
    let mut probe = ActiveProbe::new(plan(ActiveHow::Tcp), Path::new("/proc"), elsewhere.pid());
    let raw = until(&mut probe, &listening, ended);
    assert_eq!(raw.outcome, ActiveOutcome::NotMade { errno: Errno::ADDRNOTAVAIL.raw_os_error() });
    assert_eq!(raw.failures_in_a_row, 0, "it says nothing of the target");
    drop((there, taken));
}

#[test]
fn a_target_that_has_exited_leaves_nothing_to_enter() {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let mut probe = ActiveProbe::new(plan(ActiveHow::Tcp), Path::new("/proc"), pid);
    let (_listener, listening) = listener();
    let mut why = None;
    for _ in 0..2_000 {
        why = probe.tick(&listening, false).reading.absence().map(|absence| absence.why);
        if why == Some(Why::Gone) {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(why, Some(Why::Gone));
}
