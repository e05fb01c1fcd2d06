//! Follows everything that ought to progress, and says when a stall begins and ends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use stallscope_probes::ring::OP_ACCEPT;

use super::habits::Habits;
use super::listening::Listening;
use super::looks::{self, AcceptSigns, Producer, Side};
use super::onset;
use super::patience::{Crowd, Patience};
use super::signs::{BLOCKED_TICKS_SUSPICIOUS, Refusing, Rises, Signs};
use super::subject::Subject;
use super::thresholds::Thresholds;
use super::track::{Look, Progress, Stalled, Track};
use super::{Onset, StallKind};
use crate::model::{ListenerModel, Model, RingModel, ServedModel};

/// A stall begins or ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Transition {
    /// It begins.
    Onset(Onset),
    /// It is over, since this instant, ns.
    Recovered(u64),
}

/// Finds onsets and recoveries in a stream of models.
#[derive(Debug, Default)]
pub struct Detector {
    thresholds: Thresholds,
    tracks: BTreeMap<Subject, Track>,
    /// The last good read of each ring and the last census of each port, to compare with.
    rings: BTreeMap<i32, RingModel>,
    served: BTreeMap<u16, ServedModel>,
    listening: Listening,
    /// Where it has been seen to connect to.
    connected_to: BTreeSet<SocketAddr>,
    before: Option<Arc<Model>>,
    /// When the first tick was.
    first_ns: Option<u64>,
    signs: Signs,
    rises: Rises,
    patience: Patience,
    habits: Habits,
    onset: Option<Onset>,
}

/// Destinations remembered: those of a proxy are many.
const DESTINATIONS_MAX: usize = 256;

impl Detector {
    /// With these thresholds.
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, ..Self::default() }
    }

    /// The present stall.
    pub const fn onset(&self) -> Option<&Onset> {
        self.onset.as_ref()
    }

    /// Whether something waits and does not move.
    pub fn is_demand_unmet(&self) -> bool {
        self.tracks.iter().any(|(subject, track)| track.is_suspect() && !subject.is_patient())
    }

    /// Whether a closer and dearer look is worth it.
    pub fn is_suspicious(&self) -> bool {
        self.is_demand_unmet()
            || self.signs.fell_silent()
            || BLOCKED_TICKS_SUSPICIOUS.contains(&self.signs.blocked_ticks)
    }

    /// Takes the next model.
    pub fn push(&mut self, model: &Arc<Model>) -> Option<Transition> {
        self.first_ns.get_or_insert(model.at_ns);
        self.rises.push(model);
        self.habits.push(model);
        self.note_ports(model);
        let looks = self.looks(model);
        self.learn(&looks, model);
        self.remember(model);
        self.signs.push(model);
        let no_port =
            looks.iter().any(|(subject, look)| *subject == Subject::Ports && look.demand.is_some());
        self.signs.push_ports(no_port);
        let producer = looks::producer(model);
        let mut stalls: Vec<(Subject, Stalled)> = Vec::new();
        for (subject, look) in &looks {
            let hold_ns = self.hold_ns(*subject, producer, model);
            let track = self.tracks.entry(*subject).or_insert_with(|| Track::new(hold_ns));
            track.set_hold(hold_ns);
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
        let signs = (&self.signs, &self.rises);
        let first_ns = self.first_ns.unwrap_or(model.at_ns);
        let mut stalled = onset::sharpen(stalled, subject, signs, &self.served, model, first_ns);
        // What was not there at the first look of all began since.
        let first_look_ends_ns = first_ns.saturating_add(self.rises.first_look_ns(subject));
        stalled.before_watch &= stalled.at_ns <= first_look_ends_ns;
        if let Subject::Gone(port) = subject {
            self.listening.date(port, &mut stalled);
        }
        let mut onset =
            onset::refine(stalled, subject.kind(), (first_ns, first_look_ends_ns), model);
        onset.partial = self.goes_on(subject, &onset, model);
        self.onset = Some(onset.clone());
        Some(Transition::Onset(onset))
    }

    /// How long the demand of `subject` may go unmet: requests without an answer get the more time
    /// the less is known of why.
    fn hold_ns(&self, subject: Subject, producer: Producer, now: &Model) -> u64 {
        let set = &self.thresholds;
        let full_ms = match subject {
            Subject::Answers(_) | Subject::PageAnswers => {
                let served = now.all_served().iter();
                let mut of_port = served.filter(|one| subject == Subject::Answers(one.raw.port));
                let served = of_port.next();
                let crowd = Crowd::of(served, now, set);
                let blocked =
                    self.signs.blocked_for_ns() >= set.unread_hold_ms.saturating_mul(1_000_000);
                match producer {
                    _ if blocked && crowd.outnumbers_threads => set.unread_hold_ms,
                    // Consumers of a queue, long polls, streams that nobody answers.
                    _ if !crowd.is_one => u64::MAX,
                    Producer::Trouble => set.answers_kafka_trouble_hold_ms,
                    Producer::Fine => set.answers_kafka_hold_ms,
                    Producer::None => self.patience.hold_ms(served, set),
                }
            }
            Subject::Neglected(_) if has_spare_accepts(now) => set.neglected_leak_hold_ms,
            Subject::Beat | Subject::Unread(_) | Subject::Accept(_) => {
                self.signs.stretched(subject.hold_ms(set))
            }
            _ => subject.hold_ms(set),
        };
        full_ms.saturating_mul(1_000_000)
    }

    /// How long clients wait while they are answered.
    fn learn(&mut self, looks: &[(Subject, Look)], now: &Model) {
        for (subject, look) in looks {
            if let (Subject::Answers(port), Progress::Made { .. }) = (subject, look.progress)
                && let Some(served) = now.all_served().iter().find(|one| one.raw.port == *port)
            {
                self.patience.learn(served);
            }
        }
    }

    fn recovery(&mut self) -> Option<Transition> {
        let now_ns = self.before.as_ref()?.at_ns;
        self.tracks.values_mut().for_each(|track| track.forget_if_unseen(now_ns));
        if self.tracks.values().any(Track::is_stalled) {
            return None;
        }
        let since_ns = self.onset.take()?.at_ns;
        let resumed = self.tracks.values().filter_map(Track::resumed_ns);
        let at_ns = resumed.filter(|at_ns| *at_ns >= since_ns).max();
        Some(Transition::Recovered(at_ns.unwrap_or(now_ns)))
    }

    /// What goes on all the same, in words.
    fn goes_on(&self, subject: Subject, onset: &Onset, now: &Model) -> Option<String> {
        if matches!(onset.kind, StallKind::Stopped | StallKind::Runtime) {
            return None;
        }
        let after = |at_ns: u64| at_ns > onset.at_ns.saturating_add(onset.within_ns + SETTLED_NS);
        let progressed = |other: &Subject| {
            let track = self.tracks.get(other).filter(|track| !track.is_stalled());
            track.and_then(Track::last_progress_ns).is_some_and(after)
        };
        let answering = self.tracks.keys().any(|other| {
            matches!(other, Subject::Answers(_) | Subject::PageAnswers)
                && *other != subject
                && progressed(other)
        });
        let accepting = now.own_listeners().find(|listener| {
            let other = Subject::Accept(listener.inode);
            other != subject && matches!(subject, Subject::Accept(_)) && progressed(&other)
        });
        match (accepting, answering) {
            (Some(listener), _) => Some(format!("connections to {} are accepted", listener.local)),
            (None, true) => Some(String::from("open connections are answered")),
            (None, false) if matches!(subject, Subject::Sibling(_)) => {
                Some(String::from("the target's own socket on that port accepts"))
            }
            (None, false) => None,
        }
    }

    fn looks(&mut self, now: &Arc<Model>) -> Vec<(Subject, Look)> {
        let mut looks = Vec::new();
        looks.extend(looks::stopped(now).map(|look| (Subject::Process, look)));
        self.ring_looks(now, &mut looks);
        let page_before = self.before.as_ref().and_then(|before| before.app.got());
        let beat = looks::beat(page_before, now, &self.thresholds);
        looks.extend(beat.map(|look| (Subject::Beat, look)));
        let answers = looks::answers_by_page(page_before, now);
        looks.extend(answers.map(|look| (Subject::PageAnswers, look)));
        self.served_looks(now, &mut looks);
        looks.extend(self.accept_looks(now));
        self.listening_looks(now, &mut looks);
        self.full_looks(now, &mut looks);
        self.forget(now);
        looks
    }

    fn ring_looks(&self, now: &Model, looks: &mut Vec<(Subject, Look)>) {
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
            let storm = looks::storm(ring, &self.thresholds);
            looks.extend(storm.map(|look| (Subject::Storm(ring.fd), look)));
        }
    }

    /// What a census of the connections shows, when there is a new one.
    fn served_looks(&self, now: &Model, looks: &mut Vec<(Subject, Look)>) {
        for served in now.all_served() {
            let port = served.raw.port;
            let before = self.served.get(&port);
            if before.is_some_and(|before| before.at_ns >= served.at_ns) {
                continue;
            }
            let neglected = looks::neglected(before, served, now);
            looks.extend(neglected.map(|look| (Subject::Neglected(port), look)));
            if now.app.got().is_some() {
                continue;
            }
            let unread = looks::unread(before, served, self.habits.is_one_left(now.at_ns), now);
            looks.extend(unread.map(|look| (Subject::Unread(port), look)));
            let answers = looks::answers(before, served);
            looks.extend(answers.map(|look| (Subject::Answers(port), look)));
        }
    }

    fn listener_before(&self, listener: &ListenerModel) -> Option<(&Model, &ListenerModel)> {
        let before = self.before.as_deref()?;
        let all = before.listeners.got()?;
        Some((before, all.iter().find(|then| then.inode == listener.inode)?))
    }

    fn accept_looks(&self, now: &Arc<Model>) -> Vec<(Subject, Look)> {
        now.own_listeners()
            .map(|listener| {
                let port = listener.local.port();
                // Of two sockets for one kind of address nobody knows whose an accept was.
                let shared = now.own_listeners().any(|other| {
                    looks::overlap(listener, other)
                        && listener.local.is_ipv4() == other.local.is_ipv4()
                });
                let census = now.all_served().iter();
                let signs = AcceptSigns {
                    page: now.app.got().filter(|app| app.raw.listen_port == Some(port)).map(
                        |app| (self.before.as_deref().and_then(|before| before.app.got()), app),
                    ),
                    // Accepts are counted by port: of two sockets on one they say nothing.
                    census: census
                        .filter(|served| served.raw.port == port && !shared)
                        .map(|served| (self.served.get(&port), served))
                        .next(),
                };
                let before = self.listener_before(listener);
                (Subject::Accept(listener.inode), looks::accept(before, listener, signs, now.at_ns))
            })
            .collect()
    }

    /// Listeners of others beside the target's own, and ports that nobody listens on any more.
    fn listening_looks(&self, now: &Model, looks: &mut Vec<(Subject, Look)>) {
        let others = now.listeners.got().into_iter().flat_map(|all| all.iter());
        for other in others {
            if now.own_listeners().any(|own| own.inode == other.inode)
                || !now.own_listeners().any(|own| looks::overlap(own, other))
            {
                continue;
            }
            let look = looks::sibling(self.listener_before(other), other, now.at_ns);
            looks.push((Subject::Sibling(other.inode), look));
        }
        let refused = self.rises.refusing(now.at_ns);
        for port in self.listening.serving() {
            let look = looks::gone(port, refused, now);
            looks.extend(look.map(|look| (Subject::Gone(port), look)));
        }
    }

    fn full_looks(&self, now: &Model, looks: &mut Vec<(Subject, Look)>) {
        let overflowing = self.rises.overflowing(now.at_ns);
        for listener in now.own_listeners() {
            let subject = Subject::Overflow(listener.inode);
            let is_stalled = self.tracks.get(&subject).is_some_and(Track::is_stalled);
            let dropping = self.rises.dropping(listener.inode, now.at_ns)
                || (is_stalled && self.rises.may_drop_again(listener.inode, now.at_ns));
            let look = looks::overflow(listener, dropping, overflowing, now);
            looks.extend(look.map(|look| (subject, look)));
        }
        let handshakes = self.rises.dropping_handshakes(now.at_ns)
            || now.own_listeners().any(|one| self.rises.dropping(one.inode, now.at_ns));
        let handshakes = handshakes && !overflowing;
        looks.extend(looks::syn(handshakes, now).map(|look| (Subject::Handshakes, look)));
        let refusing = self.rises.refusing(now.at_ns) == Some(Refusing::Repeatedly);
        looks.extend(looks::no_fd(now, refusing).map(|look| (Subject::NoFd, look)));
        let set = &self.thresholds;
        looks.extend(
            looks::conntrack(now, self.rises.untracked(now.at_ns), set)
                .map(|look| (Subject::Conntrack, look)),
        );
        looks.extend(looks::ports(now, &self.connected_to, set).map(|look| (Subject::Ports, look)));
        looks.extend(looks::throttled(now, set).map(|look| (Subject::Throttled, look)));
        looks.extend(looks::probe(now, set).map(|look| (Subject::Probe, look)));
    }

    fn note_ports(&mut self, now: &Model) {
        for peer in now.all_peers() {
            if self.connected_to.len() < DESTINATIONS_MAX {
                self.connected_to.insert(peer.raw.remote);
            }
        }
        let refusing = self.rises.refusing(now.at_ns).is_some();
        self.listening.push(now, refusing);
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
            let is_served = |port: u16| served.iter().any(|served| served.raw.port == port);
            self.served.retain(|port, _| is_served(*port));
            self.patience.keep(is_served);
        }
        let listeners = now.listeners.got();
        let (rings, served, listening) = (&self.rings, &self.served, &self.listening);
        self.tracks.retain(|subject, _| match subject {
            Subject::Submission(fd) | Subject::Completion(fd) | Subject::Storm(fd) => {
                rings.contains_key(fd)
            }
            Subject::Unread(port) | Subject::Answers(port) | Subject::Neglected(port) => {
                served.contains_key(port)
            }
            Subject::Accept(inode) | Subject::Overflow(inode) | Subject::Sibling(inode) => {
                listeners.is_none_or(|all| all.iter().any(|listener| listener.inode == *inode))
            }
            Subject::Gone(port) => listening.knows(*port),
            _ => true,
        });
    }
}

/// The onset is dated to some ten milliseconds; progress so close after it is from before it.
const SETTLED_NS: u64 = 250_000_000;

/// Whether more accepts are in flight than a loop per listener has: one that gives up waiting for
/// an accept and begins another leaves the first behind.
fn has_spare_accepts(now: &Model) -> bool {
    let armed = now.all_rings().iter().filter_map(|ring| ring.armed.got());
    let accepts = armed.fold(0_u32, |sum, armed| sum.saturating_add(armed.of(OP_ACCEPT)));
    let listeners = u32::try_from(now.own_listeners().count()).unwrap_or(u32::MAX);
    accepts > listeners.saturating_mul(2)
}
