//! Signs of life, and of trouble, that are remembered from tick to tick.

use std::collections::BTreeMap;

use super::subject::Subject;
use super::thresholds::DROPS_APART_MAX_NS;
use crate::model::threads::{Doing, doing};
use crate::model::{ListenerModel, Model};

/// Signs of life that are read at every tick. Neither proves progress; both date its end.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Signs {
    open_fds: Option<(u64, u64)>,
    /// When the number of open fds last changed, and half the uncertainty: something was accepted
    /// or closed.
    pub(super) last_fd_change: Option<(u64, u64)>,
    /// That, as it was when the ports were first seen to be used up: who took the last one was
    /// accepted, here or where the target connected to.
    pub(super) last_port_taken: Option<(u64, u64)>,
    had_no_port: bool,
    /// The last tick in which a runtime thread waited, and the first after it in which none did.
    last_waited: Option<(u64, u64)>,
    last_seen_ns: Option<u64>,
    last_tick_ns: Option<u64>,
    /// The last tick before every runtime thread was asleep elsewhere, and the first in which all
    /// were, since one last waited for events.
    blocked_from: Option<(u64, u64)>,
    /// Ticks in a row in which one was awake and none waited for events.
    awake_ticks: u32,
    /// Ticks in a row in which every runtime thread was asleep elsewhere.
    pub(super) blocked_ticks: u32,
    /// Share of the time for which the runtime thread that waited for a CPU most did so, over the
    /// last second or so.
    waits_for_cpu: f64,
    /// Times a second the runtime's threads were put on a CPU of late, and for how many ticks in a
    /// row they have hardly been.
    switches_per_s: f64,
    silent_ticks: u32,
}

impl Signs {
    pub(super) fn push(&mut self, now: &Model) {
        self.fds(now);
        let doings: Vec<Doing> = now.runtime_threads().map(doing).collect();
        if doings.is_empty() {
            return;
        }
        if doings.contains(&Doing::Waiting) {
            self.last_seen_ns = Some(now.at_ns);
            self.last_waited = None;
        } else if let (Some(seen_ns), None) = (self.last_seen_ns, self.last_waited) {
            self.last_waited = Some((seen_ns, now.at_ns));
        }
        self.starvation(now);
        self.silence(now);
        let before_ns = self.last_tick_ns.replace(now.at_ns).unwrap_or(now.at_ns);
        let blocked = doings.iter().all(|doing| *doing == Doing::Blocked);
        self.blocked_ticks = if blocked { self.blocked_ticks.saturating_add(1) } else { 0 };
        if blocked {
            self.awake_ticks = 0;
            self.blocked_from.get_or_insert((before_ns, now.at_ns));
        } else {
            self.awake_ticks = self.awake_ticks.saturating_add(1);
            let works = self.awake_ticks >= AWAKE_TICKS_AT_WORK;
            if works || doings.contains(&Doing::Waiting) {
                self.blocked_from = None;
            }
        }
    }

    /// Takes whether ephemeral ports are used up.
    pub(super) const fn push_ports(&mut self, none_left: bool) {
        if none_left && !self.had_no_port {
            self.last_port_taken = self.last_fd_change;
        }
        self.had_no_port = none_left;
    }

    fn starvation(&mut self, now: &Model) {
        let delays = now.runtime_threads().filter_map(|thread| thread.delay_ratio.got().copied());
        let most = delays.fold(0.0_f64, f64::max).clamp(0.0, 1.0);
        self.waits_for_cpu += (most - self.waits_for_cpu) * STARVATION_WEIGHT;
    }

    fn silence(&mut self, now: &Model) {
        let rates = now.runtime_threads().filter_map(|thread| thread.switches_per_s.got().copied());
        let rate: f64 = rates.sum();
        let silent =
            rate < self.switches_per_s * SILENT_SHARE && self.switches_per_s >= LIVELY_PER_S;
        if silent {
            self.silent_ticks = self.silent_ticks.saturating_add(1);
        } else {
            self.silent_ticks = 0;
            self.switches_per_s += (rate - self.switches_per_s) * STARVATION_WEIGHT;
        }
        if self.silent_ticks >= SILENT_TICKS_SUSPICIOUS.end {
            // It is idle, then.
            self.switches_per_s = rate;
            self.silent_ticks = 0;
        }
    }

    /// Whether a server that was at work has just fallen silent: it may have no work, or be stuck.
    pub(super) fn fell_silent(self) -> bool {
        SILENT_TICKS_SUSPICIOUS.contains(&self.silent_ticks)
    }

    /// By how much longer things take for want of a CPU: a thread that gets a quarter of the time
    /// needs four times as long. Not beyond a bound: a stall on a busy machine is one too.
    pub(super) fn stretched(self, hold_ms: u64) -> u64 {
        let share = (1.0 - self.waits_for_cpu).max(1.0 / STRETCH_MAX);
        (hold_ms as f64 / share) as u64
    }

    fn fds(&mut self, now: &Model) {
        let Some(open) = now.fds.got().map(|fds| fds.open) else { return };
        if let Some((then_ns, then)) = self.open_fds.replace((now.at_ns, open))
            && then != open
        {
            let half_ns = now.at_ns.saturating_sub(then_ns) / 2;
            self.last_fd_change = Some((then_ns.saturating_add(half_ns), half_ns));
        }
    }

    /// For how long every runtime thread has been asleep elsewhere, ns.
    pub(super) fn blocked_for_ns(self) -> u64 {
        match (self.blocked_ticks, self.blocked_from, self.last_tick_ns) {
            (1.., Some((_, since_ns)), Some(now_ns)) => now_ns.saturating_sub(since_ns),
            _ => 0,
        }
    }

    /// The instant at which the loop stopped, and half its uncertainty: where its thread fell
    /// asleep elsewhere; or, when it did not, where it last waited for events, as every loop does
    /// that turns and is not saturated.
    pub(super) fn loop_stopped(self) -> Option<(u64, u64)> {
        let (seen_ns, missed_ns) = self.blocked_from.or(self.last_waited)?;
        let half_ns = missed_ns.saturating_sub(seen_ns) / 2;
        Some((seen_ns.saturating_add(half_ns), half_ns))
    }
}

/// Threads that were put on a CPU at least so often were serving somebody.
const LIVELY_PER_S: f64 = 20.0;
/// Of that, so little is silence: timers go on.
const SILENT_SHARE: f64 = 0.25;
/// Ticks of silence that call for a closer look, and after how many it is a habit.
const SILENT_TICKS_SUSPICIOUS: std::ops::Range<u32> = 3..60;

/// Weight of one tick in the mean of the time waited for a CPU: a second at 20 ticks a second.
const STARVATION_WEIGHT: f64 = 0.05;
/// Holds are stretched to this many times at most.
const STRETCH_MAX: f64 = 4.0;

/// A thread that is awake for so many ticks in a row is at work. For one it may only have looked
/// whether what it is blocked on has come (librdkafka's flush does so ten times a second).
const AWAKE_TICKS_AT_WORK: u32 = 2;

/// Ticks in a row with every runtime thread blocked that call for a closer look; and for how long:
/// a process whose main thread sleeps for good by design is not looked at closer for ever.
pub(super) const BLOCKED_TICKS_SUSPICIOUS: std::ops::Range<u32> = 2..60;

/// When counters of drops and refusals last rose.
#[derive(Debug, Default, Clone)]
pub(super) struct Rises {
    /// By listener's inode.
    drops: BTreeMap<u32, u64>,
    /// Listeners that had dropped connections by the first look of all, and whether their queue was full
    /// then; `None` before it.
    dropped_before: Option<BTreeMap<u32, bool>>,
    handshakes_ns: Option<u64>,
    overflows_ns: Option<u64>,
    /// Packets dropped for want of room among the tracked connections, at the last look, and when that
    /// rose.
    untracked: Option<u64>,
    untracked_ns: Option<u64>,
    /// Between which looks it began to rise.
    untracked_from: Option<(u64, u64)>,
    tables_at_ns: u64,
    /// When resets were last seen to be sent, and when before that.
    resets_ns: Option<(u64, Option<u64>)>,
    /// Since when the cgroup has been throttled, without a break: the tick before, and the first.
    throttled_ns: Option<(u64, u64)>,
    unthrottled_ns: Option<u64>,
}

impl Rises {
    pub(super) fn push(&mut self, now: &Model) {
        let listeners = now.listeners.got();
        self.drops.retain(|inode, _| {
            listeners.is_none_or(|all| all.iter().any(|listener| listener.inode == *inode))
        });
        if listeners.is_some() && self.dropped_before.is_none() {
            let dropped =
                now.own_listeners().filter(|one| one.drops.is_some_and(|count| count > 0));
            let is_full = |one: &ListenerModel| one.limit.is_some_and(|limit| one.queued > limit);
            self.dropped_before = Some(dropped.map(|one| (one.inode, is_full(one))).collect());
        }
        for listener in now.own_listeners() {
            if listener.drops_new.got().is_some_and(|drops| *drops > 0) {
                self.drops.insert(listener.inode, now.at_ns);
            }
        }
        match now.cgroup.got().and_then(|cgroup| cgroup.throttled_new) {
            Some(1..) => {
                let before_ns = self.unthrottled_ns.unwrap_or(now.at_ns);
                self.throttled_ns.get_or_insert((before_ns, now.at_ns));
            }
            Some(0) => {
                self.unthrottled_ns = Some(now.at_ns);
                self.throttled_ns = None;
            }
            None => {}
        }
        if let Some(table) = now.tables.got().and_then(|tables| tables.conntrack.got()) {
            let before = self.untracked.replace(table.drops);
            if before.is_some_and(|before| table.drops > before) {
                if !self.untracked(now.at_ns) {
                    self.untracked_from = Some((self.tables_at_ns, now.tables_at_ns));
                }
                self.untracked_ns = Some(now.at_ns);
            }
            self.tables_at_ns = now.tables_at_ns;
        }
        let Some(tcp) = now.tcp.got() else { return };
        // Answered with a cookie, a client is let in all the same.
        if tcp.req_q_full_drops_new.is_some_and(|count| count > 0) {
            self.handshakes_ns = Some(now.at_ns);
        }
        if tcp.listen_overflows_new.is_some_and(|count| count > 0) {
            self.overflows_ns = Some(now.at_ns);
        }
        if tcp.out_rsts_new.is_some_and(|count| count > 0) {
            self.resets_ns = Some((now.at_ns, self.resets_ns.map(|(last_ns, _)| last_ns)));
        }
    }

    /// When throttling began, and half the uncertainty.
    pub(super) fn throttled_from(&self) -> Option<(u64, u64)> {
        let (before_ns, first_ns) = self.throttled_ns?;
        let half_ns = first_ns.saturating_sub(before_ns) / 2;
        Some((before_ns.saturating_add(half_ns), half_ns))
    }

    /// Whether connections were dropped at this listener of late.
    pub(super) fn dropping(&self, inode: u32, now_ns: u64) -> bool {
        recent(self.drops.get(&inode).copied(), now_ns)
    }

    /// Whether clients that were dropped at this listener may be about to try again: after one second,
    /// three, and seven, and those that were dropped together come together.
    pub(super) fn may_drop_again(&self, inode: u32, now_ns: u64) -> bool {
        let dropped_ns = self.drops.get(&inode);
        dropped_ns.is_some_and(|at_ns| now_ns.saturating_sub(*at_ns) <= TRIED_AGAIN_NS)
    }

    /// Whether connections had been dropped at this listener, or at any, before the first look.
    pub(super) fn had_dropped(&self, inode: Option<u32>) -> bool {
        let before = self.dropped_before.as_ref();
        before.is_some_and(|all| inode.map_or(!all.is_empty(), |inode| all.contains_key(&inode)))
    }

    /// By when after the first tick `subject` has been looked at for the first time. Where a queue was
    /// full then, and had dropped before, drops show when those clients try again.
    pub(super) fn first_look_ns(&self, subject: Subject) -> u64 {
        let was_full = |inode| self.dropped_before.as_ref().and_then(|all| all.get(inode).copied());
        match subject {
            Subject::Overflow(inode) if was_full(&inode) == Some(true) => TRIED_AGAIN_NS,
            _ => subject.first_look_ns(),
        }
    }

    /// Whether handshakes were dropped of late.
    pub(super) fn dropping_handshakes(&self, now_ns: u64) -> bool {
        recent(self.handshakes_ns, now_ns)
    }

    /// Whether an accept queue of the namespace was found full of late.
    pub(super) fn overflowing(&self, now_ns: u64) -> bool {
        recent(self.overflows_ns, now_ns)
    }

    /// Whether connections were dropped of late because none further can be tracked. Clients that get
    /// no answer try again after one second, three, and seven.
    pub(super) fn untracked(&self, now_ns: u64) -> bool {
        self.untracked_ns.is_some_and(|at_ns| now_ns.saturating_sub(at_ns) <= TRIED_AGAIN_NS)
    }

    /// When connections began to be dropped for that, and half the uncertainty.
    pub(super) fn untracked_from(&self) -> Option<(u64, u64)> {
        let (before_ns, first_ns) = self.untracked_from?;
        let half_ns = first_ns.saturating_sub(before_ns) / 2;
        Some((before_ns.saturating_add(half_ns), half_ns))
    }

    /// Whether resets were sent of late: once, which may be anybody's, or again and again.
    pub(super) fn refusing(&self, now_ns: u64) -> Option<Refusing> {
        let (last_ns, before_ns) = self.resets_ns?;
        recent(Some(last_ns), now_ns).then_some(())?;
        Some(if recent(before_ns, last_ns) { Refusing::Repeatedly } else { Refusing::Once })
    }
}

/// Longer than the pauses that a client makes before its second and its third try (`TCP_TIMEOUT_INIT`,
/// doubled each time).
const TRIED_AGAIN_NS: u64 = 5_000_000_000;

/// Whether clients are turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusing {
    /// One look showed resets.
    Once,
    /// Two did, a moment apart.
    Repeatedly,
}

fn recent(at_ns: Option<u64>, now_ns: u64) -> bool {
    at_ns.is_some_and(|at_ns| now_ns.saturating_sub(at_ns) <= DROPS_APART_MAX_NS)
}
