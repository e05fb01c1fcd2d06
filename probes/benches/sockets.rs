//! What a look at the TCP sockets costs against their number, beside the text of `/proc/net/tcp`
//! and the command `ss`. Half of the sockets are accepted connections to the served port of this
//! process, half are their clients, held by another one: the limit of open files holds for each.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has no result")]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stallscope_probes::sample::PEERS_MAX;
use stallscope_probes::sockets::{Diag, Peers, Tracker, Wanted, local_port_range, procnet};
use stallscope_probes::{fds, process};

/// Of each of the two processes: its half of the sockets, and some more.
const FDS: u64 = 10_000 + 500;
/// Set for the process that holds the clients: where they connect to.
const CLIENTS_OF: &str = "STALLSCOPE_BENCH_CLIENTS_OF";
/// Looks of which the CPU time is taken: a clock tick is 10 ms.
const LOOKS: u32 = 50;

fn proc_root() -> &'static Path {
    Path::new("/proc")
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap()
}

fn raise_fd_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|soft| soft < FDS) {
        let maximum = limit.maximum.map(|hard| hard.max(FDS));
        // Above the hard limit for root only; what it does not allow is left out below.
        setrlimit(Resource::Nofile, Rlimit { current: Some(FDS), maximum }).ok();
    }
}

/// The process that holds the clients.
struct Clients(Child);

impl Clients {
    fn start(address: SocketAddr) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        command.env(CLIENTS_OF, address.to_string()).stdin(Stdio::piped()).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// Has it make this many more.
    fn connect(&mut self, count: usize) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{count}").unwrap();
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// In that process: connects as it is told, until the other one is gone.
fn hold_clients(address: &str) {
    let mut held = Vec::new();
    for line in BufReader::new(std::io::stdin()).lines() {
        let count: usize = line.unwrap().parse().unwrap();
        held.extend((0..count).map(|_| TcpStream::connect(address).unwrap()));
    }
}

fn tcp_sockets(criterion: &mut Criterion) {
    let pid = own_pid();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let diag = Diag::open(proc_root(), pid);
    let diag = diag.got().unwrap();
    let range = *local_port_range(proc_root(), pid).got().unwrap();
    let mut group = criterion.benchmark_group("sockets");
    let mut clients = Clients::start(address);
    let mut accepted = Vec::new();
    let broker = TcpListener::bind("127.0.0.1:0").unwrap();
    let to_broker = [(); PEERS_MAX].map(|()| TcpStream::connect(broker.local_addr().unwrap()));
    for sockets in [100, 1_000, 10_000, 20_000] {
        let more = sockets / 2 - accepted.len();
        clients.connect(more);
        accepted.extend((0..more).map(|_| listener.accept().unwrap()));
        let own: BTreeSet<u64> = fds::census(proc_root(), pid).got().unwrap().socket_inodes.clone();
        let ports = [address.port()];
        let wanted = Wanted { own_inodes: Some(&own), ..Wanted::new(&ports, range) };
        let (mut tracker, mut peers) = (Tracker::default(), Peers::default());
        let census = diag.connections(&wanted);
        peers.found(census.got().unwrap());
        let before = tracker.update(census.got().unwrap().clone());
        assert_eq!(before.served[0].accepted_open as usize, accepted.len());

        let mut alive = || {
            let alive = diag.connections_alive(&wanted);
            tracker.update_alive(alive.got().unwrap().clone(), &before)
        };
        print_cpu("alive", sockets, &mut alive);
        group.bench_function(BenchmarkId::new("alive", sockets), |bench| bench.iter(&mut alive));
        let mut census = || tracker.update(diag.connections(&wanted).got().unwrap().clone());
        print_cpu("census", sockets, &mut census);
        group.bench_function(BenchmarkId::new("census", sockets), |bench| bench.iter(&mut census));
        let asking = Wanted { answers: true, ..wanted };
        let mut alive_info = || {
            let alive = diag.connections_alive(&asking);
            tracker.update_alive(alive.got().unwrap().clone(), &before)
        };
        print_cpu("alive, answers", sockets, &mut alive_info);
        group.bench_function(BenchmarkId::new("alive, answers", sockets), |bench| {
            bench.iter(&mut alive_info);
        });
        let mut census_info = || tracker.update(diag.connections(&asking).got().unwrap().clone());
        print_cpu("census, answers", sockets, &mut census_info);
        group.bench_function(BenchmarkId::new("census, answers", sockets), |bench| {
            bench.iter(&mut census_info);
        });
        let mut nobody = || diag.connections(&Wanted::new(&[1], (1, 1)));
        print_cpu("census of nothing", sockets, &mut nobody);
        group.bench_function(BenchmarkId::new("census of nothing", sockets), |bench| {
            bench.iter(&mut nobody);
        });
        group.bench_function(BenchmarkId::new("peers", sockets), |bench| {
            bench.iter(|| assert_eq!(peers.refresh(diag).got().unwrap().len(), PEERS_MAX));
        });
        group.bench_function(BenchmarkId::new("listeners", sockets), |bench| {
            bench.iter(|| diag.listeners());
        });
        group.bench_function(BenchmarkId::new("census, text", sockets), |bench| {
            bench.iter(|| procnet::connections(proc_root(), pid, &wanted));
        });
        group.bench_function(BenchmarkId::new("listeners, text", sockets), |bench| {
            bench.iter(|| procnet::listeners(proc_root(), pid));
        });
        group.bench_function(BenchmarkId::new("listeners, ss -ltn", sockets), |bench| {
            bench.iter(|| Command::new("ss").arg("-ltn").stdout(Stdio::null()).status());
        });
    }
    group.finish();
    drop(to_broker);
}

/// User and kernel time of one look.
fn print_cpu<T>(name: &str, sockets: usize, look: &mut dyn FnMut() -> T) {
    let ticks = || {
        let read = process::read(proc_root(), own_pid());
        let read = read.got().unwrap();
        (read.utime_ticks, read.stime_ticks)
    };
    let before = ticks();
    for _ in 0..LOOKS {
        black_box(look());
    }
    let after = ticks();
    let each_us = |ticks: u64| ticks * 10_000 / u64::from(LOOKS);
    println!(
        "{name}/{sockets}: CPU of one, user {} us, kernel {} us",
        each_us(after.0 - before.0),
        each_us(after.1 - before.1),
    );
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = tcp_sockets
}

fn main() {
    raise_fd_limit();
    if let Ok(address) = std::env::var(CLIENTS_OF) {
        return hold_clients(&address);
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
