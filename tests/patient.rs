//! The patient must not notice: a stall that any signal would heal stays as it is while it is
//! watched, nothing of the target is kept alive, and the watcher's death changes nothing.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests run processes")]

mod support;

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use support::victim::{AT_MOST, Victim, Watcher, answered, is_free, signal, until};

/// How long a stalled server is watched.
const WATCHED_FOR: Duration = Duration::from_secs(10);
/// A listener that is let go is gone by then, watched or not: the kernel closes the files of a
/// ring in a work item of its own (`io_uring/io_uring.c`, `io_ring_exit_work`).
const RELEASED_WITHIN: Duration = Duration::from_secs(2);
/// Unwatched; watched at two paces; and with its stacks caught as well.
const WAYS: [Option<Way>; 4] = [
    None,
    Some(Way { interval: "50ms", profile: "off" }),
    Some(Way { interval: "10ms", profile: "off" }),
    Some(Way { interval: "50ms", profile: "on" }),
];

/// How a victim is watched.
#[derive(Debug, Clone, Copy)]
struct Way {
    interval: &'static str,
    /// Whether stacks are caught: samples by the kernel, and looks at threads that sleep.
    profile: &'static str,
}

impl Way {
    fn watch(self, victim: &Victim) -> Watcher {
        // A build without optimisation takes many times the CPU time, and would slow down to keep its
        // budget.
        let more = ["--budget", "50%", "--profile", self.profile];
        Watcher::start(victim.pid(), self.interval, &more)
    }
}

/// What a thread that is not run does not change.
#[derive(Debug, PartialEq, Eq)]
struct Runs {
    tid: i32,
    voluntary_switches: u64,
    involuntary_switches: u64,
    /// `run_ns delay_ns timeslices`
    schedstat: String,
}

/// Of every thread of the victim.
fn runs(victim: &Victim) -> Vec<Runs> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", victim.pid())).unwrap();
    let tids = tasks.map(|task| task.unwrap().file_name().into_string().unwrap());
    let mut runs: Vec<Runs> = tids
        .map(|tid| {
            let status = victim.proc(&format!("task/{tid}/status"));
            Runs {
                tid: tid.parse().unwrap(),
                voluntary_switches: field(&status, "voluntary_ctxt_switches"),
                involuntary_switches: field(&status, "nonvoluntary_ctxt_switches"),
                schedstat: victim.proc(&format!("task/{tid}/schedstat")),
            }
        })
        .collect();
    runs.sort_unstable_by_key(|runs| runs.tid);
    runs
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().trim().parse().unwrap()
}

/// A victim that has served, has stalled, and has clients who wait.
fn stalled(mode: &str) -> (Victim, Vec<TcpStream>) {
    let victim = Victim::start(&[mode, "2"]);
    victim.serves();
    let mut clients = vec![victim.client()];
    if mode == "lost-wake" {
        // This one still serves the client after which it stalls.
        answered(&mut clients[0]);
        clients.clear();
    }
    victim.said("stalled");
    clients.extend((0..3).map(|_| victim.client()));
    (victim, clients)
}

fn says_nothing(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let read = (&*client).read(&mut [0; 8]);
    client.set_nonblocking(false).unwrap();
    read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// The watched server sleeps as if alone; and then a single signal heals it, so a signal would
/// have been noticed.
fn is_left_alone(mode: &str, way: Option<Way>) {
    let (victim, mut clients) = stalled(mode);
    let mut before = runs(&victim);
    until("every thread sleeps", AT_MOST, || {
        std::thread::sleep(Duration::from_millis(50));
        let now = runs(&victim);
        std::mem::replace(&mut before, now) == runs(&victim)
    });

    let watcher = way.map(|way| way.watch(&victim));
    let end = Instant::now() + WATCHED_FOR;
    while Instant::now() < end {
        assert_eq!(field(&victim.proc("status"), "TracerPid"), 0, "{mode} {way:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(runs(&victim), before, "{mode} {way:?}: a thread has run");
    assert!(clients.iter().all(says_nothing), "{mode} {way:?}: a client was answered");

    if let Some(watcher) = watcher {
        if mode == "submit-error" {
            watcher.sees("the lost submissions", |model| unsubmitted(model) >= 2);
        }
        let (printed, samples) = watcher.interrupted();
        assert!(samples.len() > 50, "it was not looked at: {} samples", samples.len());
        // It was a stall to the watcher too, not merely a quiet server.
        assert_eq!(printed.status, 3, "{mode} {way:?}: {printed:?}");
        assert_eq!(runs(&victim), before, "{mode} {way:?}: the end of the watch woke it");
    }

    signal(victim.pid(), Signal::STOP);
    signal(victim.pid(), Signal::CONT);
    for client in &mut clients {
        answered(client);
    }
}

/// Entries in the SQs, not submitted.
fn unsubmitted(model: &Value) -> u64 {
    let rings = model["rings"]["got"].as_array();
    let states = rings.into_iter().flatten().map(|ring| &ring["state"]["got"]);
    let gap = |state: &Value| Some(state["sq_tail"].as_u64()? - state["sq_head"].as_u64()?);
    states.filter_map(gap).sum()
}

#[test]
fn a_stall_that_a_signal_would_heal_stays() {
    std::thread::scope(|scope| {
        for mode in ["submit-error", "lost-wake"] {
            for way in WAYS {
                scope.spawn(move || is_left_alone(mode, way));
            }
        }
    });
}

/// The port of a killed server is free as soon as that of an unwatched one, and its clients know.
fn is_let_go(mode: &[&str], way: Option<Way>) {
    let mut victim = Victim::start(mode);
    victim.serves();
    let mut client = victim.client();
    answered(&mut client);
    let watcher = way.map(|way| way.watch(&victim));
    assert!(!is_free(victim.port), "{mode:?}");
    victim.child.0.kill().unwrap();
    victim.child.0.wait().unwrap();
    until(&format!("the port is free: {mode:?} {way:?}"), RELEASED_WITHIN, || is_free(victim.port));
    // The end of the stream, or a reset: both say that the server is gone.
    let gone = client.read(&mut [0; 8]);
    assert!(
        matches!(&gone, Ok(0))
            || gone.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
        "{mode:?} {way:?}: {gone:?}"
    );
    if let Some(watcher) = watcher {
        let (printed, _) = watcher.ended();
        assert_eq!(printed.last("end").unwrap()["reason"], "target_gone", "{printed:?}");
        assert!(!printed.stderr.contains("panicked"), "{printed:?}");
    }
}

#[test]
fn a_killed_server_frees_its_port() {
    // The long interval: whoever only looks at the next tick holds on for too long.
    for way in WAYS.into_iter().chain([Some(Way { interval: "5s", profile: "off" })]) {
        for mode in [&["plain"][..], &["ring-fixed-listener"], &["submit-error", "0"]] {
            is_let_go(mode, way);
        }
    }
}

#[test]
fn a_ring_that_its_process_closes_is_let_go() {
    for way in WAYS {
        let mut victim = Victim::start(&["ring-lost"]);
        victim.serves();
        let watcher = way.map(|way| way.watch(&victim));
        if let Some(watcher) = &watcher {
            watcher.sees("the ring", |model| rings(model) == Some(1));
        }
        assert!(!is_free(victim.port));
        victim.act();
        victim.said("closed");
        until(&format!("the port is free: {way:?}"), RELEASED_WITHIN, || is_free(victim.port));
        if let Some(watcher) = watcher {
            watcher.sees("that there is no ring", |model| rings(model) == Some(0));
            assert!(!watcher.maps_a_ring());
            let (printed, _) = watcher.interrupted();
            assert!(!printed.stderr.contains("panicked"), "{printed:?}");
        }
    }
}

fn rings(model: &Value) -> Option<usize> {
    Some(model["rings"]["got"].as_array()?.len())
}

#[test]
fn the_death_of_the_watcher_changes_nothing() {
    for interval in ["50ms", "10ms"] {
        let serving = Victim::start(&["submit-error", "0"]);
        let mut closing = Victim::start(&["ring-lost"]);
        serving.serves();
        closing.serves();
        let fds = serving.fds();
        let watchers = [&serving, &closing].map(|victim| {
            let watcher = Watcher::start(victim.pid(), interval, &[]);
            watcher.sees("the ring", |model| rings(model) == Some(1));
            watcher
        });
        watchers.into_iter().for_each(Watcher::killed);

        serving.serves();
        // The server learns of the client's end at its own pace.
        until("its fds are what they were", AT_MOST, || serving.fds() == fds);
        closing.serves();
        closing.act();
        closing.said("closed");
        until("the port is free", RELEASED_WITHIN, || is_free(closing.port));
    }
}

/// Else the tests above would prove nothing of the maps: they are what could keep a ring alive.
#[test]
fn rings_are_watched_by_their_memory() {
    for mode in [&["ring-fixed-listener"][..], &["submit-error", "0"]] {
        let victim = Victim::start(mode);
        let watcher = Watcher::start(victim.pid(), "50ms", &[]);
        until("a ring is mapped", AT_MOST, || watcher.maps_a_ring());
        watcher.interrupted();
    }
}
