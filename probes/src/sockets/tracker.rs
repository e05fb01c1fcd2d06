//! From one dump to the next: what was accepted, what was closed. Pure.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::wire::TcpState;
use super::{Connection, Dump};
use crate::sample::{DESTINATIONS_MAX, PortsRaw, ServedRaw, SocketsRaw};

/// Ports whose counters are kept.
pub const TRACKED_PORTS_MAX: usize = 256;

/// Turns dumps into counts, remembering which connections were there before.
///
/// What was there at the first dump of a port counts neither as accepted nor as closed. A dump
/// that was cut moves no counter, and the next whole one is a first dump again. A connection that
/// came and went between two dumps is not seen. The inodes kept are those of one dump
/// ([`DUMP_MAX`](super::DUMP_MAX)).
#[derive(Debug, Clone, Default)]
pub struct Tracker {
    ports: HashMap<u16, Tracked>,
}

#[derive(Debug, Clone, Default)]
struct Tracked {
    /// Accepted connections of the last whole dump; `None` before there is one.
    inodes: Option<HashSet<u32>>,
    accepted_seen: u64,
    closed_seen: u64,
}

impl Tracker {
    /// Counts a dump taken for these ports and this ephemeral range.
    pub fn update(&mut self, dump: &Dump, served_ports: &[u16], range: (u16, u16)) -> SocketsRaw {
        let mut served: Vec<ServedRaw> = Vec::with_capacity(served_ports.len());
        for port in served_ports {
            if served.iter().all(|known| known.port != *port) {
                served.push(self.served(*port, dump));
            }
        }
        for (port, tracked) in &mut self.ports {
            if !served_ports.contains(port) {
                // Not dumped for: the port may be served again later, by other connections.
                tracked.inodes = None;
            }
        }
        SocketsRaw {
            served,
            ports: ports(dump, served_ports, range),
            total: dump.total,
            truncated: dump.truncated,
        }
    }

    /// Counts a dump without TIME_WAIT ([`super::Diag::connections_alive`]); what it cannot tell of the
    /// ephemeral ports is carried on from the last whole one.
    pub fn update_alive(
        &mut self,
        dump: &Dump,
        served_ports: &[u16],
        before: &SocketsRaw,
    ) -> SocketsRaw {
        let mut raw = self.update(dump, served_ports, before.ports.range);
        raw.ports = before.ports.clone();
        raw.total = before.total;
        raw
    }

    fn served(&mut self, port: u16, dump: &Dump) -> ServedRaw {
        let mut served = ServedRaw { port, ..ServedRaw::default() };
        let mut held = HashSet::new();
        for connection in dump.connections.iter().filter(|socket| socket.local_port == port) {
            if connection.inode != 0 {
                held.insert(connection.inode);
            }
            count(&mut served, connection);
        }
        if self.ports.contains_key(&port) || self.ports.len() < TRACKED_PORTS_MAX {
            let tracked = self.ports.entry(port).or_default();
            tracked.advance(held, dump.truncated);
            served.accepted_seen = tracked.accepted_seen;
            served.closed_seen = tracked.closed_seen;
        }
        served
    }
}

impl Tracked {
    fn advance(&mut self, held: HashSet<u32>, truncated: bool) {
        if truncated {
            self.inodes = None;
            return;
        }
        if let Some(before) = &self.inodes {
            let both = held.intersection(before).count() as u64;
            self.accepted_seen += held.len() as u64 - both;
            self.closed_seen += before.len() as u64 - both;
        }
        self.inodes = Some(held);
    }
}

/// Adds one connection of the port.
fn count(served: &mut ServedRaw, connection: &Connection) {
    match connection.state {
        // Without an inode these two wait to be accepted: what an application closes without
        // accepting leaves both states (`tcp_close_state`, net/ipv4/tcp.c). In CLOSE_WAIT its
        // client has given up waiting.
        TcpState::Established | TcpState::CloseWait if connection.inode == 0 => served.queued += 1,
        TcpState::Established | TcpState::CloseWait => {
            served.accepted_open += 1;
            served.close_wait += u32::from(connection.state == TcpState::CloseWait);
            served.unread_sockets += u32::from(connection.unread > 0);
            served.unread_bytes += u64::from(connection.unread);
            served.unsent_bytes += u64::from(connection.unsent);
            served.fingerprint = served.fingerprint.wrapping_add(print(connection));
        }
        TcpState::SynRecv | TcpState::NewSynRecv => served.syn_recv += 1,
        _ => {}
    }
}

/// A hash of one connection, to be summed so that the order of a dump does not matter.
fn print(connection: &Connection) -> u64 {
    let queues = u64::from(connection.unread) << 32 | u64::from(connection.unsent);
    mix(mix(u64::from(connection.inode)) ^ queues)
}

/// The finaliser of `SplitMix64` (Steele, Lea, Flood, OOPSLA 2014): neighbouring numbers, as inodes
/// are, come out unrelated.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn ports(dump: &Dump, served_ports: &[u16], range: (u16, u16)) -> PortsRaw {
    let mut used = HashSet::new();
    let mut time_wait = 0;
    let mut destinations: HashMap<SocketAddr, u32> = HashMap::new();
    let in_range = |port| (range.0..=range.1).contains(&port);
    for connection in dump.connections.iter().filter(|socket| in_range(socket.local_port)) {
        used.insert(connection.local_port);
        time_wait += u32::from(connection.state == TcpState::TimeWait);
        if !served_ports.contains(&connection.local_port) && connection.remote_port != 0 {
            *destinations.entry(connection.remote()).or_default() += 1;
        }
    }
    let mut top: Vec<(SocketAddr, u32)> = destinations.into_iter().collect();
    top.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    top.truncate(DESTINATIONS_MAX);
    PortsRaw { range, in_use: used.len() as u32, time_wait, top }
}

impl Connection {
    fn remote(&self) -> SocketAddr {
        let ip = IpAddr::V6(Ipv6Addr::from(self.remote_ip)).to_canonical();
        SocketAddr::new(ip, self.remote_port)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sockets::wire::{Message, messages};

    const PORT: u16 = 8080;
    const RANGE: (u16, u16) = (32_768, 60_999);

    fn served(inode: u32) -> Connection {
        Connection {
            state: TcpState::Established,
            local_port: PORT,
            remote_port: 40_000,
            remote_ip: Ipv6Addr::LOCALHOST.octets(),
            inode,
            unread: 0,
            unsent: 0,
        }
    }

    fn dump(connections: Vec<Connection>) -> Dump {
        Dump { total: connections.len() as u32, connections, truncated: false }
    }

    fn of_inodes(inodes: &[u32]) -> Dump {
        dump(inodes.iter().map(|inode| served(*inode)).collect())
    }

    fn captured() -> Dump {
        let files: [&[u8]; 2] = [
            include_bytes!("../../fixtures/sock-diag-6.18/connections-v4"),
            include_bytes!("../../fixtures/sock-diag-6.18/connections-v6"),
        ];
        dump(
            files
                .into_iter()
                .flat_map(messages)
                .filter_map(|numbered| match numbered.unwrap().message {
                    Message::Socket(socket) => Connection::from_socket(&socket),
                    _ => None,
                })
                .collect(),
        )
    }

    #[test]
    fn a_captured_dump_counts_as_ss_does() {
        let raw = Tracker::default().update(&captured(), &[8080, 8081], RANGE);
        let narrow = ServedRaw { port: 8080, queued: 5, ..ServedRaw::default() };
        assert_eq!(raw.served[0], narrow);
        let dual_stack = ServedRaw {
            port: 8081,
            accepted_open: 2,
            // Its client has given up: CLOSE_WAIT, still in the accept queue.
            queued: 1,
            unread_sockets: 1,
            unread_bytes: 5,
            fingerprint: raw.served[1].fingerprint,
            ..ServedRaw::default()
        };
        assert_eq!(raw.served[1], dual_stack);
        let top = vec![
            ("127.0.0.1:8080".parse().unwrap(), 7),
            ("127.0.0.1:8081".parse().unwrap(), 2),
            ("[::1]:8081".parse().unwrap(), 1),
        ];
        assert_eq!(raw.ports, PortsRaw { range: RANGE, in_use: 10, time_wait: 0, top });
        assert_eq!((raw.total, raw.truncated), (18, false));
    }

    #[test]
    fn accepted_and_closed_from_one_dump_to_the_next() {
        // Each step: the inodes seen, whether the dump was cut, the counters after it.
        let steps: [(&[u32], bool, (u64, u64)); 9] = [
            (&[1, 2, 3], false, (0, 0)),
            (&[1, 2, 3], false, (0, 0)),
            (&[2, 3, 4], false, (1, 1)),
            (&[], false, (1, 4)),
            (&[0, 0], false, (1, 4)),
            (&[5, 6], false, (3, 4)),
            (&[5], true, (3, 4)),
            (&[5, 7], false, (3, 4)),
            (&[5, 7, 8], false, (4, 4)),
        ];
        let mut tracker = Tracker::default();
        for (at, (inodes, truncated, expected)) in steps.into_iter().enumerate() {
            let seen = Dump { truncated, ..of_inodes(inodes) };
            let raw = tracker.update(&seen, &[PORT], RANGE).served[0];
            assert_eq!((raw.accepted_seen, raw.closed_seen), expected, "step {at}");
        }
    }

    #[test]
    fn a_port_that_is_served_later_begins_with_a_baseline_and_keeps_its_counters() {
        let mut tracker = Tracker::default();
        tracker.update(&of_inodes(&[1]), &[], RANGE);
        let seen = |raw: SocketsRaw| raw.served[0].accepted_seen;
        assert_eq!(seen(tracker.update(&of_inodes(&[1, 2]), &[PORT], RANGE)), 0);
        assert_eq!(seen(tracker.update(&of_inodes(&[1, 2, 3]), &[PORT], RANGE)), 1);
        tracker.update(&of_inodes(&[9]), &[], RANGE);
        assert_eq!(seen(tracker.update(&of_inodes(&[10, 11]), &[PORT, PORT], RANGE)), 1);
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
            (TcpState::TimeWait, 0, base),
        ];
        for (state, inode, expected) in cases {
            let one = dump(vec![Connection { state, inode, ..served(0) }]);
            let raw = Tracker::default().update(&one, &[PORT], RANGE);
            assert_eq!(raw.served, [expected], "{state:?}");
        }
        let half_closed = Connection { state: TcpState::CloseWait, unsent: 9, ..served(7) };
        let raw = Tracker::default().update(&dump(vec![half_closed]), &[PORT], RANGE).served[0];
        assert_eq!((raw.accepted_open, raw.close_wait, raw.unsent_bytes), (1, 1, 9));
    }

    #[test]
    fn ephemeral_ports_are_counted_once_and_destinations_ranked() {
        let to = |local_port, remote_port, state| Connection {
            state,
            local_port,
            remote_port,
            remote_ip: std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets(),
            ..served(1)
        };
        let mut connections = vec![
            to(32_768, 9092, TcpState::Established),
            to(32_768, 9093, TcpState::TimeWait),
            to(60_999, 9093, TcpState::TimeWait),
            to(32_767, 9093, TcpState::Established),
            to(61_000, 9093, TcpState::Established),
            to(40_000, 0, TcpState::Close),
        ];
        connections.extend((0..20).map(|n| to(50_000 + n, 1000 + n, TcpState::Established)));
        let ports = Tracker::default().update(&dump(connections), &[PORT], RANGE).ports;
        assert_eq!((ports.in_use, ports.time_wait), (23, 2));
        assert_eq!(ports.top.len(), DESTINATIONS_MAX);
        assert_eq!(ports.top[0], ("127.0.0.1:9093".parse().unwrap(), 2));
        assert_eq!(ports.top[1], ("127.0.0.1:1000".parse().unwrap(), 1));
    }

    #[test]
    fn no_more_ports_are_kept_than_the_bound() {
        let mut tracker = Tracker::default();
        for port in 0..TRACKED_PORTS_MAX as u16 + 10 {
            tracker.update(&Dump::default(), &[port], RANGE);
        }
        assert_eq!(tracker.ports.len(), TRACKED_PORTS_MAX);
    }

    proptest! {
        #[test]
        fn the_fingerprint_ignores_order_and_notices_change(
            mut inodes in proptest::collection::hash_set(1_u32.., 1..20), unread in 1_u32..,
        ) {
            let print = |dump: &Dump| {
                Tracker::default().update(dump, &[PORT], RANGE).served[0].fingerprint
            };
            let forward: Vec<u32> = inodes.drain().collect();
            let backward: Vec<u32> = forward.iter().rev().copied().collect();
            let before = print(&of_inodes(&forward));
            prop_assert_eq!(before, print(&of_inodes(&backward)));
            let mut read = of_inodes(&forward);
            read.connections[0].unread = unread;
            prop_assert_ne!(before, print(&read));
            read.connections[0].unread = 0;
            read.connections[0].unsent = unread;
            prop_assert_ne!(before, print(&read));
            prop_assert_ne!(before, print(&of_inodes(&forward[1..])));
        }

        #[test]
        fn counters_never_go_back_and_balance(
            dumps in proptest::collection::vec(
                proptest::collection::hash_set(1_u32..30, 0..20), 1..12),
        ) {
            let mut tracker = Tracker::default();
            let baseline = dumps[0].len() as u64;
            let mut last = (0, 0);
            for inodes in dumps {
                let inodes: Vec<u32> = inodes.into_iter().collect();
                let raw = tracker.update(&of_inodes(&inodes), &[PORT], RANGE).served[0];
                prop_assert!(raw.accepted_seen >= last.0 && raw.closed_seen >= last.1);
                last = (raw.accepted_seen, raw.closed_seen);
                prop_assert_eq!(
                    baseline + raw.accepted_seen - raw.closed_seen,
                    u64::from(raw.accepted_open)
                );
            }
        }
    }
}
