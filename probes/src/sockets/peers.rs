//! The target's own connections, to its brokers, databases, peers: found in a census, then asked
//! for one by one.

use super::tally::rank;
use super::wire::{Exact, Socket, TcpState};
use super::{Census, Diag, Outgoing};
use crate::reading::Reading;
use crate::sample::{PEERS_MAX, PeerRaw};

/// Follows connections of the target's own making.
///
/// Each look costs one request for each connection (at most [`PEERS_MAX`]), whatever the number of
/// sockets. Of more than these a census finds those with unsent bytes first, then the oldest.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    followed: Vec<Outgoing>,
}

impl Peers {
    /// Follows what a census found ([`Wanted::own_inodes`](super::Wanted::own_inodes)); what it
    /// did not find any more is followed no longer, unless it was cut.
    pub fn found(&mut self, census: &Census) {
        let before = std::mem::replace(&mut self.followed, census.outgoing.clone());
        if census.alive.truncated {
            for one in before {
                if self.followed.iter().all(|known| known.inode != one.inode) {
                    rank(&mut self.followed, one);
                }
            }
        }
    }

    /// Looks at each, in the order of their inodes. One that is gone is followed no longer.
    pub fn refresh(&mut self, diag: &Diag) -> Reading<Vec<PeerRaw>> {
        let wanted: Vec<Exact> = self.followed.iter().map(Outgoing::exact).collect();
        diag.exact(&wanted).map(|sockets| self.advance(&sockets))
    }

    fn advance(&mut self, sockets: &[Option<Socket>]) -> Vec<PeerRaw> {
        let mut peers = Vec::with_capacity(PEERS_MAX);
        let mut sockets = sockets.iter();
        self.followed.retain(|one| {
            let peer = sockets.next().and_then(|socket| one.peer(socket.as_ref()?));
            peers.extend(peer);
            peer.is_some()
        });
        peers.sort_unstable_by_key(|peer| peer.inode);
        peers
    }
}

impl Outgoing {
    const fn exact(&self) -> Exact {
        Exact { local: self.local, remote: self.remote, interface: self.interface }
    }

    /// `None` if the socket is another one: the addresses were taken again, or a listener was
    /// found in the place of a connection (`__inet_lookup` looks for both).
    fn peer(&self, socket: &Socket) -> Option<PeerRaw> {
        let state = socket.state.filter(|state| *state != TcpState::Listen)?;
        (socket.inode == self.inode).then_some(PeerRaw {
            remote: self.remote,
            local_port: self.local.port(),
            inode: self.inode,
            state,
            unread_bytes: socket.received,
            unsent_bytes: socket.sent,
            // Before the handshake its times are zeros, not measured ones.
            info: socket.info.filter(|_| state != TcpState::SynSent),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{PeerInfoRaw, PortsRaw};
    use crate::sockets::Alive;

    fn outgoing(inode: u32, unsent: u32) -> Outgoing {
        Outgoing {
            local: "127.0.0.1:40000".parse().unwrap(),
            remote: "127.0.0.1:9092".parse().unwrap(),
            interface: 0,
            inode,
            unsent,
            is_given_up: false,
        }
    }

    fn census(outgoing: Vec<Outgoing>, truncated: bool) -> Census {
        Census {
            alive: Alive { truncated, ..Alive::default() },
            ports: PortsRaw { range: (1, 2), in_use: 0, time_wait: 0, top: Vec::new() },
            outgoing,
        }
    }

    fn inodes(followed: &[Outgoing]) -> Vec<u32> {
        followed.iter().map(|one| one.inode).collect()
    }

    #[test]
    fn unsent_bytes_come_first_then_the_oldest_and_no_more_than_the_bound() {
        let mut ranked = Vec::new();
        for inode in (1..=PEERS_MAX as u32 + 10).rev() {
            rank(&mut ranked, outgoing(inode, u32::from(inode % 20 == 0)));
        }
        let mut expected = vec![20, 40];
        expected.extend((1..PEERS_MAX as u32).filter(|inode| *inode != 20));
        assert_eq!(inodes(&ranked), expected);
        assert_eq!(ranked.len(), PEERS_MAX);
    }

    #[test]
    fn what_a_cut_census_did_not_reach_is_still_followed() {
        let mut peers = Peers::default();
        peers.found(&census(vec![outgoing(1, 0), outgoing(2, 0)], false));
        peers.found(&census(vec![outgoing(2, 0), outgoing(3, 0)], true));
        assert_eq!(inodes(&peers.followed), [1, 2, 3]);
        peers.found(&census(vec![outgoing(3, 0)], false));
        assert_eq!(inodes(&peers.followed), [3]);
    }

    #[test]
    fn another_socket_in_its_place_is_not_the_same_connection() {
        let info = PeerInfoRaw {
            retransmits: 1,
            retransmitted: 2,
            rtt_us: 3,
            unacked: 4,
            last_sent_ms: 5,
            last_received_ms: 6,
            sent_bytes: Some(7),
            received_bytes: Some(8),
        };
        let socket = |inode, state| Socket {
            state,
            local: "127.0.0.1:40000".parse().unwrap(),
            remote: "127.0.0.1:9092".parse().unwrap(),
            received: 7,
            sent: 8,
            inode,
            interface: 0,
            drops: None,
            info: Some(info),
            traffic: None,
        };
        let mut peers = Peers::default();
        let found = (1..=6).map(|inode| outgoing(inode, 0)).collect();
        peers.found(&census(found, false));
        let seen = peers.advance(&[
            Some(socket(1, Some(TcpState::Established))),
            None,
            Some(socket(3, Some(TcpState::Listen))),
            Some(socket(9, Some(TcpState::Established))),
            Some(socket(5, Some(TcpState::SynSent))),
            Some(socket(6, None)),
        ]);
        let open = PeerRaw {
            remote: "127.0.0.1:9092".parse().unwrap(),
            local_port: 40_000,
            inode: 1,
            state: TcpState::Established,
            unread_bytes: 7,
            unsent_bytes: 8,
            info: Some(info),
        };
        let connecting = PeerRaw { inode: 5, state: TcpState::SynSent, info: None, ..open };
        assert_eq!(seen, [open, connecting]);
        assert_eq!(inodes(&peers.followed), [1, 5]);
    }
}
