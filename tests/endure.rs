//! The soak of the servers end to end: a short one that holds, what it leaves, and its early end.
#![cfg(feature = "servers")]
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests run processes and read their files, and fail by panicking"
)]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn endure(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stallscope"));
    command.args(["lab", "endure"]).args(arguments).stdin(Stdio::null());
    command
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Processes whose command line holds `text`: each soak has a folder of its own, named in its
/// watcher's.
fn left_running(text: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(text)).count()
}

fn page(server: &Value) -> std::path::PathBuf {
    server["heartbeat"].as_str().unwrap().into()
}

fn first_line(file: &Path) -> Option<Value> {
    serde_json::from_str(std::fs::read_to_string(file).ok()?.lines().next()?).ok()
}

#[test]
fn a_short_soak_holds_and_leaves_its_figures() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let line = "--stack tokio --time 14s --warm-up 2s --client mixed --connections 9 --ack delivery \
                --json --out";
    let mut arguments: Vec<&str> = line.split_whitespace().collect();
    // Without optimisation and beside other tests, what a heap does in seconds is no matter.
    arguments.extend([out, "--rss-change", "100", "--", "--tuning", "tuned"]);
    let output = endure(&arguments).output().unwrap();
    let whole = json(&output);
    assert_eq!(output.status.code(), Some(0), "{whole:#}");
    assert_eq!(whole["fine"], true);
    let tokio = &whole["stacks"][0];
    let outcome = |finding: &Value| finding["outcome"].as_str().unwrap().to_owned();
    let findings = tokio["findings"].as_array().unwrap();
    assert_eq!(findings.iter().map(outcome).collect::<Vec<_>>(), ["held"; 5]);
    let figures = &tokio["figures"];
    let server = figures["server"].as_str().unwrap();
    assert!(server.contains("--ack delivery") && server.ends_with("--tuning tuned"), "{server}");
    let acknowledged = figures["told"]["acknowledged"].as_u64().unwrap();
    assert!(acknowledged > 100, "{figures:#}");
    assert!(figures["end"]["delivered"].as_u64().unwrap() >= acknowledged);
    assert!(figures["points"].as_array().unwrap().len() >= 10);
    let saved: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("endure.json")).unwrap()).unwrap();
    assert_eq!(saved, whole);
    let page = std::fs::read_to_string(folder.path().join("endure.md")).unwrap();
    assert!(page.contains("- memory: held: "), "{page}");
    assert_eq!(left_running(out), 0);
}

#[test]
fn a_server_that_will_not_start_is_said_and_is_no_pass() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let arguments = ["--stack", "tokio", "--time", "5s", "--warm-up", "1s", "--out", out, "--"];
    let output = endure(&arguments).arg("--no-such-option").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("tokio: the server ended at once"), "{text}");
    assert!(text.contains("--no-such-option"), "{text}");
}

/// A server that stalls on purpose is not passed.
#[test]
fn a_stall_breaks_the_soak() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let arguments = ["--stack", "tokio", "--time", "9s", "--warm-up", "1s", "--json", "--out", out];
    let fault = ["--", "--fault", "runtime-blocked@3+3"];
    let output = endure(&arguments).args(fault).output().unwrap();
    let whole = json(&output);
    assert_eq!((output.status.code(), &whole["fine"]), (Some(3), &Value::from(false)), "{whole:#}");
    let findings = whole["stacks"][0]["findings"].as_array().unwrap();
    let broken = findings.iter().filter(|finding| finding["outcome"] == "broken");
    let broken: Vec<_> = broken.map(|finding| finding["rule"].as_str().unwrap()).collect();
    assert_eq!(broken, ["stalls", "answers"], "{whole:#}");
}

#[test]
fn an_interrupt_ends_everything_that_was_started() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let arguments = ["--stack", "tokio,tokio-uring", "--together", "--time", "10m", "--out", out];
    let mut soak = endure(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    let stacks = ["tokio", "tokio-uring"].map(|stack| folder.path().join(stack));
    while !stacks.iter().all(|stack| stack.join("load-keep-alive.json").exists()) {
        assert!(Instant::now() < deadline, "the load never began");
        std::thread::sleep(Duration::from_millis(20));
    }
    let servers = stacks.map(|stack| first_line(&stack.join("server.jsonl")).unwrap());
    assert!(servers.iter().all(|server| page(server).exists()));
    let asked = Instant::now();
    kill_process(Pid::from_child(&soak), Signal::INT).unwrap();
    assert_eq!(soak.wait().unwrap().code(), Some(1));
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    assert_eq!(left_running(out), 0);
    for server in &servers {
        assert!(!Path::new(&format!("/proc/{}", server["pid"])).exists());
        assert!(!page(server).exists(), "its page went with it");
    }
    let page = std::fs::read_to_string(folder.path().join("endure.md")).unwrap();
    assert!(page.contains("interrupted"), "{page}");
}
