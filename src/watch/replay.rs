//! A recording, run through the same pipe as a live target.
#![expect(clippy::disallowed_methods, reason = "this is where recordings are opened")]

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use super::engine::Engine;
use super::event::{EndReason, Event, Incident, ProfileWindow};
use super::recording::{Frame, Reader, RecordingError};
use crate::model::Model;
use crate::profile::stacks::ThreadStacks;

/// Ticks kept of a recording: half an hour at 50 ms. A longer one is thinned evenly.
pub const TICKS_MAX: usize = 36_000;
/// Profile windows kept: an hour of seconds.
pub const PROFILES_MAX: usize = 3_600;
/// Looks at the stacks of all threads that are kept.
pub const STACKS_MAX: usize = 64;
/// Stretches that were dropped on purpose and are told one by one.
pub const DROPPED_MAX: usize = 64;

/// Reads and judges the recording at `path`.
///
/// # Errors
/// When it cannot be opened, or is no recording.
pub fn load(path: &Path) -> Result<Incident, RecordingError> {
    read(BufReader::new(File::open(path)?))
}

/// Reads and judges a recording.
///
/// # Errors
/// When it is no recording of this version.
pub fn read(input: impl Read) -> Result<Incident, RecordingError> {
    let mut reader = Reader::open(input)?;
    let header = reader.header.clone();
    let mut engine = Engine::with(header.target.pid, header.environment.ticks_per_s, header.config);
    let mut kept = Kept::default();
    let mut profiles: Vec<ProfileWindow> = Vec::new();
    let mut stacks: Vec<ThreadStacks> = Vec::new();
    let mut end = EndReason::RecordingEnds;
    let mut losses = Vec::new();
    for frame in &mut reader {
        match frame {
            Frame::Sample(sample) => {
                let step = engine.push(&sample);
                kept.push(step.model, step.events);
            }
            Frame::Profile(window) if profiles.len() < PROFILES_MAX => profiles.push(window),
            Frame::Stacks(taken) if stacks.len() < STACKS_MAX => stacks.push(taken),
            Frame::Dropped { from_ns, to_ns } if losses.len() < DROPPED_MAX => {
                let time = |at_ns| header.anchor.clock_time(at_ns);
                losses.push(format!(
                    "what lay between {} and {} was dropped to keep the recording short (--keep)",
                    time(from_ns),
                    time(to_ns)
                ));
            }
            Frame::Profile(_) | Frame::Stacks(_) | Frame::Header(_) | Frame::Dropped { .. } => {}
            Frame::End(reason) => end = reason,
        }
    }
    losses.extend(reader.losses());
    if kept.stride > 1 {
        losses.push(format!(
            "the recording is long: one tick in {} is shown; every tick was judged",
            kept.stride
        ));
    }
    profiles.sort_by_key(|window| window.begin_ns);
    Ok(Incident {
        target: header.target,
        environment: header.environment,
        config: header.config,
        anchor: header.anchor,
        models: kept.models,
        events: kept.events,
        profiles,
        stacks,
        end,
        losses,
    })
}

/// Ticks, thinned so that their number stays bounded.
#[derive(Debug)]
struct Kept {
    models: Vec<Arc<Model>>,
    events: Vec<Event>,
    stride: u64,
    seen: u64,
}

impl Default for Kept {
    fn default() -> Self {
        Self { models: Vec::new(), events: Vec::new(), stride: 1, seen: 0 }
    }
}

impl Kept {
    fn push(&mut self, model: Arc<Model>, events: Vec<Event>) {
        self.events.extend(events);
        if self.seen.is_multiple_of(self.stride) {
            self.models.push(model);
        }
        self.seen += 1;
        if self.models.len() >= TICKS_MAX {
            let mut index = 0_usize;
            self.models.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.stride *= 2;
        }
    }
}
