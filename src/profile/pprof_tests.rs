//! What was encoded is decoded again: sums, names, places and references.

use std::collections::BTreeSet;
use std::io::Read as _;

use flate2::read::GzDecoder;
use proptest::prelude::*;

use super::super::made::{Plan, any_profile, profile};
use super::super::stacks::Module;
use super::*;

fn decode(bytes: &[u8]) -> proto::Profile {
    let mut raw = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut raw).expect("gzip");
    proto::Profile::decode(&raw[..]).expect("a protocol buffer")
}

fn encoded(profile: &Profile) -> proto::Profile {
    decode(&encode(profile, |mono_ns| mono_ns + 1_700_000_000_000_000_000).expect("encoded"))
}

impl proto::Profile {
    fn text(&self, id: i64) -> &str {
        &self.string_table[id as usize]
    }

    /// Names of the functions of a sample, the innermost first; the lines of one place in brackets.
    fn names(&self, sample: &proto::Sample) -> Vec<Vec<&str>> {
        let name =
            |line: &proto::Line| self.text(self.function[line.function_id as usize - 1].name);
        let location = |id: &u64| &self.location[*id as usize - 1];
        let places = sample.location_id.iter().map(location);
        places.map(|place| place.line.iter().map(name).collect()).collect()
    }
}

#[test]
fn samples_are_summed_by_stack_and_thread_under_the_names_of_their_kind() {
    let cases = [
        (Kind::Cpu, [("samples", "count"), ("cpu", "nanoseconds")], 10_101_010),
        (Kind::OffCpu, [("waits", "count"), ("offcpu", "nanoseconds")], 1),
        (Kind::Wall, [("samples", "count"), ("wall", "nanoseconds")], 10_101_010),
    ];
    for (kind, types, period) in cases {
        let read = encoded(&profile(&Plan {
            kind,
            samples: &[
                ("main", &["run", "poll"], 10_000_000),
                ("main", &["run", "poll"], 10_000_001),
                ("worker", &["run", "poll"], 9_000_000),
                ("worker", &[], 1),
            ],
        }));
        let found: Vec<(&str, &str)> =
            read.sample_type.iter().map(|t| (read.text(t.r#type), read.text(t.unit))).collect();
        assert_eq!(found, types);
        let period_type = read.period_type.expect("a period");
        assert_eq!((read.text(period_type.r#type), read.period), (types[1].0, period));
        assert_eq!(read.text(read.default_sample_type), types[1].0);
        assert_eq!(read.time_nanos, 1_700_000_005_000_000_000);
        assert_eq!(read.duration_nanos, 1_000_000_000);
        let values: Vec<&[i64]> = read.sample.iter().map(|sample| &sample.value[..]).collect();
        assert_eq!(values, [&[2, 20_000_001], &[1, 9_000_000], &[1, 1]]);
        assert_eq!(read.names(&read.sample[0]), [["poll"], ["run"]]);
        assert_eq!(read.names(&read.sample[2]), [["(no frames)"]]);
        let labels: Vec<(&str, &str, i64)> = read.sample[1]
            .label
            .iter()
            .map(|label| (read.text(label.key), read.text(label.str), label.num))
            .collect();
        assert_eq!(labels, [("thread", "worker", 0), ("tid", "", 2)]);
        let comments: Vec<&str> = read.comment.iter().map(|id| read.text(*id)).collect();
        assert_eq!(comments, ["made by the watcher, from outside", "a note"]);
    }
}

#[test]
fn what_was_inlined_shares_the_place_of_its_caller() {
    let mut profile = profile(&Plan {
        kind: Kind::Cpu,
        samples: &[("main", &["run", "poll", "next", "get"], 1)],
    });
    profile.frames[1].address = 0x1234;
    for (frame, line) in profile.frames[2..].iter_mut().zip([11, 12]) {
        (frame.address, frame.inlined, frame.line) = (0x1234, true, Some(line));
    }
    profile.frames[0].guessed = true;
    profile.modules.push(Module { path: String::from("[kernel]"), build_id: None });
    let read = encoded(&profile);
    assert_eq!(read.names(&read.sample[0]), [vec!["get", "next", "poll"], vec!["run_[?]"]]);
    let place = &read.location[read.sample[0].location_id[0] as usize - 1];
    let lines: Vec<i64> = place.line.iter().map(|line| line.line).collect();
    assert_eq!((place.address, place.mapping_id, lines), (0x1234, 1, vec![12, 11, 7]));
    let [server, kernel] = &read.mapping[..] else { panic!("{:?}", read.mapping) };
    assert_eq!((server.memory_start, server.memory_limit), (0, 0x2000));
    assert_eq!(
        (read.text(server.filename), read.text(server.build_id)),
        ("/usr/bin/server", "c0ffee")
    );
    assert_eq!((read.text(kernel.filename), read.text(kernel.build_id)), ("[kernel]", ""));
}

#[test]
fn the_lightest_stacks_beyond_the_bound_are_summed() {
    let mut profile = profile(&Plan { kind: Kind::Wall, samples: &[("main", &["run"], 1)] });
    let sample = profile.samples[0];
    // Threads that nobody knows are told apart all the same.
    profile.samples = (0..SAMPLES_MAX as u32 + 2)
        .map(|thread| super::super::stacks::Sample {
            thread,
            weight_ns: 1_000_000 - u64::from(thread),
            ..sample
        })
        .collect();
    let read = encoded(&profile);
    assert_eq!(read.sample.len(), SAMPLES_MAX + 1);
    let last = &read.sample[SAMPLES_MAX];
    assert_eq!(read.names(last), [["(other stacks)"]]);
    assert_eq!(last.value, [2, 900_000 + 899_999]);
}

#[test]
fn names_are_made_harmless() {
    let read = encoded(&profile(&Plan { kind: Kind::Cpu, samples: &[("a\n", &["f\x1b[2J"], 1)] }));
    assert_eq!(read.names(&read.sample[0]), [["f\\x1b[2J"]]);
    assert!(read.string_table.contains(&String::from("a\\n")));
}

proptest! {
    #[test]
    fn every_reference_leads_somewhere_and_nothing_is_lost(profile in any_profile()) {
        let read = encoded(&profile);
        let weight: i64 = profile.samples.iter().map(|sample| sample.weight_ns as i64).sum();
        prop_assert_eq!(read.sample.iter().map(|sample| sample.value[1]).sum::<i64>(), weight);
        prop_assert_eq!(&read.string_table[0], "");
        let strings: BTreeSet<&String> = read.string_table.iter().collect();
        prop_assert_eq!(strings.len(), read.string_table.len());
        for (at, location) in read.location.iter().enumerate() {
            prop_assert_eq!(location.id, at as u64 + 1);
            prop_assert!(location.mapping_id as usize <= read.mapping.len());
            prop_assert!(!location.line.is_empty());
            for line in &location.line {
                prop_assert!((1..=read.function.len() as u64).contains(&line.function_id));
            }
        }
        for function in &read.function {
            prop_assert!((function.name as usize) < strings.len() && (function.filename as usize) < strings.len());
        }
        for sample in &read.sample {
            prop_assert!(!sample.location_id.is_empty());
            for id in &sample.location_id {
                prop_assert!((1..=read.location.len() as u64).contains(id));
            }
        }
    }
}
