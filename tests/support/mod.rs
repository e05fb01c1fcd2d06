//! Starts the real binary for end-to-end tests, and ends what was started.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests run processes and wait for them"
)]

pub mod victim;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use stallscope_probes::heartbeat;
use stallscope_probes::sample::{FaultRaw, HeartbeatRaw};

pub const STALLSCOPE: &str = env!("CARGO_BIN_EXE_stallscope");

/// Runs that measure must not run beside each other: there are two cores.
pub fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child that is killed when the test is over, however it ends.
#[derive(Debug)]
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Killed {
    pub fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    /// Waits for the end; panics when it takes longer than `at_most`.
    pub fn ended(&mut self, at_most: Duration) -> ExitStatus {
        let deadline = Instant::now() + at_most;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {at_most:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// An instrumented server.
#[derive(Debug)]
pub struct Server {
    pub child: Killed,
    pub url: String,
    pub port: u16,
    pub kafka: String,
}

impl Server {
    pub fn start(stack: &str, more: &[&str]) -> Self {
        let mut child = Command::new(STALLSCOPE)
            .args(["serve", stack, "--listen", "127.0.0.1:0", "--json"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let child = Killed(child);
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        Self {
            child,
            url: ready["url"].as_str().unwrap().to_owned(),
            port: u16::try_from(ready["port"].as_u64().unwrap()).unwrap(),
            kafka: ready["kafka"].as_str().unwrap().to_owned(),
        }
    }

    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// What the server says of itself.
    pub fn page(&self) -> HeartbeatRaw {
        let proc_root = Path::new("/proc");
        let start = stallscope_probes::process::identity(proc_root, self.pid());
        let start = start.got().unwrap().start_time_ticks;
        let page = heartbeat::find(proc_root, self.pid(), start);
        page.got().unwrap().read().got().unwrap().clone()
    }

    /// Waits until `holds` of the page.
    pub fn await_page(
        &self,
        at_most: Duration,
        holds: impl Fn(&HeartbeatRaw) -> bool,
    ) -> HeartbeatRaw {
        let deadline = Instant::now() + at_most;
        loop {
            let page = self.page();
            if holds(&page) {
                return page;
            }
            assert!(Instant::now() < deadline, "not within {at_most:?}: {page:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn fault(&self) -> FaultRaw {
        self.page().fault.unwrap()
    }
}

/// Load on a server.
pub fn load(url: &str, more: &[&str]) -> Killed {
    let child = Command::new(STALLSCOPE)
        .args(["load", url, "--json"])
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    Killed(child)
}

/// What `stallscope …` printed, and how it ended.
#[derive(Debug)]
pub struct Printed {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Printed {
    pub fn lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The last line of this type.
    pub fn last(&self, kind: &str) -> Option<Value> {
        self.lines().into_iter().rfind(|line| line["type"] == kind)
    }

    /// Verdicts that name a stall.
    pub fn stalls(&self) -> usize {
        let healthy = |line: &Value| line["cause"].as_str().unwrap().starts_with("healthy-");
        self.lines().iter().filter(|line| line["type"] == "verdict" && !healthy(line)).count()
    }

    pub fn count(&self, kind: &str) -> usize {
        self.lines().iter().filter(|line| line["type"] == kind).count()
    }
}

/// Runs `stallscope` to its end.
pub fn stallscope(args: &[&str]) -> Printed {
    let mut child = Command::new(STALLSCOPE)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut err = child.stderr.take().unwrap();
    let stderr = std::thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).unwrap();
        text
    });
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    let status = child.wait().unwrap();
    Printed { status: status.code().unwrap_or(-1), stdout, stderr: stderr.join().unwrap() }
}
