//! The bytes of `sock_diag(7)`: requests out, answers in. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::sample::PeerInfoRaw;
pub use crate::sample::TcpState;

/// Bytes of `struct nlmsghdr` (linux/netlink.h).
const HEADER_BYTES: usize = 16;
/// Bytes of `struct inet_diag_msg`, which attributes may follow.
const SOCKET_BYTES: usize = 72;

/// Bytes of `struct nlattr`: length and kind.
const ATTRIBUTE_BYTES: usize = 4;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const TCPDIAG_GETSOCK: u16 = 18;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// The attribute of a request that holds a filter.
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_SKMEMINFO: u16 = 7;
/// Both halves of `INET_DIAG_NOCOOKIE`: any socket with these addresses will do.
const NO_COOKIE: [u8; 8] = [0xff; 8];
/// Index of the drops in `INET_DIAG_SKMEMINFO` (`SK_MEMINFO_DROPS`, `linux/sock_diag.h`).
const SK_MEMINFO_DROPS: usize = 8;

/// Sockets of which IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`, which holds the IPv4 connections of a dual-stack listener too.
    V6,
    /// Both in one walk of the table. Only the older request `TCPDIAG_GETSOCK`, which has no room
    /// for a family, gives that (`inet_diag_dump_compat`, `net/ipv4/inet_diag.c`).
    Both,
}

/// What to dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// IP version.
    pub family: Family,
    /// Sockets in which states.
    pub which: Which,
}

/// Which sockets to dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Listening ones, with their drops.
    Listening,
    /// All but listening ones.
    Others {
        /// Whether to tell the `tcp_info` of each, which is dearer: four times the bytes, and the
        /// lock of each socket for a moment (`tcp_get_info`, `net/ipv4/tcp.c`).
        info: bool,
    },
    /// All but listening ones and those in TIME_WAIT, of which there may be tens of thousands.
    OthersAlive {
        /// As above.
        info: bool,
    },
}

impl Request {
    /// The message that asks for this, numbered `seq`; of the sockets, only those that pass
    /// `filter` ([`filter::local_ports`](super::filter::local_ports); an empty one passes all).
    pub fn encode(self, seq: u32, filter: &[u8]) -> Vec<u8> {
        let listen_bit = 1_u32 << TcpState::Listen as u8;
        let all_bits = (1_u32 << (TcpState::NewSynRecv as u8 + 1)) - 2;
        let states = match self.which {
            Which::Listening => listen_bit,
            Which::Others { .. } => all_bits & !listen_bit,
            Which::OthersAlive { .. } => {
                all_bits & !listen_bit & !(1_u32 << TcpState::TimeWait as u8)
            }
        };
        let attribute = match self.which {
            Which::Listening => INET_DIAG_SKMEMINFO,
            Which::Others { info: true } | Which::OthersAlive { info: true } => INET_DIAG_INFO,
            Which::Others { .. } | Which::OthersAlive { .. } => 0,
        };
        let mut message = request(seq, NLM_F_DUMP, self.family, attribute, states, &[0; 48]);
        if !filter.is_empty() {
            // Far from wrapping: `FILTER_RANGES_MAX` bounds a filter.
            let attribute_bytes = (ATTRIBUTE_BYTES + filter.len()) as u16;
            message.extend_from_slice(&attribute_bytes.to_ne_bytes());
            message.extend_from_slice(&INET_DIAG_REQ_BYTECODE.to_ne_bytes());
            message.extend_from_slice(filter);
            put_length(&mut message);
        }
        message
    }
}

/// One socket, to be asked for by its addresses: no table is walked
/// (`inet_diag_find_one_icsk`, `net/ipv4/inet_diag.c`). A listener has no other side: both its
/// address and its port are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exact {
    /// Its local address.
    pub local: SocketAddr,
    /// The address of the other side.
    pub remote: SocketAddr,
    /// The interface it is bound to; 0 for none.
    pub interface: u32,
}

/// What to tell of one socket beside its addresses and queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Its `tcp_info`.
    Info,
    /// What was dropped at it.
    Drops,
}

impl Exact {
    /// The message that asks for this, numbered `seq`.
    pub fn encode(self, seq: u32, detail: Detail) -> Vec<u8> {
        // IPv4 in an IPv6 socket is found by its IPv4 addresses: the lookup compares no family.
        let family = match (self.local, self.remote) {
            (SocketAddr::V4(_), SocketAddr::V4(_)) => Family::V4,
            _ => Family::V6,
        };
        let mut id = [0; 48];
        put(&mut id, 0, &self.local.port().to_be_bytes());
        put(&mut id, 2, &self.remote.port().to_be_bytes());
        for (at, address) in [(4, self.local), (20, self.remote)] {
            match (family, address.ip()) {
                (Family::V4, IpAddr::V4(ip)) => put(&mut id, at, &ip.octets()),
                (_, IpAddr::V4(ip)) => put(&mut id, at, &ip.to_ipv6_mapped().octets()),
                (_, IpAddr::V6(ip)) => put(&mut id, at, &ip.octets()),
            }
        }
        put(&mut id, 36, &self.interface.to_ne_bytes());
        put(&mut id, 40, &NO_COOKIE);
        let attribute = match detail {
            Detail::Info => INET_DIAG_INFO,
            Detail::Drops => INET_DIAG_SKMEMINFO,
        };
        request(seq, 0, family, attribute, u32::MAX, &id)
    }
}

/// A `struct nlmsghdr` and a `struct inet_diag_req_v2`, or for both families a
/// `struct inet_diag_req`; `attribute` 0 asks for none.
fn request(
    seq: u32,
    flags: u16,
    family: Family,
    attribute: u16,
    states: u32,
    id: &[u8; 48],
) -> Vec<u8> {
    // Bit n - 1 asks for attribute n.
    let attributes = if attribute == 0 { 0 } else { 1 << (attribute - 1) };
    let states = states.to_ne_bytes();
    let mut message = vec![0; HEADER_BYTES];
    put(&mut message, 6, &(NLM_F_REQUEST | flags).to_ne_bytes());
    put(&mut message, 8, &seq.to_ne_bytes());
    let kind = match family {
        Family::V4 | Family::V6 => {
            let family = if family == Family::V4 { AF_INET } else { AF_INET6 };
            message.extend_from_slice(&[family, IPPROTO_TCP, attributes, 0]);
            message.extend_from_slice(&states);
            message.extend_from_slice(id);
            SOCK_DIAG_BY_FAMILY
        }
        Family::Both => {
            message.extend_from_slice(&[0, 0, 0, attributes]);
            message.extend_from_slice(id);
            message.extend_from_slice(&states);
            message.extend_from_slice(&[0; 4]);
            TCPDIAG_GETSOCK
        }
    };
    put(&mut message, 4, &kind.to_ne_bytes());
    put_length(&mut message);
    message
}

fn put_length(message: &mut [u8]) {
    let bytes = message.len() as u32;
    put(message, 0, &bytes.to_ne_bytes());
}

fn put(message: &mut [u8], at: usize, bytes: &[u8]) {
    message[at..at + bytes.len()].copy_from_slice(bytes);
}

/// One socket as the kernel describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    /// Its state; `None` for one this version does not know.
    pub state: Option<TcpState>,
    /// Its local address; IPv4 in IPv6 as plain IPv4.
    pub local: SocketAddr,
    /// The address of the other side.
    pub remote: SocketAddr,
    /// Bytes received and not read; of a listener, its accept queue.
    pub received: u32,
    /// Bytes written and not acknowledged; of a listener, the limit of its accept queue.
    pub sent: u32,
    /// Its inode; 0 when no fd refers to it.
    pub inode: u32,
    /// The interface it is bound to; 0 for none.
    pub interface: u32,
    /// Packets dropped at it, if asked for.
    pub drops: Option<u32>,
    /// Its `tcp_info`, if asked for.
    pub info: Option<PeerInfoRaw>,
    /// What went over it, from the same.
    pub traffic: Option<Traffic>,
}

/// What went over a connection, from `struct tcp_info` (`linux/tcp.h`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes received in order. A FIN counts as one (`tcp_rcv_nxt_update`, `net/ipv4/tcp_input.c`).
    pub received_bytes: u64,
    /// Bytes of data sent, those sent again included (`__tcp_transmit_skb`,
    /// `net/ipv4/tcp_output.c`).
    pub sent_bytes: u64,
    /// Since data was last sent, ms; before that, since the connection was made.
    pub last_sent_ms: u32,
    /// Since data was last received, ms; before that, since the connection was made.
    pub last_received_ms: u32,
    /// Segments with data received.
    pub segments_in: u32,
    /// Segments with data sent.
    pub segments_out: u32,
}

/// One netlink message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// A socket.
    Socket(Socket),
    /// The dump is complete; an errno if it went wrong on the way.
    Done(i32),
    /// The request was refused with this errno (positive); 0 is a plain acknowledgement.
    Error(i32),
    /// Nothing of interest.
    Other,
}

/// A message with the number of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbered {
    /// The number given to [`Request::encode`].
    pub seq: u32,
    /// Whether the table changed during the dump in a way that may have lost sockets.
    pub interrupted: bool,
    /// The message.
    pub message: Message,
}

/// Bytes that are no well-formed netlink message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the kernel's answer is cut or malformed {at} bytes before its end")]
pub struct Malformed {
    /// Bytes left when it was noticed.
    pub at: usize,
}

/// The messages of one datagram, in order; ends after the first malformed one.
pub fn messages(bytes: &[u8]) -> impl Iterator<Item = Result<Numbered, Malformed>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some((numbered, after)) = split_message(rest) {
            rest = after;
            return Some(Ok(numbered));
        }
        let at = rest.len();
        rest = &[];
        Some(Err(Malformed { at }))
    })
}

fn split_message(bytes: &[u8]) -> Option<(Numbered, &[u8])> {
    let bytes_stated = u32_at(bytes, 0)? as usize;
    let kind = u16_at(bytes, 4)?;
    let flags = u16_at(bytes, 6)?;
    let seq = u32_at(bytes, 8)?;
    let payload = bytes.get(HEADER_BYTES..bytes_stated)?;
    let message = match kind {
        SOCK_DIAG_BY_FAMILY | TCPDIAG_GETSOCK => Message::Socket(socket(payload)?),
        // Both begin with a negative errno (`struct nlmsgerr`; `netlink_dump_done`, af_netlink.c).
        NLMSG_ERROR => Message::Error(i32_at(payload, 0)?.checked_neg()?),
        NLMSG_DONE => Message::Done(i32_at(payload, 0)?.checked_neg()?),
        _ => Message::Other,
    };
    let interrupted = flags & NLM_F_DUMP_INTR != 0;
    let after = bytes.get(aligned(bytes_stated)..).unwrap_or(&[]);
    Some((Numbered { seq, interrupted, message }, after))
}

/// `struct inet_diag_msg`: family, state, timer, retrans; ports, addresses, interface, cookie;
/// expires, rqueue, wqueue, uid, inode.
fn socket(payload: &[u8]) -> Option<Socket> {
    let (fixed, attributes) = payload.split_at_checked(SOCKET_BYTES)?;
    let address = |at: usize, port_at: usize| {
        let port = u16::from_be_bytes(array(fixed, port_at)?);
        let ip = match fixed[0] {
            AF_INET => IpAddr::V4(Ipv4Addr::from(array::<4>(fixed, at)?)),
            AF_INET6 => IpAddr::V6(Ipv6Addr::from(array::<16>(fixed, at)?)).to_canonical(),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    };
    let mut socket = Socket {
        state: TcpState::from_number(fixed[1]),
        local: address(8, 4)?,
        remote: address(24, 6)?,
        received: u32_at(fixed, 56)?,
        sent: u32_at(fixed, 60)?,
        inode: u32_at(fixed, 68)?,
        interface: u32_at(fixed, 40)?,
        drops: None,
        info: None,
        traffic: None,
    };
    for (kind, payload) in Attributes(attributes) {
        match kind {
            INET_DIAG_SKMEMINFO => socket.drops = u32_at(payload, SK_MEMINFO_DROPS * 4),
            INET_DIAG_INFO => {
                (socket.info, socket.traffic) = (tcp_info(payload), traffic(payload));
            }
            _ => {}
        }
    }
    Some(socket)
}

/// `struct tcp_info` (`linux/tcp.h`), which later kernels only lengthen: all that is read here but
/// the bytes has been there since 2.6. `None` for a shorter one.
pub fn tcp_info(bytes: &[u8]) -> Option<PeerInfoRaw> {
    Some(PeerInfoRaw {
        retransmits: *bytes.get(2)?,
        unacked: u32_at(bytes, 24)?,
        last_sent_ms: u32_at(bytes, 44)?,
        last_received_ms: u32_at(bytes, 52)?,
        rtt_us: u32_at(bytes, 68)?,
        retransmitted: u32_at(bytes, 100)?,
        sent_bytes: u64_at(bytes, 200),
        received_bytes: u64_at(bytes, 128),
    })
}

/// The part of `struct tcp_info` that tells what went over the connection. `tcpi_bytes_sent` has been
/// there since 4.19; `None` for a shorter one.
pub fn traffic(bytes: &[u8]) -> Option<Traffic> {
    Some(Traffic {
        received_bytes: u64_at(bytes, 128)?,
        sent_bytes: u64_at(bytes, 200)?,
        last_sent_ms: u32_at(bytes, 44)?,
        last_received_ms: u32_at(bytes, 52)?,
        segments_in: u32_at(bytes, 152)?,
        segments_out: u32_at(bytes, 156)?,
    })
}

/// Attributes (`struct nlattr`: length, kind, payload), up to the first malformed one.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes_stated = usize::from(u16_at(self.0, 0)?);
        let payload = self.0.get(ATTRIBUTE_BYTES..bytes_stated)?;
        let kind = u16_at(self.0, 2)?;
        self.0 = self.0.get(aligned(bytes_stated)..).unwrap_or(&[]);
        Some((kind, payload))
    }
}

/// Messages and attributes begin at multiples of four bytes.
const fn aligned(bytes: usize) -> usize {
    bytes.saturating_add(3) & !3
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_ne_bytes)
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    array(bytes, at).map(i32::from_ne_bytes)
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
