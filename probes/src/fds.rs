//! The open file descriptors of a process: how many, against which limit, and which of them are
//! sockets and rings.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{Dir, Mode, OFlags, PROC_SUPER_MAGIC};

use crate::files;
use crate::reading::{Reading, Why};
use crate::sample::{FdLimitRaw, FdsRaw, RINGS_MAX};

/// Fds looked at in one census or listing.
pub const CENSUS_MAX: usize = 200_000;

/// What the fds of a process are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// Inodes of its sockets (at most [`CENSUS_MAX`]).
    pub socket_inodes: BTreeSet<u64>,
    /// Fds of its rings, lowest first (at most [`RINGS_MAX`]).
    pub rings: Vec<i32>,
    /// Fds looked at.
    pub entries: u32,
    /// Whether there were more fds or rings than the bounds allow.
    pub truncated: bool,
}

/// What the link of an fd says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A socket with this inode.
    Socket(u64),
    /// An `io_uring`.
    Ring,
    /// Anything else.
    Other,
}

/// Counts the open fds and reads their limit.
///
/// From 6.2 on the size of `/proc/PID/fd` is the count (`proc_fd_getattr`, fs/proc/fd.c), for
/// anybody and in microseconds; before, and on file systems other than procfs, they are listed.
pub fn read(proc_root: &Path, pid: i32) -> Reading<FdsRaw> {
    let folder = files::process(proc_root, pid);
    let limit = files::read(&folder.join("limits"), files::SMALL_MAX_BYTES)
        .and_then(|bytes| parse_limit(&bytes));
    let raw = |open, from_st_size| FdsRaw { open, limit: limit.clone(), from_st_size };
    let path = folder.join("fd");
    match count_from_size(&path) {
        // Zero is what older kernels say of every process.
        Ok(Some(open)) if open > 0 => Reading::Got(raw(open, true)),
        Err(error) => files::reading("look at", &path, Err(error)),
        Ok(_) => count_by_listing(&path).and_then(|(open, more)| {
            if more {
                let detail = format!("{} has more than {CENSUS_MAX} entries", path.display());
                return Reading::absent(Why::Failed, detail);
            }
            Reading::Got(raw(open, false))
        }),
    }
}

fn count_from_size(path: &Path) -> io::Result<Option<u64>> {
    let stat = rustix::fs::stat(path)?;
    // Elsewhere the size of a folder means something else.
    let on_procfs = rustix::fs::statfs(path)?.f_type == PROC_SUPER_MAGIC;
    Ok(on_procfs.then(|| u64::try_from(stat.st_size).ok()).flatten())
}

fn count_by_listing(path: &Path) -> Reading<(u64, bool)> {
    files::numbers(path, CENSUS_MAX).map(|(found, more)| (found.len() as u64, more))
}

/// Reads what each fd is: one readlink(2) per fd, so not at every tick.
pub fn census(proc_root: &Path, pid: i32) -> Reading<Census> {
    let path = files::process(proc_root, pid).join("fd");
    files::reading("list", &path, take_census(&path))
}

fn take_census(path: &Path) -> io::Result<Census> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty())?;
    let mut census = Census::default();
    let mut link = Vec::with_capacity(64);
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let Some(fd) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if census.entries as usize == CENSUS_MAX {
            census.truncated = true;
            break;
        }
        census.entries += 1;
        link = match kind_at(folder.as_fd(), entry.file_name(), link) {
            Ok((kind, link)) => {
                census.add(fd, kind);
                link
            }
            // Closed since it was listed.
            Err(_) => Vec::with_capacity(64),
        };
    }
    census.rings.sort_unstable();
    census.truncated |= census.rings.len() > RINGS_MAX;
    census.rings.truncate(RINGS_MAX);
    Ok(census)
}

fn kind_at(
    folder: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    reuse: Vec<u8>,
) -> io::Result<(Kind, Vec<u8>)> {
    let link = rustix::fs::readlinkat(folder, name, reuse)?.into_bytes();
    Ok((parse_link(&link), link))
}

impl Census {
    fn add(&mut self, fd: i32, kind: Kind) {
        match kind {
            Kind::Socket(inode) => {
                self.socket_inodes.insert(inode);
            }
            Kind::Ring => self.rings.push(fd),
            Kind::Other => {}
        }
    }
}

/// What the link of an fd says (proc(5), `/proc/PID/fd`).
pub fn parse_link(link: &[u8]) -> Kind {
    if link == b"anon_inode:[io_uring]" {
        return Kind::Ring;
    }
    let inode = link.strip_prefix(b"socket:[").and_then(|rest| rest.strip_suffix(b"]"));
    inode
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
        .map_or(Kind::Other, Kind::Socket)
}

/// Soft and hard `Max open files` of `/proc/PID/limits`.
///
/// `procfs` has a parser for the whole file, but wants all sixteen lines to be right (and panics
/// on short ones); this is read at every tick for one line.
pub fn parse_limit(bytes: &[u8]) -> Reading<FdLimitRaw> {
    let text = String::from_utf8_lossy(bytes);
    let mut words = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .unwrap_or_default()
        .split_whitespace();
    let mut limit = || match words.next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    };
    match (limit(), limit()) {
        (Some(soft), Some(hard)) => Reading::Got(FdLimitRaw { soft, hard }),
        _ => Reading::absent(Why::Malformed, "limits has no line `Max open files` with two limits"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fake::Tree;

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units\n\
        Max open files            1024                 524288               files\n";

    #[test]
    fn limits_by_line() {
        let limit = |soft, hard| Some(FdLimitRaw { soft, hard });
        let cases: [(&str, Option<FdLimitRaw>); 6] = [
            (LIMITS, limit(Some(1024), Some(524_288))),
            ("Max open files unlimited unlimited files", limit(None, None)),
            ("Max open files 5 unlimited files", limit(Some(5), None)),
            ("Max open files 5", None),
            ("Max open files many more files", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_limit(text.as_bytes()).got().copied(), expected, "{text:?}");
        }
    }

    #[test]
    fn links_by_kind() {
        let cases: [(&[u8], Kind); 7] = [
            (b"socket:[4026]", Kind::Socket(4026)),
            (b"anon_inode:[io_uring]", Kind::Ring),
            (b"anon_inode:[eventpoll]", Kind::Other),
            (b"socket:[]", Kind::Other),
            (b"socket:[-1]", Kind::Other),
            (b"/tmp/socket:[5]", Kind::Other),
            (b"", Kind::Other),
        ];
        for (link, kind) in cases {
            assert_eq!(parse_link(link), kind, "{}", String::from_utf8_lossy(link));
        }
    }

    #[test]
    fn on_a_copied_tree_fds_are_counted_not_taken_from_the_size() {
        let tree = Tree::new();
        tree.file("42/limits", LIMITS);
        tree.link("42/fd/0", "/dev/null");
        tree.link("42/fd/3", "socket:[77]");
        let fds = read(tree.root(), 42);
        let expected = FdsRaw {
            open: 2,
            limit: Reading::Got(FdLimitRaw { soft: Some(1024), hard: Some(524_288) }),
            from_st_size: false,
        };
        assert_eq!(fds.got(), Some(&expected));
    }

    #[test]
    fn a_census_tells_sockets_and_rings_and_keeps_within_bounds() {
        let tree = Tree::new();
        for fd in 0..RINGS_MAX + 2 {
            tree.link(&format!("42/fd/{fd}"), "anon_inode:[io_uring]");
        }
        tree.link("42/fd/100", "socket:[9]");
        tree.link("42/fd/101", "socket:[8]");
        // A dangling link is normal: most fds are no path.
        tree.link("42/fd/102", "/nowhere (deleted)");
        // Closed between the listing and the look: not a link any more.
        tree.file("42/fd/103", "");
        let taken = census(tree.root(), 42);
        let taken = taken.got().unwrap();
        assert_eq!(taken.entries as usize, RINGS_MAX + 2 + 4);
        assert_eq!(taken.socket_inodes, BTreeSet::from([8, 9]));
        assert_eq!(taken.rings, (0..RINGS_MAX as i32).collect::<Vec<_>>());
        assert!(taken.truncated);
    }

    #[test]
    fn a_vanished_process_is_gone() {
        let tree = Tree::new();
        assert_eq!(read(tree.root(), 42).absence().unwrap().why, Why::Gone);
        assert_eq!(census(tree.root(), 42).absence().unwrap().why, Why::Gone);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse_limit(&bytes);
            parse_link(&bytes);
        }
    }
}
