//! Reads a recording frame by frame, past what is damaged.
//!
//! A frame whose checksum is wrong may be damaged in its payload or in its length. So the next frame
//! is searched from behind its mark on: the next mark that stands before a frame with the right
//! checksum. Version 4 had no marks: there a damaged frame is passed over if its length leads to a
//! whole one.

use std::io::{self, Read};

use super::old::FrameV4;
use super::{FRAME_BYTES_MAX, Frame, Header, MAGIC, MARK, RecordingError, VERSION, VERSION_MIN};

/// Holes that are told one by one; further ones are counted.
pub const HOLES_MAX: usize = 32;
/// Bytes read in vain, in all, behind marks that stand before no frame: damage has few of them, a
/// file made to keep a reader busy has many.
pub const SEARCHED_BYTES_MAX: u64 = 256 << 20;
/// Bytes looked through at a time for a mark.
const STEP_BYTES: usize = 64 * 1024;
/// Bytes that were read and used up are kept until they are this many.
const USED_BYTES_MAX: usize = 1 << 20;

/// Reads a recording frame by frame, as far as it is whole.
#[derive(Debug)]
pub struct Reader<R: Read> {
    source: Source<R>,
    version: u16,
    /// Who, where, when.
    pub header: Header,
    /// Instant and number of the last sample.
    last_sample: Option<(u64, u64)>,
    holes: Vec<Hole>,
    holes_more: u64,
    /// Why there is no proper end.
    ending: Option<String>,
    /// Bytes read more than once, in search of frames.
    searched_bytes: u64,
    done: bool,
}

/// What was passed over between two frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hole {
    why: Why,
    bytes: u64,
    /// The last sample before it: instant, ns, and number.
    before: Option<(u64, u64)>,
    /// The first sample after it.
    after: Option<(u64, u64)>,
}

/// How a frame is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Unmarked,
    Length(u32),
    Checksum,
    Undecodable,
    /// It claims more than there is, and yet a frame follows.
    TooLong,
}

impl Why {
    fn words(self) -> String {
        match self {
            Self::Unmarked => String::from("what should be a frame does not begin like one"),
            Self::Length(length) => format!("a frame claims {length} bytes"),
            Self::Checksum => String::from("a frame's checksum does not match"),
            Self::Undecodable => String::from("a frame cannot be decoded"),
            Self::TooLong => String::from("a frame claims more bytes than there are"),
        }
    }
}

/// What stands at a place.
enum Found {
    /// A frame, and its bytes with its head.
    Frame(Box<Frame>, usize),
    /// Damage; the bytes of the frame, if they can be told.
    Damage(Why, Option<usize>),
    /// The file ends within it: so a killed watcher leaves it.
    Cut,
    /// The file has ended.
    End,
}

const KILLED: &str = "the recording has no end: the watcher was killed or is still writing; everything up to its last second is here";
const CUT: &str = "the recording breaks off within a frame: the watcher was killed or is still writing, or the file was cut; what came before is here";
const UNREADABLE: &str = "the recording could not be read to its end; what came before is here";
const TOO_DAMAGED: &str = "the recording is damaged in so many places that the search for its next frame was given up; what came before is here";

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
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return Err(RecordingError::Version(version));
        }
        let mut source = Source { input, bytes: Vec::new(), used: 0, failed: false };
        let Found::Frame(frame, bytes) = source.look(version) else {
            return Err(RecordingError::NoHeader);
        };
        let Frame::Header(header) = *frame else { return Err(RecordingError::NoHeader) };
        source.skip(bytes);
        Ok(Self {
            source,
            version,
            header: *header,
            last_sample: None,
            holes: Vec::new(),
            holes_more: 0,
            ending: None,
            searched_bytes: 0,
            done: false,
        })
    }

    /// What is lost, one sentence each; known once the frames have been read.
    pub fn losses(&self) -> Vec<String> {
        let mut losses: Vec<String> = self.holes.iter().map(|hole| self.words(hole)).collect();
        if self.holes_more > 0 {
            losses.push(format!(
                "the recording is damaged in {} more places, which are passed over too",
                self.holes_more
            ));
        }
        losses.extend(self.ending.clone());
        losses
    }

    fn words(&self, hole: &Hole) -> String {
        let time = |(at_ns, _): (u64, u64)| self.header.anchor.clock_time(at_ns);
        let place = match (hole.before.map(time), hole.after.map(time)) {
            (Some(before), Some(after)) => format!("between {before} and {after}"),
            (Some(before), None) => format!("after {before}"),
            (None, Some(after)) => format!("before {after}"),
            (None, None) => String::from("of what has no time"),
        };
        // The samples are numbered, those that the watcher itself missed as well.
        let samples = match (hole.before, hole.after) {
            (Some((_, before)), Some((_, after))) => match after.saturating_sub(before) {
                0 | 1 => String::from("no sample"),
                2 => String::from("at most 1 sample"),
                more => format!("at most {} samples", more - 1),
            },
            _ => String::from("an unknown number of samples"),
        };
        format!(
            "the recording is damaged: {}; {} bytes {place} are passed over, with {samples}",
            hole.why.words(),
            hole.bytes
        )
    }

    /// Passes over a damaged frame; `false` where no frame follows.
    fn pass_over(&mut self, why: Why, frame_bytes: Option<usize>) -> bool {
        self.searched_bytes += frame_bytes.unwrap_or(self.source.ahead()) as u64;
        let bytes = match (why, frame_bytes) {
            // Its checksum is right, so its length is.
            (Why::Undecodable, Some(bytes)) => Some(self.source.skip(bytes)),
            (_, Some(bytes)) if self.version < VERSION => self.source.skip_to_whole(bytes),
            _ if self.version < VERSION => None,
            _ => self.search(),
        };
        let Some(bytes) = bytes else { return false };
        // What is read once is no waste, however much of it is damaged.
        self.searched_bytes = self.searched_bytes.saturating_sub(bytes);
        let (before, room) = (self.last_sample, self.holes.len() < HOLES_MAX);
        match self.holes.last_mut() {
            // One hole after the other, without a sample between them, is one.
            Some(last) if last.after.is_none() && self.holes_more == 0 => last.bytes += bytes,
            _ if room => self.holes.push(Hole { why, bytes, before, after: None }),
            _ => self.holes_more += 1,
        }
        true
    }

    /// Goes on to the next mark that stands before a whole frame; how many bytes that was.
    fn search(&mut self) -> Option<u64> {
        let mut passed = self.source.skip(1);
        loop {
            passed += self.source.skip_to_mark()?;
            match self.source.look(self.version) {
                Found::Frame(..) | Found::Damage(Why::Undecodable, _) => return Some(passed),
                Found::End => return None,
                Found::Damage(_, bytes) => {
                    self.searched_bytes += bytes.unwrap_or(0) as u64;
                }
                // All that is left was read for it.
                Found::Cut => self.searched_bytes += self.source.ahead() as u64,
            }
            if self.searched_bytes > SEARCHED_BYTES_MAX {
                return None;
            }
            passed += self.source.skip(1);
        }
    }

    fn end(&mut self, ending: &str) {
        self.done = true;
        let given_up = self.searched_bytes > SEARCHED_BYTES_MAX;
        let ending = match (given_up, self.source.failed) {
            (true, _) => TOO_DAMAGED,
            (false, true) => UNREADABLE,
            (false, false) => ending,
        };
        self.ending = Some(ending.to_owned());
    }

    fn saw(&mut self, frame: &Frame) {
        if let Frame::Sample(sample) = frame {
            let this = Some((sample.process.end_ns, sample.seq));
            for hole in self.holes.iter_mut().rev().take_while(|hole| hole.after.is_none()) {
                hole.after = this;
            }
            self.last_sample = this;
        }
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        while !self.done {
            match self.source.look(self.version) {
                Found::Frame(frame, bytes) => {
                    self.source.skip(bytes);
                    self.done = matches!(*frame, Frame::End(_));
                    self.saw(&frame);
                    return Some(*frame);
                }
                Found::End => self.end(KILLED),
                Found::Damage(why, bytes) => {
                    if !self.pass_over(why, bytes) {
                        self.end(&format!(
                            "the recording is damaged: {}, and no whole frame follows; what came before is here",
                            why.words()
                        ));
                    }
                }
                // Where the length is damaged, frames follow within what it claims.
                Found::Cut => {
                    if self.version < VERSION || !self.pass_over(Why::TooLong, None) {
                        self.end(CUT);
                    }
                }
            }
        }
        None
    }
}

/// The bytes of a recording, with a look ahead.
#[derive(Debug)]
struct Source<R: Read> {
    input: R,
    bytes: Vec<u8>,
    /// How many of `bytes` are used up.
    used: usize,
    /// Reading failed: there may be more.
    failed: bool,
}

impl<R: Read> Source<R> {
    /// The next `count` bytes, or as many as there are.
    fn peek(&mut self, count: usize) -> &[u8] {
        if self.used > USED_BYTES_MAX {
            self.bytes.drain(..self.used);
            self.used = 0;
        }
        let missing = count.saturating_sub(self.ahead());
        if missing > 0 && !self.failed {
            // `take` and not a buffer of that size: a damaged length must not allocate.
            let read = self.input.by_ref().take(missing as u64).read_to_end(&mut self.bytes);
            self.failed = read.is_err();
        }
        let end = self.bytes.len().min(self.used + count);
        &self.bytes[self.used..end]
    }

    /// Bytes that were read and are not used up.
    const fn ahead(&self) -> usize {
        self.bytes.len() - self.used
    }

    /// Uses up `count` bytes, or as many as were read.
    fn skip(&mut self, count: usize) -> u64 {
        let count = count.min(self.ahead());
        self.used += count;
        count as u64
    }

    /// What stands here.
    fn look(&mut self, version: u16) -> Found {
        let mark_bytes = if version < VERSION { 0 } else { MARK.len() };
        let head_bytes = mark_bytes + 8;
        let head = self.peek(head_bytes);
        if head.is_empty() {
            return Found::End;
        }
        let (Some(mark), Some(length), Some(sum)) =
            (head.get(..mark_bytes), word(head, mark_bytes), word(head, mark_bytes + 4))
        else {
            return Found::Cut;
        };
        if mark_bytes > 0 && mark != MARK {
            return Found::Damage(Why::Unmarked, None);
        }
        if length > FRAME_BYTES_MAX {
            return Found::Damage(Why::Length(length), None);
        }
        let bytes = head_bytes + length as usize;
        let Some(payload) = self.peek(bytes).get(head_bytes..bytes) else { return Found::Cut };
        if crc32fast::hash(payload) != sum {
            return Found::Damage(Why::Checksum, Some(bytes));
        }
        let frame = if version < VERSION {
            postcard::from_bytes::<FrameV4>(payload).map(Frame::from)
        } else {
            postcard::from_bytes(payload)
        };
        frame.map_or(Found::Damage(Why::Undecodable, Some(bytes)), |frame| {
            Found::Frame(Box::new(frame), bytes)
        })
    }

    /// Goes on to the next mark; how many bytes that was. `None` if there is none.
    fn skip_to_mark(&mut self) -> Option<u64> {
        let mut passed = 0;
        loop {
            let bytes = self.peek(STEP_BYTES);
            let (found, last) =
                (bytes.windows(MARK.len()).position(|at| at == MARK), bytes.len() < STEP_BYTES);
            match found {
                Some(at) => return Some(passed + self.skip(at)),
                None if last => return None,
                // The mark may lie across the end of this piece.
                None => passed += self.skip(STEP_BYTES - (MARK.len() - 1)),
            }
        }
    }

    /// Skips a frame of version 4, if a whole frame or the end of the file follows.
    fn skip_to_whole(&mut self, bytes: usize) -> Option<u64> {
        let skipped = self.skip(bytes);
        match self.look(VERSION_MIN) {
            Found::Frame(..) | Found::End => Some(skipped),
            Found::Damage(..) | Found::Cut => None,
        }
    }
}

/// Four bytes at `at`, little-endian.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)))
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
