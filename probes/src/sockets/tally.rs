//! Sockets, one after the other, into counts: nothing of a socket is kept but who it is. Pure.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::wire::{Socket, TcpState};
use super::{Alive, Census, DUMP_MAX, Outgoing, ServedTally, Wanted, answers};
use crate::sample::{AnswersRaw, DESTINATIONS_MAX, PEERS_MAX, PortsRaw, ServedRaw};

/// Whether to go on with a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// With the next socket.
    More,
    /// The bound is reached.
    Enough,
}

/// Counts for served ports.
#[derive(Debug)]
pub struct ServedCount {
    /// By port, each once.
    served: Vec<ServedTally>,
    sockets_max: usize,
    total: u32,
    truncated: bool,
}

impl ServedCount {
    pub fn new(wanted: &Wanted<'_>) -> Self {
        let mut ports = wanted.served_ports.to_vec();
        ports.sort_unstable();
        ports.dedup();
        let tally = |port| ServedTally {
            counts: ServedRaw {
                port,
                answers: wanted.answers.then(AnswersRaw::default),
                ..ServedRaw::default()
            },
            inodes: Vec::new(),
            waiting: Vec::new(),
        };
        Self {
            served: ports.into_iter().map(tally).collect(),
            sockets_max: wanted.sockets_max.min(DUMP_MAX),
            total: 0,
            truncated: false,
        }
    }

    /// Counts a socket, if it is one of a served port.
    pub fn take(&mut self, socket: &Socket) -> Take {
        if self.begin() == Take::Enough {
            return Take::Enough;
        }
        self.count_served(socket);
        Take::More
    }

    fn begin(&mut self) -> Take {
        if self.total as usize >= self.sockets_max {
            self.truncated = true;
            return Take::Enough;
        }
        self.total += 1;
        Take::More
    }

    fn count_served(&mut self, socket: &Socket) -> bool {
        let port = socket.local.port();
        let Ok(at) = self.served.binary_search_by_key(&port, |tally| tally.counts.port) else {
            return false;
        };
        self.served[at].count(socket);
        true
    }

    pub fn finish(mut self) -> Alive {
        for tally in &mut self.served {
            for ids in [&mut tally.inodes, &mut tally.waiting] {
                ids.sort_unstable();
                ids.dedup();
            }
        }
        Alive { served: self.served, total: self.total, truncated: self.truncated }
    }
}

impl ServedTally {
    fn count(&mut self, socket: &Socket) {
        let counts = &mut self.counts;
        if socket.inode != 0 {
            self.inodes.push(socket.inode);
        }
        match socket.state {
            // Without an inode these two wait to be accepted: what an application closes without
            // accepting leaves both states (`tcp_close_state`, net/ipv4/tcp.c). In CLOSE_WAIT its
            // client has given up waiting.
            Some(TcpState::Established | TcpState::CloseWait) if socket.inode == 0 => {
                counts.queued += 1;
                self.waiting.push(client(socket.remote));
                counts.answers = counts.answers.map(|before| answers::with_queued(before, socket));
            }
            Some(TcpState::Established | TcpState::CloseWait) => {
                counts.accepted_open += 1;
                counts.close_wait += u32::from(socket.state == Some(TcpState::CloseWait));
                counts.unread_sockets += u32::from(socket.received > 0);
                counts.unread_bytes += u64::from(socket.received);
                counts.unsent_bytes += u64::from(socket.sent);
                counts.fingerprint = counts.fingerprint.wrapping_add(print(socket));
                // One that does not tell spoils the count: a part would pass for the whole.
                counts.answers = counts.answers.and_then(|before| answers::with(before, socket));
            }
            Some(TcpState::SynRecv | TcpState::NewSynRecv) => counts.syn_recv += 1,
            Some(TcpState::TimeWait) => counts.time_wait += 1,
            _ => {}
        }
    }
}

/// A number for the client of a connection to a port; that two share one is no harm but rare.
fn client(remote: SocketAddr) -> u32 {
    let ip = match remote.ip() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => {
            let (high, low) = ((ip.to_bits() >> 64) as u64, ip.to_bits() as u64);
            mix(high) ^ low
        }
    };
    mix(mix(ip) ^ u64::from(remote.port())) as u32
}

/// A hash of one connection, to be summed so that the order of a dump does not matter.
fn print(socket: &Socket) -> u64 {
    let queues = u64::from(socket.received) << 32 | u64::from(socket.sent);
    mix(mix(u64::from(socket.inode)) ^ queues)
}

/// The finaliser of `SplitMix64` (Steele, Lea, Flood, OOPSLA 2014): neighbouring numbers, as inodes
/// are, come out unrelated.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Counts for served ports and for the ephemeral range, and the target's own connections.
#[derive(Debug)]
pub struct CensusCount<'a> {
    served: ServedCount,
    wanted: Wanted<'a>,
    used: PortSet,
    time_wait: u32,
    /// No more than sockets are taken ([`DUMP_MAX`]).
    destinations: HashMap<SocketAddr, u32>,
    /// Most connections go where the one before went: the last one found is not looked up again.
    last: Option<(SocketAddr, u32)>,
    outgoing: Vec<Outgoing>,
}

impl<'a> CensusCount<'a> {
    pub fn new(wanted: &Wanted<'a>) -> Self {
        Self {
            served: ServedCount::new(wanted),
            wanted: *wanted,
            used: PortSet::default(),
            time_wait: 0,
            destinations: HashMap::new(),
            last: None,
            outgoing: Vec::new(),
        }
    }

    /// Counts a socket.
    pub fn take(&mut self, socket: &Socket) -> Take {
        if self.served.begin() == Take::Enough {
            return Take::Enough;
        }
        let is_served = self.served.count_served(socket);
        let (low, high) = self.wanted.range;
        let in_range = (low..=high).contains(&socket.local.port());
        if in_range {
            self.used.insert(socket.local.port());
        }
        if is_served {
            return Take::More;
        }
        if in_range {
            self.time_wait += u32::from(socket.state == Some(TcpState::TimeWait));
            if socket.remote.port() != 0 {
                self.count_destination(socket.remote);
            }
        }
        if self.is_own(socket) {
            rank(&mut self.outgoing, Outgoing::from_socket(socket));
        }
        Take::More
    }

    fn count_destination(&mut self, remote: SocketAddr) {
        match &mut self.last {
            Some((destination, count)) if *destination == remote => *count += 1,
            last => {
                if let Some((destination, count)) = last.replace((remote, 1)) {
                    *self.destinations.entry(destination).or_default() += count;
                }
            }
        }
    }

    fn is_own(&self, socket: &Socket) -> bool {
        let Some(own) = self.wanted.own_inodes else { return false };
        socket.inode != 0 && socket.remote.port() != 0 && own.contains(&u64::from(socket.inode))
    }

    pub fn finish(mut self) -> Census {
        if let Some((destination, count)) = self.last.take() {
            *self.destinations.entry(destination).or_default() += count;
        }
        let mut top: Vec<(SocketAddr, u32)> = self.destinations.into_iter().collect();
        let by_count =
            |a: &(SocketAddr, u32), b: &(SocketAddr, u32)| b.1.cmp(&a.1).then(a.0.cmp(&b.0));
        if top.len() > DESTINATIONS_MAX {
            top.select_nth_unstable_by(DESTINATIONS_MAX, by_count);
            top.truncate(DESTINATIONS_MAX);
        }
        top.sort_unstable_by(by_count);
        Census {
            alive: self.served.finish(),
            ports: PortsRaw {
                range: self.wanted.range,
                in_use: self.used.count(),
                time_wait: self.time_wait,
                top,
            },
            outgoing: self.outgoing,
        }
    }
}

impl Outgoing {
    fn from_socket(socket: &Socket) -> Self {
        Self {
            local: socket.local,
            remote: socket.remote,
            interface: socket.interface,
            inode: socket.inode,
            unsent: socket.sent,
            is_given_up: socket.state == Some(TcpState::CloseWait),
        }
    }

    /// Those with unsent bytes first (a SYN counts as one) and those that the other side has closed,
    /// then roughly the oldest: inode numbers grow, but each CPU takes them by the thousand
    /// (`get_next_ino`, `fs/inode.c`).
    const fn order(&self) -> (bool, u32) {
        (self.unsent == 0 && !self.is_given_up, self.inode)
    }
}

/// Puts one where it belongs, and keeps the first [`PEERS_MAX`].
pub fn rank(outgoing: &mut Vec<Outgoing>, one: Outgoing) {
    let at = outgoing.partition_point(|other| other.order() < one.order());
    if at < PEERS_MAX {
        outgoing.truncate(PEERS_MAX - 1);
        outgoing.insert(at, one);
    }
}

/// A set of port numbers: a bit each.
#[derive(Debug)]
struct PortSet(Box<[u64; 1024]>);

impl Default for PortSet {
    fn default() -> Self {
        Self(Box::new([0; 1024]))
    }
}

impl PortSet {
    fn insert(&mut self, port: u16) {
        self.0[usize::from(port / 64)] |= 1 << (port % 64);
    }

    fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
}

#[cfg(test)]
#[path = "tally_tests.rs"]
mod tests;
