//! The reading side of the heartbeat page.
#![expect(clippy::disallowed_methods, reason = "this is `read` code")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Author, FOLDER, PAGE_BYTES, file_name, parse};
use crate::reading::{Absence, Reading, Why};
use crate::sample::HeartbeatRaw;

/// An open heartbeat page of another process. Holding it keeps nothing of that process alive
/// but these 4 KiB.
#[derive(Debug)]
pub struct PageReader {
    file: File,
    author: Author,
}

impl PageReader {
    /// Reads the page: one pread(2) of 4 KiB from memory.
    pub fn read(&self) -> Reading<HeartbeatRaw> {
        let mut bytes = [0; PAGE_BYTES];
        if let Err(error) = self.file.read_exact_at(&mut bytes, 0) {
            return Reading::Absent(Absence::from(&error));
        }
        match parse(&bytes) {
            Ok((author, beat)) if author == self.author => Reading::Got(beat),
            Ok(_) => Reading::absent(Why::Gone, "the heartbeat page is another process's now"),
            Err(error) => Reading::absent(Why::Malformed, error.to_string()),
        }
    }
}

/// Finds and opens the heartbeat page of process `pid`, looking into its own mount namespace first.
///
/// `start_time_ticks` is the process's start from `/proc/PID/stat`: a page left behind by an
/// earlier process with the same pid is not taken.
pub fn find(proc_root: &Path, pid: i32, start_time_ticks: u64) -> Reading<PageReader> {
    let own_pid = innermost_pid(proc_root, pid).unwrap_or(pid);
    let inside = proc_root.join(pid.to_string()).join("root");
    let folder = Path::new(FOLDER);
    let candidates: [PathBuf; 2] = [
        inside.join(folder.strip_prefix("/").unwrap_or(folder)).join(file_name(own_pid)),
        folder.join(file_name(own_pid)),
    ];
    for path in &candidates {
        let Ok(file) = File::open(path) else { continue };
        let author = Author { pid: own_pid, start_time_ticks };
        let reader = PageReader { file, author };
        if reader.read().got().is_some() {
            return Reading::Got(reader);
        }
    }
    Reading::absent(
        Why::Unsupported,
        "the process keeps no heartbeat page (only stallscope's own servers do)",
    )
}

/// The pid of a process in its innermost pid namespace (`NSpid:` of `/proc/PID/status`).
pub(crate) fn innermost_pid(proc_root: &Path, pid: i32) -> Option<i32> {
    let status = fs::read_to_string(proc_root.join(pid.to_string()).join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::{Page, Word};

    #[test]
    fn a_page_is_found_only_for_the_process_that_wrote_it() {
        let proc_root = Path::new("/proc");
        let page = Page::create("tokio").unwrap();
        page.set(Word::Responses, 11);
        let (author, _) = parse(&fs::read(page.path()).unwrap()).unwrap();
        let found = find(proc_root, author.pid, author.start_time_ticks);
        let beat = found.got().unwrap().read();
        assert_eq!(beat.got().unwrap().responses, 11);
        let reused_pid = find(proc_root, author.pid, author.start_time_ticks + 1);
        assert!(reused_pid.got().is_none());
    }
}
