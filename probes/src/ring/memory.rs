//! The memory of a ring of another process, mapped read-only.
//!
//! The fd of the ring is copied by `pidfd_getfd(2)`, mapped and closed again at once. What is held
//! then is the mapping, and it is enough to keep the ring alive: its registered files (a listening
//! socket, say) stay open after the process has closed the ring or died, until the mapping goes.
//! So whoever holds a [`RingMemory`] lets it go as soon as the ring's fd is closed;
//! [`super::Rings`] does.
//!
//! A mapping longer than the ring succeeds, and to touch a page beyond the ring is a SIGBUS. So
//! which pages there are is found out by system calls, which fail instead, and no load goes beyond.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::Stat;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::layout::{Counters, EntrySizes, Layout, Rounding, Words};
use crate::fds::{Kind, parse_link};
use crate::files;
use crate::pidfd::PidFd;
use crate::reading::{Absence, Reading, Why};
use crate::sample::RingState;

/// `IORING_OFF_SQ_RING` (`linux/io_uring.h`); since 5.4 the completions are there too
/// (`IORING_FEAT_SINGLE_MMAP`).
const OFF_SQ_RING: u64 = 0;
/// `IORING_OFF_SQES`.
const OFF_SQES: u64 = 0x1000_0000;

/// Which file an fd is: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    dev: u64,
    ino: u64,
}

impl From<Stat> for FileId {
    fn from(stat: Stat) -> Self {
        Self { dev: stat.st_dev, ino: stat.st_ino }
    }
}

impl FileId {
    /// Of an open file.
    pub fn of_fd(fd: impl std::os::fd::AsFd) -> io::Result<Self> {
        Ok(rustix::fs::fstat(fd)?.into())
    }

    /// Of what a path leads to; `/proc/PID/fd/FD` leads to that file itself, and looking takes no
    /// hold of it.
    pub fn of_path(path: &Path) -> io::Result<Self> {
        Ok(rustix::fs::stat(path)?.into())
    }
}

/// A ring's memory.
#[derive(Debug)]
pub struct RingMemory {
    ring: Region,
    sqes: Reading<Region>,
    layout: Layout,
    sizes: EntrySizes,
    file: FileId,
}

impl RingMemory {
    /// Maps the ring that is fd `fd` of `process`.
    ///
    /// # Errors
    /// As [`PidFd::dup_fd`]; [`Why::Gone`] when the fd is no ring; [`Why::Unsupported`] when its
    /// memory is the application's own (`IORING_SETUP_NO_MMAP`); [`Why::Malformed`] when the
    /// layout is not known.
    pub fn attach(proc_root: &Path, process: &PidFd, fd: i32) -> Reading<Self> {
        // The copy is closed at the end of this function, whatever comes out of it.
        process.dup_fd(fd).and_then(|copy| Self::map(proc_root, &copy))
    }

    fn map(proc_root: &Path, copy: &OwnedFd) -> Reading<Self> {
        use std::os::unix::ffi::OsStrExt;
        let link = proc_root.join("self/fd").join(copy.as_raw_fd().to_string());
        let is_ring =
            files::link(&link).map(|link| parse_link(link.as_os_str().as_bytes()) == Kind::Ring);
        match is_ring {
            Reading::Got(true) => {}
            Reading::Got(false) => return Reading::absent(Why::Gone, "the fd is no io_uring now"),
            Reading::Absent(absence) => return Reading::Absent(absence),
        }
        let copy = std::os::fd::AsFd::as_fd(copy);
        let file = match FileId::of_fd(copy) {
            Ok(file) => file,
            Err(error) => return Reading::Absent(Absence::from(&error)),
        };
        let page_bytes = rustix::param::page_size();
        let first = Region::map(copy, OFF_SQ_RING, page_bytes);
        explain("the ring", first).and_then(|first| Layout::find(&first)).and_then(|layout| {
            let ring = longest(copy, OFF_SQ_RING, &layout.ring_wants(page_bytes));
            let sqes = longest(copy, OFF_SQES, &layout.sqes_wants(page_bytes));
            let sqes = explain("the submissions of the ring", sqes);
            explain("the ring", ring).map(|(ring, rounding)| {
                let sqes_length = sqes.got().map(|(sqes, rounding)| (sqes.len_bytes(), *rounding));
                let sizes = layout.sizes((&ring, rounding), sqes_length, page_bytes);
                Self { ring, sqes: sqes.map(|(sqes, _)| sqes), layout, sizes, file }
            })
        })
    }

    /// Which file was mapped.
    pub const fn file(&self) -> FileId {
        self.file
    }

    /// Where the counters lie, and the entries of both queues.
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// How long the entries are, as far as it can be told.
    pub const fn sizes(&self) -> EntrySizes {
        self.sizes
    }

    /// Takes what fdinfo says of the size of entries, where the memory itself does not tell.
    pub fn learn(&mut self, sizes: EntrySizes) {
        self.sizes = self.sizes.or(sizes);
    }

    /// Reads the counters: a dozen loads, no system call.
    ///
    /// # Errors
    /// [`Why::Malformed`] when they are not those of a ring.
    #[inline]
    pub fn counters(&self) -> Reading<Counters> {
        self.layout.counters(&self.ring)
    }

    /// Reads the counters and what the entries tell: no system call, and no allocation while
    /// nothing waits to be submitted and nothing failed.
    ///
    /// # Errors
    /// As [`Self::counters`].
    pub fn state(&self) -> Reading<RingState> {
        self.layout.state(&self.ring, self.sqes.as_ref(), self.sizes)
    }
}

/// Maps as long a region as the kernel grants.
fn longest(
    copy: BorrowedFd<'_>,
    offset: u64,
    wants: &[(usize, Rounding)],
) -> io::Result<(Region, Rounding)> {
    let mut refusal = io::Error::from(Errno::INVAL);
    for (len_bytes, rounding) in wants {
        match Region::map(copy, offset, *len_bytes) {
            Ok(region) => return Ok((region, *rounding)),
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

fn explain<T>(what: &str, mapped: io::Result<T>) -> Reading<T> {
    match mapped {
        Ok(mapped) => Reading::Got(mapped),
        Err(error) => {
            let Absence { why, detail } = Absence::from(&error);
            // What a ring cannot give is EINVAL of its mmap, or ENOMEM of the search for an address
            // that comes before (`io_uring_get_unmapped_area`, io_uring/memmap.c; seen on 6.18).
            let is_refusal =
                matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::NOMEM));
            let (why, reason) = if is_refusal {
                (Why::Unsupported, "; its memory is the application's own (IORING_SETUP_NO_MMAP)")
            } else {
                (why, "")
            };
            Reading::absent(why, format!("cannot map {what}: {detail}{reason}"))
        }
    }
}

/// Memory shared with another process, read-only.
#[derive(Debug)]
struct Region {
    map: MmapRaw,
    /// How much of it is backed by pages; the rest must not be touched.
    readable_bytes: usize,
}

impl Region {
    fn map(copy: BorrowedFd<'_>, offset: u64, len_bytes: usize) -> io::Result<Self> {
        let map =
            MmapOptions::new().offset(offset).len(len_bytes).map_raw_read_only(copy.as_raw_fd())?;
        // A child of the watcher would hold the ring after the watcher let go of it.
        map.advise(Advice::DontFork)?;
        let readable_bytes = readable_bytes(&map)?;
        Ok(Self { map, readable_bytes })
    }
}

impl Words for Region {
    #[inline]
    fn word(&self, at_bytes: usize) -> Option<u32> {
        if !at_bytes.is_multiple_of(4) || at_bytes.checked_add(4)? > self.readable_bytes {
            return None;
        }
        // SAFETY: the word is aligned and within the part of the mapping that the kernel has put
        // pages behind; those stay for as long as the mapping does (they are not truncated as a
        // file's are: `io_uring_mmap`, io_uring/memmap.c), and `self` owns the mapping. The other
        // process writes them meanwhile, which is what atomic loads are for; relaxed loads of
        // memory that is mapped read-only are allowed (std::sync::atomic).
        let word = unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().add(at_bytes).cast()) };
        Some(word.load(Ordering::Relaxed))
    }

    #[inline]
    fn len_bytes(&self) -> usize {
        self.readable_bytes
    }
}

/// Bytes of the mapping, from its beginning on, that are backed by pages: one byte of each page is
/// written into a pipe, and where there is no page the kernel says EFAULT.
fn readable_bytes(map: &MmapRaw) -> io::Result<usize> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let page_bytes = rustix::param::page_size();
    let mut readable_bytes = 0;
    while readable_bytes < map.len() {
        // SAFETY: the address is within the mapping, which outlives the call. It is given to the
        // kernel as an address, for the reference that rustix wants must not be made to memory
        // that may be missing.
        let written =
            unsafe { libc::write(writer.as_raw_fd(), map.as_ptr().add(readable_bytes).cast(), 1) };
        if written == 1 {
            readable_bytes += page_bytes;
            continue;
        }
        let error = io::Error::last_os_error();
        match Errno::from_io_error(&error) {
            Some(Errno::FAULT) => break,
            Some(Errno::INTR) => {}
            // The pipe is full: how much it holds depends on what its user has in pipes already.
            Some(Errno::AGAIN) => {
                rustix::io::read(&reader, &mut [0; 4096])?;
            }
            _ => return Err(error),
        }
    }
    Ok(readable_bytes.min(map.len()))
}
