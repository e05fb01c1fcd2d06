//! The watcher itself: its memory and its open fds. Its CPU time is a clock's business, not a file's.

use std::path::Path;

use crate::fds;
use crate::files;
use crate::reading::{Reading, Why};

/// What this process takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, bytes.
    pub rss_bytes: Reading<u64>,
    /// Open fds; absent on kernels before 6.2 beyond [`fds::LISTED_PER_READ_MAX`] of them.
    pub open_fds: Reading<u64>,
}

/// Reads what this process takes: 5 us, so not at every tick.
pub fn usage() -> Usage {
    usage_in(Path::new("/proc"))
}

fn usage_in(proc_root: &Path) -> Usage {
    let page_bytes = rustix::param::page_size() as u64;
    let statm = files::read(&proc_root.join("self/statm"), files::SMALL_MAX_BYTES);
    Usage {
        rss_bytes: statm.and_then(|bytes| parse_statm(&bytes, page_bytes)),
        open_fds: fds::count(proc_root, "self"),
    }
}

/// The second number of `statm` (proc(5)), in bytes. Since 6.2 it may lag by some pages a CPU
/// (`percpu_counter_read_positive`, `fs/proc/task_mmu.c`).
fn parse_statm(bytes: &[u8], page_bytes: u64) -> Reading<u64> {
    let text = String::from_utf8_lossy(bytes);
    let pages = text.split_ascii_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    pages.map_or_else(
        || Reading::absent(Why::Malformed, "statm does not hold two numbers"),
        |pages| Reading::Got(pages.saturating_mul(page_bytes)),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fake::Tree;

    #[test]
    fn memory_by_text() {
        for (text, expected) in
            [("1000 42 7 1 0 9 0\n", Some(42 * 4096)), ("1000", None), ("", None), ("1 -2", None)]
        {
            assert_eq!(parse_statm(text.as_bytes(), 4096).got().copied(), expected, "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        let none = usage_in(Tree::new().root());
        assert_eq!(none.rss_bytes.absence().unwrap().why, Why::Gone);
        assert_eq!(none.open_fds.absence().unwrap().why, Why::Gone);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            parse_statm(&bytes, u64::MAX);
        }
    }
}
