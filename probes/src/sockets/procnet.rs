//! The same from the text of `/proc/PID/net/tcp` and `tcp6`: for kernels without `inet_diag`, and
//! to compare with. The kernel walks and prints the whole table for it, whatever is wanted; limit
//! and drops of an accept queue are not in it.
//!
//! It is printed a page at a time, and while sockets come and go the next page may begin with some
//! of those before (measured on 6.18: in one read of five): each pair of addresses counts once.
//!
//! The files are those of the process's own namespace, and nobody has to enter it for them.

use std::collections::HashSet;
use std::io::{self, BufRead as _, Read as _};
use std::net::SocketAddr;
use std::path::Path;

use procfs::FromBufReadSI as _;
use procfs::net::{TcpNetEntries, TcpNetEntry};
use rustix::fd::OwnedFd;

use super::tally::{CensusCount, ServedCount, Take};
use super::wire::{Socket, TcpState};
use super::{Alive, Census, DUMP_MAX, LISTENERS_DUMPED_MAX, Wanted};
use crate::files;
use crate::reading::{Reading, Why};
use crate::sample::{Holder, ListenerRaw};

/// Bytes of text parsed at once. A line has about 150.
const CHUNK_BYTES: usize = 64 * 1024;
/// Lines read of one table. More than are counted ([`DUMP_MAX`]): the table cannot be asked for
/// the wanted ones only.
pub const LINES_MAX: usize = 2 * DUMP_MAX;

/// Every listening TCP socket (at most [`LISTENERS_DUMPED_MAX`]), without limit and drops, its
/// holder [`Holder::Unknown`].
pub fn listeners(proc_root: &Path, pid: i32) -> Reading<Vec<ListenerRaw>> {
    let mut found = Vec::new();
    let walked = walk(proc_root, pid, &mut |socket| {
        let is_listed = found.iter().any(|known: &ListenerRaw| known.inode == socket.inode);
        if socket.state != Some(TcpState::Listen) || is_listed {
            return Take::More;
        }
        if found.len() == LISTENERS_DUMPED_MAX {
            return Take::Enough;
        }
        found.push(ListenerRaw {
            local: socket.local,
            inode: socket.inode,
            queued: socket.received,
            limit: None,
            drops: None,
            holder: Holder::Unknown,
        });
        Take::More
    });
    walked.map(|_| found)
}

/// What [`Diag::connections`](super::Diag::connections) counts, but for the answers, which the text
/// does not tell. Its peers cannot be refreshed without `inet_diag`.
pub fn connections(proc_root: &Path, pid: i32, wanted: &Wanted<'_>) -> Reading<Census> {
    let wanted = &Wanted { answers: false, ..*wanted };
    let mut count = CensusCount::new(wanted);
    let mut once = Once::default();
    let walked = walk(proc_root, pid, &mut |socket| {
        if socket.state == Some(TcpState::Listen) || !wanted.takes(socket.local.port()) {
            return Take::More;
        }
        once.take(socket, |socket| count.take(socket))
    });
    walked.map(|is_whole| {
        let mut census = count.finish();
        census.alive.truncated |= !is_whole;
        census
    })
}

/// What [`Diag::connections_alive`](super::Diag::connections_alive) counts, but for the answers.
pub fn connections_alive(proc_root: &Path, pid: i32, wanted: &Wanted<'_>) -> Reading<Alive> {
    let wanted = &Wanted { answers: false, ..*wanted };
    let mut count = ServedCount::new(wanted);
    let mut once = Once::default();
    let walked = walk(proc_root, pid, &mut |socket| {
        let is_counted = !matches!(socket.state, Some(TcpState::Listen | TcpState::TimeWait))
            && wanted.served_ports.contains(&socket.local.port());
        if is_counted { once.take(socket, |socket| count.take(socket)) } else { Take::More }
    });
    walked.map(|is_whole| {
        let mut alive = count.finish();
        alive.truncated |= !is_whole;
        alive
    })
}

/// The sockets taken so far (at most [`DUMP_MAX`]), by their addresses.
#[derive(Default)]
struct Once(HashSet<(SocketAddr, SocketAddr)>);

impl Once {
    fn take(&mut self, socket: &Socket, take: impl FnOnce(&Socket) -> Take) -> Take {
        if self.0.insert((socket.local, socket.remote)) { take(socket) } else { Take::More }
    }
}

/// The sockets of some lines of a table, the header not among them; `None` if a line is no such
/// line. (`procfs` knows the columns; it skips a header unseen.)
pub fn parse_lines(lines: &[u8]) -> Option<Vec<Socket>> {
    let with_header = (&b"\n"[..]).chain(lines);
    let entries = TcpNetEntries::from_buf_read(with_header, procfs::current_system_info()).ok()?;
    entries.0.iter().map(socket).collect()
}

fn socket(entry: &TcpNetEntry) -> Option<Socket> {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    Some(Socket {
        state: TcpState::from_number(entry.state.to_u8()),
        local: plain(entry.local_address),
        remote: plain(entry.remote_address),
        received: entry.rx_queue,
        sent: entry.tx_queue,
        inode: u32::try_from(entry.inode).ok()?,
        interface: 0,
        drops: None,
        info: None,
        traffic: None,
    })
}

/// Both tables; whether they were read to their ends.
fn walk(proc_root: &Path, pid: i32, take: &mut dyn FnMut(&Socket) -> Take) -> Reading<bool> {
    let folder = files::process(proc_root, pid).join("net");
    let mut is_whole = true;
    for name in ["tcp", "tcp6"] {
        let path = folder.join(name);
        let file = match files::open(&path) {
            Reading::Got(file) => file,
            // A kernel without IPv6; the process and the other table were there.
            Reading::Absent(absence) if absence.why == Why::Gone && name == "tcp6" => continue,
            Reading::Absent(absence) => return Reading::Absent(absence),
        };
        match files::reading("read", &path, walk_table(&file, take)) {
            Reading::Got(to_end) => is_whole &= to_end,
            Reading::Absent(absence) => return Reading::Absent(absence),
        }
        if !is_whole {
            break;
        }
    }
    Reading::Got(is_whole)
}

fn walk_table(file: &OwnedFd, take: &mut dyn FnMut(&Socket) -> Take) -> io::Result<bool> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "a line is not as expected");
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut filled, mut lines_seen, mut before_header) = (0, 0, true);
    loop {
        let room = chunk.get_mut(filled..).filter(|room| !room.is_empty()).ok_or_else(malformed)?;
        let bytes = rustix::io::retry_on_intr(|| rustix::io::read(file, &mut *room))?;
        if bytes == 0 {
            return Ok(true);
        }
        filled += bytes;
        let Some(end) = chunk[..filled].iter().rposition(|byte| *byte == b'\n') else { continue };
        let mut lines = &chunk[..=end];
        if std::mem::take(&mut before_header) {
            lines.skip_until(b'\n')?;
        }
        for socket in parse_lines(lines).ok_or_else(malformed)? {
            if lines_seen == LINES_MAX || take(&socket) == Take::Enough {
                return Ok(false);
            }
            lines_seen += 1;
        }
        chunk.copy_within(end + 1..filled, 0);
        filled -= end + 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fake::Tree;

    const HEADER: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   \
        uid  timeout inode                                                     \n";

    /// A line as `get_tcp4_sock` (`net/ipv4/tcp_ipv4.c`) prints it.
    fn line(local: &str, remote: &str, state: u8, queues: &str, inode: u64) -> String {
        format!(
            "   0: {local} {remote} {state:02X} {queues} 00:00000000 00000000     0        0 \
             {inode} 1 0000000000000000 20 4 30 10 -1 \n"
        )
    }

    fn table() -> String {
        let none = "00000000:00000000";
        [
            line("0100007F:1F90", "00000000:0000", 10, "00000000:00000005", 77),
            line("0100007F:1F90", "0100007F:9C40", 1, none, 0),
            line("0100007F:1F90", "0100007F:9C41", 1, "00000003:00000007", 78),
            line("0100007F:1F90", "0100007F:9C42", 6, none, 0),
            line("0100007F:9C40", "0100007F:1F90", 1, none, 79),
            line("0100007F:9C43", "0100007F:2384", 6, none, 0),
            line("0100007F:0016", "0100007F:9C44", 1, none, 80),
        ]
        .concat()
    }

    fn tree(tcp: &str) -> Tree {
        let tree = Tree::new();
        tree.file("42/net/tcp", &format!("{HEADER}{tcp}"));
        tree
    }

    #[test]
    fn what_two_pages_hold_counts_once() {
        let wanted = Wanted::new(&[8080], (40_000, 40_099));
        let (once, twice) = (tree(&table()), tree(&table().repeat(2)));
        for tree in [&once, &twice] {
            assert_eq!(listeners(tree.root(), 42).got().unwrap().len(), 1);
        }
        let census = |tree: &Tree| connections(tree.root(), 42, &wanted);
        assert_eq!(census(&once), census(&twice));
        let alive = |tree: &Tree| connections_alive(tree.root(), 42, &wanted);
        assert_eq!(alive(&once), alive(&twice));
    }

    #[test]
    fn listeners_without_their_limit() {
        let tree = tree(&table());
        let wide = line(
            &format!("{}:1F91", "0".repeat(32)),
            &format!("{}:0000", "0".repeat(32)),
            10,
            "00000000:00000000",
            81,
        );
        tree.file("42/net/tcp6", &format!("{HEADER}{wide}"));
        let found = listeners(tree.root(), 42);
        let narrow = ListenerRaw {
            local: "127.0.0.1:8080".parse().unwrap(),
            inode: 77,
            queued: 5,
            limit: None,
            drops: None,
            holder: Holder::Unknown,
        };
        let wide = ListenerRaw {
            local: "[::]:8081".parse().unwrap(),
            inode: 81,
            queued: 0,
            ..narrow.clone()
        };
        assert_eq!(found, Reading::Got(vec![narrow, wide]));
    }

    #[test]
    fn counts_as_the_dump_does() {
        let tree = tree(&table());
        let own = std::collections::BTreeSet::from([77, 78, 79, 80]);
        let wanted = Wanted { own_inodes: Some(&own), ..Wanted::new(&[8080], (40_000, 40_099)) };
        let census = connections(tree.root(), 42, &wanted);
        let census = census.got().unwrap();
        let served = census.alive.served[0].counts;
        assert_eq!((served.queued, served.accepted_open, served.time_wait), (1, 1, 1));
        assert_eq!((served.unread_bytes, served.unsent_bytes), (7, 3));
        assert_eq!((census.alive.total, census.alive.truncated), (5, false));
        assert_eq!((census.ports.in_use, census.ports.time_wait), (2, 1));
        assert_eq!(census.outgoing.iter().map(|one| one.inode).collect::<Vec<_>>(), [79]);
        let alive = connections_alive(tree.root(), 42, &wanted);
        let alive = alive.got().unwrap();
        assert_eq!((alive.total, alive.served[0].counts.time_wait), (2, 0));
        let wanted = Wanted { sockets_max: 1, ..wanted };
        let cut = connections(tree.root(), 42, &wanted);
        assert!(cut.got().unwrap().alive.truncated);
    }

    #[test]
    fn tables_longer_than_a_chunk_are_read_line_by_line() {
        let lines = 3 * CHUNK_BYTES / 100;
        let many: String = (1..=lines as u64)
            .map(|inode| {
                let remote = format!("0100007F:{inode:04X}");
                line("0100007F:1F90", &remote, 1, "00000000:00000001", inode)
            })
            .collect();
        let wanted = Wanted::new(&[8080], (1, 1));
        let alive = connections_alive(tree(&many).root(), 42, &wanted);
        let served = &alive.got().unwrap().served[0];
        assert_eq!(served.counts.accepted_open as usize, lines);
        assert_eq!(served.inodes.len(), lines);
        assert_eq!(served.counts.unread_bytes, lines as u64);
    }

    #[test]
    fn what_is_no_table_is_malformed_and_none_is_gone() {
        let cases = [
            "what is this\n",
            &line("0100007F:1F90", "00000000:0000", 13, "00000000:00000000", 1),
            &line("0100007F:1F90", "00000000:0000", 1, "00000000:00000000", 1 << 32),
            &"x".repeat(2 * CHUNK_BYTES),
        ];
        for text in cases {
            let found = listeners(tree(text).root(), 42);
            assert_eq!(found.absence().unwrap().why, Why::Malformed, "{text:.100}");
        }
        assert_eq!(listeners(Tree::new().root(), 42).absence().unwrap().why, Why::Gone);
        assert_eq!(listeners(tree("").root(), 42), Reading::Got(Vec::new()));
        let unfinished = &table()[..20];
        assert_eq!(listeners(tree(unfinished).root(), 42), Reading::Got(Vec::new()));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse_lines(&bytes);
        }

        #[test]
        fn parsing_a_damaged_table_never_panics(
            at in 0..100_usize, value in any::<u8>(), cut in 0..400_usize,
        ) {
            let mut bytes = table().into_bytes();
            bytes[at] = value;
            bytes.truncate(cut);
            parse_lines(&bytes);
        }
    }
}
