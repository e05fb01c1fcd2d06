//! Writes a live run to a file.
#![expect(clippy::disallowed_methods, reason = "this is where recordings are made")]

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use super::clock::now_ns;
use super::event::{EndReason, ProfileWindow};
use super::recording::{Frame, Header, RecordingError, Writer};
use super::session::{Last, Session, Tick};
use crate::profile::stacks::ThreadStacks;

/// A killed watcher loses at most this much.
const FLUSH_EVERY_NS: u64 = 1_000_000_000;

/// A recording in the making.
#[derive(Debug)]
pub struct Recorder {
    writer: Writer<BufWriter<File>>,
    path: PathBuf,
    flushed_ns: u64,
}

impl Recorder {
    /// Makes the file and writes its header.
    ///
    /// # Errors
    /// When the file cannot be made or written.
    pub fn begin(path: &Path, session: &Session) -> Result<Self, RecordingError> {
        let header = Header {
            target: session.target.clone(),
            environment: session.environment.clone(),
            anchor: session.anchor,
            config: session.config(),
        };
        let writer = Writer::begin(BufWriter::new(File::create(path)?), header)?;
        Ok(Self { writer, path: path.to_owned(), flushed_ns: now_ns() })
    }

    /// Appends a tick.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn tick(&mut self, tick: &Tick<'_>) -> Result<(), RecordingError> {
        self.writer.frame(&Frame::Sample(Box::new(tick.sample.clone())))?;
        self.profiles(tick.profiles)?;
        self.stacks(tick.stacks)?;
        let now_ns = now_ns();
        if now_ns.saturating_sub(self.flushed_ns) >= FLUSH_EVERY_NS {
            self.writer.flush()?;
            self.flushed_ns = now_ns;
        }
        Ok(())
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
        Ok((self.path, !self.writer.is_full()))
    }
}
