//! What one whole fast tick of the watcher costs in CPU time, against the number of connections of
//! the process it watches: everything that is read at every tick of a calm server. And beside it, in
//! the same run, the same tick from procfs alone (`--probes procfs`).
//!
//! Between two ticks there is a pause, as there is in life: the caches are cold then, and a tick costs
//! many times what it costs in a closed loop. The process that is watched is this one: two rings, ten
//! threads, and the serving ends of the connections. The clients are another process, so that the
//! limit of open files allows more; the namespace holds twice as many sockets as are served.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has no result")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group};
use io_uring::IoUring;
use rustix::time::{ClockId, clock_gettime};
use stallscope::watch::budget::Budget;
use stallscope::watch::now_ns;
use stallscope::watch::sampler::{Due, Sampler};
use stallscope::watch::session::Probes;
use stallscope_probes::process;

/// Set for the process that holds the clients: address and count.
const CLIENTS: &str = "STALLSCOPE_BENCH_CLIENTS";
/// Pause between two ticks.
const PAUSE: Duration = Duration::from_millis(5);
const INTERVAL_NS: u64 = 50_000_000;
const THREADS: usize = 10;

fn threads() -> Vec<Sender<()>> {
    let sleeper = |_| {
        let (sender, receiver) = channel::<()>();
        std::thread::spawn(move || receiver.recv().is_err());
        sender
    };
    (1..THREADS).map(sleeper).collect()
}

/// The clients, in a process of their own, until their standard input ends.
struct Clients(Child);

impl Clients {
    fn start(listener: &TcpListener, count: usize) -> Self {
        let spec = format!("{} {count}", listener.local_addr().unwrap());
        let child = Command::new(std::env::current_exe().unwrap())
            .env(CLIENTS, spec)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    fn run(spec: &str) {
        let (address, count) = spec.split_once(' ').unwrap();
        let count = 0..count.parse::<usize>().unwrap();
        let _held: Vec<_> = count.map(|_| TcpStream::connect(address).unwrap()).collect();
        std::io::stdout().write_all(b"k\n").unwrap();
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

fn raise_file_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all).unwrap();
}

fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap()
}

/// CPU time of so many calm ticks, each after a pause. Ticks in which a census was taken as well do
/// not count: these come at a pace of their own.
fn calm_ticks(sampler: &mut Sampler, count: u64, due: impl Fn(u64) -> Due<'static>) -> Duration {
    let (mut spent, mut counted, mut before) = (Duration::ZERO, 0, None);
    while counted < count {
        std::thread::sleep(PAUSE);
        let begin = cpu_time();
        let sample = sampler.sample(&due(now_ns()));
        let cost = cpu_time().saturating_sub(begin);
        let censuses = (sample.sockets.begin_ns, sample.fd_kinds.begin_ns);
        if before.replace(censuses).is_none_or(|before| before == censuses) {
            spent += cost;
            counted += 1;
        }
    }
    spent
}

fn ticks(criterion: &mut Criterion) {
    raise_file_limit();
    let rings = [(), ()].map(|()| IoUring::new(256).unwrap());
    let wake = threads();
    let pid = i32::try_from(std::process::id()).unwrap();
    let identity = process::identity(std::path::Path::new("/proc"), pid);
    let start = identity.got().unwrap().start_time_ticks;
    // So much that nothing is put off.
    let budget: &'static Budget = Box::leak(Box::new(Budget::new(1_000_000, now_ns())));
    let due = |due_ns| Due {
        due_ns,
        suspicious: false,
        important_tids: &[],
        interval_asked_ns: INTERVAL_NS,
        interval_ns: INTERVAL_NS,
        budget,
    };
    let mut group = criterion.benchmark_group("tick");
    for connections in [100, 1_000, 10_000] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut clients = Clients::start(&listener, connections);
        let served: Vec<_> = (0..connections).map(|_| listener.accept().unwrap()).collect();
        clients.0.stdout.take().unwrap().read_exact(&mut [0; 2]).unwrap();
        for (name, probes) in [("fast", Probes::Auto), ("procfs alone", Probes::Procfs)] {
            let mut sampler = Sampler::new(pid, start, None, probes);
            // The first looks are not what is measured.
            while sampler
                .sample(&due(now_ns()))
                .rings
                .got()
                .is_none_or(|all| all.len() < rings.len())
            {}
            group.bench_function(BenchmarkId::new(name, connections), |bench| {
                bench.iter_custom(|count| calm_ticks(&mut sampler, count, due));
            });
        }
        drop((clients, served));
    }
    group.finish();
    drop((wake, rings));
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        // Of CPU time, which is a small part of what passes.
        .warm_up_time(Duration::from_millis(30))
        .measurement_time(Duration::from_millis(200));
    targets = ticks
}

fn main() {
    if let Ok(spec) = std::env::var(CLIENTS) {
        raise_file_limit();
        return Clients::run(&spec);
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
