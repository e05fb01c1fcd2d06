//! TCP: listeners, connections, ports, counters.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Who holds a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// The watched process has an fd for it.
    Target,
    /// Another process listens on the same port.
    Other,
    /// The target's fds could not be listed.
    Unknown,
}

/// One listening socket, from `INET_DIAG` (`sock_diag(7)`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerRaw {
    /// Where it listens.
    pub local: SocketAddr,
    /// Its inode: tells `SO_REUSEPORT` siblings apart.
    pub inode: u32,
    /// Accept queue: connections established but not accepted (`ss -l` Recv-Q).
    pub queued: u32,
    /// Accept queue limit: the smaller of backlog and somaxconn (`ss -l` Send-Q). The queue is
    /// full at limit + 1. `/proc/net/tcp` does not tell it.
    pub limit: Option<u32>,
    /// Connections and SYNs dropped at this socket since it was made.
    pub drops: Option<u32>,
    /// Who holds it.
    pub holder: Holder,
}

/// A census of the namespace's TCP sockets, from one dump. Dear: taken seldom, oftener on suspicion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketsRaw {
    /// Per port that the target listens on.
    pub served: Vec<ServedRaw>,
    /// Ephemeral ports.
    pub ports: PortsRaw,
    /// Sockets seen in the dump.
    pub total: u32,
    /// Whether the dump was cut at its bound.
    pub truncated: bool,
}

/// Connections to one port the target listens on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedRaw {
    /// The port.
    pub port: u16,
    /// ESTABLISHED or `CLOSE_WAIT` and accepted (they have an inode).
    pub accepted_open: u32,
    /// ESTABLISHED and not accepted yet (no inode).
    pub queued: u32,
    /// Accepted connections in `CLOSE_WAIT`: the peer has closed, the server has not.
    pub close_wait: u32,
    /// `SYN_RECV`: the handshake is not done.
    pub syn_recv: u32,
    /// `TIME_WAIT` on the served port: this side closed first.
    pub time_wait: u32,
    /// Accepted connections with unread bytes.
    pub unread_sockets: u32,
    /// Their unread bytes.
    pub unread_bytes: u64,
    /// Bytes written and not acknowledged, all accepted connections.
    pub unsent_bytes: u64,
    /// Order-independent hash over (inode, unread, unsent) of the accepted connections: equal in
    /// two dumps when nothing was accepted, closed, read or written in between.
    pub fingerprint: u64,
    /// Connections that were seen accepted for the first time, since watching began.
    pub accepted_seen: u64,
    /// Connections that were seen accepted before and are gone, since watching began.
    pub closed_seen: u64,
    /// Connections that were seen waiting to be accepted before and no longer do, since watching
    /// began: accepted, closed meanwhile or not, or reset by their clients. One that was reset stays
    /// in the queue, which is then longer than `queued`.
    pub left_queue_seen: u64,
    /// Which of them wait for an answer; `None` when that was not asked for (it is dearer), or
    /// cannot be told (`/proc/net/tcp`).
    pub answers: Option<AnswersRaw>,
}

/// Which accepted connections wait for an answer: data came in, and nothing went out since
/// (`tcpi_last_data_recv` and `tcpi_last_data_sent` of `struct tcp_info`, `linux/tcp.h`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswersRaw {
    /// Accepted connections on which data came in, and nothing was sent since.
    pub awaiting: u32,
    /// Of those, with bytes the target has not read.
    pub awaiting_unread: u32,
    /// Of those awaiting, to which nothing was ever sent.
    pub never_answered: u32,
    /// Of those awaiting, how long ago the data of the one that waits longest came in, ms.
    pub oldest_ms: Option<u32>,
    /// How long ago data last went out on any accepted connection, ms; `None`: never on any.
    pub last_sent_ms: Option<u32>,
    /// How long ago data last came in on any accepted connection, ms; `None`: never on any.
    pub last_received_ms: Option<u32>,
    /// Connections whose last data in and last data out fell into one jiffy, and that got one segment
    /// more than they sent, having sent several: where one segment asks and one answers they wait,
    /// which is to be believed when it is so of all.
    pub perhaps: u32,
    /// How long ago that jiffy was for the one of them it was longest ago, ms.
    pub perhaps_oldest_ms: Option<u32>,
    /// Connections of which it is sure that they do not wait, having been answered.
    pub answered: u32,
    /// Accepted connections that were never read from nor written to, though there is something to
    /// read: bytes, or the end of the stream.
    pub neglected: u32,
    /// How long the one of them that waits longest has done so, ms.
    pub neglected_oldest_ms: Option<u32>,
    /// How long the connection in the accept queue that waits longest has done so, ms: since its data
    /// came in, or since it was made when it sent none. A queue is served in order (accept(2)), so
    /// nothing was accepted since then. `None` when the queue is empty, or no connection tells.
    pub queued_oldest_ms: Option<u32>,
}

/// Ephemeral ports of the namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortsRaw {
    /// `net.ipv4.ip_local_port_range`, both ends included.
    pub range: (u16, u16),
    /// Distinct local ports within the range that some TCP socket uses, `TIME_WAIT` included.
    pub in_use: u32,
    /// `TIME_WAIT` sockets with a local port in the range that is not served: connections made
    /// here, and closed here first.
    pub time_wait: u32,
    /// Destinations that use most of the range, most first (at most [`DESTINATIONS_MAX`](super::DESTINATIONS_MAX)). Only
    /// sockets of one (source, destination) share the range, so this is the real head room.
    pub top: Vec<(SocketAddr, u32)>,
}

/// A TCP connection of the target's own making (its local port is not one it listens on).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRaw {
    /// The other side.
    pub remote: SocketAddr,
    /// Its local port.
    pub local_port: u16,
    /// Its inode.
    pub inode: u32,
    /// Its state.
    pub state: TcpState,
    /// Bytes received and not read by the target.
    pub unread_bytes: u32,
    /// Bytes written by the target and not acknowledged by the other side (`ss` Send-Q).
    pub unsent_bytes: u32,
    /// What `INET_DIAG_INFO` says; absent while connecting.
    pub info: Option<PeerInfoRaw>,
}

/// From `struct tcp_info` (`linux/tcp.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfoRaw {
    /// Retransmissions of the oldest unacknowledged segment, in a row.
    pub retransmits: u8,
    /// Segments sent again since the connection began.
    pub retransmitted: u32,
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u32,
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Since data was last sent, ms.
    pub last_sent_ms: u32,
    /// Since data was last received, ms.
    pub last_received_ms: u32,
    /// Bytes of data sent since the connection began; `None` before Linux 4.19.
    pub sent_bytes: Option<u64>,
    /// Bytes of data received since then; `None` before Linux 4.1.
    pub received_bytes: Option<u64>,
}

/// States of a TCP socket (`include/net/tcp_states.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
#[expect(missing_docs, reason = "the names of RFC 9293")]
pub enum TcpState {
    Established = 1,
    SynSent = 2,
    SynRecv = 3,
    FinWait1 = 4,
    FinWait2 = 5,
    TimeWait = 6,
    Close = 7,
    CloseWait = 8,
    LastAck = 9,
    Listen = 10,
    Closing = 11,
    NewSynRecv = 12,
}

impl TcpState {
    /// From the number in a message; `None` for one this version does not know.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 => Self::SynRecv,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            12 => Self::NewSynRecv,
            _ => return None,
        })
    }
}

/// From `/proc/PID/net/{netstat,snmp}`: counters of the whole namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpRaw {
    /// `TcpExt: ListenOverflows`: an accept queue was full.
    pub listen_overflows: Option<u64>,
    /// `TcpExt: ListenDrops`: SYNs dropped at listeners for any reason.
    pub listen_drops: Option<u64>,
    /// `Tcp: PassiveOpens`: connections that reached some accept queue.
    pub passive_opens: Option<u64>,
    /// `Tcp: ActiveOpens`: connections begun here.
    pub active_opens: Option<u64>,
    /// `Tcp: OutRsts`: resets sent.
    pub out_rsts: Option<u64>,
    /// `Tcp: RetransSegs`: segments sent again.
    pub retrans_segs: Option<u64>,
    /// `TcpExt: TCPReqQFullDrop`: SYNs dropped because too many handshakes were under way.
    pub req_q_full_drops: Option<u64>,
    /// `TcpExt: TCPReqQFullDoCookies`: the same, answered with a SYN cookie instead.
    pub req_q_full_cookies: Option<u64>,
}
