//! A [`Profile`] as a file of the Firefox Profiler (<https://profiler.firefox.com>): each thread with
//! its stacks in time.
//!
//! The format is the "processed profile format"; what it demands is written down in the Profiler's
//! `src/types/profile.ts`. Names are resolved already, so frames are written as labels and the
//! Profiler looks for no symbols.

use std::collections::HashMap;
use std::time::Duration;

use fxprof_processed_profile as fx;
use serde_json::Value;

use super::fold::{NO_FRAMES, suffix};
use super::printable::printable;
use super::stacks::{Frame, Kind, Profile, Sample, Space};

/// Samples written, the oldest first; a note in the file says how many were left out.
pub const SAMPLES_MAX: usize = 200_000;
/// Threads written, those with the lowest tids.
pub const THREADS_MAX: usize = 4_096;
/// Characters kept of a name.
pub const NAME_CHARS_MAX: usize = 1_000;
/// Notes written as markers.
pub const NOTES_MAX: usize = 100;

/// The file's bytes: JSON. `real_ns_of` turns an instant of `CLOCK_MONOTONIC` into one of the wall
/// clock, both in ns. The same profile always gives the same bytes.
///
/// # Errors
/// Only if the JSON cannot be made.
pub fn encode(
    profile: &Profile,
    real_ns_of: impl Fn(u64) -> u64,
) -> Result<Vec<u8>, serde_json::Error> {
    let begin = Duration::from_nanos(real_ns_of(profile.begin_ns));
    let period_ns = 1_000_000_000 / u64::from(profile.hz.max(1));
    let mut file = fx::Profile::new(
        &printable(&profile.comm, NAME_CHARS_MAX),
        fx::ReferenceTimestamp::from_duration_since_unix_epoch(begin),
        fx::SamplingInterval::from_nanos(period_ns.max(1)),
    );
    file.set_os_name("Linux");
    file.set_symbolicated(true);
    let mut writer = Writer::new(profile, file);
    writer.samples();
    writer.notes();
    let mut json = serde_json::to_value(&writer.file)?;
    if profile.kind != Kind::Cpu {
        in_milliseconds(&mut json);
    }
    serde_json::to_vec(&json)
}

/// Weights are durations there, in fractions of milliseconds, which the library cannot write: it was
/// given microseconds.
fn in_milliseconds(json: &mut Value) {
    let threads = json.get_mut("threads").and_then(Value::as_array_mut);
    for thread in threads.into_iter().flatten() {
        let weights = thread.pointer_mut("/samples/weight").and_then(Value::as_array_mut);
        for weight in weights.into_iter().flatten() {
            *weight = Value::from(weight.as_f64().unwrap_or(0.0) / 1_000.0);
        }
    }
}

struct Writer<'a> {
    profile: &'a Profile,
    file: fx::Profile,
    threads: Vec<fx::ThreadHandle>,
    user: fx::CategoryHandle,
    kernel: fx::CategoryHandle,
    /// Stacks as written, by thread and index.
    stacks: HashMap<(u32, Option<u32>), Option<fx::StackHandle>>,
    left_out: usize,
}

impl<'a> Writer<'a> {
    fn new(profile: &'a Profile, mut file: fx::Profile) -> Self {
        let user = file.add_category("User", fx::CategoryColor::Yellow);
        let kernel = file.add_category("Kernel", fx::CategoryColor::Orange);
        let start = fx::Timestamp::from_nanos_since_reference(0);
        let name = printable(&profile.comm, NAME_CHARS_MAX);
        let process = file.add_process(&name, profile.pid.unsigned_abs(), start);
        let mut threads = Vec::new();
        for thread in profile.threads.iter().take(THREADS_MAX) {
            let tid = thread.tid.unsigned_abs();
            let handle = file.add_thread(process, tid, start, thread.tid == profile.pid);
            file.set_thread_name(handle, &printable(&thread.name, NAME_CHARS_MAX));
            if profile.kind != Kind::Cpu {
                file.set_thread_samples_weight_type(handle, fx::WeightType::TracingMs);
            }
            threads.push(handle);
        }
        let stacks = HashMap::new();
        Self { profile, file, threads, user, kernel, stacks, left_out: 0 }
    }

    fn samples(&mut self) {
        let profile = self.profile;
        // The samples of a thread stand in the order of the instants that they are written with.
        let mut samples: Vec<(u64, &Sample)> =
            profile.samples.iter().map(|sample| (self.shown_at_ns(sample), sample)).collect();
        samples.sort_by_key(|(at_ns, _)| *at_ns);
        for (written, (at_ns, sample)) in samples.into_iter().enumerate() {
            let thread = self.threads.get(sample.thread as usize).copied();
            let Some(thread) = thread.filter(|_| written < SAMPLES_MAX) else {
                self.left_out += 1;
                continue;
            };
            let stack = self.stack(thread, sample);
            let cpu_ns = if sample.on_cpu { sample.weight_ns } else { 0 };
            let weight = match profile.kind {
                Kind::Cpu => super::fold::samples_of(sample, profile.hz),
                Kind::OffCpu | Kind::Wall => sample.weight_ns / 1_000,
            };
            self.file.add_sample(
                thread,
                fx::Timestamp::from_nanos_since_reference(at_ns),
                stack,
                fx::CpuDelta::from_nanos(cpu_ns),
                i32::try_from(weight).unwrap_or(i32::MAX),
            );
        }
    }

    /// When, since the profile's begin, ns. A duration is drawn from its begin on; a wait is known by
    /// its end.
    fn shown_at_ns(&self, sample: &Sample) -> u64 {
        let at_ns = match self.profile.kind {
            Kind::OffCpu => sample.at_ns.saturating_sub(sample.weight_ns),
            Kind::Cpu | Kind::Wall => sample.at_ns,
        };
        at_ns.saturating_sub(self.profile.begin_ns)
    }

    fn stack(&mut self, thread: fx::ThreadHandle, sample: &Sample) -> Option<fx::StackHandle> {
        let key = (sample.thread, sample.stack);
        if let Some(stack) = self.stacks.get(&key) {
            return *stack;
        }
        let profile = self.profile;
        let mut frames: Vec<fx::FrameInfo> =
            profile.frames_of(sample.stack).into_iter().map(|frame| self.frame(frame)).collect();
        if frames.is_empty() {
            frames.push(self.label(NO_FRAMES, fx::CategoryHandle::OTHER));
        }
        let stack = self.file.intern_stack_frames(thread, frames.into_iter());
        self.stacks.insert(key, stack);
        stack
    }

    fn frame(&mut self, frame: &Frame) -> fx::FrameInfo {
        match frame.space {
            Space::Kernel => self.label(&frame.function, self.kernel),
            // A guess must not pass for a fact where nothing else tells them apart.
            Space::User if frame.guessed => {
                self.label(&format!("{}{}", frame.function, suffix(frame)), self.user)
            }
            Space::User => self.label(&frame.function, self.user),
        }
    }

    fn label(&mut self, name: &str, category: fx::CategoryHandle) -> fx::FrameInfo {
        let name = self.file.intern_string(&printable(name, NAME_CHARS_MAX));
        fx::FrameInfo {
            frame: fx::Frame::Label(name),
            category_pair: category.into(),
            flags: fx::FrameFlags::empty(),
        }
    }

    /// What the profile could not see, as markers at its begin.
    fn notes(&mut self) {
        let Some(thread) = self.threads.first().copied() else { return };
        let mut notes: Vec<String> = self.profile.notes.iter().take(NOTES_MAX).cloned().collect();
        if self.left_out > 0 {
            notes.push(format!("{} samples are left out of this file", self.left_out));
        }
        let name = self.file.intern_string("Note");
        for note in notes {
            let text = self.file.intern_string(&printable(&note, NAME_CHARS_MAX));
            let at = fx::MarkerTiming::Instant(fx::Timestamp::from_nanos_since_reference(0));
            self.file.add_marker(thread, at, Note { name, text });
        }
    }
}

/// A sentence as a marker.
#[derive(Debug, Clone)]
struct Note {
    name: fx::StringHandle,
    text: fx::StringHandle,
}

impl fx::StaticSchemaMarker for Note {
    const UNIQUE_MARKER_TYPE_NAME: &'static str = "Note";
    const CHART_LABEL: Option<&'static str> = Some("{marker.data.text}");
    const TABLE_LABEL: Option<&'static str> = Some("{marker.data.text}");
    const FIELDS: &'static [fx::StaticSchemaMarkerField] = &[fx::StaticSchemaMarkerField {
        key: "text",
        label: "Text",
        format: fx::MarkerFieldFormat::String,
        flags: fx::MarkerFieldFlags::SEARCHABLE,
    }];

    fn name(&self, _profile: &mut fx::Profile) -> fx::StringHandle {
        self.name
    }

    fn category(&self, _profile: &mut fx::Profile) -> fx::CategoryHandle {
        fx::CategoryHandle::OTHER
    }

    fn string_field_value(&self, _field_index: u32) -> fx::StringHandle {
        self.text
    }

    fn number_field_value(&self, _field_index: u32) -> f64 {
        0.0
    }
}

#[cfg(test)]
#[path = "firefox_tests.rs"]
mod tests;
