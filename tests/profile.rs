//! Profiles of real processes: stalls of the lab, whose guilty function is known, and programs that
//! nobody here wrote, beside `perf record`.
//!
//! The latter need `redis-server`, `redis-benchmark`, `nginx`, `perf` and `go`
//! (`scripts/setup --tests`). In CI their absence is a failure, elsewhere it is printed.
#![cfg(feature = "servers")]
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests run processes and read their files, and fail by panicking"
)]

mod support;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use stallscope::profile::folded::{self, Folded};
use stallscope::profile::stacks::{Kind, Maker, ThreadStack};
use stallscope::watch::event::Incident;
use stallscope::watch::replay;

use support::victim::{signal, until};
use support::{Killed, STALLSCOPE, alone};

/// A program is there by then.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// A profiler that was told to end has written its file by then.
const WRITTEN_WITHIN: Duration = Duration::from_mins(1);

/// A stall of the lab, and what was recorded of it by a watcher that was there before.
fn stall(name: &str) -> Incident {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let output = Command::new(STALLSCOPE)
        .args(["lab", "run", name, "--attach", "before", "--out", out])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    replay::load(&folder.path().join("before.stallrec")).unwrap()
}

/// Which windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Healthy,
    Stalled,
}

/// The stacks caught by the watcher before or after the onset.
fn stacks(incident: &Incident, kind: Kind, phase: Phase) -> Folded {
    let onset_ns = incident.onset().unwrap().at_ns;
    let windows = incident.profiles.iter().filter(|window| {
        let of_phase = match phase {
            Phase::Healthy => window.end_ns <= onset_ns,
            Phase::Stalled => window.begin_ns >= onset_ns,
        };
        of_phase && window.kind == kind && window.maker == Maker::Watcher
    });
    let folded = folded::merge(windows.map(|window| window.folded.as_str()));
    assert!(folded.samples > 0, "no {kind:?} stack of {phase:?}: {:?}", incident.profiles.len());
    folded
}

/// The share of the stacks for which `matches` holds.
fn share(folded: &Folded, matches: impl Fn(&str) -> bool) -> f64 {
    let all = folded.stacks.iter();
    let matching: u64 = all.filter(|(stack, _)| matches(stack)).map(|(_, count)| count).sum();
    matching as f64 / folded.samples as f64
}

/// The onset is dated to within a few ticks, so some samples may lie on the wrong side of it.
const WRONG_SIDE_MAX: f64 = 0.1;

#[test]
fn the_task_that_is_always_ready_burns_the_stalled_cpu_and_not_the_healthy_one() {
    let _alone = alone();
    let incident = stall("uring-yields");
    let guilty = |stack: &str| stack.contains("runtime::ring_stalls::{async_block");
    let stalled = stacks(&incident, Kind::Cpu, Phase::Stalled);
    assert!(share(&stalled, guilty) > 0.8, "{:#?}", stalled.lines(20));
    let healthy = stacks(&incident, Kind::Cpu, Phase::Healthy);
    assert!(share(&healthy, guilty) < WRONG_SIDE_MAX, "{:#?}", healthy.lines(20));
}

#[test]
fn who_waits_for_a_mutex_and_who_keeps_it_stand_in_the_stalled_waits() {
    let _alone = alone();
    let incident = stall("uring-locks");
    let stalled = stacks(&incident, Kind::OffCpu, Phase::Stalled);
    let of = |thread: &'static str, function: &'static str| {
        move |stack: &str| stack.starts_with(thread) && stack.contains(function)
    };
    let waiter = stalled.stacks.iter().find(|(stack, _)| {
        stack.contains("runtime::acts::lock::") && stack.contains("lock_contended")
    });
    assert!(waiter.is_some(), "{:#?}", stalled.lines(20));
    let holder = share(&stalled, of("holds-the-lock;", "runtime::acts::lock::"));
    assert!(holder > 0.3, "{:#?}", stalled.lines(20));
    let healthy = stacks(&incident, Kind::OffCpu, Phase::Healthy);
    let waited = share(&healthy, |stack| stack.contains("lock_contended"));
    assert!(waited < WRONG_SIDE_MAX, "{:#?}", healthy.lines(20));

    // And the look at all threads has both, whole and without a guess.
    let look = incident.stacks.first().expect("the stacks of the stall");
    for (thread, function) in [("holds-the-lock", "park"), ("", "lock_contended")] {
        let stack = look.threads.iter().find(|stack| {
            stack.name.contains(thread) && names(stack).any(|name| name.contains(function))
        });
        let stack = stack.unwrap_or_else(|| panic!("{thread} {function}: {look:#?}"));
        assert!(names(stack).any(|name| name.contains("runtime::acts::lock")), "{stack:#?}");
        assert!(stack.frames.iter().all(|frame| !frame.guessed), "{stack:#?}");
        assert!(stack.syscall.as_ref().is_some_and(|call| call.contains("FUTEX_WAIT")));
    }
}

#[test]
fn a_blocking_flush_is_where_the_runtime_waits() {
    let _alone = alone();
    let incident = stall("kafka-flush-on-runtime");
    let stalled = stacks(&incident, Kind::OffCpu, Phase::Stalled);
    let flush = |stack: &str| stack.contains("producer::base_producer::flush");
    // In healthy time it flushes too, for every request, and comes back.
    let runtime = |stack: &str| stack.starts_with("stallscope;");
    let of_runtime = share(&stalled, runtime);
    let flushing = share(&stalled, |stack| runtime(stack) && flush(stack));
    assert!(of_runtime > 0.0 && flushing / of_runtime > 0.8, "{:#?}", stalled.lines(20));
}

fn names(stack: &ThreadStack) -> impl Iterator<Item = &str> {
    stack.frames.iter().map(|frame| frame.function.as_str())
}

/// Whether all of `tools` are there; printed, or in CI an error, if not.
fn have(tools: &[&str]) -> bool {
    let missing: Vec<&&str> = tools
        .iter()
        .filter(|tool| {
            let found = Command::new(tool).arg("--version").stdin(Stdio::null()).output();
            found.is_err()
        })
        .collect();
    assert!(
        missing.is_empty() || std::env::var_os("CI").is_none(),
        "missing: {missing:?} (scripts/setup --tests installs them)"
    );
    if !missing.is_empty() {
        println!("NOT TESTED, for want of {missing:?} (scripts/setup --tests installs them)");
    }
    missing.is_empty()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn listening(port: u16) {
    until("it listens", READY_WITHIN, || TcpStream::connect(("127.0.0.1", port)).is_ok());
}

/// Two profilers of the same work.
struct Both {
    /// Ours, all formats.
    folded: Folded,
    /// `go tool pprof -top` of ours.
    top: String,
    /// Ours, in figures.
    summary: Value,
    /// Samples that `perf record` took.
    perf_samples: u64,
}

/// Runs both profilers on `pid` from before `work` until after it: then both have seen the same, and
/// what they count does not depend on when each began.
fn both(pid: i32, hz: u32, work: impl FnOnce()) -> Both {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (pid_text, hz_text) = (pid.to_string(), hz.to_string());
    let mut perf = Perf::begin(pid, hz, folder.path());
    let mut ours = Command::new(STALLSCOPE)
        .args(["profile", "--pid", &pid_text, "--for", "2m", "--hz", &hz_text, "--json", "--full"])
        .args(["-o", &file("ours.folded"), "-o", &file("ours.pb.gz")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let our_pid = i32::try_from(ours.id()).unwrap();
    until("our profiler has begun", READY_WITHIN, || counts(our_pid));
    work();
    signal(our_pid, Signal::INT);
    let perf_samples = perf.end();
    let stdout = ours.stdout.take().unwrap();
    let summary: Value = serde_json::from_reader(stdout).unwrap();
    assert!(ours.wait().unwrap().success());
    Both {
        folded: folded::merge([std::fs::read_to_string(file("ours.folded")).unwrap().as_str()]),
        top: go_top(Path::new(&file("ours.pb.gz"))),
        summary,
        perf_samples,
    }
}

/// `perf record`, which counts once it has said so.
struct Perf {
    child: Killed,
    data: PathBuf,
}

impl Perf {
    fn begin(pid: i32, hz: u32, folder: &Path) -> Self {
        let (control, told) = (folder.join("control"), folder.join("told"));
        for fifo in [&control, &told] {
            assert!(Command::new("mkfifo").arg(fifo).status().unwrap().success());
        }
        let data = folder.join("perf.data");
        let child = Command::new("perf")
            .args(["record", "-e", "cpu-clock", "-g", "-D", "-1", "-F", &hz.to_string()])
            .args(["-p", &pid.to_string(), "-o"])
            .arg(&data)
            .arg(format!("--control=fifo:{},{}", control.display(), told.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let child = Killed(child);
        // Opening waits for perf, and reading for its answer.
        std::fs::write(&control, "enable\n").unwrap();
        let mut answer = [0; 4];
        std::fs::File::open(&told).unwrap().read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"ack\n");
        Self { child, data }
    }

    /// Ends it; the samples it took.
    fn end(&mut self) -> u64 {
        signal(self.child.pid(), Signal::INT);
        self.child.ended(WRITTEN_WITHIN);
        let script = Command::new("perf")
            .args(["script", "-F", "tid,time", "-i"])
            .arg(&self.data)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&script.stdout).into_owned();
        text.lines().filter(|line| !line.trim().is_empty()).count() as u64
    }
}

/// Whether our profiler counts: it has its events open, and sleeps between looks at their rings.
fn counts(profiler: i32) -> bool {
    let fds = std::fs::read_dir(format!("/proc/{profiler}/fd")).into_iter().flatten().flatten();
    let mut links = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
    let wchan = std::fs::read_to_string(format!("/proc/{profiler}/wchan")).unwrap_or_default();
    links.any(|link| link.to_string_lossy().contains("[perf_event]"))
        && wchan.contains("hrtimer_nanosleep")
}

fn go_top(file: &Path) -> String {
    let output = Command::new("go")
        .args(["tool", "pprof", "-top", "-cum", "-nodecount=200"])
        .arg(file)
        .env("HOME", file.parent().unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Within five percent of perf, and with the names of the program's and the kernel's functions.
fn agrees(both: &Both, functions: &[&str]) {
    let ours = both.summary["samples"].as_u64().unwrap();
    let ratio = ours as f64 / both.perf_samples as f64;
    println!("{ours} samples, perf took {}: {ratio:.3}", both.perf_samples);
    assert!(both.perf_samples > 200, "too little work to compare: {}", both.perf_samples);
    assert!((0.95..=1.05).contains(&ratio), "{ours} samples, perf took {}", both.perf_samples);
    assert_eq!(both.folded.samples, ours);
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for (stack, count) in &both.folded.stacks {
        for frame in stack.split(';') {
            *totals.entry(frame.trim_end_matches("_[i]")).or_default() += count;
        }
    }
    for function in functions {
        let on_stack = totals.get(function).copied().unwrap_or_default() as f64 / ours as f64;
        assert!(on_stack > 0.1, "{function}: {on_stack:.2} of {:#?}", both.folded.lines(20));
        assert!(both.top.contains(function.trim_end_matches("_[k]")), "{function}: {}", both.top);
    }
    let unnamed = |stack: &str| stack.rsplit(';').next().is_some_and(|leaf| leaf.starts_with("0x"));
    assert!(share(&both.folded, unnamed) < 0.02, "{:#?}", both.folded.lines(20));
}

#[test]
fn redis_has_its_functions_and_as_many_samples_as_perf_takes() {
    if !have(&["redis-server", "redis-benchmark", "perf", "go"]) {
        return;
    }
    let _alone = alone();
    let port = free_port();
    let folder = tempfile::tempdir().unwrap();
    let server = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let server = Killed(server);
    listening(port);
    let seen = both(server.pid(), 499, || {
        let status = Command::new("redis-benchmark")
            .args(["-p", &port.to_string(), "-q", "-n", "150000", "-c", "20", "-t", "set,get"])
            .stdout(Stdio::null())
            .status();
        assert!(status.unwrap().success());
    });
    agrees(&seen, &["main", "aeMain", "readQueryFromClient", "do_syscall_64_[k]"]);
}

#[test]
fn nginx_has_its_functions_and_as_many_samples_as_perf_takes() {
    if !have(&["nginx", "perf", "go"]) {
        return;
    }
    let _alone = alone();
    let port = free_port();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().display();
    std::fs::write(folder.path().join("index.html"), "hello\n").unwrap();
    let config = folder.path().join("nginx.conf");
    let text = format!(
        "daemon off; worker_processes 1; pid {root}/pid; error_log {root}/error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n"
    );
    std::fs::write(&config, text).unwrap();
    // Workers of a master that root started are another user's: nobody's, who may not read here.
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), permissions).unwrap();
    let master = Command::new("nginx").arg("-c").arg(&config).stdin(Stdio::null()).spawn().unwrap();
    let master = Nginx(Killed(master));
    listening(port);
    let children = format!("/proc/{0}/task/{0}/children", master.0.pid());
    let worker =
        || std::fs::read_to_string(&children).unwrap().split_whitespace().next()?.parse().ok();
    until("there is a worker", READY_WITHIN, || worker().is_some());
    let worker: i32 = worker().unwrap();
    let seen = both(worker, 499, || {
        let url = format!("http://127.0.0.1:{port}/index.html");
        let status = Command::new(STALLSCOPE)
            .args(["load", &url, "--get", "--for", "4s", "--connections", "16", "--json"])
            .stdout(Stdio::null())
            .status();
        assert!(status.unwrap().success());
    });
    agrees(
        &seen,
        &["main", "ngx_process_events_and_timers", "ngx_http_core_run_phases", "do_syscall_64_[k]"],
    );
}

/// A master that takes its worker with it.
struct Nginx(Killed);

impl Drop for Nginx {
    fn drop(&mut self) {
        signal(self.0.pid(), Signal::TERM);
        self.0.ended(READY_WITHIN);
    }
}
