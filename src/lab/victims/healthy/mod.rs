//! Healthy servers that look ill: the twins of the faults. None of them ever writes a truth.
#![expect(
    clippy::disallowed_methods,
    reason = "these servers and clients have clocks of their own: they are not the watcher"
)]

mod clients;

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::kafka::{self, http};
use super::{Options, Run, say_ready};
use http::{Answer, Request};

/// By name.
pub(super) const VICTIMS: &[(&str, Run)] = &[
    ("twin-server", plain),
    ("twin-server-uring", plain_uring),
    ("twin-server-3s", three_seconds),
    ("twin-server-cpu", cpu_heavy),
    ("twin-server-pauses", pauses),
    ("twin-server-kafka", kafka_copes),
    ("client-holds-4000", clients::holds),
    ("client-bursts", clients::bursts),
    ("client-drips", clients::drips),
    ("client-staggers-50", clients::staggers),
    ("client-awaits-push", clients::awaits_push),
    ("client-waits-4s", clients::waits),
    ("client-upgrades", clients::upgrades),
];

/// How long a request takes that only waits.
const LONG_REQUEST: Duration = Duration::from_secs(3);
/// CPU time of a heavy request.
const HEAVY_REQUEST: Duration = Duration::from_millis(30);
/// How long the runtime's thread pauses, as for a garbage collection, and how often.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_EVERY: Duration = Duration::from_secs(1);
/// Round trip to a broker that is slow, and keeps up.
const SLOW_ROUND_TRIP: Duration = Duration::from_millis(300);

/// Answers at once, but for two paths: `/after/MS` is answered so many ms later, and `/upgrade`
/// becomes a connection that stays open and says nothing.
async fn at_once(request: Request) -> Answer {
    if request.path == "/upgrade" {
        return Answer::Switched;
    }
    let delay_ms = request.path.strip_prefix("/after/").and_then(|ms| ms.parse().ok());
    if let Some(delay_ms) = delay_ms {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
    }
    Answer::Ok
}

async fn later(_: Request) -> Answer {
    tokio::time::sleep(LONG_REQUEST).await;
    Answer::Ok
}

async fn after_much_work(_: Request) -> Answer {
    let ends = Instant::now() + HEAVY_REQUEST;
    while Instant::now() < ends {
        std::hint::black_box((0..1000_u64).fold(0, |sum, step| sum ^ std::hint::black_box(step)));
    }
    Answer::Ok
}

fn plain(options: &Options) -> anyhow::Result<()> {
    serve(options, || {}, at_once)
}

fn plain_uring(options: &Options) -> anyhow::Result<()> {
    raise_fd_limit()?;
    let listener = http::listen(options.listen)?;
    let address = listener.local_addr()?;
    http::serve_uring(listener, || say_ready(Some(address)), at_once)
}

fn three_seconds(options: &Options) -> anyhow::Result<()> {
    serve(options, || {}, later)
}

fn cpu_heavy(options: &Options) -> anyhow::Result<()> {
    serve(options, || {}, after_much_work)
}

fn pauses(options: &Options) -> anyhow::Result<()> {
    let begin = || {
        tokio::task::spawn_local(async {
            loop {
                tokio::time::sleep(PAUSE_EVERY).await;
                std::thread::sleep(PAUSE);
            }
        });
    };
    serve(options, begin, at_once)
}

fn kafka_copes(options: &Options) -> anyhow::Result<()> {
    kafka::coping(options, SLOW_ROUND_TRIP)
}

fn serve<S>(options: &Options, begin: impl FnOnce(), service: S) -> anyhow::Result<()>
where
    S: AsyncFn(Request) -> Answer + 'static,
{
    raise_fd_limit()?;
    let listener = http::listen(options.listen)?;
    let address = listener.local_addr()?;
    let begin = || {
        begin();
        say_ready(Some(address))
    };
    http::serve_tokio(listener, begin, service)
}

/// As many fds as this process may have.
fn raise_fd_limit() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(())
}
