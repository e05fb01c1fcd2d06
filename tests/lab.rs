//! The lab end to end: a stall that must be found both ways, a healthy twin that must stay silent, and
//! what it leaves behind.
#![cfg(feature = "servers")]
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests run processes and read their files, and fail by panicking"
)]

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

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

fn lab(args: &[&str]) -> Printed {
    let output = Command::new(env!("CARGO_BIN_EXE_stallscope"))
        .arg("lab")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Printed {
        status: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Processes whose command line holds `text`: each run has a folder of its own, named in them.
fn left_running(text: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(text)).collect()
}

fn record(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("run.json")).unwrap()).unwrap()
}

#[test]
fn a_stall_is_found_both_ways_and_a_twin_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let only = "serve-sq-not-flushed,serve-tokio-healthy";
    let printed = lab(&["matrix", "--json", "--only", only, "--out", out]);
    let matrix = printed.json();
    assert_eq!(printed.status, 0, "{matrix:#}");
    assert_eq!(
        (matrix["fine"].as_bool(), matrix["summary"]["total"]["right"].as_u64()),
        (Some(true), Some(4))
    );

    let stall = folder.path().join("serve-sq-not-flushed/0");
    let run = record(&stall);
    assert_eq!(run["truth"]["cause"], "sq-not-flushed");
    assert!(run["ways"][0]["onset_error_ms"].as_f64().unwrap().abs() <= 250.0, "{run:#}");
    for file in ["truth.json", "victim.log", "load-0.json"] {
        assert!(stall.join(file).is_file(), "{file}");
    }
    for way in ["before", "after"] {
        for ending in ["stallrec", "json", "jsonl", "html"] {
            assert!(stall.join(way).with_extension(ending).is_file(), "{way}.{ending}");
        }
        let verdicts: Value =
            serde_json::from_slice(&std::fs::read(stall.join(way).with_extension("json")).unwrap())
                .unwrap();
        let last = verdicts.as_array().unwrap().last().unwrap();
        assert_eq!(last["cause"], "sq-not-flushed");
        assert_eq!(last["before_watch"], way == "after");
    }
    let load: Value =
        serde_json::from_slice(&std::fs::read(stall.join("load-0.json")).unwrap()).unwrap();
    assert!(load["responses"].as_u64().unwrap() > 0, "there was load before the stall");
    assert!(
        std::fs::read_to_string(folder.path().join("matrix.html"))
            .unwrap()
            .contains("4 of 4 right")
    );
    assert_eq!(left_running(out), Vec::<String>::new());

    // Everything is there already: this takes no time, and says the same.
    let again = lab(&["matrix", "--json", "--resume", "--only", only, "--out", out]);
    assert_eq!(again.json()["runs"], matrix["runs"]);
}

#[test]
fn an_interrupt_ends_everything_that_was_started() {
    use rustix::process::{Pid, Signal, kill_process};
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let mut running = Command::new(env!("CARGO_BIN_EXE_stallscope"))
        .args(["lab", "run", "serve-sq-not-flushed", "--out", out])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    let watched = |folder: &Path| {
        std::fs::metadata(folder.join("before.jsonl")).is_ok_and(|file| file.len() > 0)
    };
    while !watched(folder.path()) {
        assert!(std::time::Instant::now() < deadline, "it never began to watch");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let victim = std::fs::read_to_string(folder.path().join("before.jsonl")).unwrap();
    let victim: Value = serde_json::from_str(victim.lines().next().unwrap()).unwrap();
    let victim = victim["pid"].as_i64().unwrap();
    kill_process(Pid::from_child(&running), Signal::INT).unwrap();
    let status = running.wait().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(!Path::new(&format!("/proc/{victim}")).exists(), "the victim lives");
    assert_eq!(left_running(out), Vec::<String>::new());
    assert!(record(folder.path())["ways"][0]["why"].as_str().unwrap().contains("interrupted"));
}

#[test]
fn a_wrong_name_is_answered_with_near_ones() {
    for args in [&["run", "serve-runtime-block"][..], &["matrix", "--only", "serve-runtime-block"]]
    {
        let printed = lab(args);
        assert_eq!((printed.status, printed.stdout.as_str()), (1, ""));
        assert!(printed.stderr.contains("did you mean serve-runtime-blocked"), "{printed:?}");
    }
    let list = lab(&["list", "--json"]).json();
    let names = list.as_array().unwrap();
    assert!(names.iter().any(|scenario| scenario["name"] == "serve-runtime-blocked"));
    assert_eq!(lab(&["list"]).stdout.lines().count(), names.len() + 1);
}
