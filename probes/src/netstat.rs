//! TCP counters of a network namespace: `/proc/PID/net/{netstat,snmp}`.

use std::path::Path;

use crate::files;
use crate::reading::{Reading, Why};
use crate::sample::TcpRaw;

/// Reads the counters of the namespace that process `pid` lives in.
pub fn read(proc_root: &Path, pid: i32) -> Reading<TcpRaw> {
    let folder = files::process(proc_root, pid).join("net");
    let file = |name: &str| files::read(&folder.join(name), files::SMALL_MAX_BYTES);
    file("netstat").and_then(|netstat| file("snmp").and_then(|snmp| parse(&netstat, &snmp)))
}

/// Parses both files. A counter that this kernel does not have is `None`; a file without its
/// table is malformed.
pub fn parse(netstat: &[u8], snmp: &[u8]) -> Reading<TcpRaw> {
    let netstat = String::from_utf8_lossy(netstat);
    let snmp = String::from_utf8_lossy(snmp);
    let (Some(extended), Some(basic)) =
        (Table::find(&netstat, "TcpExt:"), Table::find(&snmp, "Tcp:"))
    else {
        return Reading::absent(
            Why::Malformed,
            "net/netstat has no table `TcpExt:` or net/snmp none `Tcp:`",
        );
    };
    Reading::Got(TcpRaw {
        listen_overflows: extended.counter("ListenOverflows"),
        listen_drops: extended.counter("ListenDrops"),
        passive_opens: basic.counter("PassiveOpens"),
        active_opens: basic.counter("ActiveOpens"),
        out_rsts: basic.counter("OutRsts"),
        retrans_segs: basic.counter("RetransSegs"),
    })
}

/// A line of names and the line of values below it. Columns are found by name: every kernel
/// version adds some.
struct Table<'a> {
    names: &'a str,
    values: &'a str,
}

impl<'a> Table<'a> {
    fn find(text: &'a str, title: &str) -> Option<Self> {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(title));
        Some(Self { names: lines.next()?, values: lines.next()? })
    }

    fn counter(&self, name: &str) -> Option<u64> {
        let column = self.names.split_whitespace().position(|column| column == name)?;
        self.values.split_whitespace().nth(column)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fake::Tree;

    #[test]
    fn a_captured_pair_of_files() {
        let netstat = include_bytes!("../fixtures/netstat-6.18/netstat");
        let snmp = include_bytes!("../fixtures/netstat-6.18/snmp");
        let tcp = parse(netstat, snmp);
        // As `nstat` said of the same files.
        let expected = TcpRaw {
            listen_overflows: Some(8),
            listen_drops: Some(8),
            passive_opens: Some(8),
            active_opens: Some(10),
            out_rsts: Some(0),
            retrans_segs: Some(6),
        };
        assert_eq!(tcp.got(), Some(&expected));
    }

    #[test]
    fn counters_are_found_by_name_and_missing_ones_are_not_zero() {
        let tcp = parse(
            b"TcpExt: A ListenDrops\nTcpExt: 1 7\nIpExt: ListenOverflows\nIpExt: 5\n",
            b"Tcp: MaxConn ActiveOpens PassiveOpens\nTcp: -1 3\n",
        );
        let expected = TcpRaw { listen_drops: Some(7), active_opens: Some(3), ..TcpRaw::default() };
        assert_eq!(tcp.got(), Some(&expected));
    }

    #[test]
    fn a_file_without_its_table_is_malformed() {
        let cases: [(&[u8], &[u8]); 3] = [
            (b"", b"Tcp: A\nTcp: 1\n"),
            (b"TcpExt: A\nTcpExt: 1\n", b"Udp: A\nUdp: 1\n"),
            (b"TcpExt: A\n", b"Tcp: A\nTcp: 1\n"),
        ];
        for (netstat, snmp) in cases {
            assert_eq!(parse(netstat, snmp).absence().unwrap().why, Why::Malformed);
        }
    }

    #[test]
    fn a_vanished_process_is_gone() {
        assert_eq!(read(Tree::new().root(), 42).absence().unwrap().why, Why::Gone);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(&bytes, &bytes);
        }
    }
}
