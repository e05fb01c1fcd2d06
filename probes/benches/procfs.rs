//! What a read of each small file of a process costs: opened anew, and kept open. The process that
//! is looked at is another run of this program, with as many threads and fds as the case says.
//! Measured is CPU time, which is what the watcher takes from others: waiting for a CPU is not its
//! doing.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has no result")]
#![expect(clippy::disallowed_methods, reason = "benchmarks open what is to be looked at")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child as Process, Command, Stdio};
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkId, Criterion, criterion_group};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use stallscope_probes::fds::CensusWalk;
use stallscope_probes::threads::Ask;
use stallscope_probes::{
    Reading, cgroup, fds, heartbeat, netstat, own, pressure, process, threads,
};

/// Threads and fds of the process to look at, parted by a space.
const SIZE: &str = "STALLSCOPE_BENCH_TARGET";
/// Fds looked at in one slice of a census.
const SLICE: usize = 32;
/// Ticks within which a thread is read in full: once a second at ten ticks a second.
const FULL_WITHIN: u32 = 10;

fn proc_root() -> &'static Path {
    Path::new("/proc")
}

fn cgroups() -> &'static Path {
    Path::new("/sys/fs/cgroup")
}

/// CPU time of the thread that runs the benchmark, shown as `WallTime` shows its own.
struct CpuTime;

impl CpuTime {
    fn now() -> Duration {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }
}

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        Self::now()
    }

    fn end(&self, begin: Duration) -> Duration {
        Self::now().saturating_sub(begin)
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// The process to look at; it is killed and reaped with the value.
struct Target(Process);

impl Target {
    /// `None` if the limit of open files does not allow so many.
    fn start(threads: usize, open: usize) -> Option<Self> {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .env(SIZE, format!("{threads} {open}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let target = Self(process);
        let ready = said.trim() == "ready";
        if !ready {
            println!("the limit of open files does not allow {open}: left out");
        }
        ready.then_some(target)
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// In that process: has so many threads and fds, and waits to be killed.
fn be_target(size: &str) {
    let (threads, open) = size.split_once(' ').unwrap();
    let (threads, open): (usize, usize) = (threads.parse().unwrap(), open.parse().unwrap());
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    for _ in 1..threads {
        std::thread::spawn(|| std::thread::sleep(Duration::from_hours(1)));
    }
    let files: Vec<_> = (3..open).map_while(|_| File::open("/dev/null").ok()).collect();
    // Its threads must have gone to sleep before they are looked at.
    std::thread::sleep(Duration::from_millis(50));
    println!("{}", if files.len() + 3 >= open { "ready" } else { "too many" });
    std::io::stdin().read_to_end(&mut Vec::new()).ok();
}

fn ask(threads: u64) -> Ask<'static> {
    Ask {
        threads: Some(threads),
        important: &[],
        full_within: FULL_WITHIN,
        stacks: false,
        switches: false,
    }
}

fn small_files(criterion: &mut Criterion<CpuTime>) {
    let target = Target::start(10, 10).unwrap();
    let pid = target.pid();
    let mut group = criterion.benchmark_group("small files");

    group.bench_function("process, anew", |bench| bench.iter(|| process::read(proc_root(), pid)));
    let mut watch = process::Watch::new(proc_root(), pid);
    group.bench_function("process, kept", |bench| bench.iter(|| watch.read()));

    group.bench_function("counters, anew", |bench| bench.iter(|| netstat::read(proc_root(), pid)));
    let mut watch = netstat::Watch::new(proc_root(), pid);
    group.bench_function("counters, kept", |bench| bench.iter(|| watch.read()));

    group.bench_function("cgroup, anew", |bench| {
        bench.iter(|| cgroup::read(proc_root(), cgroups(), pid));
    });
    let mut watch = cgroup::Watch::new(proc_root(), cgroups(), pid);
    group.bench_function("cgroup, kept", |bench| bench.iter(|| watch.read()));

    group.bench_function("pressure, anew", |bench| {
        bench.iter(|| pressure::read(proc_root(), cgroups(), pid));
    });
    let mut watch = pressure::Watch::new(proc_root(), cgroups(), pid);
    group.bench_function("pressure, kept", |bench| bench.iter(|| watch.read()));

    group.bench_function("own usage", |bench| bench.iter(own::usage));
    group.finish();
}

fn heartbeat_page(criterion: &mut Criterion<CpuTime>) {
    let pid = std::process::id() as i32;
    let page = heartbeat::Page::create("bench").unwrap();
    let identity = process::identity(proc_root(), pid);
    let start_time_ticks = identity.got().unwrap().start_time_ticks;
    let reader = heartbeat::find(proc_root(), pid, start_time_ticks);
    let reader = reader.got().unwrap();
    assert!(reader.read().got().is_some());
    criterion.bench_function("heartbeat", |bench| bench.iter(|| reader.read()));
    drop(page);
}

/// Against the number of open fds.
fn open_fds(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("fds");
    for open in [100, 1_000, 10_000] {
        let Some(target) = Target::start(1, open) else { break };
        let pid = target.pid();
        group.bench_function(BenchmarkId::new("number and limit, anew", open), |bench| {
            bench.iter(|| fds::read(proc_root(), pid));
        });
        let mut watch = fds::Watch::new(proc_root(), pid);
        group.bench_function(BenchmarkId::new("number and limit, kept", open), |bench| {
            bench.iter(|| watch.read());
        });
        let mut walk = CensusWalk::new(proc_root(), pid);
        group.bench_function(BenchmarkId::new("slice of a census", open), |bench| {
            bench.iter(|| walk.advance(SLICE, || true));
        });
        group.bench_function(BenchmarkId::new("census", open), |bench| {
            bench.iter(|| fds::census(proc_root(), pid));
        });
    }
    group.finish();
}

/// Against the number of threads, all asleep.
fn sleeping_threads(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("threads");
    for count in [1, 10, 60] {
        let target = Target::start(count, 3).unwrap();
        let pid = target.pid();
        for (name, want_stacks) in [("anew", false), ("anew, with stacks", true)] {
            group.bench_function(BenchmarkId::new(name, count), |bench| {
                bench.iter(|| threads::read(proc_root(), pid, want_stacks));
            });
        }
        let ask = ask(count as u64);
        let cases = [
            ("kept, quiet", ask),
            ("kept, all in full", Ask { full_within: 1, ..ask }),
            ("kept, listed each time", Ask { threads: None, ..ask }),
            ("kept, with switches", Ask { switches: true, ..ask }),
        ];
        for (name, ask) in cases {
            let mut watch = threads::Watch::new(proc_root(), pid);
            assert_eq!(watch.read(&ask).got().map(Vec::len), Some(count));
            group.bench_function(BenchmarkId::new(name, count), |bench| {
                bench.iter(|| watch.read(&ask));
            });
        }
    }
    group.finish();
}

/// All that is read at every tick, of a process of ten threads.
fn tick(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("process, fds and ten threads");
    for open in [100, 10_000] {
        let Some(target) = Target::start(10, open) else { break };
        let pid = target.pid();
        group.bench_function(BenchmarkId::new("anew", open), |bench| {
            bench.iter(|| {
                (
                    process::read(proc_root(), pid),
                    fds::read(proc_root(), pid),
                    threads::read(proc_root(), pid, false),
                )
            });
        });
        let mut watch = process::Watch::new(proc_root(), pid);
        let mut count = fds::Watch::new(proc_root(), pid);
        let mut all = threads::Watch::new(proc_root(), pid);
        group.bench_function(BenchmarkId::new("kept", open), |bench| {
            bench.iter(|| {
                let process = watch.read();
                let Reading::Got(raw) = &process else { panic!("{process:?}") };
                let threads = all.read(&ask(raw.threads));
                (process, count.read(), threads)
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .with_measurement(CpuTime)
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500));
    targets = small_files, heartbeat_page, sleeping_threads, open_fds, tick
}

fn main() {
    if let Ok(size) = std::env::var(SIZE) {
        return be_target(&size);
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
