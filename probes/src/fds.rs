//! The open file descriptors of a process: how many, against which limit, and what they are.
//!
//! Cost on 6.18, CPU time: the number 0.3 us (fstat(2) of the kept folder) whatever the number is,
//! the limit 3.2 us (sixteen lines are printed), a census 1 to 2 us an fd: 0.3 to 0.6 for listing it
//! and 0.9 to 1.3 for readlink(2). Nothing cheaper tells an fd that is unchanged: fstatat(2) through
//! the link costs as much as readlink(2), and without following it gives the inode of the link.
//! `pidfd_getfd(2)` would cost as much and keep the target's file open meanwhile.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::PROC_SUPER_MAGIC;

use crate::files::{self, Buffer, Kept, Listing};
use crate::reading::{Reading, Why};
use crate::sample::{EPOLLS_MAX, FdKindsRaw, FdLimitRaw, FdsRaw, RINGS_MAX};

/// Fds looked at in one census.
pub const CENSUS_MAX: usize = 200_000;
/// Fds that one read lists where the kernel does not tell their number: about 0.5 ms.
pub const LISTED_PER_READ_MAX: usize = 1_000;
/// Fds looked at between two questions whether to go on: about 25 us.
const ASK_EVERY: u32 = 16;
/// Bytes of a link at first; readlink(2) makes more room if need be, up to `PATH_MAX`.
const LINK_BYTES: usize = 128;

/// What the fds of a process are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// Inodes of its sockets (at most [`CENSUS_MAX`]).
    pub socket_inodes: BTreeSet<u64>,
    /// Fds of its rings, lowest first (at most [`RINGS_MAX`]).
    pub rings: Vec<i32>,
    /// Fds of its epoll instances, lowest first (at most [`EPOLLS_MAX`]).
    pub epolls: Vec<i32>,
    /// How many there are of each kind.
    pub kinds: FdKindsRaw,
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
    /// An epoll instance.
    Epoll,
    /// An eventfd, timerfd, signalfd, pidfd, namespace or the like.
    Anonymous,
    /// A pipe without a name.
    Pipe,
    /// A file, folder, device or named pipe.
    File,
}

/// Counts the open fds and reads their limit, once; [`Watch`] for again and again.
///
/// From 6.2 on the size of `/proc/PID/fd` is the count (`proc_fd_getattr`, fs/proc/fd.c), for
/// anybody and in microseconds; before, and on file systems other than procfs, they are listed.
pub fn read(proc_root: &Path, pid: i32) -> Reading<FdsRaw> {
    let folder = files::process(proc_root, pid);
    let limit = files::read(&folder.join("limits"), files::SMALL_MAX_BYTES)
        .and_then(|bytes| parse_limit(&bytes));
    let path = folder.join("fd");
    let sized = Folder::open(&path).and_then(|folder| folder.count());
    match sized {
        Ok(Some(open)) => Reading::Got(FdsRaw { open, limit, from_st_size: true }),
        Ok(None) => {
            let mut count = Count::new(path);
            for _ in 0..=CENSUS_MAX / LISTED_PER_READ_MAX {
                match count.advance() {
                    Reading::Got(Some(open)) => {
                        return Reading::Got(FdsRaw { open, limit, from_st_size: false });
                    }
                    Reading::Got(None) => {}
                    Reading::Absent(absence) => return Reading::Absent(absence),
                }
            }
            Reading::absent(
                Why::Failed,
                format!("{} has more than {CENSUS_MAX} entries", count.path.display()),
            )
        }
        Err(error) => files::reading("look at", &path, Err(error)),
    }
}

/// The number of open fds and their limit, kept open: two fds (three while fds are listed).
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    folder: Option<Folder>,
    limits: Kept,
    buffer: Buffer,
    count: Count,
    listed: Option<u64>,
}

impl Watch {
    /// Of the process `pid`; opens nothing yet.
    pub fn new(proc_root: &Path, pid: i32) -> Self {
        let process = files::process(proc_root, pid);
        let path = process.join("fd");
        Self {
            count: Count::new(path.clone()),
            path,
            folder: None,
            limits: Kept::new(process.join("limits")),
            buffer: Buffer::default(),
            listed: None,
        }
    }

    /// Reads both. Where the kernel does not tell the number (before 6.2), each read lists
    /// [`LISTED_PER_READ_MAX`] fds at most: the number is then that of the last listing that came to
    /// its end, and absent (`NotSampled`) until one has.
    pub fn read(&mut self) -> Reading<FdsRaw> {
        let open = match self.size() {
            Ok(open) => open,
            Err(error) => return files::reading("look at", &self.path, Err(error)),
        };
        let from_st_size = open.is_some();
        let open = open.map_or_else(|| self.last_listed(), Reading::Got);
        let limit = self.limits.read(&mut self.buffer).and_then(parse_limit);
        open.map(|open| FdsRaw { open, limit, from_st_size })
    }

    fn size(&mut self) -> io::Result<Option<u64>> {
        if self.folder.is_none() {
            self.folder = Some(Folder::open(&self.path)?);
        }
        self.folder.as_ref().map_or(Ok(None), Folder::count)
    }

    fn last_listed(&mut self) -> Reading<u64> {
        match self.count.advance() {
            Reading::Got(Some(open)) => self.listed = Some(open),
            Reading::Got(None) => {}
            Reading::Absent(absence) => {
                self.listed = None;
                return Reading::Absent(absence);
            }
        }
        self.listed.map_or_else(
            || Reading::absent(Why::NotSampled, "the fds are being counted, some at each read"),
            Reading::Got,
        )
    }
}

/// Counts the open fds of process `pid` without reading their limit.
pub(crate) fn count(proc_root: &Path, pid: &str) -> Reading<u64> {
    let path = proc_root.join(pid).join("fd");
    match Folder::open(&path).and_then(|folder| folder.count()) {
        Ok(Some(open)) => Reading::Got(open),
        Ok(None) => match Count::new(path).advance() {
            Reading::Got(Some(open)) => Reading::Got(open),
            Reading::Got(None) => Reading::absent(
                Why::NotSampled,
                format!("more than {LISTED_PER_READ_MAX} fds: too many to count at once"),
            ),
            Reading::Absent(absence) => Reading::Absent(absence),
        },
        Err(error) => files::reading("look at", &path, Err(error)),
    }
}

/// `/proc/PID/fd`, kept open to ask for its size.
#[derive(Debug)]
struct Folder {
    folder: OwnedFd,
    /// Elsewhere the size of a folder means something else.
    on_procfs: bool,
}

impl Folder {
    fn open(path: &Path) -> io::Result<Self> {
        let folder = files::open_path(path)?;
        let on_procfs = rustix::fs::fstatfs(&folder)?.f_type == PROC_SUPER_MAGIC;
        Ok(Self { folder, on_procfs })
    }

    /// The number of fds, or `None` if they must be listed: zero is what kernels before 6.2 say of
    /// every process.
    fn count(&self) -> io::Result<Option<u64>> {
        let stat = rustix::fs::fstat(&self.folder)?;
        Ok(u64::try_from(stat.st_size).ok().filter(|size| self.on_procfs && *size > 0))
    }
}

/// Counts by listing, some at a time.
#[derive(Debug)]
struct Count {
    path: PathBuf,
    listing: Option<Listing>,
    so_far: u64,
}

impl Count {
    const fn new(path: PathBuf) -> Self {
        Self { path, listing: None, so_far: 0 }
    }

    /// Lists [`LISTED_PER_READ_MAX`] more; the number once the end is reached.
    fn advance(&mut self) -> Reading<Option<u64>> {
        let advanced = self.list();
        if !matches!(advanced, Ok(None)) {
            self.listing = None;
        }
        files::reading("list", &self.path, advanced)
    }

    fn list(&mut self) -> io::Result<Option<u64>> {
        if self.listing.is_none() {
            self.so_far = 0;
        }
        let listing = match &mut self.listing {
            Some(listing) => listing,
            none => none.insert(Listing::open(&self.path)?),
        };
        let mut left = LISTED_PER_READ_MAX;
        let end = listing.advance(|_, _, _| {
            self.so_far += 1;
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(end.is_continue().then_some(self.so_far))
    }
}

/// Reads what each fd is, all at once: for a process that is looked at once. [`CensusWalk`] for
/// again and again.
pub fn census(proc_root: &Path, pid: i32) -> Reading<Census> {
    let mut walk = CensusWalk::new(proc_root, pid);
    loop {
        match walk.advance(CENSUS_MAX, || true) {
            Reading::Got(Some(census)) => return Reading::Got(census),
            Reading::Got(None) => {}
            Reading::Absent(absence) => return Reading::Absent(absence),
        }
    }
}

/// A census in slices, so that no read of a process with many fds is long. Holds one fd while a
/// pass is under way, and what one pass has found.
///
/// The passes go upward by fd number. What is closed, opened or re-used behind the slice's place is
/// seen in the next pass; what vanishes in front of it is not counted. The kernel keeps an entry of
/// its cache for each fd looked at (`proc_fill_cache`, fs/proc/base.c), reclaimable, about 1 KB.
#[derive(Debug)]
pub struct CensusWalk {
    path: PathBuf,
    listing: Option<Listing>,
    census: Census,
    link: Vec<u8>,
}

impl CensusWalk {
    /// Of the process `pid`; opens nothing yet.
    pub fn new(proc_root: &Path, pid: i32) -> Self {
        Self {
            path: files::process(proc_root, pid).join("fd"),
            listing: None,
            census: Census::default(),
            link: Vec::with_capacity(LINK_BYTES),
        }
    }

    /// Whether a pass has begun and not ended.
    pub const fn under_way(&self) -> bool {
        self.listing.is_some()
    }

    /// Looks at `fds_max` fds at most, and at fewer if `go_on`, which is asked every 16 fds (about
    /// 25 us), says no. At the end of a pass the whole census; the next call begins another pass.
    /// After a failure, too, the next call begins anew.
    pub fn advance(
        &mut self,
        fds_max: usize,
        go_on: impl FnMut() -> bool,
    ) -> Reading<Option<Census>> {
        let end = self.slice(fds_max, go_on);
        let census = match end {
            Ok(false) => return Reading::Got(None),
            Ok(true) => Ok(Some(std::mem::take(&mut self.census).finished())),
            Err(error) => {
                self.census = Census::default();
                Err(error)
            }
        };
        self.listing = None;
        files::reading("list", &self.path, census)
    }

    fn slice(&mut self, fds_max: usize, mut go_on: impl FnMut() -> bool) -> io::Result<bool> {
        let listing = match &mut self.listing {
            Some(listing) => listing,
            none => none.insert(Listing::open(&self.path)?),
        };
        let (census, link) = (&mut self.census, &mut self.link);
        let mut looked_at = 0_u32;
        let end = listing.advance(|folder, fd, name| {
            if census.entries as usize == CENSUS_MAX {
                census.truncated = true;
                return ControlFlow::Break(());
            }
            census.look_at(folder, fd, name, link);
            looked_at += 1;
            if looked_at as usize >= fds_max || (looked_at.is_multiple_of(ASK_EVERY) && !go_on()) {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(end.is_continue() || census.truncated)
    }
}

/// What one fd of a process refers to, as the kernel writes it: a path, `socket:[123]`, `pipe:[4]`.
/// Hostile text where it is a path.
pub fn link_of(proc_root: &Path, pid: i32, fd: i32) -> Reading<String> {
    files::link(&files::process(proc_root, pid).join("fd").join(fd.to_string()))
        .map(|link| link.to_string_lossy().into_owned())
}

/// Counts the fds by listing them, as had to be done before 6.2: one entry each, 9 ms for 8,000. To
/// compare with.
pub fn read_by_listing(proc_root: &Path, pid: i32) -> Reading<FdsRaw> {
    let folder = files::process(proc_root, pid);
    let limit = files::read(&folder.join("limits"), files::SMALL_MAX_BYTES)
        .and_then(|bytes| parse_limit(&bytes));
    files::numbers(&folder.join("fd"), CENSUS_MAX).and_then(|(found, more)| {
        if more {
            let detail = format!("the process has more than {CENSUS_MAX} fds");
            return Reading::absent(Why::Failed, detail);
        }
        Reading::Got(FdsRaw { open: found.len() as u64, limit, from_st_size: false })
    })
}

impl Census {
    fn look_at(&mut self, folder: BorrowedFd<'_>, fd: i32, name: &CStr, link: &mut Vec<u8>) {
        self.entries += 1;
        // An error: closed since it was listed.
        if let Ok(read) = rustix::fs::readlinkat(folder, name, std::mem::take(link)) {
            *link = read.into_bytes();
            self.add(fd, parse_link(link));
        }
    }

    fn add(&mut self, fd: i32, kind: Kind) {
        let counter = match kind {
            Kind::Socket(inode) => {
                self.socket_inodes.insert(inode);
                &mut self.kinds.sockets
            }
            Kind::Ring => {
                self.rings.push(fd);
                &mut self.kinds.rings
            }
            Kind::Epoll => {
                self.epolls.push(fd);
                &mut self.kinds.epolls
            }
            Kind::Anonymous => &mut self.kinds.anonymous,
            Kind::Pipe => &mut self.kinds.pipes,
            Kind::File => &mut self.kinds.files,
        };
        *counter += 1;
    }

    fn finished(mut self) -> Self {
        self.kinds.looked_at = self.entries;
        self.kinds.truncated = self.truncated;
        self.rings.sort_unstable();
        self.truncated |= self.rings.len() > RINGS_MAX;
        self.rings.truncate(RINGS_MAX);
        self.epolls.sort_unstable();
        self.epolls.truncate(EPOLLS_MAX);
        self
    }
}

/// What the link of an fd says (proc(5), `/proc/PID/fd`).
pub fn parse_link(link: &[u8]) -> Kind {
    match link {
        b"anon_inode:[io_uring]" => Kind::Ring,
        b"anon_inode:[eventpoll]" => Kind::Epoll,
        _ if link.starts_with(b"pipe:[") => Kind::Pipe,
        // A path that the target sees under another root begins with the latter (`d_path`).
        _ if link.starts_with(b"/") || link.starts_with(b"(unreachable)") => Kind::File,
        _ => socket_inode(link).map_or(Kind::Anonymous, Kind::Socket),
    }
}

fn socket_inode(link: &[u8]) -> Option<u64> {
    let digits = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
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
        let cases: [(&[u8], Kind); 15] = [
            (b"socket:[4026]", Kind::Socket(4026)),
            (b"anon_inode:[io_uring]", Kind::Ring),
            (b"anon_inode:[eventpoll]", Kind::Epoll),
            (b"anon_inode:[eventfd]", Kind::Anonymous),
            (b"anon_inode:inotify", Kind::Anonymous),
            (b"pidfd:[123]", Kind::Anonymous),
            (b"net:[4026531840]", Kind::Anonymous),
            (b"pipe:[77]", Kind::Pipe),
            (b"/dev/null", Kind::File),
            (b"/memfd:x (deleted)", Kind::File),
            (b"(unreachable)/x", Kind::File),
            (b"socket:[]", Kind::Anonymous),
            (b"socket:[-1]", Kind::Anonymous),
            (b"/tmp/socket:[5]", Kind::File),
            (b"", Kind::Anonymous),
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
        assert_eq!(Watch::new(tree.root(), 42).read(), fds);
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
        let kinds = FdKindsRaw {
            sockets: 2,
            rings: RINGS_MAX as u32 + 2,
            files: 1,
            looked_at: taken.entries,
            ..FdKindsRaw::default()
        };
        assert_eq!(taken.kinds, kinds);
    }

    #[test]
    fn a_walk_in_slices_of_any_size_finds_what_one_census_does() {
        let tree = Tree::new();
        for fd in 0..100 {
            tree.link(&format!("42/fd/{fd}"), &format!("socket:[{}]", fd + 1000));
        }
        let whole = census(tree.root(), 42);
        for fds_max in [1, 3, 99, 100, 101] {
            let mut walk = CensusWalk::new(tree.root(), 42);
            // The second pass begins from nothing.
            for _ in 0..2 {
                let mut slices = 0;
                let census = loop {
                    slices += 1;
                    match walk.advance(fds_max, || true) {
                        Reading::Got(Some(census)) => break census,
                        other => assert_eq!(other, Reading::Got(None)),
                    }
                };
                assert_eq!(Reading::Got(census), whole, "{fds_max}");
                assert_eq!(slices, 100 / fds_max + 1, "{fds_max}");
                assert!(!walk.under_way());
            }
        }
    }

    #[test]
    fn a_walk_stops_when_it_is_told_to() {
        let tree = Tree::new();
        for fd in 0..100 {
            tree.link(&format!("42/fd/{fd}"), "/dev/null");
        }
        let mut walk = CensusWalk::new(tree.root(), 42);
        for slice in 1..=6 {
            assert_eq!(walk.advance(CENSUS_MAX, || false), Reading::Got(None));
            assert_eq!(walk.census.entries, slice * ASK_EVERY);
        }
        let last = walk.advance(CENSUS_MAX, || false);
        assert_eq!(last.got().unwrap().as_ref().unwrap().entries, 100);
    }

    #[test]
    fn where_fds_must_be_listed_no_read_lists_many() {
        let tree = Tree::new();
        let many = LISTED_PER_READ_MAX + 1;
        for fd in 0..many {
            tree.file(&format!("42/fd/{fd}"), "");
        }
        let open = |reading: Reading<FdsRaw>| reading.map(|fds| fds.open);
        let mut watch = Watch::new(tree.root(), 42);
        assert_eq!(open(watch.read()).absence().unwrap().why, Why::NotSampled);
        assert_eq!(open(watch.read()), Reading::Got(many as u64));
        // The next listing is under way: the last number stands. Then it has come to its end.
        for _ in 0..2 {
            assert_eq!(open(watch.read()), Reading::Got(many as u64));
        }
        assert_eq!(open(read(tree.root(), 42)), Reading::Got(many as u64));
    }

    #[test]
    fn a_vanished_process_is_gone() {
        let tree = Tree::new();
        assert_eq!(read(tree.root(), 42).absence().unwrap().why, Why::Gone);
        assert_eq!(census(tree.root(), 42).absence().unwrap().why, Why::Gone);
        assert_eq!(Watch::new(tree.root(), 42).read().absence().unwrap().why, Why::Gone);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse_limit(&bytes);
            parse_link(&bytes);
        }
    }
}
