//! What one whole fast tick of the watcher costs, against the number of connections of the process
//! it watches: everything that is read at every tick of a calm server. And beside it, in the same
//! run, the same tick from procfs alone (`--probes procfs`).
//!
//! The process that is watched is this one: two rings, ten threads, and connections of which both
//! ends are here, so the namespace holds twice as many sockets as it serves.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has no result")]

use std::hint::black_box;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use io_uring::IoUring;
use stallscope::watch::budget::Budget;
use stallscope::watch::now_ns;
use stallscope::watch::sampler::{Due, Sampler};
use stallscope::watch::session::Probes;
use stallscope_probes::process;

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

/// Connects until there are `count`; false when the limit of open files does not allow it.
fn connect(listener: &TcpListener, pairs: &mut Vec<(TcpStream, TcpStream)>, count: usize) -> bool {
    let address = listener.local_addr().unwrap();
    while pairs.len() < count {
        let Ok(client) = TcpStream::connect(address) else { return false };
        let Ok((server, _)) = listener.accept() else { return false };
        pairs.push((client, server));
    }
    true
}

fn ticks(criterion: &mut Criterion) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all).unwrap();
    let rings = [(), ()].map(|()| IoUring::new(256).unwrap());
    let wake = threads();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let pid = i32::try_from(std::process::id()).unwrap();
    let identity = process::identity(std::path::Path::new("/proc"), pid);
    let start = identity.got().unwrap().start_time_ticks;
    let budget = Budget::new(10_000, now_ns());
    let due = |due_ns| Due {
        due_ns,
        suspicious: false,
        important_tids: &[],
        interval_asked_ns: INTERVAL_NS,
        interval_ns: INTERVAL_NS,
        budget: &budget,
    };
    let mut pairs = Vec::new();
    let mut group = criterion.benchmark_group("tick");
    for connections in [100, 1_000, 10_000] {
        if !connect(&listener, &mut pairs, connections) {
            println!("the limit of open files does not allow {connections} connections: left out");
            break;
        }
        for (name, probes) in [("fast", Probes::Auto), ("procfs alone", Probes::Procfs)] {
            let mut sampler = Sampler::new(pid, start, None, probes);
            // The first look, and the census of the fds, are not what is measured.
            while sampler
                .sample(&due(now_ns()))
                .rings
                .got()
                .is_none_or(|all| all.len() < rings.len())
            {}
            group.bench_function(BenchmarkId::new(name, connections), |bench| {
                bench.iter(|| black_box(sampler.sample(&due(now_ns()))));
            });
        }
    }
    group.finish();
    drop((wake, rings));
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = ticks
}
criterion_main!(benches);
