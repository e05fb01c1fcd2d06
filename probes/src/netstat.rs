//! TCP counters of a network namespace: `/proc/PID/net/{netstat,snmp}`.
//!
//! Cost on 6.18: 20 us and 6 to 8 us for kept files, twice that for files opened anew (the kernel
//! adds up a counter per CPU, for 200 counters, and starts over when its first page does not hold
//! the text). The same for the whole namespace: once a second is enough.

use std::path::{Path, PathBuf};

use crate::files::{self, Buffer, Kept};
use crate::reading::{Reading, Why};
use crate::sample::TcpRaw;

/// Reads after which kept files are opened anew: a process can move to another namespace (setns(2)),
/// and an open file stays with the old one.
const REOPEN_EVERY: u32 = 16;

/// Reads the counters of the namespace that process `pid` lives in, once; [`Watch`] for again and
/// again.
pub fn read(proc_root: &Path, pid: i32) -> Reading<TcpRaw> {
    Watch::new(proc_root, pid).read()
}

/// The counters of the namespace of a process: two files, kept open if that is harmless.
///
/// An open file of `net/` holds its network namespace (`single_open_net`, `fs/proc/proc_net.c`), with
/// all devices and sockets in it, beyond the end of the process. So it is kept open only when the
/// watcher lives in the same namespace anyway; that of another one is opened for each read.
#[derive(Debug)]
pub struct Watch {
    own: PathBuf,
    netstat: Kept,
    snmp: Kept,
    buffers: [Buffer; 2],
    reads_left: u32,
}

impl Watch {
    /// Of the namespace of process `pid`; opens nothing yet.
    pub fn new(proc_root: &Path, pid: i32) -> Self {
        let folder = files::process(proc_root, pid).join("net");
        Self {
            own: proc_root.join("thread-self/net/netstat"),
            netstat: Kept::new(folder.join("netstat")),
            snmp: Kept::new(folder.join("snmp")),
            buffers: [Buffer::default(), Buffer::default()],
            reads_left: REOPEN_EVERY,
        }
    }

    /// Reads them. That the process has ended is noticed within 16 reads: the namespace lives on.
    pub fn read(&mut self) -> Reading<TcpRaw> {
        let [first, second] = &mut self.buffers;
        let tcp = self
            .netstat
            .read(first)
            .and_then(|netstat| self.snmp.read(second).and_then(|snmp| parse(netstat, snmp)));
        self.reads_left = self.reads_left.saturating_sub(1);
        if self.reads_left == 0 || (self.reads_left + 1 == REOPEN_EVERY && !self.is_own()) {
            self.reads_left = REOPEN_EVERY;
            self.netstat.close();
            self.snmp.close();
        }
        tcp
    }

    /// Whether the open file is of the watcher's own namespace: the inode numbers in `net/` are the
    /// namespace's own (`proc_alloc_inum`, fs/proc/generic.c).
    fn is_own(&self) -> bool {
        let theirs = self.netstat.inode();
        theirs.is_some() && theirs == files::inode(&self.own)
    }
}

/// Parses both files. A counter that this kernel does not have is `None`; a file without its
/// table is malformed.
pub fn parse(netstat: &[u8], snmp: &[u8]) -> Reading<TcpRaw> {
    let mut tcp = TcpRaw::default();
    let extended = each_counter(netstat, "TcpExt:", |name, value| match name {
        "ListenOverflows" => tcp.listen_overflows = value(),
        "ListenDrops" => tcp.listen_drops = value(),
        "TCPReqQFullDrop" => tcp.req_q_full_drops = value(),
        "TCPReqQFullDoCookies" => tcp.req_q_full_cookies = value(),
        _ => {}
    });
    let basic = each_counter(snmp, "Tcp:", |name, value| match name {
        "PassiveOpens" => tcp.passive_opens = value(),
        "ActiveOpens" => tcp.active_opens = value(),
        "OutRsts" => tcp.out_rsts = value(),
        "RetransSegs" => tcp.retrans_segs = value(),
        _ => {}
    });
    match extended.and(basic) {
        Some(()) => Reading::Got(tcp),
        None => Reading::absent(
            Why::Malformed,
            "net/netstat has no table `TcpExt:` or net/snmp none `Tcp:`",
        ),
    }
}

/// A table is a line of names and the line of values below it. Columns are found by name: every
/// kernel version adds some. `None` if there is no such table.
fn each_counter(
    bytes: &[u8],
    title: &str,
    mut see: impl FnMut(&str, &dyn Fn() -> Option<u64>),
) -> Option<()> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(title));
    let (names, values) = (lines.next()?, lines.next()?);
    for (name, value) in names.split_ascii_whitespace().zip(values.split_ascii_whitespace()) {
        see(name, &|| value.parse().ok());
    }
    Some(())
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
            req_q_full_drops: Some(0),
            req_q_full_cookies: Some(0),
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

    #[test]
    fn files_of_the_own_namespace_stay_open_and_others_do_not() {
        let own = Path::new("/proc");
        let pid = std::process::id() as i32;
        let mut watch = Watch::new(own, pid);
        for _ in 1..REOPEN_EVERY {
            assert!(watch.read().got().is_some());
            assert!(watch.netstat.inode().is_some() && watch.snmp.inode().is_some());
        }
        assert!(watch.read().got().is_some());
        assert!(watch.netstat.inode().is_none(), "now and then it is opened anew");

        let tree = Tree::new();
        tree.file("42/net/netstat", "TcpExt: ListenDrops\nTcpExt: 7\n");
        tree.file("42/net/snmp", "Tcp: OutRsts\nTcp: 5\n");
        let mut watch = Watch::new(tree.root(), 42);
        for _ in 0..2 {
            assert_eq!(watch.read().got().unwrap().listen_drops, Some(7));
            assert!(watch.netstat.inode().is_none() && watch.snmp.inode().is_none());
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(&bytes, &bytes);
        }
    }
}
