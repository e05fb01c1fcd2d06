//! Connections of the target's own making: which are to Kafka, and what was sent again.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stallscope_probes::sample::{PeerRaw, TcpState, ThreadRaw};
use stallscope_probes::{Probe, Reading, Why};

use super::Model;
use super::build::{no_previous, restarted};

/// A connection of the target's own making, from the last look at them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerModel {
    /// As read.
    pub raw: PeerRaw,
    /// When the look had ended, ns: it is taken seldom, so look how old it is.
    pub at_ns: u64,
    /// Whether a Kafka broker is at the other end, as far as that can be told ([`is_kafka`]).
    pub kafka: bool,
    /// Segments sent again since the look before.
    pub retransmitted_new: Reading<u32>,
}

impl PeerModel {
    /// Whether it waits for the other side: to answer the first SYN, or to acknowledge.
    pub const fn waits(&self) -> bool {
        matches!(self.raw.state, TcpState::SynSent) || self.raw.unsent_bytes > 0
    }

    /// Its state, as RFC 9293 and netstat(8) write it.
    pub const fn state_name(&self) -> &'static str {
        match self.raw.state {
            TcpState::Established => "ESTABLISHED",
            TcpState::SynSent => "SYN_SENT",
            TcpState::SynRecv | TcpState::NewSynRecv => "SYN_RECV",
            TcpState::FinWait1 => "FIN_WAIT1",
            TcpState::FinWait2 => "FIN_WAIT2",
            TcpState::TimeWait => "TIME_WAIT",
            TcpState::Close => "CLOSE",
            TcpState::CloseWait => "CLOSE_WAIT",
            TcpState::LastAck => "LAST_ACK",
            TcpState::Listen => "LISTEN",
            TcpState::Closing => "CLOSING",
        }
    }
}

/// Connections that share a local port below the ephemeral ones were accepted there; a single one
/// may have been bound by hand.
const SHARED_PORT_MIN: usize = 2;
/// One ephemeral port may lead to two destinations (`__inet_hash_connect`): there it takes more,
/// and all of them from ports that clients take.
const SHARED_EPHEMERAL_PORT_MIN: usize = 3;
/// Where ephemeral ports begin by default (`net.ipv4.ip_local_port_range`, ip(7)).
const EPHEMERAL_FROM: u16 = 32_768;

/// Local ports of connections that were accepted, by all that shows now, and how many.
pub fn shared_ports(last: &Model) -> BTreeMap<u16, usize> {
    let (low, high) = last.ports.got().map_or((EPHEMERAL_FROM, u16::MAX), |ports| ports.range);
    let is_ephemeral = |port: u16| (low..=high).contains(&port);
    let mut shared: BTreeMap<u16, usize> = BTreeMap::new();
    for peer in last.all_peers() {
        let (local, remote) = (peer.raw.local_port, peer.raw.remote.port());
        if !is_ephemeral(local) || remote >= low {
            *shared.entry(local).or_default() += 1;
        }
    }
    shared.retain(|port, count| {
        let least = if is_ephemeral(*port) { SHARED_EPHEMERAL_PORT_MIN } else { SHARED_PORT_MIN };
        *count >= least
    });
    shared
}

/// Ports that brokers listen on by custom: Kafka's own default and the two after it (`server.properties`
/// of the quick start, one more per listener), and those of the usual container images for access
/// from outside.
const KAFKA_PORTS: [u16; 5] = [9092, 9093, 9094, 19092, 29092];

/// Ports of other services that a server with a Kafka producer is likely to call: etcd, `MySQL`, OTLP,
/// `PostgreSQL`, AMQP, Redis, HTTP(S), Prometheus, Elasticsearch, memcached, `MongoDB`.
const OTHER_PORTS: [u16; 14] =
    [2379, 3306, 4317, 4318, 5432, 5672, 6379, 8080, 8443, 9090, 9091, 9200, 11211, 27017];
/// Ports below are assigned (RFC 6335), and none of them to Kafka.
const ASSIGNED_BELOW: u16 = 1024;

/// Whether a connection to `port` is one to a Kafka broker: by the port that brokers use by custom;
/// or, in a process with librdkafka's broker threads (`rdk:broker…`), by being no port of another
/// well-known service. A guess, for display and evidence: no cause rests on it alone.
pub(super) fn is_kafka(port: u16, librdkafka: bool) -> bool {
    KAFKA_PORTS.contains(&port)
        || (librdkafka && port >= ASSIGNED_BELOW && !OTHER_PORTS.contains(&port))
}

/// Whether one of `threads` is librdkafka's, one of which serves each broker.
pub(super) fn has_librdkafka(threads: &[ThreadRaw]) -> bool {
    threads.iter().any(|thread| thread.comm.starts_with("rdk:broker"))
}

/// Makes them from the readings of one run.
#[derive(Debug, Default)]
pub(super) struct Peers {
    librdkafka: bool,
    /// By inode and ports: inodes are used again.
    before: BTreeMap<(u32, u16, u16), Option<u32>>,
    last: Option<(u64, Arc<[PeerModel]>)>,
}

impl Peers {
    pub(super) fn saw_threads(&mut self, threads: &[ThreadRaw]) {
        self.librdkafka = has_librdkafka(threads);
    }

    pub(super) fn push(&mut self, probe: &Probe<Vec<PeerRaw>>) -> Reading<Arc<[PeerModel]>> {
        let raws = match &probe.reading {
            Reading::Got(raws) => raws,
            Reading::Absent(absence) => return Reading::Absent(absence.clone()),
        };
        // A look carried along from an earlier tick says again what it said then.
        if let Some((_, peers)) = self.last.as_ref().filter(|(at_ns, _)| *at_ns == probe.end_ns) {
            return Reading::Got(Arc::clone(peers));
        }
        let key = |raw: &PeerRaw| (raw.inode, raw.local_port, raw.remote.port());
        let sent_again = |raw: &PeerRaw| raw.info.map(|info| info.retransmitted);
        let peers: Arc<[PeerModel]> = raws
            .iter()
            .map(|raw| PeerModel {
                raw: *raw,
                at_ns: probe.end_ns,
                kafka: is_kafka(raw.remote.port(), self.librdkafka),
                retransmitted_new: match (sent_again(raw), self.before.get(&key(raw))) {
                    (None, _) => Reading::absent(
                        Why::Unsupported,
                        "the kernel tells nothing of a connection that is not made yet",
                    ),
                    (Some(_), None | Some(None)) => no_previous(),
                    (Some(now), Some(Some(then))) => {
                        now.checked_sub(*then).map_or_else(restarted, Reading::Got)
                    }
                },
            })
            .collect();
        self.before = raws.iter().map(|raw| (key(raw), sent_again(raw))).collect();
        self.last = Some((probe.end_ns, Arc::clone(&peers)));
        Reading::Got(peers)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use stallscope_probes::sample::PeerInfoRaw;

    use super::*;

    const S: u64 = 1_000_000_000;

    fn peer(port: u16, inode: u32, retransmitted: Option<u32>) -> PeerRaw {
        PeerRaw {
            remote: SocketAddr::from(([10, 0, 0, 7], port)),
            local_port: 40_000,
            inode,
            state: if retransmitted.is_some() { TcpState::Established } else { TcpState::SynSent },
            unread_bytes: 0,
            unsent_bytes: 0,
            info: retransmitted.map(|retransmitted| PeerInfoRaw {
                retransmits: 0,
                retransmitted,
                rtt_us: 200,
                unacked: 0,
                last_sent_ms: 5,
                last_received_ms: 5,
                sent_bytes: Some(100),
                received_bytes: Some(100),
            }),
        }
    }

    fn probe(at_ns: u64, peers: Vec<PeerRaw>) -> Probe<Vec<PeerRaw>> {
        Probe { begin_ns: at_ns, end_ns: at_ns, reading: Reading::Got(peers) }
    }

    #[test]
    fn brokers_by_port_and_by_the_threads_of_the_process() {
        for (port, librdkafka, kafka) in [
            (9092, false, true),
            (9094, false, true),
            (9095, false, false),
            (19_092, false, true),
            (29_092, false, true),
            (30_001, false, false),
            (30_001, true, true),
            (5432, true, false),
            (443, true, false),
            (9092, true, true),
        ] {
            assert_eq!(is_kafka(port, librdkafka), kafka, "{port} {librdkafka}");
        }
    }

    #[test]
    fn what_was_sent_again_since_the_look_before() {
        let mut peers = Peers::default();
        let mut push = |at_ns, list| -> Vec<Result<u32, Why>> {
            let models = peers.push(&probe(at_ns, list));
            let why = |reading: &Reading<u32>| reading.absence().map_or(Why::Failed, |a| a.why);
            let outcome = |reading: &Reading<u32>| reading.got().copied().ok_or(why(reading));
            models.got().unwrap().iter().map(|peer| outcome(&peer.retransmitted_new)).collect()
        };
        let first = push(S, vec![peer(9092, 1, Some(3)), peer(9092, 2, None)]);
        assert_eq!(first, [Err(Why::NoPrevious), Err(Why::Unsupported)]);
        let second =
            || vec![peer(9092, 2, Some(1)), peer(9092, 1, Some(8)), peer(9092, 3, Some(0))];
        let new = [Err(Why::NoPrevious), Ok(5), Err(Why::NoPrevious)];
        assert_eq!(push(2 * S, second()), new);
        assert_eq!(push(2 * S, second()), new, "carried along");
        // The inode was used again by another connection.
        assert_eq!(push(3 * S, vec![peer(9092, 1, Some(2))]), [Err(Why::Restarted)]);
        assert_eq!(push(4 * S, vec![peer(9093, 1, Some(9))]), [Err(Why::NoPrevious)]);
    }

    #[test]
    fn waiting_is_a_syn_without_answer_or_bytes_without_acknowledgement() {
        let mut peers = Peers::default();
        let unsent = PeerRaw { unsent_bytes: 10, ..peer(9092, 2, Some(0)) };
        let models =
            peers.push(&probe(S, vec![peer(9092, 1, None), unsent, peer(9092, 3, Some(0))]));
        let waits: Vec<bool> = models.got().unwrap().iter().map(PeerModel::waits).collect();
        assert_eq!(waits, [true, true, false]);
    }
}
