//! `lab bench` end to end: two stacks and two rounds, gone on with, and read; a server of one's own,
//! one that loses what it has acknowledged.
#![cfg(feature = "servers")]
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests run processes and read their files, and fail by panicking"
)]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Killed, STALLSCOPE, alone};

#[derive(Debug)]
struct Printed {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Printed {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A bench of runs that are as short as they may be.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(STALLSCOPE);
    command.args(["lab", "bench", "--time", "1s", "--warm-up", "200ms", "--client", "keep-alive"]);
    command.args(args).stdin(Stdio::null());
    command
}

fn bench(args: &[&str]) -> Printed {
    let output = command(args).output().unwrap();
    Printed {
        status: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Processes whose command line holds `text`.
fn left_running(text: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(text)).collect()
}

fn median(cell: &Value, figure: &str) -> f64 {
    cell["figures"][figure]["median"].as_f64().unwrap_or_else(|| panic!("{figure}: {cell:#}"))
}

#[test]
fn two_stacks_in_turns_kept_and_gone_on_with() {
    let _turn = alone();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let args = ["--stack", "tokio,tokio-hyper", "--out", out, "--json"];
    let printed = bench(&[&args[..], &["--rounds", "1"]].concat());
    let study = printed.json();
    assert_eq!((printed.status, &study["fine"]), (0, &Value::Bool(true)), "{study:#}");
    assert!(printed.stderr.contains("2 cells × 1 rounds = 2 runs, about"), "{}", printed.stderr);
    for file in ["bench.md", "bench.json", "bench.html", "runs.jsonl"] {
        assert!(folder.path().join(file).is_file(), "{file}");
    }
    for cell in study["cells"].as_array().unwrap() {
        assert!(median(cell, "requests_per_s") > 100.0);
        assert!(median(cell, "cpu_us_per_request") > 1.0);
        assert!(median(cell, "connection_bytes") >= 0.0);
        // What was under way as a load ended may be there too.
        let acknowledged = cell["acknowledged"].as_u64().unwrap();
        assert!(acknowledged > 100 && cell["in_kafka"].as_u64().unwrap() >= acknowledged);
        let command = cell["server_command"].as_str().unwrap();
        assert!(command.starts_with("(ulimit -n 1024 && exec stallscope serve tokio"), "{command}");
    }

    // Without --resume nothing of it is touched; with it, what is there stays, a torn line does not.
    let refused = bench(&[&args[..], &["--rounds", "1"]].concat());
    assert_eq!((refused.status, refused.stdout.as_str()), (1, ""));
    assert!(refused.stderr.contains("go on with them by --resume"), "{}", refused.stderr);
    let runs = folder.path().join("runs.jsonl");
    let whole = std::fs::read_to_string(&runs).unwrap();
    std::fs::write(&runs, &whole[..whole.len() - 20]).unwrap();
    let printed = bench(&[&args[..], &["--rounds", "2", "--resume"]].concat());
    let again = printed.json();
    assert_eq!(printed.status, 0, "{again:#}");
    let runs = again["runs"].as_array().unwrap();
    let rounds: Vec<u64> = runs.iter().map(|run| run["round"].as_u64().unwrap()).collect();
    assert_eq!(rounds, [0, 0, 1, 1]);
    assert_eq!(again["runs"][0], study["runs"][0], "the first run was not run again");
    assert_ne!(again["runs"][1], study["runs"][1], "the torn one was");
    assert!(again["notes"].to_string().contains("torn"), "{}", again["notes"]);
    assert_eq!(again["cells"][1]["figures"]["requests_per_s"]["ratio_to_baseline"]["rounds"], 2);
    assert_eq!(left_running(out), Vec::<String>::new());
}

/// Answers everything with 202, and does nothing with it.
const LIAR: &str = r#"
import socket, sys, threading
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=256)
def serve(connection):
    while connection.recv(65536):
        connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

#[test]
fn a_server_of_ones_own_that_loses_events_is_found_out() {
    let _turn = alone();
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("liar.py");
    std::fs::write(&script, LIAR).unwrap();
    let script = script.to_str().unwrap();
    let out = folder.path().join("out");
    let server = format!("liar=python3 {script} {{port}} {{kafka}} {{topic}}");
    let args = ["--server", &server, "--rounds", "1", "--idle-connections", "0", "--saturation"];
    let more = ["--step", "200ms", "--out", out.to_str().unwrap(), "--json"];
    let printed = bench(&[&args[..], &more].concat());
    let study = printed.json();
    assert_eq!((printed.status, &study["fine"]), (1, &Value::Bool(false)), "{study:#}");
    let cell = &study["cells"][0];
    assert_eq!((&cell["axes"]["server"], &cell["axes"]["kafka"]), (&"liar".into(), &"mock".into()));
    assert_eq!(cell["in_kafka"], 0);
    assert!(cell["problems"].to_string().contains("events are lost"), "{cell:#}");
    assert!(median(cell, "requests_per_s") > 10.0 && median(cell, "saturation_per_s") > 10.0);
    assert!(cell["figures"]["connection_bytes"]["absent"].is_string());
    assert_eq!(left_running(script), Vec::<String>::new());
}

/// Answers for a second, and then never.
const HANGS: &str = r#"
import socket, sys, threading, time
begun = time.monotonic()
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128)
def serve(client):
    while client.recv(65536):
        if time.monotonic() - begun > 1:
            time.sleep(600)
        client.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

#[test]
fn a_server_that_answers_no_more_is_not_measured() {
    let _turn = alone();
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("hangs.py");
    std::fs::write(&script, HANGS).unwrap();
    let (script, out) = (script.to_str().unwrap(), folder.path().join("out"));
    let server = format!("hangs=python3 {script} {{port}}");
    let args = ["--server", &server, "--rounds", "1", "--idle-connections", "0", "--kafka", "none"];
    let more = ["--out", out.to_str().unwrap(), "--json"];
    let printed = bench(&[&args[..], &more].concat());
    let study = printed.json();
    assert_eq!((printed.status, &study["fine"]), (1, &Value::Bool(false)), "{study:#}");
    let cell = &study["cells"][0];
    assert_eq!((&cell["runs_measured"], &cell["runs_failed"]), (&0.into(), &1.into()), "{cell:#}");
    assert!(cell["problems"].to_string().contains("answer"), "{cell:#}");
    assert_eq!(left_running(script), Vec::<String>::new());
}

#[test]
fn servers_that_do_not_work_are_said_and_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let server = "broken=sh -c 'echo no such luck >&2; exit 3' {port}";
    let printed = bench(&["--server", server, "--rounds", "3", "--out", out, "--json"]);
    let study = printed.json();
    assert_eq!((printed.status, &study["missing_runs"]), (1, &Value::from(1)), "{study:#}");
    let cell = &study["cells"][0];
    assert_eq!((&cell["runs_measured"], &cell["runs_failed"]), (&0.into(), &2.into()));
    assert!(cell["problems"].to_string().contains("it said: no such luck"), "{cell:#}");
    assert!(study["notes"].to_string().contains("given up after 2 failures"), "{study:#}");
}

#[test]
fn an_interrupt_ends_everything_and_keeps_what_is_over() {
    use rustix::process::{Pid, Signal, kill_process};
    let _turn = alone();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let mut running = command(&["--stack", "tokio", "--rounds", "9", "--out", out]);
    let running = running.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut running = Killed(running);
    let runs = folder.path().join("runs.jsonl");
    let kept = |runs: &Path| std::fs::metadata(runs).map_or(0, |file| file.len());
    let deadline = Instant::now() + Duration::from_mins(2);
    while kept(&runs) == 0 {
        assert!(Instant::now() < deadline, "no run came to its end");
        std::thread::sleep(Duration::from_millis(20));
    }
    kill_process(Pid::from_child(&running.0), Signal::INT).unwrap();
    assert_eq!(running.ended(Duration::from_secs(30)).code(), Some(1));
    assert_eq!(left_running(out), Vec::<String>::new());
    let text = std::fs::read_to_string(&runs).unwrap();
    assert!(text.ends_with('\n') && text.lines().count() < 9);
    assert!(folder.path().join("bench.html").is_file());
}

/// Wrong usage: status 2, nothing on stdout, and words that tell what is wrong.
#[test]
fn what_cannot_be_compared_is_refused() {
    let cases: [(&[&str], &str); 12] = [
        (&["--stack", "nginx"], "[possible values: tokio"),
        (&["--kafka", "broker"], "write it like none, embedded, mock, remote or host:9092"),
        (&["--server", "x"], "write it like 'name=COMMAND'"),
        (&["--server", "x=./server"], "the command has no {port}"),
        (&["--server", "a=x {port}", "--server", "a=y {port}"], "two servers are called a"),
        (&["--rounds", "0"], "0 is not in 1..=1000"),
        (&["--step", "1s"], "--saturation"),
        (&["--step", "1ms", "--saturation"], "1ms cannot be measured"),
        (&["--fd-limit", "1"], "1 is not in 64.."),
        (&["--fd-limit", "1073741824"], "raise the hard limit (ulimit -Hn)"),
        (&["--baseline", "nobody"], "no cell is called nobody: there are tokio"),
        (&["--resume"], "--out <FOLDER>"),
    ];
    for (args, words) in cases {
        let printed = bench(args);
        assert_eq!((printed.status, printed.stdout.as_str()), (2, ""), "{args:?}: {printed:?}");
        assert!(printed.stderr.contains(words), "{args:?}: {}", printed.stderr);
    }
    let plan = bench(&["--dry-run", "--connections", "8,16"]);
    assert_eq!((plan.status, plan.stderr.as_str()), (0, ""));
    assert!(plan.stdout.starts_with("4 cells × 5 rounds = 20 runs, about "), "{plan:?}");
}
