//! The spool of CPU profiles: a folder in shared memory where an instrumented server lays down one
//! small text file per second, so that the profile of a stall is there although the stalled server
//! can no longer be asked for it.
//!
//! `/dev/shm/stallscope.<pid>.profile/<begin_ns>-<end_ns>-<hz>.folded`; the times are
//! `CLOCK_MONOTONIC`. Each file holds folded stacks, `thread;outer;…;inner count`, and is empty
//! when the process used no CPU time in the window. This module names and reads; the servers' kit
//! writes.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, fstat, openat};

use crate::heartbeat::{FOLDER, innermost_pid};
use crate::reading::{Absence, Reading, Why};

/// Windows a server keeps; the oldest goes first.
pub const WINDOWS_MAX: usize = 120;
/// Largest file of a window. A server leaves out the rarest stacks beyond it.
pub const WINDOW_BYTES_MAX: usize = 256 * 1024;
/// Entries looked at in one listing: the folder belongs to the observed process.
const ENTRIES_MAX: usize = 4096;

/// The name of the folder of process `pid` (as numbered in its own pid namespace).
pub fn folder_name(pid: i32) -> String {
    format!("stallscope.{pid}.profile")
}

/// The folder of process `pid`.
pub fn folder(pid: i32) -> PathBuf {
    Path::new(FOLDER).join(folder_name(pid))
}

/// The pid in the name of a folder, if it is one of a spool.
pub fn pid_of_folder(name: &str) -> Option<i32> {
    let pid = name.strip_prefix("stallscope.")?.strip_suffix(".profile")?.parse().ok()?;
    (folder_name(pid) == name).then_some(pid)
}

/// One window, as its file is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowName {
    /// Begin, `CLOCK_MONOTONIC` ns.
    pub begin_ns: u64,
    /// End, ns.
    pub end_ns: u64,
    /// Samples taken per second of CPU time.
    pub hz: u32,
}

impl fmt::Display for WindowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}.folded", self.begin_ns, self.end_ns, self.hz)
    }
}

/// A file name that is not one of a window.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the name is not <begin_ns>-<end_ns>-<hz>.folded")]
pub struct NotAWindow;

impl FromStr for WindowName {
    type Err = NotAWindow;

    fn from_str(name: &str) -> Result<Self, NotAWindow> {
        let parse = || {
            let mut parts = name.strip_suffix(".folded")?.split('-');
            let window = Self {
                begin_ns: parts.next()?.parse().ok()?,
                end_ns: parts.next()?.parse().ok()?,
                hz: parts.next()?.parse().ok()?,
            };
            // Numbers have several spellings; each window has one name.
            (window.begin_ns <= window.end_ns && window.to_string() == name).then_some(window)
        };
        parse().ok_or(NotAWindow)
    }
}

/// The open folder of another process.
#[derive(Debug)]
pub struct SpoolReader {
    folder: OwnedFd,
}

/// Finds the spool of process `pid`, looking into its own mount namespace first.
pub fn find(proc_root: &Path, pid: i32) -> Reading<SpoolReader> {
    let own_pid = innermost_pid(proc_root, pid).unwrap_or(pid);
    let outside = folder(own_pid);
    let inside = proc_root
        .join(pid.to_string())
        .join("root")
        .join(outside.strip_prefix("/").unwrap_or(&outside));
    match SpoolReader::open(&inside).or_else(|_| SpoolReader::open(&outside)) {
        Ok(reader) => Reading::Got(reader),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Reading::absent(
            Why::Unsupported,
            "the process keeps no CPU profile (only `stallscope serve --profile` does)",
        ),
        Err(error) => Reading::Absent(Absence::from(&error)),
    }
}

impl SpoolReader {
    /// Opens a folder. A link in its place is refused: it might lead anywhere.
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { folder: openat(CWD, folder, flags, Mode::empty())? })
    }

    /// The windows that began after `begin_ns`, oldest first; at most the newest [`WINDOWS_MAX`].
    pub fn newer_than(&self, begin_ns: u64) -> Reading<Vec<WindowName>> {
        let listing = Dir::read_from(self.folder.as_fd()).and_then(|entries| {
            let mut windows = Vec::new();
            for entry in entries.take(ENTRIES_MAX) {
                let name = entry?;
                let window = name.file_name().to_str().ok().and_then(|name| name.parse().ok());
                windows.extend(window.filter(|window: &WindowName| window.begin_ns > begin_ns));
            }
            Ok(windows)
        });
        match listing {
            Ok(mut windows) => {
                windows.sort_unstable();
                let surplus = windows.len().saturating_sub(WINDOWS_MAX);
                windows.drain(..surplus);
                Reading::Got(windows)
            }
            Err(errno) => Reading::Absent(Absence::from(&std::io::Error::from(errno))),
        }
    }

    /// The folded stacks of one window; hostile text. Absent (`Gone`) when the window was deleted
    /// since it was listed.
    pub fn read(&self, window: &WindowName) -> Reading<String> {
        match self.read_bounded(window) {
            Ok(Some(text)) => Reading::Got(text),
            Ok(None) => Reading::absent(
                Why::Malformed,
                format!("the profile {window} is no file of at most 256 KiB"),
            ),
            Err(error) => Reading::Absent(Absence::from(&error)),
        }
    }

    fn read_bounded(&self, window: &WindowName) -> std::io::Result<Option<String>> {
        // NONBLOCK: opening a FIFO that somebody has put there must not block the watcher.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.folder, window.to_string(), flags, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        File::from(file).take(WINDOW_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        let fits = bytes.len() <= WINDOW_BYTES_MAX;
        Ok(fits.then(|| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests lay down what is read")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(begin_ns: u64) -> WindowName {
        WindowName { begin_ns, end_ns: begin_ns + 1, hz: 99 }
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let names = [
            "",
            ".folded",
            "1-2.folded",
            "1-2-99",
            "1-2-99.folded.tmp",
            "1-2-99-3.folded",
            "2-1-99.folded",
            "+1-2-99.folded",
            "01-2-99.folded",
            "1-2--99.folded",
            "99999999999999999999-2-99.folded",
        ];
        for name in names {
            assert_eq!(name.parse::<WindowName>(), Err(NotAWindow), "{name}");
        }
        assert_eq!("1-2-99.folded".parse(), Ok(window(1)));
    }

    #[test]
    fn folders_are_told_apart() {
        assert_eq!(pid_of_folder("stallscope.42.profile"), Some(42));
        let names = ["stallscope.42.heartbeat", "stallscope.+42.profile", "stallscope..profile"];
        for name in names {
            assert_eq!(pid_of_folder(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_survives_the_round_trip(begin_ns: u64, length: u32, hz: u32) {
            let end_ns = begin_ns.saturating_add(length.into());
            let name = WindowName { begin_ns, end_ns, hz };
            prop_assert_eq!(name.to_string().parse(), Ok(name));
        }

        #[test]
        fn no_name_panics(name in ".{0,60}") {
            name.parse::<WindowName>().ok();
        }
    }

    #[test]
    fn only_newer_windows_are_listed_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for begin_ns in [30, 10, 20] {
            let path = folder.path().join(window(begin_ns).to_string());
            std::fs::write(path, format!("main;at {begin_ns}\n")).unwrap();
        }
        std::fs::write(folder.path().join("other"), "").unwrap();
        let reader = SpoolReader::open(folder.path()).unwrap();
        assert_eq!(reader.newer_than(10), Reading::Got(vec![window(20), window(30)]));
        assert_eq!(reader.read(&window(20)), Reading::Got("main;at 20\n".to_owned()));
        assert_eq!(reader.read(&window(40)).absence().unwrap().why, Why::Gone);
    }

    #[test]
    fn what_is_not_a_small_plain_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let place = |begin_ns| folder.path().join(window(begin_ns).to_string());
        std::fs::write(place(1), vec![b'x'; WINDOW_BYTES_MAX]).unwrap();
        std::fs::write(place(2), vec![b'x'; WINDOW_BYTES_MAX + 1]).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", place(3)).unwrap();
        std::fs::create_dir(place(4)).unwrap();
        let reader = SpoolReader::open(folder.path()).unwrap();
        assert!(reader.read(&window(1)).got().is_some());
        for begin_ns in 2..=4 {
            assert!(reader.read(&window(begin_ns)).got().is_none(), "{begin_ns}");
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        assert!(SpoolReader::open(&link).is_err());
    }

    #[test]
    fn a_process_without_a_spool_has_none() {
        let found = find(Path::new("/proc"), 1);
        assert_eq!(found.absence().unwrap().why, Why::Unsupported);
    }
}
