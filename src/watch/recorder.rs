//! Writes a live run to a file, and keeps the file short where that is asked for.
//!
//! A recording is shortened by copying what is kept of it, a little at every tick, into a file beside
//! it, which then takes its place by one rename. So no tick waits for a long copy, and at every
//! instant there is a recording that can be read, whenever the watcher is killed. The rename has a
//! thread of its own: file systems write the new file out before it, and free the old one after it,
//! which was seen to take 0.1 s.
#![expect(clippy::disallowed_methods, reason = "this is where recordings are made")]

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use super::event::{EndReason, Event, ProfileWindow};
use super::keep::{Keep, Piece};
use super::recording::{Frame, Header, MAGIC, RecordingError, Writer};
use super::session::{Last, Session, Tick};
use crate::profile::stacks::ThreadStacks;

/// A killed watcher loses at most this much.
const FLUSH_EVERY_NS: u64 = 1_000_000_000;
/// Bytes copied at one tick, while a recording is shortened.
const COPIED_BYTES_MAX: u64 = 256 << 10;
/// Or this many times what the tick itself wrote, if that is more: the copy must catch up.
const COPIED_TO_WRITTEN: u64 = 4;
/// The thread that puts the copy in the place of the recording.
const THREAD: &str = "shorten";
/// Ending of the name of the file that a shortened recording is written to.
const NEW: &str = ".new";

/// A recording in the making.
#[derive(Debug)]
pub struct Recorder {
    writer: Writer<BufWriter<File>>,
    path: PathBuf,
    header: Header,
    flushed_ns: u64,
    keep: Option<Keep>,
    shortening: Option<Shortening>,
    /// The copy is complete and takes the place of the recording.
    replacing: Option<JoinHandle<io::Result<()>>>,
}

impl Recorder {
    /// Makes the file and writes its header. With `keep`, what is older is dropped now and then,
    /// but for what lies around onsets.
    ///
    /// # Errors
    /// When the file cannot be made or written.
    pub fn begin(
        path: &Path,
        session: &Session,
        keep: Option<Duration>,
    ) -> Result<Self, RecordingError> {
        let header = Header {
            target: session.target.clone(),
            environment: session.environment.clone(),
            anchor: session.anchor,
            config: session.config(),
        };
        Self::with_header(path, header, keep.map(Keep::new))
    }

    fn with_header(
        path: &Path,
        header: Header,
        keep: Option<Keep>,
    ) -> Result<Self, RecordingError> {
        let mut path = path.to_owned();
        let file = File::options().write(true).create(true).truncate(keep.is_none()).open(&path)?;
        if keep.is_some() {
            if !file.metadata()?.is_file() {
                return Err(RecordingError::NotAFile);
            }
            // A name that is a link stays one: the file that it leads to is replaced.
            path = fs::canonicalize(&path)?;
            make_way(&new_path(&path))?;
            file.set_len(0)?;
        }
        let writer = Writer::begin(BufWriter::new(file), header.clone())?;
        let (shortening, replacing) = (None, None);
        Ok(Self { writer, path, header, flushed_ns: 0, keep, shortening, replacing })
    }

    /// Appends a tick.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn tick(&mut self, tick: &Tick<'_>) -> Result<(), RecordingError> {
        let mut frames = vec![Frame::Sample(Box::new(tick.sample.clone()))];
        frames.extend(tick.profiles.iter().cloned().map(Frame::Profile));
        frames.extend(tick.stacks.iter().cloned().map(Frame::Stacks));
        self.append(tick.sample.process.end_ns, &frames, &tick.step.events)
    }

    /// Appends what belongs to the instant `at_ns`.
    fn append(
        &mut self,
        at_ns: u64,
        frames: &[Frame],
        events: &[Event],
    ) -> Result<(), RecordingError> {
        let from = self.writer.bytes();
        for frame in frames {
            self.writer.frame(frame)?;
        }
        let to = self.writer.bytes();
        if let Some(keep) = &mut self.keep {
            let new_piece = keep.wrote(at_ns, from, to);
            for event in events {
                if let Event::Onset(onset) = event {
                    keep.onset(onset.at_ns);
                }
            }
            if self.shortening.is_some() {
                self.go_on_shortening(to - from)?;
            } else if self.replacing.is_none()
                && new_piece
                && let Some(kept) = keep.plan(at_ns, to)
            {
                let begun_ns = keep.begun_ns().unwrap_or(at_ns);
                self.shortening =
                    Some(Shortening::begin(&self.path, self.header.clone(), kept, to, begun_ns)?);
            }
        }
        if self.replacing.as_ref().is_some_and(JoinHandle::is_finished) {
            self.replaced()?;
        }
        if at_ns.saturating_sub(self.flushed_ns) >= FLUSH_EVERY_NS {
            self.writer.flush()?;
            self.flushed_ns = at_ns;
        }
        Ok(())
    }

    /// Copies a little more, and takes the copy for the recording when it has caught up.
    fn go_on_shortening(&mut self, written: u64) -> Result<(), RecordingError> {
        // What is copied is read from the file, not from the buffer before it.
        self.writer.flush()?;
        let budget = COPIED_BYTES_MAX.max(written.saturating_mul(COPIED_TO_WRITTEN));
        let Some(shortening) = &mut self.shortening else { return Ok(()) };
        if !shortening.copy(self.writer.bytes(), budget)? {
            return Ok(());
        }
        if let (Some(keep), Some(mut done)) = (&mut self.keep, self.shortening.take())
            && let Some(mut writer) = done.writer.take()
        {
            writer.flush()?;
            keep.shortened(std::mem::take(&mut done.kept), done.old_tail, done.new_tail);
            // What comes from now on is in the copy alone; its place is that of the recording in a
            // moment.
            let old = std::mem::replace(&mut self.writer, writer);
            let path = self.path.clone();
            let replace = move || {
                let replaced = fs::rename(&done.path, path);
                drop((old, done));
                replaced
            };
            let thread = std::thread::Builder::new().name(THREAD.to_owned());
            self.replacing = Some(thread.spawn(replace)?);
        }
        Ok(())
    }

    /// Waits until the copy has taken the place of the recording.
    fn replaced(&mut self) -> Result<(), RecordingError> {
        match self.replacing.take().map(JoinHandle::join) {
            Some(Ok(replaced)) => Ok(replaced?),
            Some(Err(_)) => {
                Err(io::Error::other("the thread that replaces the recording failed").into())
            }
            None => Ok(()),
        }
    }

    /// Appends profile windows.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn profiles(&mut self, windows: &[ProfileWindow]) -> Result<(), RecordingError> {
        for window in windows {
            self.writer.frame(&Frame::Profile(window.clone()))?;
        }
        Ok(())
    }

    /// Appends looks at the stacks of all threads.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn stacks(&mut self, looks: &[ThreadStacks]) -> Result<(), RecordingError> {
        for look in looks {
            self.writer.frame(&Frame::Stacks(look.clone()))?;
        }
        Ok(())
    }

    /// Appends what became available only after the run.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn last(&mut self, last: &Last) -> Result<(), RecordingError> {
        self.profiles(&last.profiles)?;
        self.stacks(&last.stacks)
    }

    /// Ends the recording; returns its path, and whether it is complete.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn end(mut self, reason: EndReason) -> Result<(PathBuf, bool), RecordingError> {
        let reason = if self.writer.is_full() { EndReason::RecordingFull } else { reason };
        self.writer.frame(&Frame::End(reason))?;
        self.writer.flush()?;
        self.replaced()?;
        Ok((self.path, !self.writer.is_full()))
    }
}

fn new_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(NEW);
    name.into()
}

/// Removes what a watcher that was killed left behind, and nothing else.
fn make_way(new_path: &Path) -> Result<(), RecordingError> {
    let mut begin = [0; MAGIC.len()];
    match fs::symlink_metadata(new_path) {
        Ok(found) if found.is_file() => {
            let read = File::open(new_path)?.read(&mut begin)?;
            if MAGIC.starts_with(&begin[..read]) {
                return Ok(fs::remove_file(new_path)?);
            }
            Err(RecordingError::InTheWay(new_path.to_owned()))
        }
        Ok(_) => Err(RecordingError::InTheWay(new_path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A shorter copy of a recording in the making. It is removed unless it is completed.
#[derive(Debug)]
struct Shortening {
    /// The recording, to read from.
    input: File,
    /// `None` once it is complete.
    writer: Option<Writer<BufWriter<File>>>,
    path: PathBuf,
    /// What is still to be copied, the first of them perhaps in part.
    pieces: VecDeque<Piece>,
    /// Bytes copied of the first piece.
    copied_bytes: u64,
    /// Pieces as they stand in the copy.
    kept: Vec<Piece>,
    /// Where the last piece ended in the recording, and when.
    last: (u64, u64),
    /// Where that stands in the recording, and in the copy, which has come since the plan was made.
    old_tail: u64,
    new_tail: u64,
    /// How far of that is copied, in the recording.
    tail: u64,
}

impl Shortening {
    fn begin(
        path: &Path,
        header: Header,
        pieces: Vec<Piece>,
        old_tail: u64,
        begun_ns: u64,
    ) -> Result<Self, RecordingError> {
        let input = File::open(path)?;
        let path = new_path(path);
        // Nothing that has come there in between is written over, and no link is followed.
        let file = File::options().write(true).create_new(true).open(&path)?;
        file.set_permissions(input.metadata()?.permissions())?;
        let writer = Writer::begin(BufWriter::new(file), header)?;
        Ok(Self {
            input,
            writer: Some(writer),
            path,
            pieces: pieces.into(),
            copied_bytes: 0,
            kept: Vec::new(),
            last: (0, begun_ns),
            old_tail,
            new_tail: 0,
            tail: old_tail,
        })
    }

    /// Copies up to `budget` bytes of a recording of `file_bytes`; says whether all is copied.
    fn copy(&mut self, file_bytes: u64, mut budget: u64) -> Result<bool, RecordingError> {
        let Some(writer) = &mut self.writer else { return Ok(true) };
        while let Some(piece) = self.pieces.front().copied() {
            if self.copied_bytes == 0 {
                let (end, end_ns) = self.last;
                if end != piece.from && end_ns < piece.begin_ns {
                    writer.frame(&Frame::Dropped { from_ns: end_ns, to_ns: piece.begin_ns })?;
                }
                self.kept.push(Piece { from: writer.bytes(), ..piece });
            }
            let bytes = budget.min(piece.bytes - self.copied_bytes);
            pass(&self.input, writer, piece.from + self.copied_bytes, bytes)?;
            (budget, self.copied_bytes) = (budget - bytes, self.copied_bytes + bytes);
            if self.copied_bytes < piece.bytes {
                return Ok(false);
            }
            self.last = (piece.to(), piece.end_ns);
            self.copied_bytes = 0;
            self.pieces.pop_front();
        }
        if self.tail == self.old_tail {
            self.new_tail = writer.bytes();
        }
        let bytes = budget.min(file_bytes - self.tail);
        pass(&self.input, writer, self.tail, bytes)?;
        self.tail += bytes;
        Ok(self.tail == file_bytes)
    }
}

impl Drop for Shortening {
    fn drop(&mut self) {
        if self.writer.is_some() {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Copies bytes of the recording as they stand there.
fn pass(
    input: &File,
    writer: &mut Writer<BufWriter<File>>,
    from: u64,
    bytes: u64,
) -> io::Result<()> {
    let mut buffer = vec![0; bytes as usize];
    input.read_exact_at(&mut buffer, from)?;
    writer.copied(&buffer)
}

#[cfg(test)]
#[path = "recorder_tests.rs"]
mod tests;
