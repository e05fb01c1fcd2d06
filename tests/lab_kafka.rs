//! The victims of Kafka: each serves, then its fault takes hold, it says so itself, and nobody is
//! answered any more. The twins go on.
#![cfg(feature = "servers")]
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is the one who waits"
)]

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use stallscope::lab::victims::Truth;

const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(30);

struct Victim {
    child: Child,
    address: SocketAddr,
    truth: PathBuf,
}

impl Victim {
    fn start(name: &str, after: &str, folder: &Path) -> Self {
        let truth = folder.join(format!("{name}.json"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_stallscope"))
            .args(["lab-victim", name, "--after", after, "--truth"])
            .arg(&truth)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        let url = ready["url"].as_str().unwrap();
        let address = url.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
        Self { child, address, truth }
    }

    fn truth(&self) -> Option<Truth> {
        // A twin does not even make the file.
        serde_json::from_str(&std::fs::read_to_string(&self.truth).ok()?).ok()
    }

    /// Asks on a connection of its own; whether `200 ok` comes within `patience`.
    fn answers(&self, patience: Duration) -> bool {
        let mut client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(patience)).unwrap();
        client.write_all(b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        let mut answer = [0; 39];
        match client.read_exact(&mut answer) {
            Ok(()) => {
                assert_eq!(&answer[..], &b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"[..39]);
                true
            }
            Err(error) => {
                let timed_out = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                assert!(timed_out, "{error}");
                false
            }
        }
    }

    /// Processes it has started.
    fn children(&self) -> Vec<PathBuf> {
        let pid = self.child.id();
        let children = format!("/proc/{pid}/task/{pid}/children");
        let children = std::fs::read_to_string(children).unwrap();
        children.split_whitespace().map(|pid| Path::new("/proc").join(pid)).collect()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < LONG, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Serves until its fault, and nobody after it. The last request of a closed loop is the one that
/// gets stuck: where a handler blocks the runtime's thread, it is the one to begin the stall.
fn serves_and_then_stalls(name: &str, cause: &str, serves_first: bool) {
    let folder = tempfile::tempdir().unwrap();
    let victim = Victim::start(name, "1500ms", folder.path());
    if serves_first {
        assert!(victim.answers(LONG), "{name} serves before its fault");
        assert_eq!(victim.truth(), None, "{name}");
    }
    let children = victim.children();
    eventually("the fault takes hold", || victim.truth().is_some() || !victim.answers(SHORT));
    eventually("the truth is written", || victim.truth().is_some());
    assert_eq!(victim.truth().unwrap().cause, cause, "{name}");
    eventually("a request finds the stall", || !victim.answers(SHORT));
    assert!(!victim.answers(SHORT), "{name} stays stalled");
    drop(victim);
    eventually("its broker ends with it", || children.iter().all(|child| !child.exists()));
}

#[test]
fn victims_of_a_broker_that_dies_or_vanishes() {
    for name in ["kafka-killed", "kafka-vanished", "kafka-small-queue", "kafka-chain"] {
        serves_and_then_stalls(name, "kafka-unreachable", true);
    }
    serves_and_then_stalls("kafka-never-there", "kafka-unreachable", false);
}

#[test]
fn victims_of_a_broker_that_is_slow() {
    for name in ["kafka-late", "kafka-broker-stopped"] {
        serves_and_then_stalls(name, "kafka-slow", true);
    }
}

#[test]
fn victims_of_polling_that_is_wrong() {
    serves_and_then_stalls("kafka-not-polled", "kafka-not-polled", true);
    serves_and_then_stalls("kafka-flush", "runtime-blocked", true);
    serves_and_then_stalls("kafka-poll-uring", "runtime-blocked", true);
}

#[test]
fn twins_serve_and_write_no_truth() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "twin-server",
        "twin-server-uring",
        "twin-server-3s",
        "twin-server-cpu",
        "twin-server-pauses",
        "twin-server-kafka",
    ] {
        let victim = Victim::start(name, "1s", folder.path());
        for _ in 0..3 {
            assert!(victim.answers(LONG), "{name}");
        }
        assert_eq!(victim.truth(), None, "{name}");
    }
}
