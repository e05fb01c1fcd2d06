//! Sockets, one after the other, into counts: nothing of a socket is kept but its inode. Pure.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::wire::{Socket, TcpState};
use super::{Alive, Census, DUMP_MAX, Outgoing, ServedTally, Wanted};
use crate::sample::{DESTINATIONS_MAX, PEERS_MAX, PortsRaw, ServedRaw};

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
            counts: ServedRaw { port, ..ServedRaw::default() },
            inodes: Vec::new(),
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
            tally.inodes.sort_unstable();
            tally.inodes.dedup();
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
            }
            Some(TcpState::Established | TcpState::CloseWait) => {
                counts.accepted_open += 1;
                counts.close_wait += u32::from(socket.state == Some(TcpState::CloseWait));
                counts.unread_sockets += u32::from(socket.received > 0);
                counts.unread_bytes += u64::from(socket.received);
                counts.unsent_bytes += u64::from(socket.sent);
                counts.fingerprint = counts.fingerprint.wrapping_add(print(socket));
            }
            Some(TcpState::SynRecv | TcpState::NewSynRecv) => counts.syn_recv += 1,
            Some(TcpState::TimeWait) => counts.time_wait += 1,
            _ => {}
        }
    }
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
        }
    }

    /// Those with unsent bytes first (a SYN counts as one), then roughly the oldest: inode numbers
    /// grow, but each CPU takes them by the thousand (`get_next_ino`, `fs/inode.c`).
    const fn order(&self) -> (bool, u32) {
        (self.unsent == 0, self.inode)
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
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::sockets::wire::{Message, messages};

    const PORT: u16 = 8080;
    const RANGE: (u16, u16) = (32_768, 60_999);

    fn to(local_port: u16, remote_port: u16, state: TcpState) -> Socket {
        Socket {
            state: Some(state),
            local: ([127, 0, 0, 1], local_port).into(),
            remote: ([127, 0, 0, 1], remote_port).into(),
            received: 0,
            sent: 0,
            inode: 1,
            interface: 0,
            drops: None,
            info: None,
        }
    }

    fn served(inode: u32) -> Socket {
        Socket { inode, ..to(PORT, 40_000, TcpState::Established) }
    }

    fn census_of(sockets: &[Socket], wanted: &Wanted<'_>) -> Census {
        let mut count = CensusCount::new(wanted);
        for socket in sockets {
            if count.take(socket) == Take::Enough {
                break;
            }
        }
        count.finish()
    }

    fn served_of(sockets: &[Socket]) -> ServedRaw {
        let census = census_of(sockets, &Wanted::new(&[PORT], RANGE));
        census.alive.served[0].counts
    }

    fn captured() -> Vec<Socket> {
        let files: [&[u8]; 2] = [
            include_bytes!("../../fixtures/sock-diag-6.18/connections-v4"),
            include_bytes!("../../fixtures/sock-diag-6.18/connections-v6"),
        ];
        files
            .into_iter()
            .flat_map(messages)
            .filter_map(|numbered| match numbered.unwrap().message {
                Message::Socket(socket) => Some(socket),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_captured_dump_counts_as_ss_does() {
        // Four clients, two of them in SYN_SENT, and an accepted connection.
        let own = BTreeSet::from([49_245, 49_250, 49_251, 49_252, 49_255]);
        let wanted = Wanted { own_inodes: Some(&own), ..Wanted::new(&[8081, 8080], RANGE) };
        let census = census_of(&captured(), &wanted);
        let [narrow, wide] = &census.alive.served[..] else { panic!("{census:?}") };
        let expected = ServedRaw { port: 8080, queued: 5, ..ServedRaw::default() };
        assert_eq!((narrow.counts, &narrow.inodes), (expected, &Vec::new()));
        let dual_stack = ServedRaw {
            port: 8081,
            accepted_open: 2,
            // Its client has given up: CLOSE_WAIT, still in the accept queue.
            queued: 1,
            unread_sockets: 1,
            unread_bytes: 5,
            fingerprint: wide.counts.fingerprint,
            ..ServedRaw::default()
        };
        assert_eq!((wide.counts, &wide.inodes), (dual_stack, &vec![49_255, 49_256]));
        let top = vec![
            ("127.0.0.1:8080".parse().unwrap(), 7),
            ("127.0.0.1:8081".parse().unwrap(), 2),
            ("[::1]:8081".parse().unwrap(), 1),
        ];
        assert_eq!(census.ports, PortsRaw { range: RANGE, in_use: 10, time_wait: 0, top });
        assert_eq!((census.alive.total, census.alive.truncated), (18, false));
        let outgoing: Vec<_> = census.outgoing.iter().map(|one| (one.inode, one.unsent)).collect();
        assert_eq!(outgoing, [(49_250, 1), (49_251, 1), (49_245, 0), (49_252, 0)]);
    }

    #[test]
    fn states_by_what_they_count_as() {
        let base = ServedRaw { port: PORT, ..ServedRaw::default() };
        let cases = [
            (TcpState::Established, 0, ServedRaw { queued: 1, ..base }),
            (TcpState::CloseWait, 0, ServedRaw { queued: 1, ..base }),
            (TcpState::SynRecv, 0, ServedRaw { syn_recv: 1, ..base }),
            (TcpState::NewSynRecv, 0, ServedRaw { syn_recv: 1, ..base }),
            (TcpState::FinWait2, 7, base),
            (TcpState::TimeWait, 0, ServedRaw { time_wait: 1, ..base }),
        ];
        for (state, inode, expected) in cases {
            let one = Socket { state: Some(state), ..served(inode) };
            assert_eq!(served_of(&[one]), expected, "{state:?}");
        }
        let half_closed = Socket { state: Some(TcpState::CloseWait), sent: 9, ..served(7) };
        let raw = served_of(&[half_closed]);
        assert_eq!((raw.accepted_open, raw.close_wait, raw.unsent_bytes), (1, 1, 9));
        assert_eq!(served_of(&[Socket { state: None, ..served(7) }]), base);
    }

    #[test]
    fn ephemeral_ports_are_counted_once_and_destinations_ranked() {
        let mut sockets = vec![
            to(32_768, 9092, TcpState::Established),
            to(32_768, 9093, TcpState::TimeWait),
            to(60_999, 9093, TcpState::TimeWait),
            to(32_767, 9093, TcpState::Established),
            to(61_000, 9093, TcpState::TimeWait),
            to(40_000, 0, TcpState::Close),
        ];
        sockets.extend((0..20).map(|n| to(50_000 + n, 1000 + n, TcpState::Established)));
        let ports = census_of(&sockets, &Wanted::new(&[PORT], RANGE)).ports;
        assert_eq!((ports.in_use, ports.time_wait), (23, 2));
        assert_eq!(ports.top.len(), DESTINATIONS_MAX);
        assert_eq!(ports.top[0], ("127.0.0.1:9093".parse().unwrap(), 2));
        assert_eq!(ports.top[1], ("127.0.0.1:1000".parse().unwrap(), 1));
    }

    #[test]
    fn time_wait_belongs_to_the_side_that_closed_first() {
        let sockets = [
            to(PORT, 40_000, TcpState::TimeWait),
            to(40_001, PORT, TcpState::TimeWait),
            to(40_002, PORT, TcpState::TimeWait),
            // A served port within the range.
            to(40_003, 9, TcpState::TimeWait),
        ];
        let census = census_of(&sockets, &Wanted::new(&[PORT, 40_003], RANGE));
        let served: Vec<_> = census.alive.served.iter().map(|it| it.counts.time_wait).collect();
        assert_eq!((served, census.ports.time_wait, census.ports.in_use), (vec![1, 1], 2, 3));
        assert_eq!(census.ports.top, [("127.0.0.1:8080".parse().unwrap(), 2)]);
    }

    #[test]
    fn own_connections_are_those_to_a_port_that_is_not_served_here() {
        let own = BTreeSet::from([5, 6, 7]);
        let wanted = Wanted { own_inodes: Some(&own), ..Wanted::new(&[PORT], RANGE) };
        let sockets = [
            Socket { inode: 5, ..to(PORT, 40_000, TcpState::Established) },
            Socket { inode: 6, ..to(40_001, 9092, TcpState::CloseWait) },
            Socket { inode: 7, ..to(40_002, 0, TcpState::Close) },
            Socket { inode: 8, ..to(40_003, 9092, TcpState::Established) },
            Socket { inode: 0, ..to(40_004, 9092, TcpState::TimeWait) },
        ];
        let census = census_of(&sockets, &wanted);
        assert_eq!(census.outgoing.iter().map(|one| one.inode).collect::<Vec<_>>(), [6]);
        assert_eq!(census_of(&sockets, &Wanted::new(&[PORT], RANGE)).outgoing, []);
    }

    #[test]
    fn a_count_is_cut_at_its_bound_and_not_before() {
        for (sockets_max, total, truncated) in [(3, 3, false), (2, 2, true), (0, 0, true)] {
            let wanted = Wanted { sockets_max, ..Wanted::new(&[PORT], RANGE) };
            let alive = census_of(&[served(1), served(2), served(3)], &wanted).alive;
            assert_eq!((alive.total, alive.truncated), (total, truncated));
        }
        let wanted = Wanted { sockets_max: usize::MAX, ..Wanted::new(&[PORT], RANGE) };
        assert_eq!(ServedCount::new(&wanted).sockets_max, DUMP_MAX);
    }

    proptest! {
        #[test]
        fn the_fingerprint_ignores_order_and_notices_change(
            mut inodes in proptest::collection::hash_set(1_u32.., 1..20), bytes in 1_u32..,
        ) {
            let print = |sockets: &[Socket]| served_of(sockets).fingerprint;
            let forward: Vec<Socket> = inodes.drain().map(served).collect();
            let backward: Vec<Socket> = forward.iter().rev().copied().collect();
            let before = print(&forward);
            prop_assert_eq!(before, print(&backward));
            let mut read = forward.clone();
            read[0].received = bytes;
            prop_assert_ne!(before, print(&read));
            read[0].received = 0;
            read[0].sent = bytes;
            prop_assert_ne!(before, print(&read));
            prop_assert_ne!(before, print(&forward[1..]));
        }

        #[test]
        fn the_destinations_are_those_of_a_plain_count(
            remotes in proptest::collection::vec(1_u16..6, 0..60),
        ) {
            let sockets: Vec<Socket> = remotes
                .iter()
                .zip(RANGE.0..)
                .map(|(remote, local)| to(local, *remote, TcpState::Established))
                .collect();
            let ports = census_of(&sockets, &Wanted::new(&[], RANGE)).ports;
            for (destination, count) in &ports.top {
                let expected = remotes.iter().filter(|port| **port == destination.port()).count();
                prop_assert_eq!(*count as usize, expected);
            }
            let distinct: BTreeSet<&u16> = remotes.iter().collect();
            prop_assert_eq!(ports.top.len(), distinct.len());
        }
    }
}
