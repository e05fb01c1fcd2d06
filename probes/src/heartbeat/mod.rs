//! The heartbeat page: one 4 KiB file of little-endian `u64` words in shared memory that an
//! instrumented server writes and anyone may read, so that it still speaks when the server no
//! longer does. Byte layout and rules: `docs/heartbeat.md`.
//!
//! [`Page`] is the writing side (used by the servers' kit), [`parse`] and [`find`] the reading
//! side. Every word has one writing thread; words are independent (no lock, no seqlock): a reader
//! may see one counter a few nanoseconds ahead of another.

mod page;
mod read;

pub use page::{Page, PageError};
pub(crate) use read::innermost_pid;
pub use read::{PageReader, find};

use crate::sample::{Fault, FaultRaw, HeartbeatRaw};

/// Size of the page, bytes.
pub const PAGE_BYTES: usize = 4096;
/// First word: `b"STALLPG1"`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"STALLPG1");
/// Version of the layout.
pub const VERSION: u64 = 1;
/// Folder of the pages (a tmpfs on every Linux with glibc's `shm_open`).
pub const FOLDER: &str = "/dev/shm";

/// The file name of the page of process `pid` (as numbered in its own pid namespace).
pub fn file_name(pid: i32) -> String {
    format!("stallscope.{pid}.heartbeat")
}

/// A word of the page, by its index. Grouped by writing thread, a cache line (8 words) apart, so
/// that the runtime's thread and the Kafka thread do not slow each other down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
#[expect(missing_docs, reason = "each is described at the field of HeartbeatRaw it becomes")]
pub enum Word {
    // Written once, at start.
    Magic = 0,
    Version = 1,
    Pid = 2,
    StartTimeTicks = 3,
    StackLow = 4,
    StackHigh = 5,
    RuntimeTid = 6,
    KafkaTid = 7,
    BeatEveryNs = 8,
    ListenPort = 9,
    // Written by the runtime's thread.
    BeatNs = 16,
    LastAcceptNs = 17,
    LastResponseNs = 18,
    Accepted = 19,
    Open = 20,
    Requests = 21,
    Responses = 22,
    AcceptErrors = 23,
    AcceptErrno = 24,
    Queued = 25,
    QueueFull = 26,
    // Written by the Kafka thread.
    KafkaBeatNs = 32,
    Delivered = 33,
    Failed = 34,
    ProducerQueue = 35,
    ProducerQueueMax = 36,
    // Written by whoever makes a fault on purpose; the code last, so that a fault with a code has
    // its instant.
    FaultBeginNs = 40,
    FaultEndNs = 41,
    FaultCode = 42,
}

/// Why a page was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseError {
    /// Shorter than [`PAGE_BYTES`].
    #[error("the heartbeat page has {0} bytes instead of 4096")]
    Short(usize),
    /// Another file.
    #[error("the file is no heartbeat page: it does not begin with STALLPG1")]
    Foreign,
    /// Made by another version.
    #[error("the heartbeat page is of version {0}; this program reads version 1")]
    Version(u64),
}

/// The identity of the process that wrote a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Author {
    /// Its pid, in its own pid namespace.
    pub pid: i32,
    /// Its start time, clock ticks after boot: tells a stale page of a re-used pid apart.
    pub start_time_ticks: u64,
}

/// Reads a page: who wrote it and what it says.
///
/// # Errors
/// When the bytes are not a page of this version.
pub fn parse(bytes: &[u8]) -> Result<(Author, HeartbeatRaw), ParseError> {
    if bytes.len() < PAGE_BYTES {
        return Err(ParseError::Short(bytes.len()));
    }
    let word = |word: Word| {
        let at = word as usize * 8;
        let mut raw = [0; 8];
        raw.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(raw)
    };
    if word(Word::Magic) != MAGIC {
        return Err(ParseError::Foreign);
    }
    if word(Word::Version) != VERSION {
        return Err(ParseError::Version(word(Word::Version)));
    }
    let instant = |at: Word| Some(word(at)).filter(|ns| *ns != 0);
    let tid = |at: Word| i32::try_from(word(at)).ok().filter(|tid| *tid != 0);
    let fault = Fault::from_code(word(Word::FaultCode)).and_then(|fault| {
        let begin_ns = instant(Word::FaultBeginNs)?;
        Some(FaultRaw { fault, begin_ns, end_ns: instant(Word::FaultEndNs) })
    });
    let author = Author {
        pid: i32::try_from(word(Word::Pid)).unwrap_or(-1),
        start_time_ticks: word(Word::StartTimeTicks),
    };
    let heartbeat = HeartbeatRaw {
        stack: stack_name(word(Word::StackLow), word(Word::StackHigh)),
        runtime_tid: tid(Word::RuntimeTid),
        kafka_tid: tid(Word::KafkaTid),
        beat_ns: instant(Word::BeatNs),
        beat_every_ns: word(Word::BeatEveryNs),
        listen_port: u16::try_from(word(Word::ListenPort)).ok().filter(|port| *port != 0),
        last_accept_ns: instant(Word::LastAcceptNs),
        last_response_ns: instant(Word::LastResponseNs),
        accepted: word(Word::Accepted),
        open: word(Word::Open),
        requests: word(Word::Requests),
        responses: word(Word::Responses),
        accept_errors: word(Word::AcceptErrors),
        accept_errno: i32::try_from(word(Word::AcceptErrno)).ok().filter(|errno| *errno != 0),
        queued: word(Word::Queued),
        kafka_beat_ns: instant(Word::KafkaBeatNs),
        delivered: word(Word::Delivered),
        failed: word(Word::Failed),
        producer_queue: word(Word::ProducerQueue),
        producer_queue_max: Some(word(Word::ProducerQueueMax)).filter(|max| *max != 0),
        queue_full: word(Word::QueueFull),
        fault,
    };
    Ok((author, heartbeat))
}

fn stack_name(low: u64, high: u64) -> String {
    let mut bytes = Vec::with_capacity(16);
    bytes.extend_from_slice(&low.to_le_bytes());
    bytes.extend_from_slice(&high.to_le_bytes());
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_with(words: &[(Word, u64)]) -> Vec<u8> {
        let mut bytes = vec![0; PAGE_BYTES];
        for (word, value) in words {
            let at = *word as usize * 8;
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn refuses_what_is_not_a_page_of_this_version() {
        assert_eq!(parse(&[0; 12]), Err(ParseError::Short(12)));
        assert_eq!(parse(&[0; PAGE_BYTES]), Err(ParseError::Foreign));
        let newer = page_with(&[(Word::Magic, MAGIC), (Word::Version, 2)]);
        assert_eq!(parse(&newer), Err(ParseError::Version(2)));
    }

    #[test]
    fn zero_means_never_and_a_fault_needs_its_instant() {
        let page = page_with(&[
            (Word::Magic, MAGIC),
            (Word::Version, VERSION),
            (Word::Pid, 42),
            (Word::StartTimeTicks, 7),
            (Word::StackLow, u64::from_le_bytes(*b"tokio-ur")),
            (Word::StackHigh, u64::from_le_bytes(*b"ing\0\0\0\0\0")),
            (Word::Accepted, 3),
            (Word::FaultCode, 1),
        ]);
        let (author, beat) = parse(&page).unwrap();
        assert_eq!(author, Author { pid: 42, start_time_ticks: 7 });
        assert_eq!(beat.stack, "tokio-uring");
        assert_eq!(beat.accepted, 3);
        assert_eq!(beat.last_accept_ns, None);
        assert_eq!(beat.fault, None, "a code without an instant is a half-written fault");
    }
}
