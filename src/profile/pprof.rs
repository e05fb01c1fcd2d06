//! A [`Profile`] as pprof's file: a gzipped protocol buffer, for `go tool pprof` and all that read
//! it.
//!
//! The messages are those of `profile.proto` (<https://github.com/google/pprof/blob/main/proto/profile.proto>),
//! written by hand: its fields are frozen, and no compiler of protocol buffers is needed to build.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use super::fold::{NO_FRAMES, samples_of, suffix};
use super::folded::OTHER_STACKS;
use super::printable::printable;
use super::stacks::{Frame, Kind, Maker, Profile, Space};

/// Pairs of stack and thread written each by itself; the samples of the lighter ones are summed
/// under one stack.
pub const SAMPLES_MAX: usize = 100_000;
/// Characters kept of a name or path.
pub const NAME_CHARS_MAX: usize = 1_000;
/// Comments kept.
pub const NOTES_MAX: usize = 100;

/// The file's bytes, gzipped. `real_ns_of` turns an instant of `CLOCK_MONOTONIC` into one of the
/// wall clock, both in ns. The same profile always gives the same bytes.
///
/// # Errors
/// Only if the compression fails.
pub fn encode(profile: &Profile, real_ns_of: impl Fn(u64) -> u64) -> io::Result<Vec<u8>> {
    let message = message(profile, real_ns_of(profile.begin_ns));
    // The header of the archive carries no time: the bytes follow from the profile alone.
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&message.encode_to_vec())?;
    gzip.finish()
}

/// What a kind's samples carry: names and units of both values, the first of which is the weight.
const fn values_of(kind: Kind) -> [(&'static str, &'static str); 2] {
    match kind {
        Kind::Cpu => [("cpu", "nanoseconds"), ("samples", "count")],
        Kind::OffCpu => [("offcpu", "nanoseconds"), ("waits", "count")],
        Kind::Wall => [("wall", "nanoseconds"), ("samples", "count")],
    }
}

fn message(profile: &Profile, begin_real_ns: u64) -> proto::Profile {
    let mut tables = Tables::of(profile);
    let [weight, count] = values_of(profile.kind).map(|(name, unit)| proto::ValueType {
        r#type: tables.string(name),
        unit: tables.string(unit),
    });
    let sample = tables.samples();
    let period = match profile.kind {
        // Every wait counts with its own length.
        Kind::OffCpu => 1,
        Kind::Cpu | Kind::Wall => 1_000_000_000 / i64::from(profile.hz.max(1)),
    };
    let made = match profile.maker {
        Maker::Itself => "made by the process itself",
        Maker::Watcher => "made by the watcher, from outside",
    };
    let notes = std::iter::once(made).chain(profile.notes.iter().map(String::as_str));
    let comment = notes.take(NOTES_MAX).map(|note| tables.string(note)).collect();
    // What `go tool pprof` shows if it is not told is the last type, unless one is named.
    let sample_type = vec![count, weight];
    proto::Profile {
        sample_type,
        sample,
        mapping: tables.mappings(),
        location: tables.locations,
        function: tables.functions,
        string_table: tables.strings,
        time_nanos: signed(begin_real_ns),
        duration_nanos: signed(profile.length_ns()),
        period_type: Some(weight),
        period,
        comment,
        default_sample_type: weight.r#type,
    }
}

/// A number that the format keeps signed.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The tables of the format as they fill. Ids begin with 1, strings with the empty one.
struct Tables<'a> {
    profile: &'a Profile,
    strings: Vec<String>,
    string_ids: HashMap<String, i64>,
    functions: Vec<proto::Function>,
    function_ids: HashMap<(i64, i64), u64>,
    locations: Vec<proto::Location>,
    /// By the frames of a location: a function and what was inlined into it, by index.
    location_ids: HashMap<Vec<u32>, u64>,
    /// The highest address seen in each module.
    highest: Vec<u64>,
}

impl<'a> Tables<'a> {
    fn of(profile: &'a Profile) -> Self {
        Self {
            profile,
            strings: vec![String::new()],
            string_ids: HashMap::from([(String::new(), 0)]),
            functions: Vec::new(),
            function_ids: HashMap::new(),
            locations: Vec::new(),
            location_ids: HashMap::new(),
            highest: vec![0; profile.modules.len()],
        }
    }

    fn string(&mut self, text: &str) -> i64 {
        let text = printable(text, NAME_CHARS_MAX);
        if let Some(id) = self.string_ids.get(&text) {
            return *id;
        }
        let id = self.strings.len() as i64;
        self.strings.push(text.clone());
        self.string_ids.insert(text, id);
        id
    }

    /// The samples, those of one stack and thread as one, the heaviest first.
    fn samples(&mut self) -> Vec<proto::Sample> {
        let profile = self.profile;
        let mut sums: BTreeMap<(Option<u32>, u32), [u64; 2]> = BTreeMap::new();
        for sample in &profile.samples {
            let count = match profile.kind {
                Kind::Cpu => samples_of(sample, profile.hz),
                Kind::OffCpu | Kind::Wall => 1,
            };
            let sum = sums.entry((sample.stack, sample.thread)).or_default();
            *sum = [sum[0].saturating_add(count), sum[1].saturating_add(sample.weight_ns)];
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by(|a, b| b.1[1].cmp(&a.1[1]).then(a.0.cmp(&b.0)));
        let rest = sums.split_off(sums.len().min(SAMPLES_MAX));
        let mut samples: Vec<proto::Sample> = sums
            .into_iter()
            .map(|((stack, thread), sum)| {
                let location_id = self.stack(stack);
                let label = self.labels(thread);
                proto::Sample { location_id, value: sum.map(signed).into(), label }
            })
            .collect();
        if !rest.is_empty() {
            let sum = rest.iter().fold([0_u64; 2], |sum, (_, more)| {
                [sum[0].saturating_add(more[0]), sum[1].saturating_add(more[1])]
            });
            let location_id = vec![self.words(OTHER_STACKS)];
            let value = sum.map(signed).into();
            samples.push(proto::Sample { location_id, value, label: Vec::new() });
        }
        samples
    }

    fn labels(&mut self, thread: u32) -> Vec<proto::Label> {
        let Some(thread) = self.profile.threads.get(thread as usize) else { return Vec::new() };
        vec![
            proto::Label {
                key: self.string("thread"),
                str: self.string(&thread.name),
                ..Default::default()
            },
            proto::Label {
                key: self.string("tid"),
                num: i64::from(thread.tid),
                ..Default::default()
            },
        ]
    }

    /// Ids of the locations of a stack, the innermost first.
    fn stack(&mut self, stack: Option<u32>) -> Vec<u64> {
        let profile = self.profile;
        let mut groups: Vec<Vec<u32>> = Vec::new();
        for index in indices_of(profile, stack) {
            let Some(frame) = profile.frames.get(index as usize) else { continue };
            // What was inlined into a function shares its place in the code.
            match groups.last_mut() {
                Some(group) if frame.inlined => group.push(index),
                _ => groups.push(vec![index]),
            }
        }
        if groups.is_empty() {
            return vec![self.words(NO_FRAMES)];
        }
        groups.into_iter().rev().map(|group| self.location(group)).collect()
    }

    /// The id of the place that `frames` share, the outermost first.
    fn location(&mut self, frames: Vec<u32>) -> u64 {
        if let Some(id) = self.location_ids.get(&frames) {
            return *id;
        }
        let profile = self.profile;
        let of = |index: &u32| profile.frames.get(*index as usize);
        // The innermost knows best where in the code it is.
        let Some(innermost) = frames.last().and_then(of) else { return self.words(NO_FRAMES) };
        let module =
            innermost.module.map(|module| module as usize).filter(|at| *at < self.highest.len());
        if let Some(module) = module {
            self.highest[module] = self.highest[module].max(innermost.address);
        }
        // The format has the innermost first.
        let line = frames.iter().rev().filter_map(of).map(|frame| self.line(frame)).collect();
        let id = self.locations.len() as u64 + 1;
        self.locations.push(proto::Location {
            id,
            mapping_id: module.map_or(0, |module| module as u64 + 1),
            address: innermost.address,
            line,
        });
        self.location_ids.insert(frames, id);
        id
    }

    fn line(&mut self, frame: &Frame) -> proto::Line {
        // A guess must not pass for a fact where nothing else tells them apart.
        let name = match frame.space {
            Space::User if frame.guessed => format!("{}{}", frame.function, suffix(frame)),
            _ => frame.function.clone(),
        };
        let function_id = self.function(&name, frame.file.as_deref().unwrap_or_default());
        proto::Line { function_id, line: i64::from(frame.line.unwrap_or(0)) }
    }

    fn function(&mut self, name: &str, file: &str) -> u64 {
        let (name, filename) = (self.string(name), self.string(file));
        let next = self.functions.len() as u64 + 1;
        let id = *self.function_ids.entry((name, filename)).or_insert(next);
        if id == next {
            self.functions.push(proto::Function { id, name, system_name: name, filename });
        }
        id
    }

    /// The location of words that stand for a stack.
    fn words(&mut self, words: &str) -> u64 {
        if let Some(id) = self.location_ids.get(&Vec::new()).filter(|_| words == NO_FRAMES) {
            return *id;
        }
        let function_id = self.function(words, "");
        let id = self.locations.len() as u64 + 1;
        let line = vec![proto::Line { function_id, line: 0 }];
        self.locations.push(proto::Location { id, mapping_id: 0, address: 0, line });
        if words == NO_FRAMES {
            self.location_ids.insert(Vec::new(), id);
        }
        id
    }

    /// Addresses are those of the files, as symbols have them: each file lies at 0.
    fn mappings(&mut self) -> Vec<proto::Mapping> {
        const PAGE_BYTES: u64 = 4096;
        let modules = self.profile.modules.iter().zip(self.highest.clone()).enumerate();
        modules
            .map(|(at, (module, highest))| proto::Mapping {
                id: at as u64 + 1,
                memory_limit: highest
                    .checked_add(1)
                    .and_then(|end| end.checked_next_multiple_of(PAGE_BYTES))
                    .unwrap_or(u64::MAX),
                filename: self.string(&module.path),
                build_id: self.string(module.build_id.as_deref().unwrap_or_default()),
                // All names are here: nobody need look for the files.
                has_functions: true,
                has_filenames: true,
                has_line_numbers: true,
                has_inline_frames: true,
                ..Default::default()
            })
            .collect()
    }
}

/// Indices of the frames of a stack, the outermost first.
fn indices_of(profile: &Profile, stack: Option<u32>) -> Vec<u32> {
    let mut indices = Vec::new();
    let mut next = stack;
    while let Some(stack) = next.and_then(|index| profile.stacks.get(index as usize)) {
        indices.push(stack.frame);
        next = stack.parent.filter(|parent| Some(*parent) < next);
    }
    indices.reverse();
    indices
}

/// The messages of `profile.proto` (Google LLC, Apache-2.0), as far as they are written here, with its
/// names and numbers.
mod proto {
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub struct Profile {
        #[prost(message, repeated, tag = "1")]
        pub sample_type: Vec<ValueType>,
        #[prost(message, repeated, tag = "2")]
        pub sample: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub mapping: Vec<Mapping>,
        #[prost(message, repeated, tag = "4")]
        pub location: Vec<Location>,
        #[prost(message, repeated, tag = "5")]
        pub function: Vec<Function>,
        #[prost(string, repeated, tag = "6")]
        pub string_table: Vec<String>,
        #[prost(int64, tag = "9")]
        pub time_nanos: i64,
        #[prost(int64, tag = "10")]
        pub duration_nanos: i64,
        #[prost(message, optional, tag = "11")]
        pub period_type: Option<ValueType>,
        #[prost(int64, tag = "12")]
        pub period: i64,
        #[prost(int64, repeated, tag = "13")]
        pub comment: Vec<i64>,
        #[prost(int64, tag = "14")]
        pub default_sample_type: i64,
    }

    #[derive(Clone, Copy, PartialEq, Message)]
    pub struct ValueType {
        #[prost(int64, tag = "1")]
        pub r#type: i64,
        #[prost(int64, tag = "2")]
        pub unit: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Sample {
        /// The innermost first.
        #[prost(uint64, repeated, tag = "1")]
        pub location_id: Vec<u64>,
        #[prost(int64, repeated, tag = "2")]
        pub value: Vec<i64>,
        #[prost(message, repeated, tag = "3")]
        pub label: Vec<Label>,
    }

    #[derive(Clone, Copy, PartialEq, Message)]
    pub struct Label {
        #[prost(int64, tag = "1")]
        pub key: i64,
        #[prost(int64, tag = "2")]
        pub str: i64,
        #[prost(int64, tag = "3")]
        pub num: i64,
    }

    #[expect(clippy::struct_excessive_bools, reason = "as the format has them")]
    #[derive(Clone, Copy, PartialEq, Message)]
    pub struct Mapping {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(uint64, tag = "2")]
        pub memory_start: u64,
        #[prost(uint64, tag = "3")]
        pub memory_limit: u64,
        #[prost(uint64, tag = "4")]
        pub file_offset: u64,
        #[prost(int64, tag = "5")]
        pub filename: i64,
        #[prost(int64, tag = "6")]
        pub build_id: i64,
        #[prost(bool, tag = "7")]
        pub has_functions: bool,
        #[prost(bool, tag = "8")]
        pub has_filenames: bool,
        #[prost(bool, tag = "9")]
        pub has_line_numbers: bool,
        #[prost(bool, tag = "10")]
        pub has_inline_frames: bool,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Location {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(uint64, tag = "2")]
        pub mapping_id: u64,
        #[prost(uint64, tag = "3")]
        pub address: u64,
        #[prost(message, repeated, tag = "4")]
        pub line: Vec<Line>,
    }

    #[derive(Clone, Copy, PartialEq, Message)]
    pub struct Line {
        #[prost(uint64, tag = "1")]
        pub function_id: u64,
        #[prost(int64, tag = "2")]
        pub line: i64,
    }

    #[derive(Clone, Copy, PartialEq, Message)]
    pub struct Function {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(int64, tag = "2")]
        pub name: i64,
        #[prost(int64, tag = "3")]
        pub system_name: i64,
        #[prost(int64, tag = "4")]
        pub filename: i64,
    }
}

#[cfg(test)]
#[path = "pprof_tests.rs"]
mod tests;
