//! TCP segments of one's own making (RFC 9293, section 3.1), sent through a raw socket with made
//! up senders: handshakes that never end, and connections that exist for connection tracking only.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// `IPPROTO_RAW`: the IPv4 header comes from the sender (`raw(7)`), its checksum and length from
/// the kernel.
const PROTOCOL_RAW: i32 = 255;
const IP_BYTES: usize = 20;
const TCP_BYTES: usize = 20;
const PROTOCOL_TCP: u8 = 6;
/// The window that the made up peers offer.
const WINDOW: u16 = 0xffff;

/// The flag `SYN`.
pub(super) const SYN: u8 = 0x02;
/// The flag `ACK`.
pub(super) const ACK: u8 = 0x10;

/// One segment, without data and options.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
}

impl Segment {
    /// The IPv4 packet.
    pub(super) fn encode(&self) -> [u8; IP_BYTES + TCP_BYTES] {
        let mut packet = [0; IP_BYTES + TCP_BYTES];
        let (ip, tcp) = packet.split_at_mut(IP_BYTES);
        // Version 4, a header of five words; no fragments; TTL 64.
        ip[0] = 0x45;
        ip[3] = (IP_BYTES + TCP_BYTES) as u8;
        ip[8] = 64;
        ip[9] = PROTOCOL_TCP;
        ip[12..16].copy_from_slice(&self.from.ip().octets());
        ip[16..20].copy_from_slice(&self.to.ip().octets());
        tcp[0..2].copy_from_slice(&self.from.port().to_be_bytes());
        tcp[2..4].copy_from_slice(&self.to.port().to_be_bytes());
        tcp[4..8].copy_from_slice(&self.seq.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.ack.to_be_bytes());
        // A header of five words.
        tcp[12] = 5 << 4;
        tcp[13] = self.flags;
        tcp[14..16].copy_from_slice(&WINDOW.to_be_bytes());
        let checksum = checksum(*self.from.ip(), *self.to.ip(), tcp);
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        packet
    }
}

/// Of the pseudo header and the segment (RFC 9293, section 3.1; RFC 1071).
fn checksum(from: Ipv4Addr, to: Ipv4Addr, segment: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)))
            .sum()
    };
    let mut sum = words(&from.octets()) + words(&to.octets());
    sum += u32::from(PROTOCOL_TCP) + segment.len() as u32 + words(segment);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Sends segments.
#[derive(Debug)]
pub(super) struct Sender(Socket);

impl Sender {
    /// Opens the socket.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`.
    pub(super) fn open() -> io::Result<Self> {
        Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(PROTOCOL_RAW))).map(Self)
    }

    /// Sends one. A firewall that drops it makes that an error (`EPERM`).
    pub(super) fn send(&self, segment: &Segment) -> io::Result<()> {
        let to = SockAddr::from(SocketAddrV4::new(*segment.to.ip(), 0));
        self.0.send_to(&segment.encode(), &to).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A SYN that this kernel sent from 127.0.0.1:40000 has no such plain form, so the check is
    /// the receiver's: the sum over everything, checksum included, is all ones.
    #[test]
    fn the_receiver_finds_the_checksum_right() {
        let address = |ip: [u8; 4], port| SocketAddrV4::new(Ipv4Addr::from(ip), port);
        let segment = Segment {
            from: address([10, 99, 255, 3], 0xfffe),
            to: address([127, 0, 0, 1], 80),
            flags: SYN | ACK,
            seq: 0xffff_fffe,
            ack: 7,
        };
        let packet = segment.encode();
        assert_eq!(checksum(*segment.from.ip(), *segment.to.ip(), &packet[IP_BYTES..]), 0);
    }

    #[test]
    fn fields_stand_where_the_rfc_puts_them() {
        let segment = Segment {
            from: SocketAddrV4::new(Ipv4Addr::new(1, 2, 3, 4), 0x0506),
            to: SocketAddrV4::new(Ipv4Addr::new(7, 8, 9, 10), 0x0b0c),
            flags: SYN,
            seq: 0x1112_1314,
            ack: 0x1516_1718,
        };
        let packet = segment.encode();
        assert_eq!(&packet[12..20], &[1, 2, 3, 4, 7, 8, 9, 10]);
        assert_eq!(&packet[20..24], &[5, 6, 11, 12]);
        assert_eq!(&packet[24..32], &[0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
        assert_eq!(&packet[32..34], &[0x50, 0x02]);
    }
}
