//! The command line as its users meet it: help, wrong usage, errors. Each wrong input is answered
//! by a sentence and its own exit status.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests lay down files, and fail by panicking"
)]

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use stallscope::watch::event::{Anchor, EndReason, Environment, Target};
use stallscope::watch::recording::{Frame, Header, MAGIC, VERSION, Writer};
use stallscope_probes::{Reading, Why};

#[derive(Debug)]
struct Printed {
    status: i32,
    stdout: String,
    stderr: String,
}

fn stallscope(args: &[&str]) -> Printed {
    let output = Command::new(env!("CARGO_BIN_EXE_stallscope"))
        .args(args)
        // The help is wrapped to the terminal: here there is none.
        .env_remove("COLUMNS")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Printed {
        status: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn help(command: &[&str]) -> String {
    let printed = stallscope(&[command, &["--help"]].concat());
    assert_eq!((printed.status, printed.stderr.as_str()), (0, ""));
    let too_long = printed.stdout.lines().find(|line| line.chars().count() > 100);
    assert_eq!(too_long, None);
    printed.stdout
}

#[test]
fn help_of_the_watcher() {
    for command in ["watch", "diagnose", "profile", "stacks", "replay", "report", "compare"] {
        insta::assert_snapshot!(format!("help_{command}"), help(&[command]));
    }
}

#[cfg(feature = "servers")]
#[test]
fn help_of_the_whole() {
    insta::assert_snapshot!("help", help(&[]));
    for command in ["serve", "load", "demo", "lab"] {
        insta::assert_snapshot!(format!("help_{command}"), help(&[command]));
    }
    insta::assert_snapshot!("help_lab_endure", help(&["lab", "endure"]));
    insta::assert_snapshot!("help_lab_bench", help(&["lab", "bench"]));
}

#[cfg(not(feature = "servers"))]
#[test]
fn the_watcher_alone_has_no_servers() {
    insta::assert_snapshot!("help_watcher_alone", help(&[]));
    for command in ["serve", "load", "demo", "lab"] {
        let printed = stallscope(&[command]);
        assert_eq!(printed.status, 2, "{printed:?}");
        assert!(printed.stderr.contains("unrecognized subcommand"), "{printed:?}");
    }
}

#[test]
fn the_version_is_said() {
    let printed = stallscope(&["--version"]);
    assert_eq!(printed.stdout, format!("stallscope {}\n", env!("CARGO_PKG_VERSION")));
}

/// Wrong usage: status 2, nothing on stdout, and words that tell what is wrong.
fn misused(cases: &[(&str, &str)]) {
    for (line, words) in cases {
        let args: Vec<&str> = line.split(' ').filter(|arg| !arg.is_empty()).collect();
        let printed = stallscope(&args);
        assert_eq!(printed.status, 2, "{line}: {printed:?}");
        assert_eq!(printed.stdout, "", "{line}: {printed:?}");
        assert!(printed.stderr.contains(words), "{line}: {}", printed.stderr);
    }
}

#[test]
fn wrong_usage_of_the_watcher() {
    misused(&[
        ("", "Usage: stallscope <COMMAND>"),
        ("look", "unrecognized subcommand 'look'"),
        ("watch", "<--pid <N>|--port <P>>"),
        ("watch --pid 1 --port 80", "cannot be used with"),
        ("watch --pid 1 --keep 10m", "--record <FILE>"),
        ("watch --pid 1 --record x --keep 9s", "a recording is kept for between 10s and 24h"),
        ("watch --pid 1 --record x --keep 25h", "a recording is kept for between 10s and 24h"),
        ("watch --pid 1 --record x --keep long", "'long' is not a duration"),
        ("watch --pid 0", "0 is not in 1.."),
        ("watch --pid -5", "unexpected argument '-5'"),
        ("watch --pid nginx", "invalid digit"),
        ("watch --port 0", "0 is not in 1..=65535"),
        ("watch --port 65536", "65536 is not in 1..=65535"),
        ("watch --pid 1 --interval 1ms", "the interval lies between 5ms and 10s"),
        ("watch --pid 1 --interval 11s", "the interval lies between 5ms and 10s"),
        ("watch --pid 1 --interval 50", "write it like 500ms, 30s or 1m30s"),
        ("watch --pid 1 --for 0s", "write it like 500ms, 30s or 1m30s"),
        ("watch --pid 1 --samples", "--headless"),
        ("watch --pid 1 --probe udp", "[possible values: tcp, http]"),
        ("watch --pid 1 --probe tcp --probe-every 99ms", "at least 100ms apart"),
        ("watch --pid 1 --probe-every 1s", "--probe <HOW>"),
        ("watch --pid 1 --probe http --probe-path health", "a path begins with /"),
        ("watch --pid 1 --probe tcp --probe-path /", "--probe-path goes with --probe http"),
        ("diagnose --pid 1 --probe tcp --probe-path /", "--probe-path goes with --probe http"),
        ("diagnose", "<--pid <N>|--port <P>>"),
        ("watch --pid 1 --profile often", "[possible values: auto, on, off]"),
        ("watch --pid 1 --profile-hz 0", "0 is not in 1..=1000"),
        ("profile", "<--pid <N>|--port <P>>"),
        ("profile --pid 1 --for 11m", "11m is too long: a profile lasts 10m at most"),
        ("profile --pid 1 --for 10", "write it like 500ms, 30s or 1m30s"),
        ("profile --pid 1 --hz 1001", "1001 is not in 1..=1000"),
        ("profile --pid 1 --mode sleep", "[possible values: cpu, off-cpu, wall]"),
        ("profile --pid 1 -o x.png", "the ending of the name says the format: .svg"),
        ("profile --pid 1 -o x.svg -o svg", "the ending of the name says the format: .svg"),
        ("stacks", "<--pid <N>|--port <P>>"),
        ("stacks --pid 1 --port 80", "cannot be used with"),
        ("replay", "<RECORDING>"),
        ("report", "<RECORDING>"),
        ("report a b", "unexpected argument 'b'"),
        ("report a --format pdf", "[possible values: html, md, json]"),
        ("compare", "<A> <B>"),
        ("compare a", "<B>"),
        ("compare a b c", "unexpected argument 'c'"),
        ("compare a b --format pdf", "[possible values: html, md, json]"),
    ]);
}

#[cfg(feature = "servers")]
#[test]
fn wrong_usage_of_the_servers() {
    misused(&[
        ("serve", "<STACK>"),
        (
            "serve nginx",
            "[possible values: tokio, tokio-uring, tokio-hyper, tokio-uring-hyper, glommio]",
        ),
        ("serve tokio --listen localhost", "invalid socket address"),
        ("serve tokio --backlog 0", "0 is not in 1..=65535"),
        ("serve tokio --kafka broker", "write it like host:9092"),
        ("serve tokio --topic a/b", "a topic is 1 to 249 letters"),
        ("serve tokio --max-body 0", "0 is not in 1.."),
        ("serve tokio --message-timeout 800h", "24 days"),
        ("serve tokio --fault sq-not-flushed", "tokio-uring"),
        ("serve tokio --fault lightning", "lightning"),
        ("load", "<URL>"),
        ("load localhost:80", "http://"),
        ("load https://localhost", "https"),
        ("load http://localhost --connections 0", "0 is not in 1.."),
        ("load http://localhost --rate 0", "0 is not in 1.."),
        ("load http://localhost --get --data-bytes 1", "cannot be used with"),
        ("lab endure --stack nginx", "[possible values: tokio, tokio-uring, tokio-hyper"),
        ("lab endure --time 4s", "--time lies between 5s and 168h"),
        ("lab endure --time 169h", "--time lies between 5s and 168h"),
        ("lab endure --time 90s", "--warm-up may take half of --time at most"),
        ("lab endure --time 60", "write it like 500ms, 30s or 1m30s"),
        ("lab endure --connections 1", "1 is not in 2..=10000"),
        ("lab endure --kafka broker", "write it like host:9092"),
        ("lab endure --client some", "[possible values: keep-alive, close, mixed]"),
        ("lab endure --ack never", "[possible values: queue, delivery]"),
        ("lab endure --producer c", "[possible values: base, threaded, future]"),
        ("lab endure --rss-change 0", "write it like 5 or 7.5%"),
        ("lab endure tokio", "unexpected argument 'tokio'"),
        ("demo --fault lightning", "sq-not-flushed, fd-exhausted"),
        ("demo --stack nginx", "[possible values: tokio, tokio-uring]"),
    ]);
}

/// An error: status 1, nothing on stdout, one sentence on stderr that holds `words` once.
fn fails(args: &[&str], words: &str) {
    let printed = stallscope(args);
    assert_eq!((printed.status, printed.stdout.as_str()), (1, ""), "{args:?}: {printed:?}");
    let sentence = printed.stderr.strip_prefix("stallscope: ").unwrap();
    assert_eq!(sentence.lines().count(), 1, "{args:?}: {sentence}");
    assert_eq!(sentence.matches(words).count(), 1, "{args:?}: {sentence}");
}

#[test]
fn targets_that_are_none() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for command in ["watch", "diagnose", "profile", "stacks"] {
        fails(&[command, "--pid", "2147483647"], "there is no process 2147483647");
        let port = free.to_string();
        fails(&[command, "--port", &port], "no process listens on TCP port");
    }
}

fn recording(path: &Path, end: bool) {
    let header = Header {
        target: Target {
            pid: 100,
            comm: String::from("server"),
            cmdline: String::from("server"),
            exe: None,
            start_time_ticks: 7,
            foreign_netns: false,
            siblings: Vec::new(),
        },
        environment: Environment {
            kernel: String::from("Linux"),
            cpus: 2,
            version: String::from("0.1.0"),
            interval_ms: 50,
            ticks_per_s: 100,
            fd_limits: Reading::absent(Why::NotSampled, "not read"),
            limits: Vec::new(),
        },
        anchor: Anchor { mono_ns: 0, real_ns: 0 },
        config: stallscope::watch::config::Config::default(),
    };
    let mut writer = Writer::begin(File::create(path).unwrap(), header).unwrap();
    if end {
        writer.frame(&Frame::End(EndReason::TimeUp)).unwrap();
    }
}

#[test]
fn files_that_are_no_recordings() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let folder_itself = folder.path().to_str().unwrap();
    let missing = folder.path().join("missing");
    for command in ["report", "replay"] {
        fails(&[command, missing.to_str().unwrap()], "No such file");
        fails(&[command, folder_itself], "Is a directory");
        fails(&[command, &file("empty", b"")], "this is no stallscope recording");
        fails(
            &[command, &file("foreign", b"\x89PNG\r\n\x1a\nxxxx")],
            "this is no stallscope recording",
        );
        fails(&[command, &file("newer", b"STALLREC\x09\0")], "format version 9");
        let cut = [&MAGIC[..], &VERSION.to_le_bytes(), b"\x10\0"].concat();
        fails(&[command, &file("cut", &cut)], "no readable header");
    }
    assert!(!folder.path().join("foreign.html").exists());

    let good = folder.path().join("good.stallrec");
    recording(&good, true);
    let (good, missing) = (good.to_str().unwrap(), missing.to_str().unwrap());
    let foreign = file("foreign", b"\x89PNG\r\n\x1a\nxxxx");
    for (a, b) in [(good, foreign.as_str()), (&foreign, good)] {
        fails(&["compare", a, b], "this is no stallscope recording");
        fails(&["compare", a, b], &format!("cannot read {foreign}"));
    }
    fails(&["compare", good, missing], "No such file");
}

#[test]
fn a_report_for_the_next_program_goes_to_stdout_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.stallrec");
    recording(&path, true);
    let name = path.to_str().unwrap();
    let json = stallscope(&["report", name, "--format", "json"]);
    assert_eq!((json.status, json.stderr.as_str()), (0, ""), "{json:?}");
    let document: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(document["schema"], "stallscope-report");
    let text = stallscope(&["report", name, "--format", "md"]);
    assert!(text.stdout.starts_with("# Nothing could be read: server (pid 100)\n"), "{text:?}");
    let page = stallscope(&["report", name, "-o", "-"]);
    assert!(page.stdout.starts_with("<!DOCTYPE html>"), "{page:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no file was written");

    // The ending of a file says its form, and then stdout is for people.
    let file = folder.path().join("run.json");
    let printed = stallscope(&["report", name, "-o", file.to_str().unwrap()]);
    assert!(printed.stdout.contains("report: ") && !printed.stdout.contains('{'), "{printed:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), json.stdout);
}

#[test]
fn two_recordings_are_compared_beside_the_first_and_neither_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("old.stallrec"), folder.path().join("new.stallrec"));
    recording(&a, true);
    recording(&b, false);
    let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
    let printed = stallscope(&["compare", a, b]);
    assert_eq!((printed.status, printed.stderr.as_str()), (0, ""), "{printed:?}");
    assert!(printed.stdout.starts_with("old could not be read; new could not be"), "{printed:?}");
    let page = std::fs::read_to_string(folder.path().join("old-new.html")).unwrap();
    assert!(page.contains("<h1>old against new</h1>"));

    let labelled = ["compare", a, b, "--format", "json", "--label-a", "x", "--label-b", "y"];
    let printed = stallscope(&labelled);
    let document: serde_json::Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!((&document["a"]["label"], &document["b"]["label"]), (&"x".into(), &"y".into()));
    for input in [a, b] {
        let before = std::fs::read(input).unwrap();
        fails(&["compare", a, b, "-o", input], "would be overwritten");
        assert_eq!(std::fs::read(input).unwrap(), before);
    }
}

#[test]
fn replay_needs_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.stallrec");
    recording(&path, true);
    fails(&["replay", path.to_str().unwrap()], "replay draws on a terminal");
}

#[test]
fn a_report_is_written_beside_its_recording_and_never_over_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.stallrec");
    recording(&path, false);
    let name = path.to_str().unwrap();
    let printed = stallscope(&["report", name]);
    assert_eq!((printed.status, printed.stderr.as_str()), (0, ""), "{printed:?}");
    assert!(printed.stdout.contains("run.html"), "{printed:?}");
    let html = std::fs::read_to_string(folder.path().join("run.html")).unwrap();
    assert!(html.contains("the recording has no end"), "the loss is said in the report");

    let before = std::fs::read(&path).unwrap();
    fails(&["report", name, "-o", name], "would be overwritten");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let nowhere = folder.path().join("no/such/folder.html");
    fails(&["report", name, "-o", nowhere.to_str().unwrap()], "cannot write");
}

#[test]
fn a_recording_that_cannot_be_made_ends_the_watch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("no/such/file");
    let pid = std::process::id().to_string();
    let args = ["watch", "--headless", "--pid", &pid, "--record", path.to_str().unwrap()];
    fails(&args, "cannot record to");
}

#[test]
fn stdout_that_is_full_is_an_error() {
    let pid = std::process::id().to_string();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.stallrec");
    recording(&path, true);
    let run = path.to_str().unwrap();
    for args in [
        vec!["watch", "--headless", "--for", "1s", "--pid", &pid],
        vec!["diagnose", "--pid", &pid],
        vec!["stacks", "--pid", &pid],
        vec!["report", run, "--format", "json"],
        vec!["compare", run, run, "--format", "md"],
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_stallscope"))
            .args(&args)
            .stdin(Stdio::null())
            .stdout(full)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(stderr.starts_with("stallscope: "), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    }
}

/// A child that does not outlive its test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Of a stall that was there at the first look, the beginning cannot be known: both forms say so.
#[test]
fn what_can_no_longer_be_known_is_said() {
    let child = Killed(Command::new("sleep").arg("60").spawn().unwrap());
    let pid = child.0.id().to_string();
    assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
    let printed = stallscope(&["diagnose", "--pid", &pid]);
    assert_eq!((printed.status, printed.stderr.as_str()), (3, ""), "{printed:?}");
    assert!(printed.stdout.starts_with("process-stopped"), "{printed:?}");
    assert!(printed.stdout.contains("\nWhat can no longer be known\n"), "{printed:?}");
    let printed = stallscope(&["diagnose", "--json", "--pid", &pid]);
    let line: serde_json::Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!((printed.status, &line["before_watch"]), (3, &true.into()), "{line}");
    let unknowable = line["unknowable"].as_array().unwrap();
    let says = |one: &serde_json::Value| one.as_str().unwrap().contains("when watching began");
    assert!(unknowable.iter().any(says), "{line}");
    assert!(line["probe"].is_null(), "none was asked for: {line}");
}

/// Of a process that sleeps there is no CPU time to draw, but where it sleeps.
#[test]
fn what_sleeps_has_no_cpu_profile_and_a_stack() {
    let child = Killed(Command::new("sleep").arg("60").spawn().unwrap());
    let pid = child.0.id().to_string();
    let printed = stallscope(&["stacks", "--pid", &pid]);
    assert_eq!((printed.status, printed.stderr.as_str()), (0, ""), "{printed:?}");
    let head = format!("{pid} sleep (S) in clock_nanosleep(");
    assert!(printed.stdout.starts_with(&head), "{printed:?}");
    assert!(printed.stdout.contains("without stopping it"), "{printed:?}");

    let folder = tempfile::tempdir().unwrap();
    let files = ["run.svg", "run.folded", "run.pb.gz", "run.json", "run.json.gz"];
    let paths = files.map(|file| folder.path().join(file).to_str().unwrap().to_owned());
    let outputs: Vec<&str> = paths.iter().flat_map(|path| ["-o", path]).collect();
    let profile = ["profile", "--pid", &pid, "--for", "300ms"];
    let of_cpu = stallscope(&[&profile[..], &outputs].concat());
    if of_cpu.stderr.contains("cannot profile process") {
        assert!(!rustix::process::geteuid().is_root(), "{of_cpu:?}");
        println!("did not run: {}", of_cpu.stderr);
        return;
    }
    assert_eq!((of_cpu.status, of_cpu.stderr.as_str()), (1, ""), "{of_cpu:?}");
    assert!(of_cpu.stdout.contains("No thread was on a CPU: all of them slept."), "{of_cpu:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "there is nothing to write");

    let waits = stallscope(&[&profile[..], &["--mode", "off-cpu", "--json"], &outputs].concat());
    assert_eq!((waits.status, waits.stderr.as_str()), (0, ""), "{waits:?}");
    let summary: serde_json::Value = serde_json::from_str(&waits.stdout).unwrap();
    assert_eq!((&summary["kind"], &summary["unit"]), (&"off-cpu".into(), &"us".into()));
    assert_eq!(summary["by_thread"][0]["name"], "thread sleep", "{summary}");
    assert_eq!(summary["files"].as_array().unwrap().len(), files.len());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), files.len());
}

/// A server within this process: it answers every request, and counts its connections.
fn serve() -> (u16, std::sync::Arc<std::sync::atomic::AtomicU64>) {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = std::sync::Arc::clone(&count);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            if stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").ok();
            }
        }
    });
    (port, count)
}

#[test]
fn connections_of_its_own_are_made_only_where_asked_for_and_told_one_by_one() {
    let (port, count) = serve();
    let (pid, port) = (std::process::id().to_string(), port.to_string());
    let made = || count.load(std::sync::atomic::Ordering::SeqCst);
    let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();

    stallscope(&["watch", "--headless", "--for", "300ms", "--port", &port]);
    assert_eq!(made(), 0);

    let printed = stallscope(&["diagnose", "--json", "--port", &port, "--probe", "http"]);
    let line = json(&printed.stdout);
    assert_eq!(line["probe"]["outcome"], "answered", "{printed:?}");
    assert_eq!(line["probe"]["to"], format!("127.0.0.1:{port}"));
    assert!(line["probe"]["answer_ms"].is_number(), "{line}");
    assert_eq!(line["probe"]["attempts"], made(), "{line}");
    let before = made();

    let printed = stallscope(&["diagnose", "--port", &port, "--probe", "http"]);
    assert!(printed.stdout.contains("last answered in"), "{printed:?}");

    let probing = ["--probe", "tcp", "--probe-every", "100ms"];
    let watch = ["watch", "--headless", "--for", "1s", "--pid", &pid];
    let printed = stallscope(&[&watch[..], &probing].concat());
    let lines = printed.stdout.lines().map(json).filter(|line| line["type"] == "probe");
    let told: Vec<u64> = lines.map(|line| line["attempts"].as_u64().unwrap()).collect();
    // This process may listen elsewhere too, for another test: where it connects is not told here.
    assert!(told.len() >= 2 && told.is_sorted(), "{told:?}");
    assert!(made() >= before);
}

/// It answers of itself: an idle process that listens nowhere is healthy.
#[test]
fn an_idle_process_is_healthy() {
    let child = Killed(Command::new("sleep").arg("60").spawn().unwrap());
    let printed = stallscope(&["diagnose", "--pid", &child.0.id().to_string()]);
    assert_eq!((printed.status, printed.stderr.as_str()), (0, ""), "{printed:?}");
    assert!(printed.stdout.starts_with("healthy-idle"), "{printed:?}");
}

#[cfg(feature = "servers")]
#[test]
fn servers_that_cannot_be() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for stack in ["tokio", "tokio-uring"] {
        fails(&["serve", stack, "--listen", &address], "in use");
    }
    let out = tempfile::tempdir().unwrap();
    let out = out.path().to_str().unwrap();
    fails(
        &["demo", "--headless", "--stack", "tokio", "--out", out],
        "the tokio server has no io_uring",
    );
}

#[test]
fn thresholds_that_nobody_knows_are_refused_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stallscope.toml");
    let config = path.to_str().unwrap();
    let pid = std::process::id().to_string();
    for command in ["watch", "diagnose"] {
        fails(&[command, "--pid", &pid, "--config", config], "cannot read the configuration");
        std::fs::write(&path, "[detect]\naccept_hold = 5\n").unwrap();
        fails(&[command, "--pid", &pid, "--config", config], "unknown field `accept_hold`");
        std::fs::write(&path, "[detect]\naccept_hold_ms = 5\n").unwrap();
        fails(&[command, "--pid", &pid, "--config", config], "accept_hold_ms is 5");
        std::fs::write(&path, "[diagnose]\naway_share_min = 9\n").unwrap();
        fails(&[command, "--pid", &pid, "--config", config], "away_share_min is 9");
        std::fs::remove_file(&path).unwrap();
    }
}
