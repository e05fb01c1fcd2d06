//! Follows everything that ought to progress, and says when a stall begins and ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::looks::{self, AcceptSigns, Side};
use super::thresholds::{
    ACCEPT_HOLD_NS, FROZEN_HOLD_NS, REFINE_MAX_NS, STOPPED_HOLD_NS, UNREAD_HOLD_NS,
};
use super::track::{Look, Stalled, Track};
use super::{Onset, StallKind};
use crate::model::threads::{Doing, doing};
use crate::model::{Model, RingModel, ServedModel};

/// A stall begins or ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Transition {
    /// It begins.
    Onset(Onset),
    /// It is over, since this instant, ns.
    Recovered(u64),
}

/// What one track follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Process,
    Submission(i32),
    Completion(i32),
    Beat,
    Unread(u16),
    Accept(u32),
}

impl Subject {
    const fn kind(self) -> StallKind {
        match self {
            Self::Process => StallKind::Stopped,
            Self::Submission(_) | Self::Completion(_) => StallKind::Ring,
            Self::Beat | Self::Unread(_) => StallKind::Runtime,
            Self::Accept(_) => StallKind::Accept,
        }
    }

    const fn hold_ns(self) -> u64 {
        match self {
            Self::Process => STOPPED_HOLD_NS,
            Self::Submission(_) | Self::Completion(_) | Self::Beat => FROZEN_HOLD_NS,
            Self::Unread(_) => UNREAD_HOLD_NS,
            Self::Accept(_) => ACCEPT_HOLD_NS,
        }
    }
}

/// Finds onsets and recoveries in a stream of models.
#[derive(Debug, Default)]
pub struct Detector {
    tracks: BTreeMap<Subject, Track>,
    /// The last good read of each ring and the last census of each port, to compare with.
    rings: BTreeMap<i32, RingModel>,
    served: BTreeMap<u16, ServedModel>,
    before: Option<Arc<Model>>,
    signs: Signs,
    onset: Option<Onset>,
}

/// Signs of life that are read at every tick. Neither proves progress; both date its end.
#[derive(Debug, Default, Clone, Copy)]
struct Signs {
    open_fds: Option<(u64, u64)>,
    /// When the number of open fds last changed, and half the uncertainty: something was accepted
    /// or closed.
    last_fd_change: Option<(u64, u64)>,
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
    blocked_ticks: u32,
}

impl Signs {
    fn push(&mut self, now: &Model) {
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

    fn fds(&mut self, now: &Model) {
        let Some(open) = now.fds.got().map(|fds| fds.open) else { return };
        if let Some((then_ns, then)) = self.open_fds.replace((now.at_ns, open))
            && then != open
        {
            let half_ns = now.at_ns.saturating_sub(then_ns) / 2;
            self.last_fd_change = Some((then_ns.saturating_add(half_ns), half_ns));
        }
    }

    /// The instant at which the loop stopped, and half its uncertainty: where its thread fell
    /// asleep elsewhere; or, when it did not, where it last waited for events, as every loop does
    /// that turns and is not saturated.
    fn loop_stopped(self) -> Option<(u64, u64)> {
        let (seen_ns, missed_ns) = self.blocked_from.or(self.last_waited)?;
        let half_ns = missed_ns.saturating_sub(seen_ns) / 2;
        Some((seen_ns.saturating_add(half_ns), half_ns))
    }
}

/// A thread that is awake for so many ticks in a row is at work. For one it may only have looked
/// whether what it is blocked on has come (librdkafka's flush does so ten times a second).
const AWAKE_TICKS_AT_WORK: u32 = 2;

/// Ticks in a row with every runtime thread blocked that call for a closer look; and for how long:
/// a process whose main thread sleeps for good by design is not looked at closer for ever.
const BLOCKED_TICKS_SUSPICIOUS: std::ops::Range<u32> = 2..60;

impl Detector {
    /// The present stall.
    pub const fn onset(&self) -> Option<&Onset> {
        self.onset.as_ref()
    }

    /// Whether something waits and does not move.
    pub fn is_demand_unmet(&self) -> bool {
        self.tracks.values().any(Track::is_suspect)
    }

    /// Whether a closer and dearer look is worth it.
    pub fn is_suspicious(&self) -> bool {
        self.is_demand_unmet() || BLOCKED_TICKS_SUSPICIOUS.contains(&self.signs.blocked_ticks)
    }

    /// Takes the next model.
    pub fn push(&mut self, model: &Arc<Model>) -> Option<Transition> {
        let looks = self.looks(model);
        self.remember(model);
        self.signs.push(model);
        let mut stalls: Vec<(Subject, Stalled)> = Vec::new();
        for (subject, look) in &looks {
            let track =
                self.tracks.entry(*subject).or_insert_with(|| Track::new(subject.hold_ns()));
            if let Some(stalled) = track.push(look) {
                stalls.push((*subject, stalled));
            }
        }
        self.before = Some(Arc::clone(model));
        if self.onset.is_some() {
            return self.recovery();
        }
        // Several tracks may find the same stall at once: the earliest onset is the stall's.
        let (subject, stalled) = stalls.into_iter().min_by_key(|(_, stalled)| stalled.at_ns)?;
        let onset = refine(self.sharpen(stalled, subject), subject.kind(), model);
        self.onset = Some(onset.clone());
        Some(Transition::Onset(onset))
    }

    /// Censuses are a second apart while all is calm. When a sign that is read at every tick was
    /// last seen within the time that they leave open, it dates the stall better.
    fn sharpen(&self, mut stalled: Stalled, subject: Subject) -> Stalled {
        let sign = match subject {
            Subject::Unread(_) => self.signs.loop_stopped(),
            Subject::Accept(_) => self.signs.last_fd_change,
            _ => None,
        };
        let Some((at_ns, within_ns)) = sign else { return stalled };
        let open_ns = stalled.within_ns.saturating_add(REFINE_MAX_NS);
        if at_ns.abs_diff(stalled.at_ns) <= open_ns && within_ns < stalled.within_ns {
            stalled.at_ns = at_ns;
            stalled.within_ns = within_ns;
        }
        stalled
    }

    fn recovery(&mut self) -> Option<Transition> {
        if self.tracks.values().any(Track::is_stalled) {
            return None;
        }
        let since_ns = self.onset.take()?.at_ns;
        let resumed = self.tracks.values().filter_map(Track::resumed_ns);
        let at_ns = resumed.filter(|at_ns| *at_ns >= since_ns).max();
        let now_ns = self.before.as_ref().map(|model| model.at_ns);
        at_ns.or(now_ns).map(Transition::Recovered)
    }

    fn looks(&mut self, now: &Arc<Model>) -> Vec<(Subject, Look)> {
        let mut looks = Vec::new();
        looks.extend(looks::stopped(now).map(|look| (Subject::Process, look)));
        for ring in now.all_rings() {
            let before = self.rings.get(&ring.fd);
            if before.is_some_and(|before| before.at_ns == ring.at_ns) {
                continue;
            }
            for (side, subject) in [
                (Side::Submission, Subject::Submission(ring.fd)),
                (Side::Completion, Subject::Completion(ring.fd)),
            ] {
                looks.extend(looks::ring(before, ring, side, now).map(|look| (subject, look)));
            }
        }
        let page_before = self.before.as_ref().and_then(|before| before.app.got());
        looks.extend(looks::beat(page_before, now).map(|look| (Subject::Beat, look)));
        if now.app.got().is_none() {
            for served in now.all_served() {
                let port = served.raw.port;
                let before = self.served.get(&port);
                if before.is_none_or(|before| before.at_ns < served.at_ns) {
                    let look = looks::unread(before, served, now);
                    looks.extend(look.map(|look| (Subject::Unread(port), look)));
                }
            }
        }
        looks.extend(self.accept_looks(now));
        self.forget(now);
        looks
    }

    fn accept_looks(&self, now: &Arc<Model>) -> Vec<(Subject, Look)> {
        now.own_listeners()
            .map(|listener| {
                let before = self.before.as_deref().and_then(|before| {
                    let then = before.own_listeners().find(|then| then.inode == listener.inode)?;
                    Some((before, then))
                });
                let port = listener.local.port();
                let census = now.all_served().iter();
                let signs = AcceptSigns {
                    page: now.app.got().filter(|app| app.raw.listen_port == Some(port)).map(
                        |app| (self.before.as_deref().and_then(|before| before.app.got()), app),
                    ),
                    census: census
                        .filter(|served| served.raw.port == port)
                        .map(|served| (self.served.get(&port), served))
                        .next(),
                };
                (Subject::Accept(listener.inode), looks::accept(before, listener, signs, now.at_ns))
            })
            .collect()
    }

    fn remember(&mut self, now: &Model) {
        for ring in now.all_rings() {
            if ring.state.got().is_some() {
                self.rings.insert(ring.fd, ring.clone());
            }
        }
        for served in now.all_served() {
            self.served.insert(served.raw.port, *served);
        }
    }

    /// Drops what is no longer there: a closed ring, a closed listener.
    fn forget(&mut self, now: &Model) {
        if let Some(rings) = now.rings.got() {
            self.rings.retain(|fd, _| rings.iter().any(|ring| ring.fd == *fd));
        }
        if let Some(served) = now.served.got() {
            self.served.retain(|port, _| served.iter().any(|served| served.raw.port == *port));
        }
        let listeners = now.listeners.got();
        let (rings, served) = (&self.rings, &self.served);
        self.tracks.retain(|subject, _| match subject {
            Subject::Process | Subject::Beat => true,
            Subject::Submission(fd) | Subject::Completion(fd) => rings.contains_key(fd),
            Subject::Unread(port) => served.contains_key(port),
            Subject::Accept(inode) => {
                listeners.is_none_or(|all| all.iter().any(|listener| listener.inode == *inode))
            }
        });
    }
}

/// Dates the onset by the server's own record of its last progress, where it keeps one.
fn refine(stalled: Stalled, kind: StallKind, now: &Model) -> Onset {
    let page = now.app.got().map(|app| &app.raw);
    let recorded = page.and_then(|page| match kind {
        StallKind::Accept => page.last_accept_ns,
        StallKind::Runtime => page.beat_ns.max(page.last_response_ns),
        StallKind::Answers => page.last_response_ns,
        StallKind::Ring | StallKind::Stopped => page.last_accept_ns.max(page.last_response_ns),
        StallKind::Listener | StallKind::Full | StallKind::Throttled => None,
    });
    let recorded = recorded.filter(|at_ns| {
        stalled.before_watch || at_ns.saturating_add(REFINE_MAX_NS) >= stalled.at_ns
    });
    let (at_ns, within_ns, last_progress) = match (recorded, kind) {
        (Some(at_ns), StallKind::Accept) => (at_ns, 0, "the last accept, by the server's page"),
        (Some(at_ns), StallKind::Runtime) => {
            (at_ns, 0, "the last beat or response, by the server's page")
        }
        (Some(at_ns), _) => (at_ns, 0, "the last accept or response, by the server's page"),
        (None, StallKind::Accept) => (
            stalled.at_ns,
            stalled.within_ns,
            "the last accept seen, or the first queued connection",
        ),
        (None, StallKind::Ring) => {
            (stalled.at_ns, stalled.within_ns, "the last move of the ring's head")
        }
        (None, StallKind::Runtime) => {
            (stalled.at_ns, stalled.within_ns, "the last change on any connection")
        }
        (None, StallKind::Answers) => {
            (stalled.at_ns, stalled.within_ns, "the last answer on any connection")
        }
        (None, StallKind::Listener | StallKind::Full | StallKind::Throttled) => {
            (stalled.at_ns, stalled.within_ns, "the last sample in another state")
        }
        (None, StallKind::Stopped) => {
            (stalled.at_ns, stalled.within_ns, "the last sample in another state")
        }
    };
    Onset {
        kind,
        at_ns,
        within_ns,
        before_watch: stalled.before_watch,
        detected_ns: now.at_ns,
        demand: stalled.demand,
        last_progress: last_progress.to_owned(),
        partial: None,
    }
}
