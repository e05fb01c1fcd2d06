//! What the causes look at: the ticks since the onset, with the questions most of them ask.

use std::sync::Arc;

use stallscope_probes::sample::{RingState, SyscallRaw, TcpState};

use super::verdict::{Evidence, Value};
use crate::detect::Onset;
use crate::detect::thresholds::Thresholds;
use crate::model::threads::{Doing, doing};
use crate::model::tiers::Tier;
use crate::model::{Model, PeerModel, RingModel, ThreadModel, syscall};

/// A stall to be explained.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The stall.
    pub onset: &'a Onset,
    /// Ticks kept, oldest first; those before the onset too.
    pub history: &'a [Arc<Model>],
    /// The instant of the verdict, ns.
    pub now_ns: u64,
    /// What detection calls full, and a storm: what it found is judged by the same.
    pub thresholds: &'a Thresholds,
    /// From where on a reading counts as evidence.
    pub weights: &'a super::thresholds::Thresholds,
}

/// Causes judge the last ticks, at most this far back: what matters is what holds now.
pub const JUDGED_NS: u64 = 1_000_000_000;
/// The longer look.
const JUDGED_LONG_NS: u64 = 3_000_000_000;
/// The onset may be the server's own record of its last progress: for a moment after it, heads
/// still move and threads still wake with what was under way.
const SETTLED_NS: u64 = 150_000_000;
/// A queue whose head has stood still for so long is frozen, even where the judged ticks begin
/// earlier: an onset that is dated a little too early brings ticks in which all was well.
const FROZEN_NS: u64 = 400_000_000;

/// A thread over the judged ticks.
#[derive(Debug, Clone)]
pub struct ThreadSpan<'a> {
    /// Its last state.
    pub last: &'a ThreadModel,
    /// Ticks in which it was seen.
    pub ticks: usize,
    /// Of those, asleep in a wait for events.
    pub waiting: usize,
    /// Of those, asleep elsewhere.
    pub blocked: usize,
    /// Of those, running or runnable.
    pub running: usize,
    /// Mean share of time on a CPU or waiting for one, where it was read.
    pub wants_cpu: Option<f64>,
    /// CPU time it used, clock ticks: in user mode and in the kernel.
    pub cpu_ticks: Option<(u64, u64)>,
}

/// One ring over the judged ticks.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is an observation of its own")]
pub struct RingSpan<'a> {
    /// Its fd.
    pub fd: i32,
    /// Which kind of evidence its counters are.
    pub tier: Tier,
    /// Its last good read.
    pub last: &'a RingState,
    /// Good reads.
    pub reads: usize,
    /// In every judged read, or in those of the last [`FROZEN_NS`], entries waited unsubmitted and
    /// the head did not move.
    pub sq_frozen: bool,
    /// Likewise, completions waited unreaped.
    pub cq_frozen: bool,
    /// The head of the CQ never moved.
    pub cq_still: bool,
    /// The tail of the CQ moved: completions were posted.
    pub cq_posting: bool,
}

impl<'a> Case<'a> {
    /// The ticks that are judged: since the onset, at most [`JUDGED_NS`] back.
    pub fn judged(&self) -> &'a [Arc<Model>] {
        self.from(self.onset.at_ns.saturating_add(SETTLED_NS), JUDGED_NS)
    }

    /// The ticks of a longer look, for what needs one: CPU time comes in clock ticks.
    fn judged_long(&self) -> &'a [Arc<Model>] {
        self.from(self.onset.at_ns, JUDGED_LONG_NS)
    }

    fn from(&self, earliest_ns: u64, back_ns: u64) -> &'a [Arc<Model>] {
        let from_ns = earliest_ns.max(self.now_ns.saturating_sub(back_ns));
        let first = self.history.partition_point(|model| model.at_ns <= from_ns);
        &self.history[first..]
    }

    /// The last tick.
    pub fn last(&self) -> Option<&'a Model> {
        self.history.last().map(Arc::as_ref)
    }

    /// The runtime's threads over the judged ticks.
    pub fn runtime(&self) -> Vec<ThreadSpan<'a>> {
        let Some(last) = self.last() else { return Vec::new() };
        last.runtime_threads().map(|thread| self.span(thread)).collect()
    }

    fn span(&self, last: &'a ThreadModel) -> ThreadSpan<'a> {
        let mut span = ThreadSpan {
            last,
            ticks: 0,
            waiting: 0,
            blocked: 0,
            running: 0,
            wants_cpu: None,
            cpu_ticks: None,
        };
        let mut wants = Vec::new();
        let seen = |model: &'a Arc<Model>| model.thread(last.tid);
        let first = self.judged_long().iter().find_map(seen);
        for model in self.judged() {
            let Some(thread) = seen(model) else { continue };
            span.ticks += 1;
            match doing(thread) {
                Doing::Running => span.running += 1,
                Doing::Waiting => span.waiting += 1,
                Doing::Blocked => span.blocked += 1,
                Doing::Stopped | Doing::Unclear => {}
            }
            if let (Some(cpu), Some(delay)) = (thread.cpu_ratio.got(), thread.delay_ratio.got()) {
                // The two are read a moment after the clock: a little more than all is all.
                wants.push((cpu + delay).min(1.0));
            }
        }
        if !wants.is_empty() {
            span.wants_cpu = Some(wants.iter().sum::<f64>() / wants.len() as f64);
        }
        span.cpu_ticks = first.and_then(|first| cpu_ticks(first, last));
        span
    }

    /// The rings over the judged ticks; those with no good read are left out.
    pub fn rings(&self) -> Vec<RingSpan<'a>> {
        let Some(last) = self.last() else { return Vec::new() };
        let fds = last.all_rings().iter().map(|ring| ring.fd);
        fds.filter_map(|fd| self.ring_span(fd)).collect()
    }

    fn ring_span(&self, fd: i32) -> Option<RingSpan<'a>> {
        // A read is carried along until the next: one of before the onset says nothing of after it.
        let settled_ns = self.onset.at_ns.saturating_add(SETTLED_NS);
        let good = |model: &'a Arc<Model>| {
            let ring = model.ring(fd).filter(|ring| ring.at_ns > settled_ns)?;
            Some((ring, (ring.at_ns, ring.state.got()?)))
        };
        let (rings, reads): (Vec<&RingModel>, Vec<(u64, &RingState)>) =
            self.judged().iter().filter_map(good).unzip();
        let (tier, (_, last)) = (rings.last()?.tier(), *reads.last()?);
        let unsubmitted = |read: &RingState| read.sq_pending() > 0 && read.sq_head == last.sq_head;
        let unreaped = |read: &RingState| read.cq_pending() > 0 && read.cq_head == last.cq_head;
        Some(RingSpan {
            fd,
            tier,
            last,
            reads: reads.len(),
            sq_frozen: is_frozen(&reads, unsubmitted),
            cq_frozen: is_frozen(&reads, unreaped),
            cq_still: reads.iter().all(|(_, read)| read.cq_head == last.cq_head),
            cq_posting: reads.iter().any(|(_, read)| read.cq_tail != last.cq_tail),
        })
    }

    /// Rings of the process that gave no good read in the judged ticks, or, where not even those
    /// could be told, why.
    pub fn unread_rings(&self) -> Option<String> {
        let rings = &self.last()?.rings;
        if let Some(absence) = rings.absence() {
            return Some(absence.detail.clone());
        }
        let unread = |ring: &&RingModel| self.ring_span(ring.fd).is_none();
        let ring = rings.got()?.iter().find(unread)?;
        let why = ring.state.absence().map_or("no good read", |absence| &absence.detail);
        Some(format!("ring {}: {why}", ring.fd))
    }

    /// Reads of the operations in flight since the onset, each once: ring, instant, operations of
    /// `opcode`.
    pub fn armed(&self, opcode: u8) -> Vec<(i32, u64, u32)> {
        let mut reads: Vec<(i32, u64, u32)> = Vec::new();
        for model in self.from(self.onset.at_ns, u64::MAX) {
            for ring in model.all_rings() {
                let Some(armed) = ring.armed.got() else { continue };
                let known =
                    reads.iter().any(|(fd, at_ns, _)| *fd == ring.fd && *at_ns == armed.at_ns);
                if !known && armed.at_ns > self.onset.at_ns {
                    reads.push((ring.fd, armed.at_ns, armed.of(opcode)));
                }
            }
        }
        reads
    }

    /// Whether some own accept queue had connections in it at every judged tick, and never fewer
    /// than before; `None` when the queues could not be read.
    pub fn queue_stuck(&self) -> Option<bool> {
        let last = self.last()?;
        last.listeners.got()?;
        let stuck = |inode: u32| {
            let mut least = 1;
            self.judged().iter().filter(|model| model.listeners.got().is_some()).all(|model| {
                let queued = model
                    .own_listeners()
                    .find(|listener| listener.inode == inode)
                    .map_or(0, |listener| listener.queued);
                let holds = queued >= least;
                least = queued;
                holds
            })
        };
        Some(last.own_listeners().any(|listener| stuck(listener.inode)))
    }

    /// Since when `holds` has held without a break, looking back from the last tick; ticks of
    /// which it cannot be told are passed over.
    pub fn since(&self, holds: impl Fn(&Model) -> Option<bool>) -> Option<u64> {
        let mut since_ns = None;
        for model in self.history.iter().rev() {
            match holds(model) {
                Some(true) => since_ns = Some(model.at_ns),
                Some(false) => break,
                None => {}
            }
        }
        since_ns
    }

    /// What waits in the accept queues, as evidence; `None` when nothing does.
    pub fn queue_evidence(&self) -> Option<Evidence> {
        let listener = self.last()?.own_listeners().max_by_key(|listener| listener.queued)?;
        (listener.queued > 0).then(|| Evidence {
            tier: Tier::Listeners,
            signal: match listener.limit {
                Some(limit) => format!("accept queue of {} (limit {limit})", listener.local),
                None => format!("accept queue of {}", listener.local),
            },
            value: Value::Number(f64::from(listener.queued)),
            unit: String::from("connections"),
            since_ns: self.since(|model| model.queued().map(|queued| queued > 0)),
        })
    }
}

/// Whether it stands still in the last of these reads: in all of them, or for [`FROZEN_NS`].
fn is_frozen(reads: &[(u64, &RingState)], still: impl Fn(&RingState) -> bool) -> bool {
    let Some((last_ns, _)) = reads.last() else { return false };
    let moved = reads.iter().rposition(|(_, read)| !still(read));
    moved.is_none_or(|moved| {
        reads
            .get(moved + 1)
            .is_some_and(|(since_ns, _)| last_ns.saturating_sub(*since_ns) >= FROZEN_NS)
    })
}

/// Which operations wait, as the kernel names them.
pub fn waiting_ops(ring: &RingSpan<'_>, since_ns: Option<u64>) -> Option<Evidence> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    let pending = ring.last.pending.got().map_or(&[][..], Vec::as_slice);
    for (op, _) in pending {
        match counts.iter_mut().find(|(name, _)| *name == op.as_str()) {
            Some((_, count)) => *count += 1,
            None => counts.push((op, 1)),
        }
    }
    let mut words: Vec<String> = counts.iter().map(|(op, count)| format!("{count} {op}")).collect();
    let listed = pending.len() as u64;
    let unlisted = u64::from(ring.last.sq_pending()).saturating_sub(listed);
    if unlisted > 0 && listed > 0 {
        words.push(format!("{unlisted} more"));
    }
    (!words.is_empty()).then(|| {
        let signal = format!("ring {} operations not submitted", ring.fd);
        word(ring.tier, signal, words.join(", "), since_ns)
    })
}

/// Connections to others named in evidence.
const PEERS_NAMED_MAX: usize = 4;

/// What the process waits for from others and from its cgroup, as evidence for a stall that has no
/// reason of its own in sight: connections to others that do not get on, throttling.
pub fn outside_evidence(last: &Model) -> Vec<Evidence> {
    let mut waiting: Vec<&PeerModel> =
        last.all_peers().iter().filter(|peer| peer.waits()).collect();
    waiting.sort_by_key(|peer| std::cmp::Reverse(peer.raw.unsent_bytes));
    let mut evidence: Vec<Evidence> =
        waiting.iter().take(PEERS_NAMED_MAX).map(|peer| waiting_peer(peer)).collect();
    if let Some(more) = waiting.len().checked_sub(PEERS_NAMED_MAX).filter(|more| *more > 0) {
        let signal = "more connections to others that wait";
        evidence.push(number(Tier::Peers, signal, more as f64, "connections", None));
    }
    if let Some(cgroup) = last.cgroup.got().filter(|cgroup| cgroup.is_throttled()) {
        evidence.push(match cgroup.throttled_ratio {
            Some(ratio) => {
                let signal = "periods in which its cgroup was throttled (cpu.max)";
                number(Tier::Cgroup, signal, ratio * 100.0, "% of the periods", None)
            }
            None => word(Tier::Cgroup, "its cgroup was throttled (cpu.max)", "yes", None),
        });
    }
    evidence
}

fn waiting_peer(peer: &PeerModel) -> Evidence {
    let raw = &peer.raw;
    let whom = if peer.kafka { "Kafka at " } else { "" };
    if raw.state == TcpState::SynSent {
        let signal = format!("connection to {whom}{}", raw.remote);
        return word(Tier::Peers, signal, "SYN sent, no answer", None);
    }
    let again = peer.retransmitted_new.got().filter(|new| **new > 0);
    let again = again.map_or_else(String::new, |new| format!(", {new} segments sent again"));
    let signal = format!("not acknowledged by {whom}{}{again}", raw.remote);
    number(Tier::Peers, signal, f64::from(raw.unsent_bytes), "bytes", None)
}

/// CPU time used between two states of a thread, clock ticks: in user mode and in the kernel.
fn cpu_ticks(first: &ThreadModel, last: &ThreadModel) -> Option<(u64, u64)> {
    let user = last.utime_ticks.checked_sub(first.utime_ticks)?;
    let kernel = last.stime_ticks.checked_sub(first.stime_ticks)?;
    Some((user, kernel))
}

/// The system call a thread is in, in words.
pub fn syscall_words(thread: &ThreadModel) -> Option<String> {
    match thread.syscall.got()? {
        SyscallRaw::Running => Some(String::from("running")),
        SyscallRaw::NotInSyscall => Some(String::from("no system call")),
        SyscallRaw::In { nr, .. } => {
            Some(syscall::name(*nr).map_or_else(|| format!("system call {nr}"), str::to_owned))
        }
    }
}

/// A number as evidence.
pub fn number(
    tier: Tier,
    signal: impl Into<String>,
    value: f64,
    unit: &str,
    since_ns: Option<u64>,
) -> Evidence {
    let value = Value::Number(value);
    Evidence { tier, signal: signal.into(), value, unit: unit.to_owned(), since_ns }
}

/// A word as evidence.
pub fn word(
    tier: Tier,
    signal: impl Into<String>,
    value: impl Into<String>,
    since_ns: Option<u64>,
) -> Evidence {
    Evidence {
        tier,
        signal: signal.into(),
        value: Value::Text(value.into()),
        unit: String::new(),
        since_ns,
    }
}
