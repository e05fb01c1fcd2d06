//! The recording: raw samples and profiles in framed, checksummed, versioned form, so that models,
//! onsets and verdicts can be made again by any later version. Format: `docs/recording.md`.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use stallscope_probes::sample::Sample;

use super::config::Config;
use super::event::{Anchor, EndReason, Environment, ProfileWindow, Target};
use crate::profile::stacks::ThreadStacks;

/// First bytes of the file.
pub const MAGIC: &[u8; 8] = b"STALLREC";
/// Version of the format; another one is refused.
pub const VERSION: u16 = 5;
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
    #[error("this recording is of format version {0}; this program reads version {VERSION}")]
    Version(u16),
    /// It does not begin with a header.
    #[error("the recording is damaged at its very beginning: it has no readable header")]
    NoHeader,
    /// A frame would not be read again.
    #[error("a frame of {0} bytes is longer than a recording may hold ({FRAME_BYTES_MAX})")]
    FrameLength(usize),
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
        if self.bytes.saturating_add(payload.len() as u64 + 8) > FILE_BYTES_MAX && !is_end {
            self.full = true;
            return Ok(());
        }
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|length| *length <= FRAME_BYTES_MAX)
            .ok_or(RecordingError::FrameLength(payload.len()))?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&crc32fast::hash(&payload).to_le_bytes())?;
        self.out.write_all(&payload)?;
        self.bytes += payload.len() as u64 + 8;
        Ok(())
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

/// Reads a recording frame by frame, as far as it is whole.
#[derive(Debug)]
pub struct Reader<R: Read> {
    input: R,
    /// Who, where, when.
    pub header: Header,
    loss: Option<String>,
    done: bool,
}

impl<R: Read> Reader<R> {
    /// Opens a recording.
    ///
    /// # Errors
    /// When it is none, of another version, or damaged at its beginning.
    pub fn open(mut input: R) -> Result<Self, RecordingError> {
        let mut magic = [0; 8];
        let mut version = [0; 2];
        read_or(&mut input, &mut magic, RecordingError::Foreign)?;
        if &magic != MAGIC {
            return Err(RecordingError::Foreign);
        }
        read_or(&mut input, &mut version, RecordingError::NoHeader)?;
        let version = u16::from_le_bytes(version);
        if version != VERSION {
            return Err(RecordingError::Version(version));
        }
        match read_frame(&mut input) {
            Ok(Some(Frame::Header(header))) => {
                Ok(Self { input, header: *header, loss: None, done: false })
            }
            _ => Err(RecordingError::NoHeader),
        }
    }

    /// What is lost, one sentence; known once the frames have been read.
    pub fn loss(&self) -> Option<&str> {
        self.loss.as_deref()
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        if self.done {
            return None;
        }
        match read_frame(&mut self.input) {
            Ok(Some(frame)) => {
                self.done = matches!(frame, Frame::End(_));
                Some(frame)
            }
            Ok(None) => {
                self.done = true;
                self.loss = Some(String::from(
                    "the recording has no end: the watcher was killed or is still writing; everything up to its last second is here",
                ));
                None
            }
            Err(Damage::Cut) => {
                self.done = true;
                self.loss = Some(String::from(
                    "the recording breaks off within a frame: the watcher was killed or is still writing, or the file was cut; what came before is here",
                ));
                None
            }
            Err(Damage::Other(damage)) => {
                self.done = true;
                self.loss =
                    Some(format!("the recording is damaged: {damage}; what came before is here"));
                None
            }
        }
    }
}

fn read_or(
    input: &mut impl Read,
    bytes: &mut [u8],
    short: RecordingError,
) -> Result<(), RecordingError> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => short,
        _ => RecordingError::Io(error),
    })
}

/// Why the next frame cannot be had.
enum Damage {
    /// The file ends within it: so a killed watcher leaves it.
    Cut,
    /// In words.
    Other(String),
}

/// The next frame; `None` at a clean end of the file.
fn read_frame(input: &mut impl Read) -> Result<Option<Frame>, Damage> {
    let mut head = [0; 8];
    let mut filled = 0;
    while filled < head.len() {
        match input.read(&mut head[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(Damage::Cut),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(Damage::Other(format!("it cannot be read further ({error})")));
            }
        }
    }
    let (length, sum) = head.split_at(4);
    let word =
        |bytes: &[u8]| bytes.iter().rev().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
    let (length, sum) = (word(length), word(sum));
    if length > FRAME_BYTES_MAX {
        return Err(Damage::Other(format!("a frame claims {length} bytes")));
    }
    // `take` and not a buffer of `length` bytes: a damaged length must not allocate.
    let mut payload = Vec::new();
    match input.by_ref().take(u64::from(length)).read_to_end(&mut payload) {
        Ok(read) if read < length as usize => {
            return Err(Damage::Cut);
        }
        Ok(_) => {}
        Err(error) => return Err(Damage::Other(format!("it cannot be read further ({error})"))),
    }
    if crc32fast::hash(&payload) != sum {
        return Err(Damage::Other(String::from("a frame's checksum does not match")));
    }
    postcard::from_bytes(&payload)
        .map(Some)
        .map_err(|error| Damage::Other(format!("a frame cannot be decoded ({error})")))
}

#[cfg(test)]
#[path = "any_sample.rs"]
mod any_sample;
#[cfg(test)]
#[path = "recording_tests.rs"]
mod tests;
