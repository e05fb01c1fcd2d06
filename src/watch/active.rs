//! The active probe: a connection of the watcher's own to the target, now and then (opt-in).
//!
//! It works on a thread of its own. An attempt lasts up to three seconds, and a tick must not wait
//! for it; and what it measures is tenths of a millisecond, which a look at every tick could not
//! tell. The ticks say when an attempt is due and carry along what came of the last one. There is
//! never more than one connection at a time, and never more than one begun per interval.
//!
//! A connection that a stalled target never accepts stays in its accept queue, even once this end
//! has closed it. So where attempts go unanswered (and with [`ActiveHow::Tcp`], which cannot tell,
//! as soon as something is suspected) they become rarer: a queue of 1,024 is not filled by us.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use stallscope_probes::active::{Call, Until, Waited, outcome_of, reachable, request};
use stallscope_probes::sample::{
    ActiveHow, ActiveOutcome, ActivePlan, ActiveRaw, Holder, ListenerRaw,
};
use stallscope_probes::{Absence, Probe, Reading, Why};

use super::clock::now_ns;

/// Shortest time between the beginnings of two attempts.
pub const EVERY_MIN: Duration = Duration::from_millis(100);
/// How long a connection may take. A SYN that is dropped is sent again after a second (RFC 6298):
/// what has not come about by then was dropped.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// How long the first byte of an answer may take.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// How long, and how much, of the rest of an answer is taken in before the connection is closed: a
/// close with bytes unread is a reset, which the target would take for an error.
const REST_PATIENCE: Duration = Duration::from_millis(200);
const REST_BYTES_MAX: usize = 256 * 1024;

/// After so many attempts in a row without an answer they become rarer,
const FAILURES_MAX: u32 = 3;
/// by this factor,
const RARER: u32 = 10;
/// but for that not rarer than this.
const RARELY: Duration = Duration::from_secs(10);

/// What the user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What an attempt does.
    pub how: ActiveHow,
    /// Time between the beginnings of two attempts, at least [`EVERY_MIN`].
    pub every: Duration,
    /// The path that is asked for with [`ActiveHow::Http`]
    /// (checked by [`is_path`](stallscope_probes::active::is_path)).
    pub path: String,
    /// The port to go to; without one, the target's first own listener.
    pub port: Option<u16>,
}

impl Plan {
    fn raw(&self) -> ActivePlan {
        let every_ms = u32::try_from(self.every.as_millis()).unwrap_or(u32::MAX);
        ActivePlan { how: self.how, every_ms }
    }
}

/// Makes the attempts. Dropping it ends the one under way, and the thread.
#[derive(Debug)]
pub struct ActiveProbe {
    plan: Plan,
    shared: Arc<Mutex<Shared>>,
    worker: Reading<Worker>,
    /// Where the target listens, as last seen: when it no longer does, a refusal there proves it.
    listens_on: Option<SocketAddr>,
    ordered_ns: Option<u64>,
}

/// What the thread tells.
#[derive(Debug)]
struct Shared {
    last: Probe<ActiveRaw>,
    /// Whether an attempt is ordered or under way.
    busy: bool,
}

#[derive(Debug)]
struct Worker {
    /// Room for one: an order is given only when none is under way. `None` once it is to end.
    orders: Option<SyncSender<SocketAddr>>,
    cancel: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.orders = None;
        // It stays readable: every further wait of the attempt under way ends at once.
        rustix::io::write(&self.cancel, &1_u64.to_ne_bytes()).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl ActiveProbe {
    /// For the process `pid`. Connects nowhere yet.
    pub fn new(plan: Plan, proc_root: &Path, pid: i32) -> Self {
        let last = Probe::not_sampled("no attempt was due yet");
        let shared = Arc::new(Mutex::new(Shared { last, busy: false }));
        let worker = Worker::start(&plan, proc_root, pid, &shared);
        Self { plan, shared, worker, listens_on: None, ordered_ns: None }
    }

    /// Begins an attempt when one is due; what came of the last one. `suspicious`: something waits
    /// and does not move.
    pub fn tick(
        &mut self,
        listeners: &Reading<Vec<ListenerRaw>>,
        suspicious: bool,
    ) -> Probe<ActiveRaw> {
        self.listens_on = self.aim(listeners).or(self.listens_on);
        let absent = |absence: &Absence| Probe {
            reading: Reading::Absent(absence.clone()),
            ..Probe::not_sampled("")
        };
        let orders = match &self.worker {
            Reading::Got(Worker { orders: Some(orders), .. }) => orders,
            Reading::Got(_) => return Probe::not_sampled("the attempts have ended"),
            Reading::Absent(absence) => return absent(absence),
        };
        let Some(to) = self.listens_on else {
            return match listeners.absence() {
                Some(absence) => absent(absence),
                None => absent(&Absence {
                    why: Why::Gone,
                    detail: String::from("the process listens on no TCP port"),
                }),
            };
        };
        let now_ns = now_ns();
        let mut shared = lock(&self.shared);
        let due = self.ordered_ns.is_none_or(|ordered_ns| {
            let rest = nanoseconds(self.rest(&shared.last, suspicious));
            now_ns.saturating_sub(ordered_ns) >= rest
        });
        if due && !shared.busy && orders.try_send(to).is_ok() {
            shared.busy = true;
            self.ordered_ns = Some(now_ns);
        }
        shared.last.clone()
    }

    /// Ends the attempt under way, and the thread: nothing of the target's is held any longer.
    pub fn release(&mut self) {
        self.worker = Reading::absent(Why::Gone, "the process has exited");
    }

    /// The listener to connect to: the target's own first, or the one on the port asked for.
    fn aim(&self, listeners: &Reading<Vec<ListenerRaw>>) -> Option<SocketAddr> {
        let own = |one: &&ListenerRaw| one.holder != Holder::Other;
        let asked = |one: &&ListenerRaw| self.plan.port.is_none_or(|port| one.local.port() == port);
        listeners.got()?.iter().filter(own).find(asked).map(|one| one.local)
    }

    /// Time between the beginnings of two attempts, as things stand.
    fn rest(&self, last: &Probe<ActiveRaw>, suspicious: bool) -> Duration {
        let every = self.plan.every;
        let unheard = last.got().is_some_and(|raw| {
            // What was refused has left nothing behind.
            raw.failures_in_a_row >= FAILURES_MAX && raw.outcome != ActiveOutcome::Refused
        });
        let blind = self.plan.how == ActiveHow::Tcp && suspicious;
        if unheard || blind { every.max(RARELY.min(every.saturating_mul(RARER))) } else { every }
    }
}

impl Worker {
    fn start(
        plan: &Plan,
        proc_root: &Path,
        pid: i32,
        shared: &Arc<Mutex<Shared>>,
    ) -> Reading<Self> {
        let cancel = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let cancel = match cancel {
            Ok(cancel) => Arc::new(cancel),
            Err(errno) => return Reading::from(Err(errno.into())),
        };
        let (orders, ordered) = sync_channel(1);
        let line = Line {
            plan: plan.clone(),
            proc_root: proc_root.to_owned(),
            pid,
            cancel: Arc::clone(&cancel),
            shared: Arc::clone(shared),
            attempts: 0,
            failures_in_a_row: 0,
            last_success_ns: None,
        };
        let builder = std::thread::Builder::new().name(String::from("active-probe"));
        let thread = builder.spawn(move || line.work(&ordered));
        let thread = match thread {
            Ok(thread) => Some(thread),
            Err(error) => return Reading::from(Err(error)),
        };
        Reading::Got(Self { orders: Some(orders), cancel, thread })
    }
}

/// The thread's side.
struct Line {
    plan: Plan,
    proc_root: PathBuf,
    pid: i32,
    cancel: Arc<OwnedFd>,
    shared: Arc<Mutex<Shared>>,
    attempts: u64,
    failures_in_a_row: u32,
    last_success_ns: Option<u64>,
}

/// Why there is no outcome.
enum Cut {
    /// It is to end.
    Cancelled,
    /// The target's namespace cannot be entered.
    Absent(Absence),
}

/// A connection that was made, and how long that took.
struct Made {
    call: Call,
    connect_us: u32,
}

impl Line {
    fn work(mut self, orders: &Receiver<SocketAddr>) {
        for local in orders {
            let began_ns = now_ns();
            match self.attempt(local, began_ns) {
                Ok(made) => self.take_rest(made.as_ref()),
                Err(Cut::Cancelled) => return,
                Err(Cut::Absent(absence)) => {
                    let reading = Reading::Absent(absence);
                    lock(&self.shared).last =
                        Probe { begin_ns: began_ns, end_ns: now_ns(), reading };
                }
            }
            lock(&self.shared).busy = false;
        }
    }

    /// One attempt, told to the ticks; the connection, if one was made.
    fn attempt(&mut self, local: SocketAddr, began_ns: u64) -> Result<Option<Made>, Cut> {
        self.attempts += 1;
        let mut made = Err(outcome_of(Errno::DESTADDRREQ.raw_os_error()));
        let mut to = local;
        for address in reachable(local) {
            to = address;
            self.tell(to, began_ns, ActiveOutcome::Pending);
            made = self.connect(to)?;
            // Nothing went out: the namespace has no such address, and the next may do.
            let nowhere = outcome_of(Errno::ADDRNOTAVAIL.raw_os_error());
            if made.as_ref().err() != Some(&nowhere) {
                break;
            }
        }
        let outcome = match &made {
            Err(outcome) => *outcome,
            Ok(made) if self.plan.how == ActiveHow::Tcp => {
                ActiveOutcome::Answered { connect_us: made.connect_us, answer_us: None }
            }
            Ok(made) => self.ask(made, to)?,
        };
        self.count(outcome);
        self.tell(to, began_ns, outcome);
        Ok(made.ok())
    }

    fn connect(&self, to: SocketAddr) -> Result<Result<Made, ActiveOutcome>, Cut> {
        let from_ns = now_ns();
        let call = match Call::begin(&self.proc_root, self.pid, to) {
            Reading::Got(Ok(call)) => call,
            Reading::Got(Err(errno)) => return Ok(Err(outcome_of(errno))),
            Reading::Absent(absence) => return Err(Cut::Absent(absence)),
        };
        if !self.wait(&call, Until::Connected, from_ns, CONNECT_PATIENCE)? {
            return Ok(Err(ActiveOutcome::ConnectTimeout));
        }
        Ok(match call.connected() {
            Ok(()) => Ok(Made { call, connect_us: microseconds_since(from_ns) }),
            Err(errno) => Err(outcome_of(errno)),
        })
    }

    /// Sends a request, and waits for the first byte of its answer.
    fn ask(&self, made: &Made, to: SocketAddr) -> Result<ActiveOutcome, Cut> {
        let Made { call, connect_us } = made;
        let none = ActiveOutcome::NoAnswer { connect_us: *connect_us };
        let from_ns = now_ns();
        if call.send(request(to, &self.plan.path).as_bytes()).is_err() {
            return Ok(none);
        }
        loop {
            if !self.wait(call, Until::Readable, from_ns, ANSWER_PATIENCE)? {
                return Ok(none);
            }
            match call.receive(&mut [0; 1]) {
                Ok(None) => {}
                // An end or a reset is no answer either.
                Ok(Some(0)) | Err(_) => return Ok(none),
                Ok(Some(_)) => {
                    return Ok(ActiveOutcome::Answered {
                        connect_us: *connect_us,
                        answer_us: Some(microseconds_since(from_ns)),
                    });
                }
            }
        }
    }

    /// Takes in the rest of an answer, up to its end, so that the close is no reset.
    fn take_rest(&self, made: Option<&Made>) {
        let Some(made) = made.filter(|_| self.plan.how == ActiveHow::Http) else { return };
        let from_ns = now_ns();
        let mut buffer = [0; 4096];
        let mut left_bytes = REST_BYTES_MAX;
        while left_bytes > 0
            && matches!(self.wait(&made.call, Until::Readable, from_ns, REST_PATIENCE), Ok(true))
        {
            match made.call.receive(&mut buffer) {
                Ok(Some(0)) | Err(_) => return,
                Ok(taken) => left_bytes = left_bytes.saturating_sub(taken.unwrap_or(0)),
            }
        }
    }

    /// Waits until `patience` after `from_ns` is over; whether what was waited for came.
    fn wait(
        &self,
        call: &Call,
        until: Until,
        from_ns: u64,
        patience: Duration,
    ) -> Result<bool, Cut> {
        let end_ns = from_ns.saturating_add(nanoseconds(patience));
        loop {
            let left = Duration::from_nanos(end_ns.saturating_sub(now_ns()));
            match call.wait(until, left, self.cancel.as_fd()) {
                Waited::Ready => return Ok(true),
                Waited::TimedOut => return Ok(false),
                Waited::Cancelled => return Err(Cut::Cancelled),
                Waited::Interrupted => {}
            }
        }
    }

    const fn count(&mut self, outcome: ActiveOutcome) {
        match outcome {
            ActiveOutcome::Answered { .. } => self.failures_in_a_row = 0,
            ActiveOutcome::Refused
            | ActiveOutcome::ConnectTimeout
            | ActiveOutcome::NoAnswer { .. } => {
                self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
            }
            // The target has not been asked.
            ActiveOutcome::NotMade { .. } | ActiveOutcome::Pending => {}
        }
    }

    fn tell(&mut self, target: SocketAddr, began_ns: u64, outcome: ActiveOutcome) {
        let end_ns = now_ns();
        if matches!(outcome, ActiveOutcome::Answered { .. }) {
            self.last_success_ns = Some(end_ns);
        }
        let raw = ActiveRaw {
            plan: self.plan.raw(),
            target,
            began_ns,
            outcome,
            attempts: self.attempts,
            failures_in_a_row: self.failures_in_a_row,
            last_success_ns: self.last_success_ns,
        };
        lock(&self.shared).last = Probe { begin_ns: began_ns, end_ns, reading: Reading::Got(raw) };
    }
}

/// A thread that panicked in between has left whole values: each is written at once.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn microseconds_since(from_ns: u64) -> u32 {
    u32::try_from(now_ns().saturating_sub(from_ns) / 1_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "active_tests.rs"]
mod tests;
