//! The one place of the probes that opens files; everything above it parses bytes.
//!
//! Two ways to read: once ([`read`]), and again and again ([`Kept`]). Of one read of a small procfs
//! file, walking the path, opening and closing are the larger part: 2.3 of 2.7 us for `schedstat`
//! on 6.18.
#![expect(clippy::disallowed_methods, reason = "this is `read` code")]

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

use crate::reading::{Absence, Reading, Why};

/// Bytes read of a file that is known to be small.
pub const SMALL_MAX_BYTES: u64 = 64 * 1024;
/// Bytes of a [`Buffer`] at first; it doubles up to [`SMALL_MAX_BYTES`].
const BUFFER_BYTES: usize = 4096;
/// Bytes of names taken from the kernel at once by a [`Listing`]: 32 fds or so, about 20 us.
const LISTING_BYTES: usize = 1024;

/// The folder of process `pid`.
pub fn process(proc_root: &Path, pid: i32) -> PathBuf {
    proc_root.join(pid.to_string())
}

/// Reads at most `max_bytes` of a file. A longer file is cut there: whoever parses text drops the
/// line that the cut leaves unfinished.
pub fn read(path: &Path, max_bytes: u64) -> Reading<Vec<u8>> {
    let bytes = File::open(path).and_then(|file| {
        let mut bytes = Vec::with_capacity(4096);
        file.take(max_bytes).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    reading("read", path, bytes)
}

/// Opens a file to read parts of it.
pub fn open_file(path: &Path) -> Reading<File> {
    reading("open", path, File::open(path))
}

/// Opens a file only to hold it (a namespace, a folder).
pub fn open(path: &Path) -> Reading<OwnedFd> {
    reading("open", path, File::open(path).map(OwnedFd::from))
}

/// Where a symbolic link points.
pub fn link(path: &Path) -> Reading<PathBuf> {
    reading("read the link", path, std::fs::read_link(path))
}

/// Where kept files are read into, one after the other.
#[derive(Debug)]
pub struct Buffer(Vec<u8>);

impl Default for Buffer {
    fn default() -> Self {
        Self(vec![0; BUFFER_BYTES])
    }
}

/// A procfs, cgroup or pressure file that stays open between reads.
///
/// An open file of `/proc/PID` holds the `struct pid` (a number), not the task: each read looks
/// the task up anew and fails with ESRCH once it has been reaped (`proc_single_show`,
/// fs/proc/base.c). So nothing of the target is kept alive, and a re-used pid, which has a
/// `struct pid` of its own, is never read by mistake. (`maps`, `mem`, `environ` and the like do hold
/// memory of the target: never keep those. For `net/`, see `netstat`.) A file of a cgroup does not
/// hinder its removal: reads then fail with ENODEV (`kernfs_get_active`, fs/kernfs/dir.c).
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Not open, or could not be opened: tried again at each read.
    Closed,
    Open(OwnedFd),
    /// Was open, and what it told of is gone: final, since the same path may be another's by now.
    Gone,
}

impl Kept {
    /// For a file that the first read opens.
    pub const fn new(path: PathBuf) -> Self {
        Self { path, state: State::Closed }
    }

    /// Reads the whole file from its beginning, cut at [`SMALL_MAX_BYTES`]. One pread(2): for a
    /// `seq_file` the kernel makes the text anew at offset 0 (`seq_read_iter`, `fs/seq_file.c`), and a
    /// read that does not fill the buffer has come to the end.
    pub fn read<'b>(&mut self, buffer: &'b mut Buffer) -> Reading<&'b [u8]> {
        let length = match self.fill(&mut buffer.0) {
            Ok(length) => length,
            Err(error) => return reading("read", &self.path, Err(error)),
        };
        Reading::Got(&buffer.0[..length])
    }

    fn fill(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        if matches!(self.state, State::Closed) {
            self.state = State::Open(open_plain(&self.path, OFlags::RDONLY)?);
        }
        let State::Open(file) = &self.state else {
            return Err(Errno::SRCH.into());
        };
        loop {
            match rustix::io::pread(file, buffer.as_mut_slice(), 0) {
                Ok(length) if length < buffer.len() || length as u64 >= SMALL_MAX_BYTES => {
                    return Ok(length);
                }
                Ok(length) => buffer.resize(length * 2, 0),
                Err(Errno::INTR) => {}
                Err(Errno::SRCH | Errno::NODEV) => {
                    self.state = State::Gone;
                    return Err(Errno::SRCH.into());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether it was open once, and what it told of is gone.
    pub const fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone)
    }

    /// Device and inode of the file while it is open.
    pub fn inode(&self) -> Option<(u64, u64)> {
        let State::Open(file) = &self.state else { return None };
        rustix::fs::fstat(file).ok().map(|stat| (stat.st_dev, stat.st_ino))
    }

    /// Closes the file; the next read opens it again, unless what it told of is gone.
    pub fn close(&mut self) {
        if matches!(self.state, State::Open(_)) {
            self.state = State::Closed;
        }
    }
}

fn open_plain(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// Device and inode of what is at `path`.
pub fn inode(path: &Path) -> Option<(u64, u64)> {
    rustix::fs::stat(path).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// Opens a folder only to look at it: no right to list it is needed (`O_PATH`, open(2)).
pub fn open_path(path: &Path) -> io::Result<OwnedFd> {
    open_plain(path, OFlags::PATH | OFlags::DIRECTORY)
}

/// A folder of numbers (pids, tids, fds) that is listed piece by piece.
///
/// The position of `/proc/PID/fd` is the next fd + 2 (`proc_readfd_common`, fs/proc/fd.c): what is
/// opened or closed between two pieces does not shift the rest. Other folders give each entry a
/// cookie to the same end.
#[derive(Debug)]
pub struct Listing {
    folder: OwnedFd,
    cookie: u64,
}

impl Listing {
    /// From the beginning.
    pub fn open(path: &Path) -> io::Result<Self> {
        let folder = open_plain(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Self { folder, cookie: 0 })
    }

    /// Back to the beginning.
    pub const fn rewind(&mut self) {
        self.cookie = 0;
    }

    /// Shows the next entries to `visit`, with the open folder and their names, until it breaks off
    /// (the next call goes on behind that entry). `Continue` means that the end was reached.
    pub fn advance(
        &mut self,
        mut visit: impl FnMut(BorrowedFd<'_>, i32, &CStr) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        rustix::fs::seek(&self.folder, SeekFrom::Start(self.cookie))?;
        let mut buffer = [MaybeUninit::uninit(); LISTING_BYTES];
        let mut entries = RawDir::new(&self.folder, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            self.cookie = entry.next_entry_cookie();
            let name = entry.file_name();
            let number = name.to_str().ok().and_then(|name| name.parse().ok());
            if let Some(number) = number
                && visit(self.folder.as_fd(), number, name).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// The entries of a folder whose names are numbers (pids, tids, fds), sorted; at most `max`, and
/// whether there were more.
pub fn numbers(folder: &Path, max: usize) -> Reading<(Vec<i32>, bool)> {
    let listed = std::fs::read_dir(folder).and_then(|entries| {
        let mut found = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            if let Some(number) = name.to_str().and_then(|name| name.parse().ok()) {
                if found.len() == max {
                    return Ok((found, true));
                }
                found.push(number);
            }
        }
        Ok((found, false))
    });
    reading("list", folder, listed).map(|(mut found, more)| {
        found.sort_unstable();
        (found, more)
    })
}

/// An [`Absence`] that names the action and the path, and says what would permit it.
pub fn reading<T>(action: &str, path: &Path, result: io::Result<T>) -> Reading<T> {
    match result {
        Ok(value) => Reading::Got(value),
        Err(error) => {
            let Absence { why, detail } = Absence::from(&error);
            let advice = if why == Why::NotPermitted {
                "; run as the same user as the process, or as root (CAP_SYS_PTRACE)"
            } else {
                ""
            };
            Reading::absent(why, format!("cannot {action} {}: {detail}{advice}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_cut_at_the_bound_and_absences_name_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long");
        std::fs::write(&path, [b'x'; 100]).unwrap();
        assert_eq!(read(&path, 100).got().unwrap().len(), 100);
        assert_eq!(read(&path, 99).got().unwrap().len(), 99);
        let gone = read(&folder.path().join("none"), 1);
        assert_eq!(gone.absence().unwrap().why, Why::Gone);
        assert!(gone.absence().unwrap().detail.contains("none"), "{gone:?}");
    }

    #[test]
    fn a_kept_file_is_read_anew_each_time_and_the_buffer_grows_to_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        let mut buffer = Buffer::default();
        let mut kept = Kept::new(path.clone());
        assert_eq!(kept.read(&mut buffer).absence().unwrap().why, Why::Gone);
        let bound = SMALL_MAX_BYTES as usize;
        for length in [0, 1, BUFFER_BYTES, BUFFER_BYTES + 1, bound - 1, bound, bound + 1] {
            std::fs::write(&path, vec![b'x'; length]).unwrap();
            assert_eq!(kept.read(&mut buffer).got().unwrap().len(), length.min(bound));
        }
        assert_eq!(buffer.0.len(), bound);
        std::fs::write(&path, "short").unwrap();
        assert_eq!(kept.read(&mut buffer), Reading::Got(&b"short"[..]));
    }

    #[test]
    fn what_was_read_of_a_process_that_ended_stays_gone() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let path = process(Path::new("/proc"), child.id() as i32).join("schedstat");
        let mut buffer = Buffer::default();
        let mut kept = Kept::new(path);
        assert!(kept.read(&mut buffer).got().is_some());
        child.kill().unwrap();
        // A zombie still has its numbers.
        assert!(kept.read(&mut buffer).got().is_some());
        child.wait().unwrap();
        for _ in 0..2 {
            assert_eq!(kept.read(&mut buffer).absence().unwrap().why, Why::Gone);
            assert!(matches!(kept.state, State::Gone));
            kept.close();
        }
    }

    #[test]
    fn a_listing_goes_on_where_it_broke_off() {
        let folder = tempfile::tempdir().unwrap();
        let count = 200;
        for number in 0..count {
            std::fs::write(folder.path().join(number.to_string()), "").unwrap();
        }
        std::fs::write(folder.path().join("none"), "").unwrap();
        for step in [1, 7, 199, 200, 201] {
            let mut listing = Listing::open(folder.path()).unwrap();
            let mut seen = Vec::new();
            loop {
                let mut left = step;
                let end = listing.advance(|_, number, _| {
                    seen.push(number);
                    left -= 1;
                    if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
                if end.unwrap().is_continue() {
                    break;
                }
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..count).collect::<Vec<i32>>(), "{step}");
        }
    }

    #[test]
    fn only_numbers_are_listed_sorted_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["12", "3", "self", "7x", "100"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(numbers(folder.path(), 3), Reading::Got((vec![3, 12, 100], false)));
        assert!(matches!(numbers(folder.path(), 2), Reading::Got((two, true)) if two.len() == 2));
    }
}
