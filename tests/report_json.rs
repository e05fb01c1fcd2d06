//! The report as data, against its schema: what it says is described, and the description refuses
//! what is not said.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests read their data, and fail by panicking"
)]

mod report_fixture;

use std::path::Path;
use std::sync::Arc;

use jsonschema::Validator;
use report_fixture as fixture;
use serde_json::{Value as Json, json};
use stallscope::profile::stacks::{Kind, Maker, Space, StackFrame, ThreadStack, ThreadStacks};
use stallscope::report;
use stallscope::watch::event::{Event, Incident};
use stallscope::watch::replay;
use stallscope_probes::{Reading, Why};

fn schema(name: &str) -> Json {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn validator() -> Validator {
    jsonschema::draft202012::new(&schema("report.schema.json")).unwrap()
}

fn document(incident: &Incident) -> Json {
    serde_json::from_slice(&report::json(incident)).unwrap()
}

fn faults(validator: &Validator, document: &Json) -> Vec<String> {
    let fault =
        |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
    validator.iter_errors(document).map(fault).collect()
}

/// A stalled run with everything in it: stacks, two kinds of profile, a loss.
fn whole() -> Incident {
    let mut incident = fixture::sq_not_flushed();
    let of_watcher: Vec<_> = incident
        .profiles
        .iter()
        .cloned()
        .map(|mut window| {
            (window.kind, window.maker) = (Kind::OffCpu, Maker::Watcher);
            window.notes = vec![String::from("the kernel's frames were not permitted")];
            window
        })
        .collect();
    incident.profiles.extend(of_watcher);
    incident.stacks = [2, 13, 20].map(|s| look(fixture::BEGIN_NS + s * fixture::S)).to_vec();
    incident.losses = vec![String::from("a frame was damaged")];
    incident
}

fn look(at_ns: u64) -> ThreadStacks {
    let frame = |function: &str, space| StackFrame {
        function: function.to_owned(),
        module: Some(String::from("/usr/local/bin/stallscope")),
        place: None,
        space,
        inlined: false,
        guessed: false,
    };
    ThreadStacks {
        at_ns,
        threads: vec![ThreadStack {
            tid: 4242,
            name: String::from("tokio-uring"),
            state: 'S',
            syscall: Some(String::from("futex(0x7f, FUTEX_WAIT_PRIVATE)")),
            waited_ms: None,
            frames: vec![frame("futex_wait", Space::Kernel), frame("park", Space::User)],
            how: String::from("by frame pointers, to the end"),
        }],
        notes: vec![String::from("thread 4243 went away")],
    }
}

#[test]
fn each_schema_is_one_is_closed_and_describes_every_field() {
    for name in ["report.schema.json", "compare.schema.json"] {
        let schema = schema(name);
        assert!(jsonschema::draft202012::meta::is_valid(&schema), "{name}");
        let mut faults = Vec::new();
        walk(&schema, name, &mut faults);
        assert!(faults.is_empty(), "{faults:#?}");
    }
}

/// Every object is closed, and each of its fields is described.
fn walk(node: &Json, path: &str, faults: &mut Vec<String>) {
    if let Some(fields) = node.get("properties").and_then(Json::as_object) {
        if node.get("additionalProperties") != Some(&json!(false)) {
            faults.push(format!("{path} is open"));
        }
        for (name, field) in fields {
            let described = field.get("description").is_some_and(Json::is_string);
            if !described {
                faults.push(format!("{path}/{name} is not described"));
            }
        }
    }
    match node {
        Json::Object(fields) => {
            fields.iter().for_each(|(name, field)| walk(field, &format!("{path}/{name}"), faults));
        }
        Json::Array(items) => items.iter().for_each(|item| walk(item, path, faults)),
        _ => {}
    }
}

#[test]
fn every_case_is_as_the_schema_says() {
    let validator = validator();
    for (name, incident) in fixture::all().into_iter().chain([("whole", whole())]) {
        assert_eq!(faults(&validator, &document(&incident)), [""; 0], "{name}");
    }
}

/// What was really sampled: every window of the lab, as the pipe judges it.
#[test]
fn every_window_of_a_real_run_is_as_the_schema_says() {
    let validator = validator();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/windows");
    let mut windows = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "gz") {
            continue;
        }
        let file = std::fs::File::open(&path).unwrap();
        let incident = replay::read(flate2::read::GzDecoder::new(file)).unwrap();
        assert_eq!(faults(&validator, &document(&incident)), [""; 0], "{}", path.display());
        windows += 1;
    }
    assert!(windows >= 50, "the windows were not found: {windows}");
}

/// All readings gone, one thread in an unknown state: the shapes that the fixtures lack.
#[test]
fn what_was_not_read_is_as_the_schema_says_and_says_why() {
    let mut incident = fixture::fd_exhausted_recovered();
    for model in incident.models.iter_mut().map(Arc::make_mut) {
        let why = "permission denied";
        model.process = Reading::absent(Why::NotPermitted, why);
        model.threads = Reading::absent(Why::NotPermitted, why);
        model.fds = Reading::absent(Why::NotPermitted, why);
        model.listeners = Reading::absent(Why::NotPermitted, why);
        model.app = Reading::absent(Why::NotPermitted, why);
        model.watcher.cpu_ratio = Reading::absent(Why::NoPrevious, "");
        model.watcher.rss_bytes = None;
    }
    incident.events.retain(|event| !matches!(event, Event::Verdict(_)));
    let document = document(&incident);
    assert_eq!(faults(&validator(), &document), [""; 0]);
    let denied = json!({ "why": "not_permitted", "detail": "permission denied" });
    let requests = &document["figures"][0];
    assert_eq!(requests["id"], "requests_per_s");
    assert_eq!(requests["stalled"]["spread"], json!({ "absent": denied }));
    assert_eq!(requests["stalled"]["ticks_without"], 123);
    assert!(document["verdict"]["absent"]["detail"].is_string(), "{}", document["verdict"]);
    assert_eq!(document["watcher"]["rss_bytes_max"]["absent"]["why"], "not_sampled");
}

/// What is done to a good document, and how.
type Damage = (&'static str, fn(&mut Json));

#[test]
fn the_schema_bites() {
    let validator = validator();
    let good = document(&whole());
    let damages: [Damage; 14] = [
        ("a field is gone", |d| drop(d.as_object_mut().unwrap().remove("figures"))),
        ("a field is unknown", |d| d["more"] = json!(1)),
        ("a number is a word", |d| d["run"]["ticks"] = json!("many")),
        ("another schema", |d| d["schema_version"] = json!(2)),
        ("an unknown cause", |d| d["verdict"]["got"]["cause"] = json!("bad-luck")),
        ("zero for what is absent", |d| d["episodes"]["list"][0]["recovered"] = json!(0)),
        ("null for what is absent", |d| d["episodes"]["list"][0]["recovered"] = json!(null)),
        ("absent without a reason", |d| {
            d["episodes"]["list"][0]["recovered"] = json!({ "absent": {} });
        }),
        ("both there and not", |d| {
            d["figures"][0]["healthy"]["spread"]["absent"] = json!({ "why": "gone", "detail": "" });
        }),
        ("an unknown field deep down", |d| d["ticks"][0]["model"]["mood"] = json!("good")),
        ("a field is gone deep down", |d| {
            let spread = d["figures"][0]["healthy"]["spread"]["got"].as_object_mut().unwrap();
            spread.remove("median");
        }),
        ("a wrong type in a thread", |d| {
            d["ticks"][0]["model"]["threads"]["got"][0]["tid"] = json!("4242");
        }),
        ("a point without a time", |d| {
            d["series"][0]["lines"]["got"][0]["points"][0] = json!([null, 1]);
        }),
        ("a frame of no space", |d| {
            d["stacks"][0]["threads"][0]["frames"][0]["space"] = json!("outer");
        }),
    ];
    assert_eq!(faults(&validator, &good), [""; 0]);
    for (what, damage) in damages {
        let mut bad = good.clone();
        damage(&mut bad);
        assert_ne!(bad, good, "{what}: nothing was changed");
        assert!(!validator.is_valid(&bad), "{what}: it was let pass");
    }
}

#[test]
fn it_states_what_the_page_states() {
    let document = document(&whole());
    assert_eq!(document["verdict"]["got"]["cause"], "sq-not-flushed");
    let main = &document["episodes"]["list"][0];
    assert_eq!((&main["is_main"], &main["stalled_ms"]["got"]), (&json!(true), &json!(13_746.0)));
    assert_eq!(main["verdict"]["got"]["confidence"], "certain");
    let events: Vec<&str> = document["events"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(events, ["note", "onset", "verdict", "verdict"]);
    let profiles: Vec<String> = document["profiles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{} {} {}", one["kind"], one["maker"], one["phase"]).replace('"', ""))
        .collect();
    assert_eq!(
        profiles,
        [
            "cpu itself healthy",
            "cpu itself stalled",
            "off-cpu watcher healthy",
            "off-cpu watcher stalled"
        ]
    );
    let looks: Vec<&Json> =
        document["stacks"].as_array().unwrap().iter().map(|look| &look["of"]).collect();
    assert_eq!(looks, ["before", "stalled", "stalled-last"]);
    let queue = document["figures"].as_array().unwrap();
    let queue = queue.iter().find(|figure| figure["id"] == "accept_queue").unwrap();
    assert_eq!(queue["healthy"]["spread"]["got"]["median"], 1.0);
    assert_eq!(queue["stalled"]["spread"]["got"]["max"], 1_025.0);
    assert_eq!(document["rings"][0]["unsubmitted"], 64);
}

/// It is one line, and no text in it commands a terminal; decoded it is what it was.
#[test]
fn hostile_text_is_escaped_and_kept() {
    let hostile = "\u{1b}[2J\u{9b}31m\u{202e}\n\"</script>";
    let mut incident = whole();
    hostile.clone_into(&mut incident.target.comm);
    hostile.clone_into(&mut incident.stacks[0].threads[0].name);
    let bytes = report::json(&incident);
    let text = std::str::from_utf8(&bytes).unwrap();
    assert_eq!(text.matches('\n').count(), 1);
    let commands = |char: char| char.is_control() || char == '\u{202e}';
    assert!(!text.trim_end().contains(commands));
    let document: Json = serde_json::from_str(text).unwrap();
    assert_eq!(document["target"]["comm"], hostile);
    assert_eq!(document["stacks"][0]["threads"][0]["name"], hostile);
    assert_eq!(faults(&validator(), &document), [""; 0]);
}

#[test]
fn an_hour_of_ticks_stays_below_four_megabytes() {
    let ticks = 3_600 * 1_000 / fixture::INTERVAL_MS;
    let models = (0..ticks)
        .map(|seq| {
            let mut state = fixture::State::busy(seq);
            state.requests_per_s = ((seq * 7_919) % 10_007) as f64 * 1.37;
            state.open_fds = (seq * 31) % 1_024;
            fixture::model(seq, &state)
        })
        .collect();
    let mut incident = fixture::quiet(models);
    incident.profiles = fixture::sq_not_flushed().profiles;
    let size = report::json(&incident).len();
    assert!(size < 4_000_000, "{size} bytes");
}
