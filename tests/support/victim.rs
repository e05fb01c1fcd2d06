//! Victims (`probes/examples/victim`), and the real watcher on them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Killed, Printed, STALLSCOPE};

/// Longer than anything here takes on a busy machine; whoever waits so long has failed.
pub const AT_MOST: Duration = Duration::from_secs(10);

/// The victim's program. `cargo test` on this file alone does not build it, so it is built here,
/// with the features that this build has: then it is the one `cargo test --workspace` has built.
pub fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--workspace", "--example", "victim", "--offline", "--locked", "-q"]);
        if !cfg!(feature = "servers") {
            cargo.arg("--no-default-features");
        }
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
        assert!(built.success(), "the victim cannot be built");
        Path::new(STALLSCOPE).with_file_name("examples").join("victim")
    });
    &PROGRAM
}

/// Looks until `holds`; panics when that takes longer than `at_most`.
#[track_caller]
pub fn until(what: &str, at_most: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + at_most;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {at_most:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A running victim.
#[derive(Debug)]
pub struct Victim {
    pub child: Killed,
    pub port: u16,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Victim {
    pub fn start(args: &[&str]) -> Self {
        Self::started_by(Command::new(program()).args(args))
    }

    /// By a command that becomes the victim in the end.
    pub fn started_by(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut victim = Self { child: Killed(child), port: 0, stdin, lines };
        victim.port = victim.said("listening").parse().unwrap();
        victim
    }

    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// Waits for the line that begins with `word`; what follows that.
    #[track_caller]
    pub fn said(&self, word: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(AT_MOST).unwrap();
            if let Some((_, rest)) = line.split_once(' ').filter(|(first, _)| *first == word) {
                return rest.to_owned();
            }
        }
    }

    /// Makes it do what its mode does.
    pub fn act(&mut self) {
        self.stdin.write_all(b"\n").unwrap();
    }

    /// A client that has sent something.
    #[track_caller]
    pub fn client(&self) -> TcpStream {
        let mut client = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        client.set_read_timeout(Some(AT_MOST)).unwrap();
        client.write_all(b"there?").unwrap();
        client
    }

    /// A client comes, is served, and goes; the server knows that it went.
    #[track_caller]
    pub fn serves(&self) {
        let mut client = self.client();
        answered(&mut client);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "the server closes too");
    }

    /// What of `/proc/PID/…` there is to read.
    pub fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.pid())).unwrap()
    }

    pub fn fds(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }
}

/// Waits for the answer.
#[track_caller]
pub fn answered(client: &mut TcpStream) {
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"there?");
}

/// Whether nothing listens on the port: `SO_REUSEADDR`, which std sets, forgives all but a
/// listener.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// `stallscope watch --headless --samples` on a process.
#[derive(Debug)]
pub struct Watcher {
    child: Killed,
    samples: Receiver<Value>,
    last: Mutex<Value>,
    others: std::thread::JoinHandle<String>,
    stderr: std::thread::JoinHandle<String>,
}

impl Watcher {
    /// Begins to watch; returns after the first sample.
    pub fn start(pid: i32, interval: &str, more: &[&str]) -> Self {
        Self::started_by(Command::new(STALLSCOPE).args(watch_args(pid, interval)).args(more))
    }

    /// By a command that becomes the watcher in the end.
    pub fn started_by(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdout, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (sender, samples) = channel();
        let others = std::thread::spawn(move || {
            let mut others = String::new();
            for line in BufReader::new(stdout).lines() {
                let line = line.unwrap();
                // Text that could move a cursor never leaves the JSON.
                assert!(!line.chars().any(char::is_control), "{line:?}");
                let value: Value = serde_json::from_str(&line).unwrap();
                if value["type"] == "sample" {
                    sender.send(value).ok();
                } else {
                    others.push_str(&line);
                    others.push('\n');
                }
            }
            others
        });
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            err.read_to_string(&mut text).unwrap();
            text
        });
        let last = Mutex::new(Value::Null);
        let watcher = Self { child: Killed(child), samples, last, others, stderr };
        watcher.next();
        watcher
    }

    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// Waits for the next sample; `None` when there will be none.
    pub fn next(&self) -> Option<Value> {
        match self.samples.recv_timeout(AT_MOST) {
            Ok(sample) => {
                *self.last.lock().unwrap() = sample["model"].clone();
                Some(sample["model"].clone())
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no sample within {AT_MOST:?}"),
        }
    }

    /// Takes samples until one `holds`.
    #[track_caller]
    pub fn sees(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + AT_MOST;
        while let Some(model) = self.next() {
            if holds(&model) {
                return model;
            }
            assert!(Instant::now() < deadline, "never seen: {what}, but {model:#}");
        }
        panic!("the watch ended, and never saw: {what}; last: {:#}", self.last.lock().unwrap());
    }

    /// Whether it has a ring's memory mapped.
    pub fn maps_a_ring(&self) -> bool {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid())).unwrap();
        maps.contains("anon_inode:[io_uring]")
    }

    /// Ends it as Ctrl-C does.
    pub fn interrupted(self) -> (Printed, Vec<Value>) {
        signal(self.pid(), Signal::INT);
        self.ended()
    }

    /// Ends it as nobody should.
    pub fn killed(mut self) {
        self.child.0.kill().unwrap();
        self.child.0.wait().unwrap();
    }

    /// Waits for its end: what it printed but the samples, and the samples not yet taken.
    pub fn ended(mut self) -> (Printed, Vec<Value>) {
        let status = self.child.ended(AT_MOST).code().unwrap_or(-1);
        let stdout = self.others.join().unwrap();
        let printed = Printed { status, stdout, stderr: self.stderr.join().unwrap() };
        (printed, self.samples.try_iter().map(|sample| sample["model"].clone()).collect())
    }
}

/// The arguments to watch `pid`.
pub fn watch_args(pid: i32, interval: &str) -> Vec<String> {
    let pid = pid.to_string();
    let args = ["watch", "--headless", "--samples", "--pid", &pid, "--interval", interval];
    args.map(str::to_owned).to_vec()
}

pub fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}
