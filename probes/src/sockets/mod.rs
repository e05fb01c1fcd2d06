//! TCP sockets of a network namespace, through `NETLINK_SOCK_DIAG` (`sock_diag(7)`): the depth of
//! accept queues, which `/proc/net/tcp` gives without their limit, and all connections in one
//! dump, of which the kernel sends only those asked for. [`procnet`] reads the text instead, for
//! kernels that do not answer.
//!
//! A socket of one namespace answers for that namespace wherever it is used from, so a foreign
//! one is entered once, by a short-lived thread that makes the socket there.

mod answers;
mod diag;
mod filter;
pub(crate) mod netns;
mod peers;
pub mod procnet;
mod tally;
mod tracker;
pub mod wire;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

pub use diag::{DUMP_MAX, Diag, LISTENERS_DUMPED_MAX};
pub use filter::FILTER_RANGES_MAX;
pub use peers::Peers;
pub use tracker::{TRACKED_PORTS_MAX, Tracker};
pub use wire::TcpState;

use crate::files;
use crate::reading::{Reading, Why};
use crate::sample::{PortsRaw, ServedRaw};
use netns::Namespace;

/// What to count.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The ports that the target listens on.
    pub served_ports: &'a [u16],
    /// `ip_local_port_range`, both ends included.
    pub range: (u16, u16),
    /// The inodes of the target's sockets; without them its own connections are not found. Those
    /// are found whose local port is in the range, as the kernel gave it, and not served.
    pub own_inodes: Option<&'a BTreeSet<u64>>,
    /// Sockets taken before the count is cut; at most [`DUMP_MAX`]. It bounds the work of one call,
    /// here and in the kernel, which fills one datagram at a time; those that the filter leaves out
    /// cost it a comparison and are not among them.
    pub sockets_max: usize,
    /// Whether to tell which accepted connections wait for an answer: the kernel then sends the
    /// `tcp_info` of every socket that passes the filter, which is dearer.
    pub answers: bool,
}

impl<'a> Wanted<'a> {
    /// As many sockets as there may be, no one's own, and no answers.
    pub const fn new(served_ports: &'a [u16], range: (u16, u16)) -> Self {
        Self { served_ports, range, own_inodes: None, sockets_max: DUMP_MAX, answers: false }
    }

    fn takes(&self, local_port: u16) -> bool {
        (self.range.0..=self.range.1).contains(&local_port)
            || self.served_ports.contains(&local_port)
    }
}

/// The connections to the served ports at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alive {
    /// By port, each port once. The `…_seen` are the [`Tracker`]'s to fill.
    served: Vec<ServedTally>,
    /// Sockets seen.
    total: u32,
    /// Whether the count was cut at [`Wanted::sockets_max`].
    truncated: bool,
}

/// The connections to one served port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ServedTally {
    counts: ServedRaw,
    /// Those with an inode; sorted when counting has ended.
    inodes: Vec<u32>,
    /// Those that wait to be accepted, by a hash of who they are from; sorted likewise.
    waiting: Vec<u32>,
}

/// The non-listening sockets of a namespace that have to do with the served ports or the
/// ephemeral range, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// The served ports, TIME_WAIT included.
    alive: Alive,
    ports: PortsRaw,
    /// Connections that the target made (at most [`PEERS_MAX`](crate::sample::PEERS_MAX)).
    outgoing: Vec<Outgoing>,
}

/// A connection that the target made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Outgoing {
    local: SocketAddr,
    remote: SocketAddr,
    interface: u32,
    inode: u32,
    unsent: u32,
    /// The other side has closed it, this one has not (CLOSE_WAIT).
    is_given_up: bool,
}

/// The ephemeral ports of the namespace that process `pid` lives in, both ends included.
///
/// `/proc/sys/net` shows the namespace of whoever reads it, so a foreign one has to be entered.
pub fn local_port_range(proc_root: &Path, pid: i32) -> Reading<(u16, u16)> {
    const FILE: &str = "sys/net/ipv4/ip_local_port_range";
    Namespace::of(proc_root, pid).and_then(|namespace| {
        namespace
            .within(|| files::read(&proc_root.join(FILE), files::SMALL_MAX_BYTES))
            .and_then(|bytes| parse_range(&bytes))
    })
}

/// Parses `ip_local_port_range`: two port numbers.
pub fn parse_range(bytes: &[u8]) -> Reading<(u16, u16)> {
    let text = String::from_utf8_lossy(bytes);
    let mut ports = text.split_whitespace().map(str::parse);
    match (ports.next(), ports.next()) {
        (Some(Ok(low)), Some(Ok(high))) if low <= high => Reading::Got((low, high)),
        _ => Reading::absent(Why::Malformed, "ip_local_port_range does not hold two ports"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_by_text() {
        let cases: [(&str, Option<(u16, u16)>); 5] = [
            ("32768\t60999\n", Some((32_768, 60_999))),
            ("40000 40000", Some((40_000, 40_000))),
            ("5 4", None),
            ("1024 65536", None),
            ("1024", None),
        ];
        for (text, range) in cases {
            assert_eq!(parse_range(text.as_bytes()).got().copied(), range, "{text:?}");
        }
    }
}
