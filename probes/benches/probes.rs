//! What one read of each probe costs, against the size of what it looks at. The process that is
//! looked at is this one.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has no result")]
#![expect(clippy::disallowed_methods, reason = "benchmarks open what is to be looked at")]

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use io_uring::{IoUring, opcode, types};
use stallscope_probes::{cgroup, fds, heartbeat, netstat, process, ring, threads};

fn proc_root() -> &'static Path {
    Path::new("/proc")
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap()
}

fn small_files(criterion: &mut Criterion) {
    let pid = own_pid();
    let mut group = criterion.benchmark_group("small files");
    group.bench_function("process", |bench| bench.iter(|| process::read(proc_root(), pid)));
    group.bench_function("netstat", |bench| bench.iter(|| netstat::read(proc_root(), pid)));
    let cgroups = Path::new("/sys/fs/cgroup");
    group.bench_function("cgroup", |bench| {
        bench.iter(|| cgroup::read(proc_root(), cgroups, pid));
    });
    let page = heartbeat::Page::create("bench").unwrap();
    let identity = process::identity(proc_root(), pid);
    let start_time_ticks = identity.got().unwrap().start_time_ticks;
    let reader = heartbeat::find(proc_root(), pid, start_time_ticks);
    let reader = reader.got().unwrap();
    assert!(reader.read().got().is_some());
    group.bench_function("heartbeat", |bench| bench.iter(|| reader.read()));
    drop(page);
    group.finish();
}

/// Against the number of open fds.
fn open_fds(criterion: &mut Criterion) {
    let pid = own_pid();
    let mut group = criterion.benchmark_group("fds");
    let mut open = Vec::new();
    for fds in [100, 1_000, 10_000] {
        while open.len() < fds {
            let Ok(file) = File::open("/dev/null") else { break };
            open.push(file);
        }
        if open.len() < fds {
            println!("the limit of open files does not allow {fds}: left out");
            break;
        }
        group.bench_function(BenchmarkId::new("number and limit", fds), |bench| {
            bench.iter(|| fds::read(proc_root(), pid));
        });
        group.bench_function(BenchmarkId::new("census", fds), |bench| {
            bench.iter(|| fds::census(proc_root(), pid));
        });
    }
    group.finish();
}

/// Against the number of threads, all asleep.
fn sleeping_threads(criterion: &mut Criterion) {
    let pid = own_pid();
    let mut group = criterion.benchmark_group("threads");
    let mut wake: Vec<Sender<()>> = Vec::new();
    for count in [1, 8, 60] {
        // One is the benchmark's own.
        while wake.len() + 1 < count {
            let (sender, receiver) = channel::<()>();
            std::thread::spawn(move || receiver.recv().is_err());
            wake.push(sender);
        }
        assert!(threads::read(proc_root(), pid, false).got().is_some());
        for (name, want_stacks) in [("plain", false), ("with stacks", true)] {
            group.bench_function(BenchmarkId::new(name, count), |bench| {
                bench.iter(|| threads::read(proc_root(), pid, want_stacks));
            });
        }
    }
    group.finish();
}

/// Against the number of armed operations; the read takes the ring's lock meanwhile.
fn armed_operations(criterion: &mut Criterion) {
    let Ok(mut uring) = IoUring::new(1_024) else {
        println!("this kernel gives no io_uring: left out");
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (pid, fd) = (own_pid(), types::Fd(listener.as_raw_fd()));
    let mut group = criterion.benchmark_group("ring");
    let mut armed = 0;
    for count in [1, 100, 1_000] {
        for _ in armed..count {
            let accept = opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut());
            // SAFETY: the entry refers to no memory.
            unsafe { uring.submission().push(&accept.build()) }.unwrap();
        }
        uring.submit().unwrap();
        armed = count;
        let seen = ring::read_fdinfo(proc_root(), pid, uring.as_raw_fd());
        let seen = seen.got().map(|parsed| parsed.armed.of(opcode::Accept::CODE));
        assert_eq!(seen, Some(count), "the ring was not read, or is not what it should be");
        group.bench_function(BenchmarkId::new("armed", count), |bench| {
            bench.iter(|| ring::read_fdinfo(proc_root(), pid, uring.as_raw_fd()));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = small_files, sleeping_threads, armed_operations, open_fds
}
criterion_main!(benches);
