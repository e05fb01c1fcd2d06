//! TCP sockets of a network namespace, through `NETLINK_SOCK_DIAG` (`sock_diag(7)`): the depth of
//! accept queues, which `/proc/net/tcp` gives without their limit, and all connections in one
//! dump.
//!
//! A socket of one namespace answers for that namespace wherever it is used from, so a foreign
//! one is entered once, by a short-lived thread that makes the socket there.

mod diag;
mod netns;
mod tracker;
pub mod wire;

use std::path::Path;

pub use diag::{DUMP_MAX, Diag, LISTENERS_DUMPED_MAX};
pub use tracker::{TRACKED_PORTS_MAX, Tracker};
pub use wire::TcpState;

use crate::files;
use crate::reading::{Reading, Why};
use netns::Namespace;

/// The non-listening sockets of a namespace that have to do with the served ports or the
/// ephemeral range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dump {
    /// Those sockets, in no order.
    pub connections: Vec<Connection>,
    /// All sockets seen, also those left out above.
    pub total: u32,
    /// Whether the dump was cut at [`DUMP_MAX`].
    pub truncated: bool,
}

/// One TCP socket of a [`Dump`], kept small: there may be hundreds of thousands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// Its state.
    pub state: TcpState,
    /// Its local port.
    pub local_port: u16,
    /// The port of the other side.
    pub remote_port: u16,
    /// The address of the other side; IPv4 as `::ffff:a.b.c.d`.
    pub remote_ip: [u8; 16],
    /// Its inode; 0 when no fd refers to it (not accepted yet, or closed by the application).
    pub inode: u32,
    /// Bytes received and not read.
    pub unread: u32,
    /// Bytes written and not acknowledged.
    pub unsent: u32,
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
