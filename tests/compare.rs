//! Two runs side by side: what is said, what is left unsaid, and that nothing hostile gets through.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests read their data, and fail by panicking"
)]

mod report_fixture;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use report_fixture as fixture;
use report_fixture::State;
use scraper::{Html, Selector};
use serde_json::{Value as Json, json};
use stallscope::report::compare::{self, Labels};
use stallscope::watch::event::Incident;
use stallscope_probes::{Reading, Why};

fn labels(a: &str, b: &str) -> Labels {
    Labels { a: a.to_owned(), b: b.to_owned() }
}

fn data(a: &Incident, b: &Incident) -> Json {
    serde_json::from_slice(&compare::json(a, b, &labels("old", "new"))).unwrap()
}

fn page(a: &Incident, b: &Incident) -> String {
    String::from_utf8(compare::html(a, b, &labels("old", "new"))).unwrap()
}

fn summary(a: &Incident, b: &Incident) -> String {
    compare::summary(a, b, &labels("old", "new"))
}

/// A healthy run of so many requests a second, each at this price.
fn calm(requests_per_s: f64, cpu_ms: f64) -> Incident {
    let models = (0..200)
        .map(|seq| {
            let mut state = State::busy(seq);
            let wobble = 0.97 + ((seq * 7_919) % 7) as f64 / 100.0;
            state.requests_per_s = requests_per_s * wobble;
            state.runtime.1 = state.requests_per_s * cpu_ms / 1e3;
            fixture::model(seq, &state)
        })
        .collect();
    fixture::quiet(models)
}

fn figure<'a>(data: &'a Json, id: &str, phase: &str) -> &'a Json {
    let figures = data["figures"].as_array().unwrap();
    figures.iter().find(|one| one["id"] == id && one["phase"] == phase).unwrap()
}

fn pairs() -> [(&'static str, Incident, Incident); 5] {
    [
        ("two-stalls", fixture::fd_exhausted_recovered(), fixture::sq_not_flushed()),
        ("both-profiled", fixture::runtime_blocked(), fixture::sq_not_flushed()),
        ("stall-against-none", fixture::runtime_blocked(), calm(9_700.0, 0.06)),
        ("cheaper", calm(1_000.0, 0.5), calm(1_000.0, 0.3)),
        ("nothing-read", fixture::healthy(), fixture::empty()),
    ]
}

#[test]
fn every_pair_reads_as_agreed() {
    for (name, a, b) in pairs() {
        let said = compare::markdown(&a, &b, &labels("old", "new"));
        insta::assert_snapshot!(format!("compare_{name}"), said);
    }
}

#[test]
fn the_page_says_what_the_markdown_says() {
    let (_, a, b) = &pairs()[0];
    let page = page(a, b);
    let document = Html::parse_document(&page);
    let texts = |selector: &str| -> Vec<String> {
        let selector = Selector::parse(selector).unwrap();
        let text = |element: scraper::ElementRef<'_>| element.text().collect::<String>();
        document.select(&selector).map(text).collect()
    };
    assert_eq!(texts("h1"), ["old against new"]);
    assert_eq!(texts("ul.said li").join(" "), summary(a, b));
    let rows = texts("table.pairing tbody tr").len();
    let read = data(a, b);
    let read = read["figures"].as_array().unwrap().iter();
    let read = read.filter(|one| one["a"]["got"].is_object() || one["b"]["got"].is_object());
    assert_eq!(rows, read.count());
    assert!(texts("figure.lane").len() >= 6);
    assert!(page.contains("Aligned at the onset of each"), "both have one");
    let (_, a, b) = &pairs()[2];
    assert!(self::page(a, b).contains("Aligned at the begin of each"), "one has none");
}

#[test]
fn what_differs_most_is_named_and_measured_against_the_spread() {
    let said = summary(&calm(1_000.0, 0.5), &calm(1_000.0, 0.25));
    assert!(said.starts_with("Neither old nor new stalled."), "{said}");
    assert!(said.contains("what differs most is CPU time per response: 500 µs"), "{said}");
    assert!(said.contains("0.50 times as much in new. That is larger than the spread"), "{said}");
    assert!(!said.contains("not quite fair"), "{said}");
    let data = data(&calm(1_000.0, 0.5), &calm(1_000.0, 0.25));
    assert_eq!(figure(&data, "cpu_us_per_response", "healthy")["difference"], "beyond-spread");
    assert_eq!(figure(&data, "requests_per_s", "healthy")["difference"], "none");
}

#[test]
fn another_load_makes_it_unfair() {
    let said = summary(&calm(1_000.0, 0.5), &calm(4_000.0, 0.5));
    assert!(said.contains("not quite fair: load differs."), "{said}");
    let data = data(&calm(1_000.0, 0.5), &calm(4_000.0, 0.5));
    assert_eq!(data["is_fair"], false);
    assert_eq!(figure(&data, "cpu_us_per_response", "healthy")["difference"], "none");
}

#[test]
fn a_recording_compared_with_itself_differs_in_nothing() {
    for (name, incident) in fixture::all() {
        let data = data(&incident, &incident);
        for one in data["figures"].as_array().unwrap() {
            let (ratio, difference) = (&one["ratio"], &one["difference"]);
            if one["a"]["got"].is_object() {
                assert_eq!((ratio, difference), (&json!({ "got": 1.0 }), &json!("none")), "{name}");
            } else {
                assert_eq!(difference, "unknown", "{name}: {one}");
                assert!(ratio["absent"]["why"].is_string(), "{name}: {one}");
            }
        }
        assert_eq!((&data["conditions"], &data["is_fair"]), (&json!([]), &json!(true)), "{name}");
        let said = summary(&incident, &incident);
        let compared = !data["figures"].as_array().unwrap().is_empty();
        assert_eq!(said.contains("no difference"), compared, "{name}: {said}");
        assert!(!said.contains("differs most"), "{name}: {said}");
        let shares = data["profiles"].as_array().unwrap().iter();
        for row in shares.flat_map(|profile| profile["self"].as_array().unwrap()) {
            assert_eq!(row["a_ratio"], row["b_ratio"], "{name}");
        }
    }
}

#[test]
fn swapped_runs_invert_the_ratios() {
    for (name, a, b) in pairs() {
        let (there, back) = (data(&a, &b), data(&b, &a));
        let both =
            there["figures"].as_array().unwrap().iter().zip(back["figures"].as_array().unwrap());
        for (there, back) in both {
            assert_eq!((&there["a"], &there["b"]), (&back["b"], &back["a"]), "{name}");
            assert_eq!(there["difference"], back["difference"], "{name}: {there}");
            match (there["ratio"]["got"].as_f64(), back["ratio"]["got"].as_f64()) {
                // Both are rounded to five digits.
                (Some(there), Some(back)) => assert!((there * back - 1.0).abs() < 1e-3, "{name}"),
                (there, back) => assert_eq!(there, back, "{name}"),
            }
        }
        assert_eq!(there["is_fair"], back["is_fair"], "{name}");
    }
}

#[test]
fn what_one_side_lacks_stays_absent_with_its_reason() {
    let (a, mut b) = (calm(1_000.0, 0.5), calm(1_000.0, 0.5));
    for model in b.models.iter_mut().map(Arc::make_mut) {
        model.app = Reading::absent(Why::Unsupported, "the process keeps no heartbeat page");
    }
    let data = data(&a, &b);
    let requests = figure(&data, "requests_per_s", "healthy");
    let absent = json!({
        "absent": { "why": "unsupported", "detail": "the process keeps no heartbeat page" }
    });
    assert_eq!((&requests["b"], &requests["ratio"]), (&absent, &absent));
    assert_eq!(requests["difference"], "unknown");
    assert!(requests["a"]["got"]["median"].as_f64().unwrap() > 900.0);
    let said = compare::markdown(&a, &b, &labels("old", "new"));
    let row = said.lines().find(|line| line.starts_with("| Requests |")).unwrap();
    assert!(row.ends_with("| not available here | – | not to be said |"), "{row}");
}

#[test]
fn every_condition_that_differs_is_called_out() {
    let (a, mut b) = (calm(1_000.0, 0.5), calm(1_000.0, 0.5));
    b.environment.kernel = String::from("Linux 5.15.0");
    b.environment.cpus = 64;
    b.environment.interval_ms = 10;
    b.config.detect.accept_hold_ms += 1_000;
    b.models.truncate(50);
    let data = data(&a, &b);
    let named: Vec<&str> = data["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|condition| condition["what"].as_str().unwrap())
        .collect();
    assert_eq!(named, ["kernel", "number of CPUs", "interval", "length of the run", "thresholds"]);
    let thresholds = &data["conditions"][4];
    assert!(thresholds["a"].as_str().unwrap().starts_with("accept_hold_ms "), "{thresholds}");
    let said = summary(&a, &b);
    assert!(
        said.contains("kernel, number of CPUs, interval, length of the run and thresholds differ."),
        "{said}"
    );
    // The command and the name are what one compares.
    let mut c = calm(1_000.0, 0.5);
    c.target.comm = String::from("tokio");
    assert_eq!(self::data(&a, &c)["is_fair"], true);
}

#[test]
fn every_pair_is_as_the_schema_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compare.schema.json");
    let schema: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(jsonschema::draft202012::meta::is_valid(&schema));
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    for (name, a, b) in pairs() {
        let good = data(&a, &b);
        let faults: Vec<String> =
            validator.iter_errors(&good).map(|error| error.to_string()).collect();
        assert_eq!(faults, [""; 0], "{name}");
        for (field, damaged) in
            [("summary", Json::Null), ("more", json!(1)), ("is_fair", json!("yes"))]
        {
            let mut bad = good.clone();
            bad[field] = damaged;
            assert!(!validator.is_valid(&bad), "{name}: {field}");
        }
    }
}

/// Every (element, attribute) of the page and of the documents in its frames.
fn skeleton(page: &str) -> BTreeSet<String> {
    let document = Html::parse_document(page);
    let mut seen = BTreeSet::new();
    for element in document.select(&Selector::parse("*").unwrap()) {
        let name = element.value().name();
        seen.insert(name.to_owned());
        for (attribute, value) in element.value().attrs() {
            seen.insert(format!("{name}[{attribute}]"));
            if attribute == "srcdoc" {
                seen.extend(skeleton(value).into_iter().map(|inner| format!("frame {inner}")));
            }
        }
    }
    seen
}

fn hostile(text: &str) -> (Incident, Labels) {
    let mut incident = fixture::sq_not_flushed();
    incident.models = incident.models.iter().step_by(20).cloned().collect();
    let own = || text.to_owned();
    (incident.target.comm, incident.target.cmdline) = (own(), own());
    incident.environment.kernel = own();
    incident.environment.fd_limits = Reading::absent(Why::Failed, text);
    for model in incident.models.iter_mut().map(Arc::make_mut) {
        model.fds = Reading::absent(Why::Malformed, text);
    }
    for window in &mut incident.profiles {
        window.folded = format!("{text};inner;{text} 3\nouter;{text};leaf 5\n");
    }
    (incident, labels(text, "new"))
}

#[test]
fn hostile_text_stays_text() {
    let plain = fixture::sq_not_flushed();
    let draw = |text: &str| {
        let (incident, labels) = hostile(text);
        String::from_utf8(compare::html(&incident, &plain, &labels)).unwrap()
    };
    let benign = skeleton(&draw("benign"));
    assert!(benign.contains("frame script") && benign.contains("iframe[srcdoc]"));
    assert!(!benign.contains("script"), "the page around the frames needs no script");
    for text in [
        "</script><script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "\" onload=\"alert(1)",
        "</title></style><svg onload=alert(1)>",
        "<iframe srcdoc='<b>'>",
        "\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}",
    ] {
        let page = draw(text);
        assert_eq!(skeleton(&page), benign, "{text:?}");
        let (incident, labels) = hostile(text);
        let said = compare::markdown(&incident, &plain, &labels);
        let line = compare::json(&incident, &plain, &labels);
        let line = String::from_utf8(line).unwrap();
        let summary = compare::summary(&incident, &plain, &labels);
        for document in [&page, &said, &line, &summary] {
            let commands = |char: char| (char.is_control() && char != '\n') || char == '\u{202e}';
            assert!(!document.contains(commands), "{text:?}");
        }
        assert!(!said.replace("\\<", "").contains('<'), "{text:?}");
    }
}

#[test]
fn the_page_asks_for_nothing_and_its_links_lead_somewhere() {
    for (name, a, b) in pairs() {
        let page = page(&a, &b);
        let document = Html::parse_document(&page);
        let with_id = Selector::parse("[id]").unwrap();
        let ids: Vec<&str> = document.select(&with_id).filter_map(|e| e.attr("id")).collect();
        let distinct: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(ids.len(), distinct.len(), "{name}: {ids:?}");
        for attribute in ["src", "href", "action", "data", "poster"] {
            let selector = Selector::parse(&format!("[{attribute}]")).unwrap();
            for element in document.select(&selector) {
                let to = element.attr(attribute).unwrap().strip_prefix('#');
                assert!(to.is_some_and(|to| distinct.contains(to)), "{name}: {to:?}");
            }
        }
        let policy = Selector::parse("meta[http-equiv]").unwrap();
        let policy = document.select(&policy).next().unwrap().attr("content").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src '"), "{policy}");
    }
}

#[test]
fn the_same_runs_give_the_same_bytes() {
    let (_, a, b) = &pairs()[0];
    assert_eq!(page(a, b), page(a, b));
}
