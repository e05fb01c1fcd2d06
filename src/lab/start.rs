//! How the processes of a run are told what to do, and how they answer.
#![expect(clippy::disallowed_methods, reason = "this is where a victim's truth is read")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ChildStdout;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use serde::Deserialize;
use stallscope_probes::heartbeat::{self, PageReader};
use stallscope_probes::process::identity;

use super::catalogue::Victim;
use super::victims::Truth;

/// A victim that does not listen by then never will: the embedded Kafka takes a few seconds.
pub(super) const READY_MAX: Duration = Duration::from_secs(30);
/// How long between two looks at whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a victim says of itself once it listens.
#[derive(Debug, Deserialize)]
pub(super) struct Ready {
    /// Its pid.
    pub(super) pid: i32,
    /// Where it listens; `None` when it does not.
    pub(super) url: Option<String>,
}

/// Waits for the line in which a victim says that it is ready.
///
/// # Errors
/// When it does not come, or says something else.
pub(super) fn await_ready(stdout: ChildStdout, stop: &AtomicBool) -> anyhow::Result<Ready> {
    let (lines, ready) = channel();
    // The rest is read too, so that the victim never waits for a reader.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            lines.send(line).ok();
        }
    });
    let deadline = Instant::now() + READY_MAX;
    loop {
        ensure!(!stop.load(Ordering::Relaxed), "interrupted");
        match ready.recv_timeout(LOOK_EVERY) {
            Ok(line) => {
                return serde_json::from_str(&line).with_context(|| format!("it said: {line}"));
            }
            Err(RecvTimeoutError::Disconnected) => bail!("it ended at once"),
            Err(RecvTimeoutError::Timeout) if Instant::now() > deadline => {
                bail!("it said nothing within {} s", READY_MAX.as_secs())
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Where a victim writes down its fault.
#[derive(Debug)]
pub(super) enum TruthSource {
    /// A line in one of these files: that of the victim, and those of its clients, since it may be
    /// a client whom the fault befalls.
    Files(Vec<PathBuf>),
    /// Its heartbeat page.
    Page(PageReader),
}

impl TruthSource {
    /// The page of process `pid`.
    ///
    /// # Errors
    /// When it keeps none.
    pub(super) fn page(pid: i32) -> anyhow::Result<Self> {
        let proc_root = Path::new("/proc");
        let known = identity(proc_root, pid);
        let known = known.got().ok_or_else(|| anyhow!("the victim is gone"))?;
        match heartbeat::find(proc_root, pid, known.start_time_ticks) {
            stallscope_probes::Reading::Got(page) => Ok(Self::Page(page)),
            stallscope_probes::Reading::Absent(absence) => bail!("{}", absence.detail),
        }
    }

    /// The fault, once it has been written down.
    pub(super) fn read(&self) -> Option<Truth> {
        match self {
            Self::Files(paths) => paths
                .iter()
                .find_map(|path| serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()),
            Self::Page(page) => {
                let fault = page.read().got()?.fault?;
                Some(Truth { cause: fault.fault.id().to_owned(), begin_ns: fault.begin_ns })
            }
        }
    }
}

/// The command line of `victim`.
pub(super) fn victim(victim: Victim, after: Duration, truth: &Path, seed: u64) -> Vec<String> {
    let after_ms = after.as_millis();
    let mut line: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| line.extend(words.iter().map(|&word| word.to_owned()));
    match victim {
        Victim::Lab(name) => {
            add(&["lab-victim", name, "--after", &format!("{after_ms}ms")]);
            add(&["--truth", &truth.to_string_lossy(), "--seed", &seed.to_string()]);
        }
        Victim::Serve(given) => {
            add(&["serve"]);
            let mut before = "";
            for &word in given {
                let is_fault = before == "--fault" && !word.contains('@');
                let timed = format!("{word}@{}.{:03}", after_ms / 1_000, after_ms % 1_000);
                add(&[if is_fault { &timed } else { word }]);
                before = word;
            }
            add(&["--listen", "127.0.0.1:0", "--kafka", "embedded", "--json"]);
        }
    }
    line
}

/// The command line of a load.
pub(super) fn http(
    url: &str,
    connections: u32,
    rate: Option<u32>,
    close: bool,
    at_most: Duration,
) -> Vec<String> {
    let mut line: Vec<String> = ["load", url, "--json", "--connections"].map(str::to_owned).into();
    line.push(connections.to_string());
    line.extend([String::from("--for"), format!("{}ms", at_most.as_millis())]);
    if let Some(rate) = rate {
        line.extend([String::from("--rate"), rate.to_string()]);
    }
    if close {
        line.push(String::from("--close"));
    }
    line
}

/// The command line of a client of the lab's own.
///
/// # Errors
/// When the victim has not said where it listens.
pub(super) fn client(
    name: &str,
    url: &str,
    after: Duration,
    truth: &Path,
    seed: u64,
) -> anyhow::Result<Vec<String>> {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    ensure!(!address.is_empty(), "the victim did not say where it listens");
    let mut line: Vec<String> =
        ["lab-victim", name, "--connect", address].map(str::to_owned).into();
    line.extend([String::from("--after"), format!("{}ms", after.as_millis())]);
    line.extend([String::from("--truth"), truth.to_string_lossy().into_owned()]);
    line.extend([String::from("--seed"), seed.to_string()]);
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(victim: Victim) -> String {
        super::victim(victim, Duration::from_millis(2_025), Path::new("/t"), 9).join(" ")
    }

    #[test]
    fn victims_are_told_when_to_stall() {
        assert_eq!(line(Victim::Lab("deaf")), "lab-victim deaf --after 2025ms --truth /t --seed 9");
        let common = "--listen 127.0.0.1:0 --kafka embedded --json";
        assert_eq!(
            line(Victim::Serve(&["tokio", "--fault", "runtime-blocked"])),
            format!("serve tokio --fault runtime-blocked@2.025 {common}")
        );
        assert_eq!(line(Victim::Serve(&["tokio-uring"])), format!("serve tokio-uring {common}"));
    }

    #[test]
    fn loads_and_clients_are_told_where_to_go() {
        let load = http("http://127.0.0.1:5/", 8, Some(20), true, Duration::from_secs(3));
        assert_eq!(
            load.join(" "),
            "load http://127.0.0.1:5/ --json --connections 8 --for 3000ms --rate 20 --close"
        );
        let after = Duration::from_millis(1_500);
        let told = client("flood", "http://127.0.0.1:5/", after, Path::new("/t"), 7).unwrap();
        assert_eq!(
            told.join(" "),
            "lab-victim flood --connect 127.0.0.1:5 --after 1500ms --truth /t --seed 7"
        );
        assert!(client("flood", "", after, Path::new("/t"), 7).is_err());
    }

    #[test]
    fn a_truth_is_read_once_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("truth.json");
        let source = TruthSource::Files(vec![folder.path().join("no-file"), path.clone()]);
        for text in ["", "{\"cause\":\"x\""] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(source.read(), None);
        }
        std::fs::write(&path, "{\"cause\":\"x\",\"begin_ns\":5}\n").unwrap();
        assert_eq!(source.read(), Some(Truth { cause: String::from("x"), begin_ns: 5 }));
    }
}
