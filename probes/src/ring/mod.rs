//! An `io_uring` from outside: its memory, and `/proc/PID/fdinfo/FD` of its fd.
//!
//! | | memory ([`RingMemory`]) | fdinfo ([`read_fdinfo`]) |
//! |---|---|---|
//! | tells | heads, tails, flags, losses; entries not submitted; results, also once reaped | heads, tails; entries of both queues; operations in flight; SQPOLL |
//! | costs | loads from memory | a text that grows with the operations in flight, made under the ring's lock |
//! | needs | the right to trace the process, `pidfd_getfd(2)` (5.6) | the right to read its `/proc` |
//! | keeps alive | the ring, while it is mapped | nothing |
//!
//! [`Rings`] puts the two together for one process: the memory at every tick, fdinfo seldom.
//!
//! The text of fdinfo comes from `io_uring_show_fdinfo` (`io_uring/fdinfo.c`). Since some version
//! after 6.14 (seen on 6.18) the kernel leaves the whole section out while the ring's lock is held:
//! that read says nothing, and is [`Why::Locked`]. From 6.1 to 6.14 only some armed operations go
//! missing then, without a sign, so a low count there is no proof. Reading takes that lock on 6.18
//! and formats every armed operation under it: a ring with thousands of them is not read often.

mod follow;
mod layout;
mod memory;
mod opcode;
mod parse;

use std::path::Path;

pub use follow::{RingAccess, Rings};
pub use layout::{Counters, EntrySizes, Layout, parse_memory};
pub use memory::RingMemory;
pub use opcode::{ACCEPT as OP_ACCEPT, name as opcode_name};
pub use parse::{Parsed, parse};

use crate::fds::{Kind, parse_link};
use crate::files;
use crate::reading::{Absence, Reading, Why};

/// Text read of one ring. 4 MiB hold the lines of about 190,000 armed operations.
pub const TEXT_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Reads the fdinfo of one ring.
pub fn read_fdinfo(proc_root: &Path, pid: i32, fd: i32) -> Reading<Parsed> {
    let process = files::process(proc_root, pid);
    let parsed = files::read(&process.join("fdinfo").join(fd.to_string()), TEXT_MAX_BYTES)
        .and_then(|bytes| parse(&bytes));
    explain(parsed, &process.join("fd").join(fd.to_string()))
}

/// A section that is missing means "locked" only if the fd still is a ring: it may have been
/// closed, and its number given to something else.
fn explain(parsed: Reading<Parsed>, link_path: &Path) -> Reading<Parsed> {
    use std::os::unix::ffi::OsStrExt;
    match parsed {
        Reading::Absent(Absence { why: Why::Locked, detail }) => {
            files::link(link_path).and_then(|link| match parse_link(link.as_os_str().as_bytes()) {
                Kind::Ring => Reading::absent(Why::Locked, detail),
                _ => Reading::absent(
                    Why::Gone,
                    format!("{} is no io_uring any more", link_path.display()),
                ),
            })
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Tree;

    const PREFIX: &str = "pos:\t0\nflags:\t02000002\nmnt_id:\t17\nino:\t36050\n";

    #[test]
    fn a_missing_section_is_told_apart_by_the_link() {
        let cases = [
            (Some("anon_inode:[io_uring]"), Why::Locked),
            (Some("socket:[5]"), Why::Gone),
            (None, Why::Gone),
        ];
        for (link, why) in cases {
            let tree = Tree::new();
            tree.file("42/fdinfo/7", PREFIX);
            if let Some(target) = link {
                tree.link("42/fd/7", target);
            }
            let ring = read_fdinfo(tree.root(), 42, 7);
            assert_eq!(ring.absence().unwrap().why, why, "{link:?}");
        }
        assert_eq!(read_fdinfo(Tree::new().root(), 42, 7).absence().unwrap().why, Why::Gone);
    }
}
