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
    Others,
    /// All but listening ones and those in TIME_WAIT, of which there may be tens of thousands.
    OthersAlive,
}

impl Request {
    /// The message that asks for this, numbered `seq`; of the sockets, only those that pass
    /// `filter` ([`filter::local_ports`](super::filter::local_ports); an empty one passes all).
    pub fn encode(self, seq: u32, filter: &[u8]) -> Vec<u8> {
        let listen_bit = 1_u32 << TcpState::Listen as u8;
        let all_bits = (1_u32 << (TcpState::NewSynRecv as u8 + 1)) - 2;
        let states = match self.which {
            Which::Listening => listen_bit,
            Which::Others => all_bits & !listen_bit,
            Which::OthersAlive => all_bits & !listen_bit & !(1_u32 << TcpState::TimeWait as u8),
        };
        let attribute = if self.which == Which::Listening { INET_DIAG_SKMEMINFO } else { 0 };
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
    };
    for (kind, payload) in Attributes(attributes) {
        match kind {
            INET_DIAG_SKMEMINFO => socket.drops = u32_at(payload, SK_MEMINFO_DROPS * 4),
            INET_DIAG_INFO => socket.info = tcp_info(payload),
            _ => {}
        }
    }
    Some(socket)
}

/// `struct tcp_info` (`linux/tcp.h`), which later kernels only lengthen: all that is read here has
/// been there since 2.6. `None` for a shorter one.
pub fn tcp_info(bytes: &[u8]) -> Option<PeerInfoRaw> {
    Some(PeerInfoRaw {
        retransmits: *bytes.get(2)?,
        unacked: u32_at(bytes, 24)?,
        last_sent_ms: u32_at(bytes, 44)?,
        last_received_ms: u32_at(bytes, 52)?,
        rtt_us: u32_at(bytes, 68)?,
        retransmitted: u32_at(bytes, 100)?,
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

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    array(bytes, at).map(i32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LISTEN_V4: &[u8] = include_bytes!("../../fixtures/sock-diag-6.18/listen-v4");
    const LISTEN_V6: &[u8] = include_bytes!("../../fixtures/sock-diag-6.18/listen-v6");

    fn sockets(bytes: &[u8]) -> Vec<Socket> {
        messages(bytes)
            .filter_map(|numbered| match numbered.unwrap().message {
                Message::Socket(socket) => Some(socket),
                Message::Done(0) => None,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn captured_listeners_with_queue_limit_and_drops() {
        let nobody = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 0);
        let narrow = Socket {
            state: Some(TcpState::Listen),
            local: "127.0.0.1:8080".parse().unwrap(),
            remote: nobody("0.0.0.0"),
            received: 5,
            sent: 4,
            inode: 49_243,
            interface: 0,
            drops: Some(8),
            info: None,
        };
        assert_eq!(sockets(LISTEN_V4), [narrow]);
        let dual_stack = Socket {
            local: "[::]:8081".parse().unwrap(),
            remote: nobody("::"),
            received: 1,
            sent: 16,
            inode: 49_244,
            drops: Some(0),
            ..narrow
        };
        assert_eq!(sockets(LISTEN_V6), [dual_stack]);
    }

    #[test]
    fn captured_connections_of_a_dual_stack_listener_come_as_plain_ipv4() {
        let found = sockets(include_bytes!("../../fixtures/sock-diag-6.18/connections-v6"));
        let mapped: Vec<_> = found.iter().filter(|socket| socket.local.is_ipv4()).collect();
        assert_eq!((found.len(), mapped.len()), (4, 2));
        assert!(mapped.iter().all(|socket| socket.local == "127.0.0.1:8081".parse().unwrap()));
        let with_data = mapped.iter().find(|socket| socket.inode == 49_255).unwrap();
        assert_eq!((with_data.received, with_data.state), (5, Some(TcpState::Established)));
        assert_eq!(with_data.drops, None, "not asked for");
    }

    #[test]
    fn every_message_of_a_dump_carries_the_number_of_its_request() {
        assert!(messages(LISTEN_V4).all(|numbered| numbered.unwrap().seq == 1));
        let last = messages(LISTEN_V4).last().unwrap().unwrap();
        assert_eq!((last.message, last.interrupted), (Message::Done(0), false));
    }

    #[test]
    fn a_message_cut_anywhere_is_malformed_not_misread() {
        let whole = &LISTEN_V4[..LISTEN_V4.len() - 20];
        for cut in 1..whole.len() {
            let last = messages(&whole[..cut]).last().unwrap();
            assert_eq!(last, Err(Malformed { at: cut }), "{cut}");
        }
        assert_eq!(messages(&[]).count(), 0);
    }

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER_BYTES + payload.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn ends_refusals_and_interruptions() {
        let cases = [
            (NLMSG_DONE, 0, 0_i32, Message::Done(0)),
            (NLMSG_DONE, 0, -12, Message::Done(12)),
            (NLMSG_ERROR, 0, -2, Message::Error(2)),
            (NLMSG_ERROR, 0, 0, Message::Error(0)),
            (NLMSG_DONE, NLM_F_DUMP_INTR, 0, Message::Done(0)),
            (1, 0, 0, Message::Other),
        ];
        for (kind, flags, errno, expected) in cases {
            let bytes = message(kind, flags, &errno.to_ne_bytes());
            let numbered = messages(&bytes).next().unwrap().unwrap();
            assert_eq!(numbered.message, expected);
            assert_eq!(numbered.interrupted, flags != 0);
        }
        for kind in [NLMSG_DONE, NLMSG_ERROR] {
            assert!(messages(&message(kind, 0, &[])).next().unwrap().is_err());
            let lowest = message(kind, 0, &i32::MIN.to_ne_bytes());
            assert!(messages(&lowest).next().unwrap().is_err());
        }
    }

    #[test]
    fn a_request_asks_for_what_it_says() {
        let listening = Request { family: Family::V6, which: Which::Listening }.encode(7, &[]);
        assert_eq!((u32_at(&listening, 0), u32_at(&listening, 8)), (Some(72), Some(7)));
        assert_eq!((listening[16], listening[17], listening[18]), (10, 6, 1 << 6));
        assert_eq!((u16_at(&listening, 6), u32_at(&listening, 20)), (Some(0x301), Some(1 << 10)));
        let others = Request { family: Family::V4, which: Which::Others }.encode(7, &[]);
        assert_eq!((others.len(), others[16], others[18]), (72, 2, 0));
        assert_eq!(u32_at(&others, 20), Some(0b1_1011_1111_1110));
        let alive = Request { family: Family::V4, which: Which::OthersAlive }.encode(7, &[9; 8]);
        assert_eq!(u32_at(&alive, 20), Some(0b1_1011_1011_1110));
        assert_eq!((u32_at(&alive, 0), alive.len()), (Some(84), 84));
        assert_eq!((u16_at(&alive, 72), u16_at(&alive, 74)), (Some(12), Some(1)));
        assert_eq!(alive[76..], [9; 8]);
        let both = Request { family: Family::Both, which: Which::Others }.encode(7, &[9; 4]);
        assert_eq!((u32_at(&both, 0), u16_at(&both, 4)), (Some(84), Some(18)));
        assert_eq!((&both[16..20], u32_at(&both, 68)), (&[0; 4][..], Some(0b1_1011_1111_1110)));
        assert_eq!((u16_at(&both, 76), &both[80..]), (Some(8), &[9; 4][..]));
    }

    #[test]
    fn an_exact_request_names_both_ends() {
        let exact = |local: &str, remote: &str| {
            let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
            Exact { local, remote, interface: 3 }.encode(7, Detail::Info)
        };
        let narrow = exact("127.0.0.2:258", "127.0.0.1:772");
        assert_eq!((narrow.len(), u16_at(&narrow, 6), narrow[16]), (72, Some(1), 2));
        assert_eq!(narrow[18], 1 << 1, "with its tcp_info");
        assert_eq!(narrow[24..28], [1, 2, 3, 4]);
        assert_eq!((&narrow[28..32], &narrow[44..48]), (&[127, 0, 0, 2][..], &[127, 0, 0, 1][..]));
        assert_eq!((u32_at(&narrow, 60), &narrow[64..]), (Some(3), &[0xff; 8][..]));
        let wide = exact("[::1]:258", "[fe80::5]:772");
        assert_eq!((wide[16], wide[43], wide[44], wide[59]), (10, 1, 0xfe, 5));
        let mixed = exact("127.0.0.1:1", "[::1]:2");
        assert_eq!((mixed[16], &mixed[38..44]), (10, &[0xff, 0xff, 127, 0, 0, 1][..]));
    }

    #[test]
    fn tcp_info_of_older_and_newer_kernels() {
        let mut bytes: Vec<u8> = (0..232).collect();
        let word = |at: u8| u32::from_ne_bytes([at, at + 1, at + 2, at + 3]);
        let expected = PeerInfoRaw {
            retransmits: 2,
            unacked: word(24),
            last_sent_ms: word(44),
            last_received_ms: word(52),
            rtt_us: word(68),
            retransmitted: word(100),
        };
        for bytes_long in [232, 192, 104] {
            bytes.truncate(bytes_long);
            assert_eq!(tcp_info(&bytes), Some(expected), "{bytes_long}");
        }
        assert_eq!(tcp_info(&bytes[..103]), None);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            messages(&bytes).for_each(drop);
            tcp_info(&bytes);
        }

        #[test]
        fn parsing_a_damaged_dump_never_panics_and_ends(
            at in 0..LISTEN_V4.len(), value in any::<u8>(), cut in 0..LISTEN_V4.len(),
        ) {
            let mut bytes = LISTEN_V4.to_vec();
            bytes[at] = value;
            bytes.truncate(cut);
            prop_assert!(messages(&bytes).count() <= bytes.len());
        }
    }
}
