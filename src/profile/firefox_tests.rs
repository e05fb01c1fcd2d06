//! The file's shape against what the Firefox Profiler demands of a processed profile
//! (`RawThread`, `RawSamplesTable`, `RawStackTable`, `FrameTable`, `FuncTable`, `RawMarkerTable` in its
//! `src/types/profile.ts`, version 55 of the format).

use proptest::prelude::*;

use super::super::made::{Plan, any_profile, profile};
use super::*;

fn encoded(profile: &Profile) -> Value {
    let bytes = encode(profile, |mono_ns| mono_ns + 1_700_000_000_000_000_000).expect("encoded");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn column<'a>(table: &'a Value, name: &str) -> &'a [Value] {
    table[name].as_array().unwrap_or_else(|| panic!("no column {name} in {table}"))
}

/// A table's columns, all as long as it says; its length.
fn table(thread: &Value, name: &str, columns: &[&str]) -> usize {
    let table = &thread[name];
    let length =
        table["length"].as_u64().unwrap_or_else(|| panic!("{name} has no length")) as usize;
    for this in columns {
        assert_eq!(column(table, this).len(), length, "{name}.{this}");
    }
    length
}

/// That every number of a column is below `end`; `null` and -1 mean none.
fn below(table: &Value, name: &str, end: usize) {
    for index in column(table, name) {
        let none = index.is_null() || index.as_i64() == Some(-1);
        assert!(none || index.as_u64().expect("an index") < end as u64, "{name}: {index} of {end}");
    }
}

fn check(json: &Value) {
    let meta = &json["meta"];
    for key in
        ["interval", "startTime", "processType", "product", "version", "preprocessedProfileVersion"]
    {
        assert!(!meta[key].is_null(), "meta.{key} is missing");
    }
    assert!(json["libs"].is_array() && meta["markerSchema"].is_array());
    let categories = column(meta, "categories");
    assert!(categories.iter().any(|category| category["color"] == "grey"), "the default category");
    for category in categories {
        assert_eq!(category["subcategories"][0], "Other");
    }
    for thread in column(json, "threads") {
        check_thread(thread, categories.len());
    }
}

fn check_thread(thread: &Value, categories: usize) {
    for key in ["processType", "name", "isMainThread", "pid", "tid", "registerTime", "pausedRanges"]
    {
        assert!(!thread[key].is_null(), "{key} is missing");
    }
    assert!(thread["pid"].is_string(), "pids are strings there");
    let strings = column(thread, "stringArray").len();
    let samples = table(thread, "samples", &["stack", "timeDeltas", "weight", "threadCPUDelta"]);
    let stacks = table(thread, "stackTable", &["prefix", "frame"]);
    let frames = table(
        thread,
        "frameTable",
        &[
            "address",
            "inlineDepth",
            "category",
            "subcategory",
            "func",
            "nativeSymbol",
            "line",
            "column",
            "innerWindowID",
        ],
    );
    let functions = table(
        thread,
        "funcTable",
        &["name", "isJS", "relevantForJS", "resource", "fileName", "lineNumber", "columnNumber"],
    );
    table(thread, "resourceTable", &["lib", "name", "host", "type"]);
    table(thread, "nativeSymbols", &["libIndex", "address", "name", "functionSize"]);
    let markers =
        table(thread, "markers", &["data", "name", "startTime", "endTime", "phase", "category"]);
    below(&thread["samples"], "stack", stacks);
    below(&thread["stackTable"], "frame", frames);
    below(&thread["frameTable"], "func", functions);
    below(&thread["frameTable"], "category", categories);
    below(&thread["funcTable"], "name", strings);
    below(&thread["markers"], "name", strings);
    for (at, prefix) in column(&thread["stackTable"], "prefix").iter().enumerate() {
        assert!(
            prefix.is_null() || prefix.as_u64().expect("an index") < at as u64,
            "{prefix}, {at}"
        );
    }
    for delta in column(&thread["samples"], "timeDeltas") {
        assert!(delta.as_f64().expect("a time") >= 0.0, "time runs backwards");
    }
    assert!(samples > 0 || markers > 0 || stacks == 0);
}

/// Names of a thread's stack, the outermost first, and their categories.
fn names<'a>(json: &'a Value, thread: &'a Value, sample: usize) -> Vec<(&'a str, &'a str)> {
    let mut next = thread["samples"]["stack"][sample].as_u64();
    let mut names = Vec::new();
    while let Some(stack) = next {
        let frame =
            thread["stackTable"]["frame"][stack as usize].as_u64().expect("a frame") as usize;
        let function = thread["frameTable"]["func"][frame].as_u64().expect("a function") as usize;
        let name = thread["funcTable"]["name"][function].as_u64().expect("a name") as usize;
        let category = thread["frameTable"]["category"][frame].as_u64().expect("one") as usize;
        let category = json["meta"]["categories"][category]["name"].as_str().expect("its name");
        names.push((thread["stringArray"][name].as_str().expect("text"), category));
        next = thread["stackTable"]["prefix"][stack as usize].as_u64();
    }
    names.reverse();
    names
}

#[test]
fn a_thread_has_its_stacks_in_time_with_the_time_that_they_stand_for() {
    for (kind, weights, kind_of_weight, cpu_us, deltas) in [
        (Kind::Cpu, [1.0, 2.0], "samples", [10_000, 20_000], [10.0, 20.0]),
        (Kind::Wall, [10.0, 20.0005], "tracing-ms", [0, 0], [10.0, 20.0]),
        // A wait is known by its end and drawn from its begin.
        (Kind::OffCpu, [10.0, 20.0005], "tracing-ms", [0, 0], [0.0, 9.9995]),
    ] {
        let mut profile = profile(&Plan {
            kind,
            samples: &[
                ("main", &["run", "poll"], 10_000_000),
                ("worker", &[], 5_000_000),
                ("main", &["run"], 20_000_500),
            ],
        });
        profile.frames[1].space = Space::Kernel;
        profile.threads[0].tid = 1;
        let json = encoded(&profile);
        check(&json);
        assert_eq!(json["meta"]["startTime"], 1_700_000_005_000.0);
        let main = &json["threads"][0];
        // The main thread goes by the name of the process there.
        assert_eq!(main["name"], "server");
        assert_eq!((&main["isMainThread"], &main["pid"]), (&true.into(), &"1".into()));
        assert_eq!(json["threads"][1]["name"], "worker");
        assert_eq!(names(&json, main, 0), [("run", "User"), ("poll", "Kernel")]);
        assert_eq!(names(&json, main, 1), [("run", "User")]);
        assert_eq!(names(&json, &json["threads"][1], 0), [("(no frames)", "Other")]);
        let samples = &main["samples"];
        assert_eq!(samples["weightType"], kind_of_weight);
        let number = |value: &Value| value.as_f64().expect("a number");
        let found: Vec<f64> = column(samples, "weight").iter().map(number).collect();
        // Whole microseconds are kept.
        for (found, weight) in found.iter().zip(weights) {
            assert!((found - weight).abs() < 0.001, "{kind:?}: {found} for {weight}");
        }
        assert_eq!(column(samples, "threadCPUDelta"), cpu_us);
        let found: Vec<f64> = column(samples, "timeDeltas").iter().map(number).collect();
        assert_eq!(found, deltas, "{kind:?}");
        assert_eq!(
            main["markers"]["data"][0]["text"].as_u64().map(|id| &main["stringArray"][id as usize]),
            Some(&"a note".into())
        );
    }
}

#[test]
fn names_are_made_harmless_and_guesses_are_marked() {
    let mut profile = profile(&Plan { kind: Kind::Cpu, samples: &[("main\n", &["f\x1b[2J"], 1)] });
    profile.frames[0].guessed = true;
    profile.pid = 9;
    let json = encoded(&profile);
    assert_eq!(names(&json, &json["threads"][0], 0), [("f\\x1b[2J_[?]", "User")]);
    assert_eq!(json["threads"][0]["name"], "main\\n");
}

#[test]
fn what_is_left_out_is_said() {
    let mut profile = profile(&Plan { kind: Kind::Cpu, samples: &[("main", &["run"], 1)] });
    profile.notes.clear();
    profile.samples = vec![profile.samples[0]; SAMPLES_MAX + 3];
    let json = encoded(&profile);
    let main = &json["threads"][0];
    assert_eq!(main["samples"]["length"], SAMPLES_MAX);
    let text = main["markers"]["data"][0]["text"].as_u64().expect("a string") as usize;
    assert_eq!(main["stringArray"][text], "3 samples are left out of this file");
}

proptest! {
    #[test]
    fn any_profile_has_the_shape(profile in any_profile()) {
        let json = encoded(&profile);
        check(&json);
        prop_assert_eq!(encoded(&profile), json);
    }
}
