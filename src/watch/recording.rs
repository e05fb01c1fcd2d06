//! The recording: raw samples and profiles in framed, checksummed, versioned form, so that models,
//! onsets and verdicts can be made again by any later version. Format: `docs/recording.md`.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use stallscope_probes::sample::Sample;

use super::config::Config;
use super::event::{Anchor, EndReason, Environment, ProfileWindow, Target};
use crate::profile::stacks::ThreadStacks;

mod old;
mod reader;

pub use reader::{HOLES_MAX, Reader, SEARCHED_BYTES_MAX};

/// First bytes of the file.
pub const MAGIC: &[u8; 8] = b"STALLREC";
/// Version of the format that is written.
pub const VERSION: u16 = 5;
/// Oldest version that is read; others are refused.
pub const VERSION_MIN: u16 = 4;
/// First bytes of every frame, by which the next is found where one is damaged. The first and the
/// third occur in no UTF-8: no name that a process gives itself can pass for a frame.
pub const MARK: [u8; 4] = [0xff, b'S', 0xfe, b'R'];
/// Bytes of a frame before its payload: mark, length, checksum.
pub const HEAD_BYTES: u64 = 12;
/// Largest frame: a sample with every list at its bound stays far below.
pub const FRAME_BYTES_MAX: u32 = 16 << 20;
/// Largest file; what comes after is not recorded, and the end frame says so.
pub const FILE_BYTES_MAX: u64 = 1 << 30;

/// What a frame holds. postcard numbers the variants: new ones go to the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Frame {
    /// Once, first.
    Header(Box<Header>),
    /// One tick.
    Sample(Box<Sample>),
    /// One profile of one stretch of time.
    Profile(ProfileWindow),
    /// Once, last.
    End(EndReason),
    /// The whole stacks of the threads at one instant.
    Stacks(ThreadStacks),
    /// What lay between was left out on purpose, to keep the recording short.
    Dropped {
        /// Begin, `CLOCK_MONOTONIC` ns.
        from_ns: u64,
        /// End, ns.
        to_ns: u64,
    },
}

/// Who, where, when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The process.
    pub target: Target,
    /// The machine and the conditions.
    pub environment: Environment,
    /// Wall time.
    pub anchor: Anchor,
    /// By which it was judged, and is again.
    #[serde(with = "super::config::as_text")]
    pub config: Config,
}

/// Why a recording cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another file.
    #[error("this is no stallscope recording: it does not begin with STALLREC")]
    Foreign,
    /// Another version.
    #[error(
        "this recording is of format version {0}; this program reads versions {VERSION_MIN} to {VERSION}"
    )]
    Version(u16),
    /// It does not begin with a header.
    #[error("the recording is damaged at its very beginning: it has no readable header")]
    NoHeader,
    /// A frame would not be read again.
    #[error("a frame of {0} bytes is longer than a recording may hold ({FRAME_BYTES_MAX})")]
    FrameLength(usize),
    /// It is to be kept short, and cannot be replaced.
    #[error(
        "--keep replaces the recording by a shorter one now and then, so it must be a plain file"
    )]
    NotAFile,
    /// Where the shorter one is to be written there is something else.
    #[error("--keep writes to {0} for a while, and what is there is no recording: move it away")]
    InTheWay(PathBuf),
    /// A frame could not be encoded.
    #[error("a frame of the recording cannot be encoded: {0}")]
    Encode(postcard::Error),
}

/// Writes a recording; each frame reaches the file whole, or is cut where the writer was killed.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    bytes: u64,
    full: bool,
}

impl<W: Write> Writer<W> {
    /// Begins a recording.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn begin(mut out: W, header: Header) -> Result<Self, RecordingError> {
        out.write_all(MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        let mut writer = Self { out, bytes: 10, full: false };
        writer.frame(&Frame::Header(Box::new(header)))?;
        writer.out.flush()?;
        Ok(writer)
    }

    /// Appends a frame. Past [`FILE_BYTES_MAX`] only the end is still written.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn frame(&mut self, frame: &Frame) -> Result<(), RecordingError> {
        let payload = postcard::to_stdvec(frame).map_err(RecordingError::Encode)?;
        let is_end = matches!(frame, Frame::End(_));
        let bytes = payload.len() as u64 + HEAD_BYTES;
        if self.bytes.saturating_add(bytes) > FILE_BYTES_MAX && !is_end {
            self.full = true;
            return Ok(());
        }
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|length| *length <= FRAME_BYTES_MAX)
            .ok_or(RecordingError::FrameLength(payload.len()))?;
        self.out.write_all(&MARK)?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&crc32fast::hash(&payload).to_le_bytes())?;
        self.out.write_all(&payload)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Appends frames as they stand in another recording of this version.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn copied(&mut self, frames: &[u8]) -> io::Result<()> {
        self.out.write_all(frames)?;
        self.bytes += frames.len() as u64;
        Ok(())
    }

    /// Bytes so far: where the next frame will stand.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Hands what is buffered to the operating system: a watcher that is killed loses at most what
    /// came after.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Whether frames were left out because the file had reached its bound.
    pub const fn is_full(&self) -> bool {
        self.full
    }
}

#[cfg(test)]
#[path = "any_sample.rs"]
mod any_sample;
#[cfg(test)]
#[path = "recording_tests.rs"]
mod tests;
