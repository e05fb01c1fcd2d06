//! Bad days: targets that vanish, multiply, change under the eye, or lie about their names, and
//! watchers that may see little. The answer is a clear state and a documented exit status, never a
//! panic, and never a zero where nothing was read.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests run processes")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use support::victim::{self, AT_MOST, Victim, Watcher, answered, signal, until};
use support::{Printed, STALLSCOPE, stallscope};

const HEALTHY: i32 = 0;
const STALLED: i32 = 3;
/// uid and gid of `nobody`.
const NOBODY: &str = "65534";

/// Begins to watch; the interval is the usual one.
fn watch(victim: &Victim, more: &[&str]) -> Watcher {
    Watcher::start(victim.pid(), "50ms", more)
}

/// What holds of every run, whatever the day was like.
#[track_caller]
fn is_clear(printed: &Printed) {
    assert!(!printed.stderr.contains("panicked"), "{printed:?}");
    assert!([0, 1, 3].contains(&printed.status), "no documented status: {printed:?}");
    let said = printed.stderr.strip_prefix("stallscope: ");
    assert!(said.is_none_or(|said| said.trim_end().lines().count() == 1), "{printed:?}");
    let unknown = || printed.last("verdict").is_some_and(|verdict| verdict["cause"] == "unknown");
    let why = said.is_some() || (printed.status == 1 && unknown());
    assert_eq!(printed.status == 1, why, "an error says why: {printed:?}");
    // Text that could move a cursor never leaves the JSON.
    assert!(!printed.stdout.chars().any(|c| c.is_control() && c != '\n'), "{printed:?}");
}

/// `watch` has begun, ended for `reason`, and every line between is whole.
#[track_caller]
fn ended(printed: &Printed, reason: &str, status: i32) {
    is_clear(printed);
    assert_eq!(printed.status, status, "{printed:?}");
    let lines = printed.lines();
    assert_eq!(lines.first().unwrap()["type"], "target", "{printed:?}");
    assert_eq!(lines.last().unwrap()["type"], "end", "{printed:?}");
    assert_eq!(lines.last().unwrap()["reason"], reason, "{printed:?}");
}

/// Every reading is either had or says why not; what is absent has no value beside it.
fn readings(value: &Value, at: &str, absent: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(fields) => {
            if let Some(absence) = fields.get("absent") {
                assert_eq!(fields.len(), 1, "{at}: a value beside an absence: {value}");
                // The coarse view over a probe names the class, and says in `why` what a reading
                // says in `detail`.
                let coarse = absence.get("class").is_some();
                let told = if coarse { ["class", "why"] } else { ["why", "detail"] };
                for told in told {
                    let text = absence[told].as_str();
                    assert!(text.is_some_and(|text| !text.is_empty()), "{at}: no {told}: {value}");
                }
                if coarse {
                    return;
                }
                absent.push((at.to_owned(), absence.clone()));
                return;
            }
            for (name, field) in fields {
                readings(field, &format!("{at}.{name}"), absent);
            }
        }
        Value::Array(entries) => entries.iter().for_each(|entry| readings(entry, at, absent)),
        _ => {}
    }
}

/// What is absent in a sample, with its place in it.
fn absences(model: &Value) -> Vec<(String, Value)> {
    let mut absent = Vec::new();
    readings(model, "", &mut absent);
    absent
}

/// `diagnose` answers of it too, with this status.
#[track_caller]
fn diagnosed(victim: &Victim, status: i32) -> Value {
    let printed = stallscope(&["diagnose", "--json", "--pid", &victim.pid().to_string()]);
    is_clear(&printed);
    assert_eq!(printed.status, status, "{printed:?}");
    printed.last("verdict").unwrap()
}

#[test]
fn a_target_that_exits() {
    let mut victim = Victim::start(&["exit-soon"]);
    let watcher = watch(&victim, &[]);
    victim.act();
    let (printed, samples) = watcher.ended();
    ended(&printed, "target_gone", HEALTHY);
    for model in &samples {
        absences(model);
    }
}

#[test]
fn a_target_that_is_killed_while_it_is_stalled() {
    let mut victim = Victim::start(&["submit-error"]);
    let clients = [victim.client(), victim.client()];
    victim.said("stalled");
    let watcher = watch(&victim, &[]);
    watcher.sees("the lost submissions", |model| {
        let state = &model["rings"]["got"][0]["state"]["got"];
        state["sq_tail"].as_u64() > state["sq_head"].as_u64()
    });
    let verdict = diagnosed(&victim, STALLED);
    assert!(!verdict["evidence"].as_array().unwrap().is_empty(), "{verdict:#}");
    victim.child.0.kill().unwrap();
    victim.child.0.wait().unwrap();
    let (printed, _) = watcher.ended();
    assert_eq!(printed.last("end").unwrap()["reason"], "target_gone", "{printed:?}");
    is_clear(&printed);
    drop(clients);
}

/// The pid stays, all else goes: its rings, its listener, its name.
#[test]
fn a_target_that_becomes_another_program() {
    let mut victim = Victim::start(&["exec"]);
    let watcher = watch(&victim, &[]);
    watcher.sees("its listener", |model| count(&model["listeners"]) == Some(1));
    victim.act();
    until("it is another program", AT_MOST, || victim.proc("comm") == "sleep\n");
    watcher.sees("that there is no listener", |model| count(&model["listeners"]) == Some(0));
    watcher
        .sees("the new name", |model| model["threads"]["got"][0]["comm"].as_str() == Some("sleep"));
    let (printed, _) = watcher.interrupted();
    is_clear(&printed);
    assert_eq!(printed.last("end").unwrap()["reason"], "interrupted", "{printed:?}");
    diagnosed(&victim, HEALTHY);
}

fn count(reading: &Value) -> Option<usize> {
    Some(reading["got"].as_array()?.len())
}

/// A server that forks: its children share the socket, and are not the target.
#[test]
fn a_target_that_forks() {
    let victim = Victim::start(&["fork"]);
    let watcher = watch(&victim, &["--for", "2s"]);
    victim.serves();
    let mut seen = 0;
    while let Some(model) = watcher.next() {
        absences(&model);
        // The first samples may come before the first look at the listeners.
        if let Some(listeners) = model["listeners"]["got"].as_array() {
            assert_eq!(listeners[0]["holder"], "target", "{model:#}");
            seen += 1;
        }
    }
    assert!(seen > 0, "its listener was never looked at");
    ended(&watcher.ended().0, "time_up", HEALTHY);
    let port = victim.port.to_string();
    let printed = stallscope(&["diagnose", "--json", "--port", &port]);
    is_clear(&printed);
}

#[test]
fn a_ring_that_is_closed_and_rings_that_come_and_go() {
    let mut losing = Victim::start(&["ring-lost"]);
    let changing = Victim::start(&["ring-recreate"]);
    let watchers = [&losing, &changing].map(|victim| watch(victim, &["--for", "3s"]));
    losing.act();
    losing.said("closed");
    watchers[0].sees("that there is no ring", |model| count(&model["rings"]) == Some(0));
    for watcher in watchers {
        while let Some(model) = watcher.next() {
            absences(&model);
            for ring in model["rings"]["got"].as_array().into_iter().flatten() {
                let state = &ring["state"]["got"];
                // Counters of one ring, never of two: this one never has more than its entries.
                let gap = state["cq_tail"].as_u64().zip(state["cq_head"].as_u64());
                let within = gap.is_none_or(|(tail, head)| tail.wrapping_sub(head) <= 4);
                assert!(within, "{ring:#}");
            }
        }
        ended(&watcher.ended().0, "time_up", HEALTHY);
    }
    diagnosed(&losing, HEALTHY);
    diagnosed(&changing, HEALTHY);
}

#[test]
fn a_target_with_very_many_fds() {
    let victim = Victim::start(&["many-fds"]);
    let fds = victim.fds() as u64;
    let watcher = watch(&victim, &["--for", "2s"]);
    // A thread in accept4 has reserved an fd that has no file yet (net/socket.c): it is counted by
    // the size of /proc/PID/fd, and not listed.
    let all = |model: &Value| model["fds"]["got"]["open"].as_u64().unwrap_or(0);
    let model = watcher.sees("all its fds", |model| (fds..=fds + 1).contains(&all(model)));
    absences(&model);
    victim.serves();
    while watcher.next().is_some() {}
    let (printed, _) = watcher.ended();
    assert_eq!(printed.last("end").unwrap()["reason"], "time_up", "{printed:?}");
    is_clear(&printed);
    let verdict = diagnosed(&victim, HEALTHY);
    assert_eq!(verdict["cause"], "healthy-idle", "{verdict:#}");
}

#[test]
fn a_target_whose_threads_come_and_go() {
    let victim = Victim::start(&["threads", "100"]);
    let watcher = watch(&victim, &["--for", "2s"]);
    let mut most = 0;
    while let Some(model) = watcher.next() {
        absences(&model);
        // A thread that ended between two reads is left out, with no thread of zeros in its place.
        for thread in model["threads"]["got"].as_array().unwrap() {
            assert!(thread["tid"].as_i64().unwrap() > 0, "{thread:#}");
            assert!(!thread["comm"].as_str().unwrap().is_empty(), "{thread:#}");
        }
        most = most.max(count(&model["threads"]).unwrap());
    }
    assert_eq!(most, 64, "the bound of threads read");
    ended(&watcher.ended().0, "time_up", HEALTHY);
    diagnosed(&victim, HEALTHY);
}

#[test]
fn a_target_with_hostile_names() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(victim::program());
    let victim = Victim::started_by(command.arg("names").env("TMPDIR", folder.path()));
    let watcher = watch(&victim, &["--for", "1s"]);
    let model = watcher.next().unwrap();
    let comms: Vec<&str> = model["threads"]["got"]
        .as_array()
        .unwrap()
        .iter()
        .map(|thread| thread["comm"].as_str().unwrap())
        .collect();
    assert!(comms.iter().any(|comm| comm.contains("</script>\n")), "{comms:?}");
    assert!(comms.iter().any(|comm| comm.starts_with("\u{1b}[2J")), "{comms:?}");
    assert!(comms.iter().any(|comm| comm.contains('\u{9b}')), "{comms:?}");
    // Thread names may not break the line of `stat` they stand in.
    assert!(comms.iter().any(|comm| comm.starts_with("a) R 1 1 (")), "{comms:?}");
    while watcher.next().is_some() {}
    let (printed, _) = watcher.ended();
    ended(&printed, "time_up", HEALTHY);
    let target = printed.last("target").unwrap();
    assert!(target["cmdline"].as_str().unwrap().starts_with("\u{1b}[2J"), "{target:#}");

    // As text, and as a report: nothing of it is left that a terminal or a browser obeys.
    let pid = victim.pid().to_string();
    let text = stallscope(&["diagnose", "--pid", &pid]);
    is_clear(&text);
    let recording = folder.path().join("run.stallrec");
    let recording = recording.to_str().unwrap();
    let watched = ["watch", "--headless", "--for", "1s", "--pid", &pid, "--record", recording];
    assert_eq!(stallscope(&watched).status, HEALTHY);
    assert_eq!(stallscope(&["report", recording]).status, HEALTHY);
    let html = std::fs::read_to_string(folder.path().join("run.html")).unwrap();
    assert!(!html.contains('\u{1b}'), "an escape sequence in the report");
    assert!(!html.contains("</script><b>"), "a tag in the report");
}

#[test]
fn a_target_whose_program_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(victim::program());
    let victim = Victim::started_by(command.arg("deleted").env("TMPDIR", folder.path()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let watcher = watch(&victim, &["--for", "1s"]);
    while watcher.next().is_some() {}
    let (printed, _) = watcher.ended();
    ended(&printed, "time_up", HEALTHY);
    let target = printed.last("target").unwrap();
    let exe = target["exe"].as_str().unwrap();
    assert!(exe.contains("/victim-"), "{target:#}");
    diagnosed(&victim, HEALTHY);
}

/// The process that holds the socket of a stopped target is told apart from one that is gone.
#[test]
fn a_target_that_is_stopped_before_it_is_looked_at() {
    let victim = Victim::start(&["ring-fixed-listener"]);
    signal(victim.pid(), Signal::STOP);
    let mut client = victim.client();
    let verdict = diagnosed(&victim, STALLED);
    assert_eq!(verdict["cause"], "process-stopped", "{verdict:#}");
    signal(victim.pid(), Signal::CONT);
    answered(&mut client);
}

/// Programs that `nobody` can run.
struct Reachable {
    _folder: tempfile::TempDir,
    stallscope: PathBuf,
    victim: PathBuf,
}

/// `None`, with the reason said, when this user cannot become another.
fn reachable() -> Option<Reachable> {
    if !rustix::process::geteuid().is_root() {
        println!("did not run: only root can become another user");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    };
    open(folder.path());
    let copy = |program: &Path| {
        let copy = folder.path().join(program.file_name().unwrap());
        std::fs::copy(program, &copy).unwrap();
        open(&copy);
        copy
    };
    let (stallscope, victim) = (copy(Path::new(STALLSCOPE)), copy(victim::program()));
    Some(Reachable { _folder: folder, stallscope, victim })
}

/// Runs `program` as `nobody`.
fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--inh-caps=-all"]);
    command.arg(program);
    command
}

fn printed(command: &mut Command) -> Printed {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Printed {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// An ordinary user sees all there is of a process of his own.
#[test]
fn an_ordinary_user_and_his_own_process() {
    let Some(reachable) = reachable() else { return };
    let mut command = as_nobody(&reachable.victim);
    let victim = Victim::started_by(command.arg("ring-fixed-listener"));
    let args = victim::watch_args(victim.pid(), "50ms");
    let watcher = Watcher::started_by(as_nobody(&reachable.stallscope).args(args));
    let model = watcher.sees("its ring", |model| count(&model["rings"]) == Some(1));
    for (at, absence) in absences(&model) {
        assert_ne!(absence["why"], "not_permitted", "{at}: {absence}");
    }
    victim.serves();
    let (printed, _) = watcher.interrupted();
    ended(&printed, "interrupted", HEALTHY);
}

/// Of the process of root he may not see the listeners, the rings, the system calls; each of these
/// says so, and what would permit it.
#[test]
fn an_ordinary_user_and_the_process_of_root() {
    let Some(reachable) = reachable() else { return };
    let victim = Victim::start(&["ring-fixed-listener"]);
    let args = victim::watch_args(victim.pid(), "50ms");
    let watcher = Watcher::started_by(as_nobody(&reachable.stallscope).args(args));
    let model = watcher.sees("that its listeners are refused", |model| {
        model["listeners"]["absent"]["why"] == "not_permitted"
    });
    let absent = absences(&model);
    let refused: Vec<_> =
        absent.iter().filter(|(_, absence)| absence["why"] == "not_permitted").collect();
    for place in [".listeners", ".rings", ".threads.got.syscall"] {
        assert!(refused.iter().any(|(at, _)| at == place), "{place} is no refusal: {absent:#?}");
    }
    for (at, absence) in &refused {
        let detail = absence["detail"].as_str().unwrap();
        assert!(detail.contains("run as "), "{at}: {detail}");
    }
    // What anybody may see is seen.
    assert!(model["process"]["got"]["rss_bytes"].as_u64().unwrap() > 0, "{model:#}");
    let (printed, _) = watcher.interrupted();
    is_clear(&printed);
    let limits = printed.last("target").unwrap();
    assert!(!limits["limits"].as_array().unwrap().is_empty(), "{limits:#}");

    let pid = victim.pid().to_string();
    let verdict =
        self::printed(as_nobody(&reachable.stallscope).args(["diagnose", "--json", "--pid", &pid]));
    is_clear(&verdict);
    assert_ne!(verdict.status, STALLED, "nothing was seen that could be a stall: {verdict:?}");
    let port = victim.port.to_string();
    let hidden = self::printed(as_nobody(&reachable.stallscope).args(["watch", "--port", &port]));
    is_clear(&hidden);
    assert_eq!(hidden.status, 1, "{hidden:?}");
    assert!(hidden.stderr.contains("run as root"), "{hidden:?}");
}

/// With hidepid=2 the processes of others are not there at all (proc(5)).
#[test]
fn a_proc_that_hides_the_processes_of_others() {
    let Some(reachable) = reachable() else { return };
    let hiding = |args: &[&str]| {
        // A procfs of its own: a remount would change that of the whole machine.
        let script = "mount -t proc -o hidepid=2 proc /proc || exit 77; exec \"$0\" \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "setpriv", "--reuid", NOBODY]);
        command.args(["--regid", NOBODY, "--clear-groups"]).arg(&reachable.stallscope).args(args);
        printed(&mut command)
    };
    let victim = Victim::start(&["ring-fixed-listener"]);
    let others = hiding(&["diagnose", "--json", "--pid", &victim.pid().to_string()]);
    if others.status == 77 {
        println!("did not run: {}", others.stderr);
        return;
    }
    is_clear(&others);
    assert_eq!((others.status, others.stdout.as_str()), (1, ""), "{others:?}");

    let mut command = as_nobody(&reachable.victim);
    let own = Victim::started_by(command.arg("plain"));
    let own = hiding(&["diagnose", "--json", "--pid", &own.pid().to_string()]);
    is_clear(&own);
    assert_eq!(own.status, HEALTHY, "{own:?}");
    drop(victim);
}
