//! Ports on which the target listens or did, and since when it does not.

use std::collections::{BTreeMap, BTreeSet};

use super::looks;
use super::track::Stalled;
use crate::model::Model;

/// Ports remembered; a process that opens and closes listeners all day must not fill memory.
const PORTS_MAX: usize = 64;
/// A socket that listened for less was a helper's: the data port of a transfer, a test of one's own.
const LISTENED_NS_MIN: u64 = 1_000_000_000;
/// A port that has been closed for so long, with nobody turned away, was closed on purpose.
const FORGOTTEN_AFTER_NS: u64 = 60_000_000_000;

/// The ports.
#[derive(Debug, Default)]
pub(super) struct Listening {
    /// Ports that were listened on, or on which connections must have been accepted.
    ports: BTreeMap<u16, Listened>,
    /// Ports that the target connects to itself: a service of its own, such as a mock of a broker.
    own_service: BTreeSet<u16>,
}

/// When somebody listened on a port, and the first tick after it in which nobody did.
#[derive(Debug, Default, Clone, Copy)]
struct Listened {
    /// First and last tick in which somebody did, ns.
    open: Option<(u64, u64)>,
    missed_ns: Option<u64>,
}

impl Listening {
    /// Takes the next tick; `refusing`: clients are turned away at present.
    pub(super) fn push(&mut self, now: &Model, refusing: bool) {
        let own = |port: u16| now.own_listeners().any(|one| one.local.port() == port);
        let told = now.app.got().and_then(|app| app.raw.listen_port);
        for address in now.all_peers().iter().map(|peer| peer.raw.remote) {
            if address.ip().is_loopback()
                && self.own_service.len() < PORTS_MAX
                && own(address.port())
            {
                self.own_service.insert(address.port());
            }
        }
        if now.listeners.got().is_none() {
            return;
        }
        let listened = now.own_listeners().map(|listener| listener.local.port());
        for port in listened.chain(looks::orphans(now)) {
            // A server that says where it serves may close what else it listens on.
            if self.ports.len() < PORTS_MAX && told.is_none_or(|told| told == port) {
                self.ports.entry(port).or_default();
            }
        }
        for (port, listened) in &mut self.ports {
            listened.push(own(*port), now.at_ns);
        }
        self.ports.retain(|_, listened| refusing || !listened.is_forgotten(now.at_ns));
    }

    /// Ports whose closing would be a stall.
    pub(super) fn serving(&self) -> impl Iterator<Item = u16> {
        let ports = self.ports.iter().filter(|(_, listened)| listened.served());
        ports.map(|(port, _)| *port).filter(|port| !self.own_service.contains(port))
    }

    /// Whether it is remembered.
    pub(super) fn knows(&self, port: u16) -> bool {
        self.ports.contains_key(&port)
    }

    /// Dates the stall of a listener that is gone: refusals show later than the socket is closed.
    pub(super) fn date(&self, port: u16, stalled: &mut Stalled) {
        let listened = self.ports.get(&port).copied().unwrap_or_default();
        match (listened.open, listened.missed_ns) {
            (Some((_, last_ns)), Some(missed_ns)) => {
                stalled.within_ns = missed_ns.saturating_sub(last_ns) / 2;
                stalled.at_ns = last_ns.saturating_add(stalled.within_ns);
            }
            // Nobody ever listened there while it was watched.
            _ => stalled.before_watch = true,
        }
    }
}

impl Listened {
    fn push(&mut self, open: bool, now_ns: u64) {
        if open {
            let first_ns = self.open.map_or(now_ns, |(first_ns, _)| first_ns);
            self.open = Some((first_ns, now_ns));
            self.missed_ns = None;
        } else if self.missed_ns.is_none() {
            self.missed_ns = Some(now_ns);
        }
    }

    fn is_forgotten(self, now_ns: u64) -> bool {
        self.missed_ns
            .is_some_and(|missed_ns| now_ns.saturating_sub(missed_ns) > FORGOTTEN_AFTER_NS)
    }

    /// Whether it was there for a while; one that was never seen listening had been before.
    fn served(self) -> bool {
        self.open
            .is_none_or(|(first_ns, last_ns)| last_ns.saturating_sub(first_ns) >= LISTENED_NS_MIN)
    }
}
