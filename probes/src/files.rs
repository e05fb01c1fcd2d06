//! The one place of the probes that opens files; everything above it parses bytes.
#![expect(clippy::disallowed_methods, reason = "this is `read` code")]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::reading::{Absence, Reading, Why};

/// Bytes read of a file that is known to be small.
pub const SMALL_MAX_BYTES: u64 = 64 * 1024;

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

/// Opens a file only to hold it (a namespace, a folder).
pub fn open(path: &Path) -> Reading<OwnedFd> {
    reading("open", path, File::open(path).map(OwnedFd::from))
}

/// Where a symbolic link points.
pub fn link(path: &Path) -> Reading<PathBuf> {
    reading("read the link", path, std::fs::read_link(path))
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
    fn only_numbers_are_listed_sorted_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["12", "3", "self", "7x", "100"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(numbers(folder.path(), 3), Reading::Got((vec![3, 12, 100], false)));
        assert!(matches!(numbers(folder.path(), 2), Reading::Got((two, true)) if two.len() == 2));
    }
}
