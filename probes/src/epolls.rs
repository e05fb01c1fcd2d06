//! epoll instances: which of the target's listening sockets its event loop watches.
//!
//! `/proc/PID/fdinfo/FD` of an epoll instance has a line for each fd it watches. Printing them takes
//! the mutex of the instance (`ep_show_fdinfo`, `fs/eventpoll.c`), which `epoll_wait(2)` needs to hand
//! out events and `epoll_ctl(2)` to change the set; and `seq_file` starts over with twice the room until
//! all fits. So it is read on suspicion only, and not often.
//!
//! Cost on 6.18, by the fds that are watched: 9 us for 10, 72 us for 100, 0.3 ms for 1,000, 7.6 ms for
//! 10,000 (77 bytes each).

use std::path::Path;

use crate::files;
use crate::reading::{Reading, Why};
use crate::sample::{EPOLLS_MAX, EpollRaw, LISTENERS_MAX};

/// Bytes read of one instance: 12,000 fds or so. What lies beyond is not looked at.
pub const FDINFO_MAX_BYTES: u64 = 1024 * 1024;

/// `EPOLLIN | EPOLLRDNORM` (`epoll_ctl(2)`): a listening socket with a connection to accept is
/// readable. A one-shot interest that has fired has neither left (`ep_send_events`).
const READABLE: u32 = 0x001 | 0x040;

/// Reads the epoll instances `epolls` of process `pid` (at most [`EPOLLS_MAX`]; those that are closed
/// by now are left out), and which of its listening sockets, given by their inodes, they watch.
/// `Unsupported` when there is none.
pub fn read(
    proc_root: &Path,
    pid: i32,
    epolls: &[i32],
    listeners: &[u32],
) -> Reading<Vec<EpollRaw>> {
    let folder = files::process(proc_root, pid).join("fdinfo");
    let mut found = Vec::with_capacity(epolls.len().min(EPOLLS_MAX));
    for fd in epolls.iter().take(EPOLLS_MAX) {
        match files::read(&folder.join(fd.to_string()), FDINFO_MAX_BYTES) {
            Reading::Got(bytes) => found.push(parse(*fd, &bytes, listeners)),
            Reading::Absent(absence) if absence.why == Why::Gone => {}
            Reading::Absent(absence) => return Reading::Absent(absence),
        }
    }
    if found.is_empty() {
        return Reading::absent(Why::Unsupported, "the process has no epoll instance");
    }
    Reading::Got(found)
}

/// Parses the fdinfo of one instance (`proc_pid_fdinfo(5)`); of the fds it watches, those are told
/// whose inode is one of `listeners`. The line that a cut left unfinished is dropped.
///
/// Numbers of sockets and pipes come from one sequence (`get_next_ino`, `fs/inode.c`), so that of a
/// listener is no other fd's that epoll takes.
pub fn parse(fd: i32, fdinfo: &[u8], listeners: &[u32]) -> EpollRaw {
    let mut raw = EpollRaw { fd, watched: 0, listeners: Vec::new() };
    for (events, inode) in String::from_utf8_lossy(fdinfo).lines().filter_map(watched) {
        raw.watched = raw.watched.saturating_add(1);
        let Some(inode) = u32::try_from(inode).ok().filter(|inode| listeners.contains(inode))
        else {
            continue;
        };
        let asks = events & READABLE != 0;
        // Twice in one set by dup(2): one interest is enough.
        if let Some((_, known)) = raw.listeners.iter_mut().find(|(known, _)| *known == inode) {
            *known |= asks;
        } else if raw.listeners.len() < LISTENERS_MAX {
            raw.listeners.push((inode, asks));
        }
    }
    raw
}

/// Events and inode of `tfd: N events: HEX data: HEX  pos:N ino:HEX sdev:HEX`.
fn watched(line: &str) -> Option<(u32, u64)> {
    let mut words = line.strip_prefix("tfd:")?.split_ascii_whitespace();
    words.next()?.parse::<i32>().ok()?;
    let events = words.find(|word| *word == "events:").and_then(|_| words.next())?;
    let inode = words.find_map(|word| word.strip_prefix("ino:"))?;
    // The last word: without it the line is cut, perhaps in the middle of the inode.
    words.find(|word| word.starts_with("sdev:"))?;
    Some((u32::from_str_radix(events, 16).ok()?, u64::from_str_radix(inode, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fake::Tree;

    const CAPTURED: &str = include_str!("../fixtures/epoll-6.18/fdinfo");

    #[test]
    fn a_captured_set_with_two_listeners_of_three() {
        let raw = parse(7, CAPTURED.as_bytes(), &[11_495_938, 11_495_939, 11_495_940]);
        let listeners = vec![(11_495_938, true), (11_495_939, false)];
        assert_eq!(raw, EpollRaw { fd: 7, watched: 6, listeners });
    }

    #[test]
    fn lines_by_what_they_say() {
        let line = |events: &str, inode: &str| {
            format!("tfd:  9 events: {events} data:  ffffffffffffffff  pos:0 ino:{inode} sdev:8\n")
        };
        let cases = [
            (line("19", "ff"), 1, vec![(255, true)]),
            (line("80000019", "ff"), 1, vec![(255, true)]),
            // A one-shot interest that has fired.
            (line("40000000", "ff"), 1, vec![(255, false)]),
            (line("4", "ff"), 1, vec![(255, false)]),
            (line("4", "ff") + &line("1", "ff"), 2, vec![(255, true)]),
            (line("1", "fe"), 1, vec![]),
            (line("1", "1000000ff"), 1, vec![]),
            (line("1", "ff").replace(" sdev:8", ""), 0, vec![]),
            (line("x", "ff"), 0, vec![]),
            (String::from("pos:\t0\nflags:\t02\nino:\tff\n"), 0, vec![]),
        ];
        for (text, watched, listeners) in cases {
            let expected = EpollRaw { fd: 3, watched, listeners };
            assert_eq!(parse(3, text.as_bytes(), &[255]), expected, "{text:?}");
        }
    }

    #[test]
    fn a_closed_instance_is_left_out_and_no_more_are_read_than_the_bound() {
        let tree = Tree::new();
        let line = "tfd: 9 events: 1 data: 0  pos:0 ino:ff sdev:8\n";
        for fd in 0..EPOLLS_MAX + 5 {
            if fd != 3 {
                tree.file(&format!("42/fdinfo/{fd}"), line);
            }
        }
        let fds: Vec<i32> = (0..EPOLLS_MAX as i32 + 5).collect();
        let read = |epolls: &[i32]| read(tree.root(), 42, epolls, &[255]);
        let found = read(&fds);
        let found = found.got().unwrap();
        assert_eq!(found.len(), EPOLLS_MAX - 1);
        assert!(found.iter().all(|epoll| epoll.fd != 3 && epoll.listeners == [(255, true)]));
        for none in [&[][..], &[3]] {
            assert_eq!(read(none).absence().unwrap().why, Why::Unsupported);
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(1, &bytes, &[1, 2]);
        }

        #[test]
        fn a_set_that_is_cut_has_no_listener_that_the_whole_has_not(cut in 0..CAPTURED.len()) {
            let listeners: Vec<u32> = (0..40).map(|more| 11_495_920 + more).collect();
            let whole = parse(1, CAPTURED.as_bytes(), &listeners);
            let part = parse(1, &CAPTURED.as_bytes()[..cut], &listeners);
            prop_assert!(part.watched <= whole.watched);
            prop_assert!(part.listeners.iter().all(|one| whole.listeners.contains(one)));
        }
    }
}
