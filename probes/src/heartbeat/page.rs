//! The writing side of the heartbeat page.
#![expect(clippy::disallowed_methods, reason = "this is the code that makes the file")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapRaw;

use super::{FOLDER, MAGIC, PAGE_BYTES, VERSION, Word, file_name};
use crate::sample::Fault;

/// Why a page could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the heartbeat page {path}: {source}")]
pub struct PageError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// A heartbeat page of this process. Dropping it removes the file; a crash leaves it for the
/// post-mortem, and the next server to start clears pages of dead processes away.
#[derive(Debug)]
pub struct Page {
    map: MmapRaw,
    path: PathBuf,
}

impl Page {
    /// Makes the page of this process in [`FOLDER`] and maps it.
    ///
    /// `stack` names the server in at most 16 bytes.
    ///
    /// # Errors
    /// When the file cannot be made, sized or mapped.
    pub fn create(stack: &str) -> Result<Self, PageError> {
        remove_orphans(Path::new(FOLDER));
        Self::create_in(Path::new(FOLDER), stack)
    }

    fn create_in(folder: &Path, stack: &str) -> Result<Self, PageError> {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let path = folder.join(file_name(pid));
        let failed = |action, source| PageError { action, path: path.clone(), source };
        // A page of an earlier process with this pid, or a link somebody planted, is removed
        // first; create_new then refuses to follow whatever appears in between.
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(failed("replace", error));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&path)
            .map_err(|error| failed("create", error))?;
        file.set_len(PAGE_BYTES as u64).map_err(|error| failed("size", error))?;
        let map = MmapRaw::map_raw(&file).map_err(|error| failed("map", error))?;
        let page = Self { map, path: path.clone() };
        page.introduce(stack, pid, own_start_time().map_err(|error| failed("date", error))?);
        Ok(page)
    }

    fn introduce(&self, stack: &str, pid: i32, start_time_ticks: u64) {
        let mut name = [0; 16];
        let used = stack.len().min(name.len());
        name[..used].copy_from_slice(&stack.as_bytes()[..used]);
        let (low, high) = name.split_at(8);
        let half = |bytes: &[u8]| {
            bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
        };
        self.set(Word::StackLow, half(low));
        self.set(Word::StackHigh, half(high));
        self.set(Word::Pid, pid.unsigned_abs().into());
        self.set(Word::StartTimeTicks, start_time_ticks);
        self.set(Word::Version, VERSION);
        self.set(Word::Magic, MAGIC);
    }

    /// Where the page is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins at a page boundary")]
    fn word(&self, word: Word) -> &AtomicU64 {
        // SAFETY: the map is PAGE_BYTES long, page-aligned, shared and writable, and lives as
        // long as `self`; every `Word` index is below PAGE_BYTES / 8; in this process the words
        // are touched through atomics only, and a reader elsewhere copies them.
        unsafe { &*self.map.as_mut_ptr().cast::<AtomicU64>().add(word as usize) }
    }

    /// Sets a word. Only the word's own thread calls this.
    pub fn set(&self, word: Word, value: u64) {
        self.word(word).store(value.to_le(), Ordering::Relaxed);
    }

    /// Adds to a word. Only the word's own thread calls this, so a load and a store do.
    pub fn add(&self, word: Word, more: u64) {
        self.set(word, self.get(word).wrapping_add(more));
    }

    /// Adds to a word that several threads add to.
    pub fn add_shared(&self, word: Word, more: u64) {
        self.change_shared(word, |value| value.wrapping_add(more));
    }

    /// Takes from a word that several threads change, not below zero.
    pub fn sub_shared(&self, word: Word, less: u64) {
        self.change_shared(word, |value| value.saturating_sub(less));
    }

    fn change_shared(&self, word: Word, change: impl Fn(u64) -> u64) {
        let change = |value: u64| Some(change(u64::from_le(value)).to_le());
        // It gives up only where `change` does, which never does.
        self.word(word).fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).ok();
    }

    /// Takes from a word, not below zero. Only the word's own thread calls this.
    pub fn sub(&self, word: Word, less: u64) {
        self.set(word, self.get(word).saturating_sub(less));
    }

    /// The value of a word.
    pub fn get(&self, word: Word) -> u64 {
        u64::from_le(self.word(word).load(Ordering::Relaxed))
    }

    /// Records that a fault takes hold at `at_ns` (`CLOCK_MONOTONIC`): the ground truth of tests.
    pub fn fault_begins(&self, fault: Fault, at_ns: u64) {
        self.set(Word::FaultEndNs, 0);
        self.set(Word::FaultBeginNs, at_ns);
        self.word(Word::FaultCode).store(fault.code().to_le(), Ordering::Release);
    }

    /// Records that the fault is undone.
    pub fn fault_ends(&self, at_ns: u64) {
        self.set(Word::FaultEndNs, at_ns);
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Nothing to do about a failure: the next server clears orphans away.
        std::fs::remove_file(&self.path).ok();
    }
}

fn own_start_time() -> io::Result<u64> {
    let stat = procfs::FromRead::from_read(File::open("/proc/self/stat")?)
        .map_err(|error: procfs::ProcError| io::Error::other(error.to_string()))?;
    let stat: procfs::process::Stat = stat;
    Ok(stat.starttime)
}

/// Removes pages whose process is gone. Pages of other users stay: removing them fails.
fn remove_orphans(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix("stallscope."))
            .and_then(|name| name.strip_suffix(".heartbeat"))
            .and_then(|pid| pid.parse::<u32>().ok());
        if let Some(pid) = pid
            && !Path::new("/proc").join(pid.to_string()).exists()
        {
            std::fs::remove_file(entry.path()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat;

    #[test]
    fn what_is_written_is_what_a_reader_sees() {
        let folder = tempfile::tempdir().unwrap();
        let page = Page::create_in(folder.path(), "tokio-uring").unwrap();
        page.set(Word::BeatNs, 5);
        page.add(Word::Accepted, 2);
        page.sub(Word::Open, 1);
        page.add_shared(Word::Requests, 3);
        page.sub_shared(Word::Requests, 1);
        page.fault_begins(Fault::RuntimeBlocked, 9);
        let (author, beat) = heartbeat::parse(&std::fs::read(page.path()).unwrap()).unwrap();
        assert_eq!(author.pid, std::process::id() as i32);
        assert_eq!(author.start_time_ticks, own_start_time().unwrap());
        assert_eq!(beat.stack, "tokio-uring");
        assert_eq!((beat.beat_ns, beat.accepted, beat.open), (Some(5), 2, 0));
        assert_eq!(beat.requests, 2);
        let fault = beat.fault.unwrap();
        assert_eq!((fault.fault, fault.begin_ns, fault.end_ns), (Fault::RuntimeBlocked, 9, None));
        let path = page.path().to_owned();
        drop(page);
        assert!(!path.exists());
    }
}
