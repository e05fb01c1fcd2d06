//! What it costs to read a ring: from its memory, and from its fdinfo, of the same ring in the same
//! run. The process that is looked at is this one.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has no result")]

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use io_uring::{IoUring, opcode, types};
use stallscope_probes::pidfd::PidFd;
use stallscope_probes::ring::{self, RingAccess, RingMemory, Rings};

/// Against the number of operations in flight. fdinfo takes the ring's lock meanwhile.
fn one_ring(criterion: &mut Criterion) {
    let Ok(mut uring) = IoUring::new(1_024) else {
        println!("this kernel gives no io_uring: left out");
        return;
    };
    let proc_root = Path::new("/proc");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (pid, fd) = (i32::try_from(std::process::id()).unwrap(), uring.as_raw_fd());
    let accept = opcode::Accept::new(
        types::Fd(listener.as_raw_fd()),
        std::ptr::null_mut(),
        std::ptr::null_mut(),
    )
    .build();
    let process = PidFd::open(pid);
    let memory = RingMemory::attach(proc_root, process.got().unwrap(), fd);
    let memory = memory.got().unwrap();
    let mut rings = Rings::new(proc_root, pid, RingAccess::Memory);
    rings.follow(&[fd]);

    let mut group = criterion.benchmark_group("ring");
    group.bench_function("attach and release", |bench| {
        bench.iter(|| RingMemory::attach(proc_root, process.got().unwrap(), fd));
    });
    let mut armed = 0;
    for count in [1, 100, 1_000, 10_000] {
        while armed < count {
            for _ in 0..(count - armed).min(1_000) {
                // SAFETY: the entry refers to no memory.
                unsafe { uring.submission().push(&accept) }.unwrap();
                armed += 1;
            }
            uring.submit().unwrap();
        }
        let seen = ring::read_fdinfo(proc_root, pid, fd);
        let seen = seen.got().map(|parsed| parsed.armed.of(opcode::Accept::CODE));
        assert_eq!(seen, Some(count), "the ring was not read, or is not what it should be");
        let state = memory.state();
        assert_eq!(state.got().unwrap().sq_head, count, "the memory is not the ring's");

        group.bench_function(BenchmarkId::new("counters", count), |bench| {
            bench.iter(|| memory.counters());
        });
        group.bench_function(BenchmarkId::new("state", count), |bench| {
            bench.iter(|| memory.state());
        });
        group.bench_function(BenchmarkId::new("Rings::read", count), |bench| {
            bench.iter(|| rings.read());
        });
        group.bench_function(BenchmarkId::new("fdinfo", count), |bench| {
            bench.iter(|| ring::read_fdinfo(proc_root, pid, fd));
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
    targets = one_ring
}
criterion_main!(benches);
