//! Runs a plan: resolves the name, starts the connections, keeps the time.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use super::client::{Shared, keep_busy};
use super::gate::{Gate, Timer};
use super::outcome::Outcome;
use super::pace::Pace;
use super::plan::{Plan, Target};
use super::slot::{Slot, sweep_interval};
use super::tally::Tally;

/// Between two calls of `progress`, and two looks at `stop`.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// How long one of several addresses may take to answer before the next is tried.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a run could not start. What fails later is counted, not returned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name has no address.
    #[error("cannot resolve '{host}': {source}")]
    Resolve {
        /// The name.
        host: String,
        /// As the resolver says.
        source: io::Error,
    },
    /// epoll or the timer could not be had.
    #[error("cannot start the event loop of the load generator: {0}")]
    Runtime(#[from] io::Error),
}

/// Time since the run began.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Self(Instant::now())
    }

    /// ns since the start.
    pub fn now_ns(&self) -> u64 {
        ns(self.0.elapsed())
    }
}

fn ns(duration: Duration) -> u64 {
    // 2^64 ns are 584 years.
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Runs the plan to its end on the calling thread, which must not be inside a tokio runtime.
/// `progress` is called ten times a second.
///
/// # Errors
/// When the run cannot start: the name has no address, or the event loop cannot be made.
pub fn run(plan: &Plan, progress: &mut dyn FnMut(&Tally)) -> Result<Outcome, Error> {
    let address = resolve(&plan.target)?;
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    // Made first: the time of the run is for the server alone.
    let request = plan.request_bytes();
    let clock = Clock::start();
    let gate = plan.rate.map(|rate| Rc::new(Gate::new(Pace::new(rate), clock)));
    let shared = Rc::new(Shared {
        address,
        request,
        close: plan.close,
        timeout_ns: ns(plan.timeout),
        clock,
        gate: gate.clone(),
        tally: RefCell::new(Tally::new()),
    });
    let slots: Vec<_> =
        std::iter::repeat_with(|| Rc::new(Slot::new())).take(plan.connections).collect();
    start(&runtime, &shared, &slots)?;
    runtime.block_on(async {
        tokio::select! {
            () = keep_time(plan, &shared, progress) => {}
            never = sweep(&slots, clock, plan.timeout) => match never {},
        }
    });
    let elapsed = Duration::from_nanos(clock.now_ns());
    // What falls due as the run ends was not held up by the server.
    let last_ns = ns(plan.duration).saturating_sub(1).min(clock.now_ns());
    let overdue = gate.map(|gate| gate.overdue(last_ns));
    // Ends all connections; what was under way is counted as unfinished.
    drop(runtime);
    let tally = shared.tally.take();
    Ok(Outcome { plan: plan.clone(), address, tally, elapsed, overdue })
}

/// Starts the connections, and in an open loop the hand-out of requests.
fn start(runtime: &LocalRuntime, shared: &Rc<Shared>, slots: &[Rc<Slot>]) -> io::Result<()> {
    if let Some(gate) = &shared.gate {
        let timer = runtime.block_on(async { Timer::new() })?;
        let serving = gate.clone().serve(timer);
        runtime.spawn_local(async move {
            // timerfd_settime fails for invalid arguments only (timerfd_create(2)).
            if let Err(error) = serving.await {
                tracing::error!(%error, "the open loop has no timer");
            }
        });
    }
    for slot in slots {
        runtime.spawn_local(keep_busy(shared.clone(), slot.clone()));
    }
    Ok(())
}

/// Reports, until the time is up or the run is to stop.
async fn keep_time(plan: &Plan, shared: &Shared, progress: &mut dyn FnMut(&Tally)) {
    let end_ns = ns(plan.duration);
    loop {
        let left_ns = end_ns.saturating_sub(shared.clock.now_ns());
        if left_ns == 0 || plan.stop.load(Ordering::Relaxed) {
            return;
        }
        tokio::time::sleep(PROGRESS_EVERY.min(Duration::from_nanos(left_ns))).await;
        progress(&shared.tally.borrow());
    }
}

async fn sweep(slots: &[Rc<Slot>], clock: Clock, timeout: Duration) -> std::convert::Infallible {
    let interval = sweep_interval(timeout);
    loop {
        tokio::time::sleep(interval).await;
        let now_ns = clock.now_ns();
        for slot in slots {
            slot.sweep(now_ns);
        }
    }
}

/// The address to load, found once. Of several (`localhost` is often `::1` and `127.0.0.1`) the
/// first that takes a connection; the only one, or the first if none does, is not tried.
fn resolve(target: &Target) -> Result<SocketAddr, Error> {
    let failed = |source| Error::Resolve { host: target.host.clone(), source };
    let found = (target.host.as_str(), target.port).to_socket_addrs().map_err(failed)?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let none = || failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    let first = *addresses.first().ok_or_else(none)?;
    if addresses.len() == 1 {
        return Ok(first);
    }
    let answers =
        |address: &&SocketAddr| TcpStream::connect_timeout(address, PROBE_TIMEOUT).is_ok();
    Ok(addresses.iter().find(answers).copied().unwrap_or(first))
}
