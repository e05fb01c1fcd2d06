//! The report from outside: golden text per case, hostile names, bounds.

mod report_fixture;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use proptest::prelude::*;
use report_fixture as fixture;
use scraper::{ElementRef, Html, Selector};
use stallscope::diagnose::verdict::{Link, Part};
use stallscope::report::{html, markdown, verdict_paragraph};
use stallscope::watch::event::{Event, Incident};

fn page(incident: &Incident) -> String {
    String::from_utf8(html(incident)).expect("UTF-8")
}

fn goldens(test: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../reports/goldens");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(test);
}

/// What a reader sees, line by line: drawings by their spoken text, frames by their title.
fn outline(page: &str) -> String {
    let document = Html::parse_document(page);
    let blocks = Selector::parse(
        "title, h1, h2, h3, p, li, dt, dd, tr, summary, caption, figcaption ul, iframe, [role=img], footer",
    )
    .expect("selector");
    let inner = Selector::parse("p, li, tr, dt, ul").expect("selector");
    let mut text = String::new();
    for block in document.select(&blocks) {
        let name = block.value().name();
        if block.ancestors().filter_map(ElementRef::wrap).any(|e| e.value().name() == "svg") {
            continue;
        }
        let line = match (block.attr("aria-label"), block.attr("title")) {
            (Some(label), _) if name == "svg" => label.to_owned(),
            (_, Some(title)) if name == "iframe" => title.to_owned(),
            _ if name != "tr" && block.select(&inner).next().is_some() => continue,
            _ if name == "tr" => cells(block),
            _ => block.text().collect::<String>(),
        };
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let _ = writeln!(text, "{name:8} {line}");
    }
    text
}

fn cells(row: ElementRef<'_>) -> String {
    let cells = row.child_elements().map(|cell| cell.text().collect::<String>());
    cells.collect::<Vec<_>>().join(" | ")
}

#[test]
fn every_case_reads_as_agreed() {
    goldens(|| {
        for (name, incident) in fixture::all() {
            insta::assert_snapshot!(format!("{name}.page"), outline(&page(&incident)));
            insta::assert_snapshot!(format!("{name}.md"), markdown(&incident));
        }
    });
}

#[test]
fn the_paragraph_says_what_since_when_why_and_what_to_do() {
    let paragraphs: Vec<String> = fixture::all()
        .iter()
        .map(|(name, incident)| format!("{name}: {}", verdict_paragraph(incident)))
        .collect();
    goldens(|| insta::assert_snapshot!("paragraphs", paragraphs.join("\n\n")));
}

#[test]
fn the_same_incident_gives_the_same_bytes() {
    assert_eq!(html(&fixture::sq_not_flushed()), html(&fixture::sq_not_flushed()));
}

#[test]
fn nothing_points_out_of_the_file() {
    for (name, incident) in fixture::all() {
        let page = page(&incident);
        let document = Html::parse_document(&page);
        for attribute in ["src", "href", "action", "data", "poster", "srcset", "formaction"] {
            let selector = Selector::parse(&format!("[{attribute}]")).expect("selector");
            for element in document.select(&selector) {
                let value = element.attr(attribute).unwrap_or_default();
                assert!(value.starts_with('#'), "{name}: {attribute}={value}");
            }
        }
        assert!(
            !page.contains("url(") || page.matches("url(").count() == page.matches("url(#").count()
        );
    }
}

#[test]
fn links_within_the_page_lead_somewhere_and_ids_are_unique() {
    for (name, incident) in fixture::all() {
        let page = page(&incident);
        let document = Html::parse_document(&page);
        let with_id = Selector::parse("[id]").expect("selector");
        let ids: Vec<&str> = document.select(&with_id).filter_map(|e| e.attr("id")).collect();
        let distinct: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(ids.len(), distinct.len(), "{name}: {ids:?}");
        for link in document.select(&Selector::parse("a").expect("selector")) {
            let to = link.attr("href").unwrap_or_default().trim_start_matches('#');
            assert!(distinct.contains(to), "{name}: #{to}");
        }
    }
}

/// Every (element, attribute) of the page and of the documents in its frames.
fn skeleton(page: &str) -> BTreeSet<String> {
    let document = Html::parse_document(page);
    let mut seen = BTreeSet::new();
    for element in document.select(&Selector::parse("*").expect("selector")) {
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

/// Puts a text into every place that the process, its profile or a damaged recording can fill.
fn poison(incident: &mut Incident, text: &str) {
    let put = |slot: &mut String| text.clone_into(slot);
    put(&mut incident.target.comm);
    put(&mut incident.target.cmdline);
    incident.target.exe = Some(text.into());
    put(&mut incident.environment.kernel);
    put(&mut incident.environment.version);
    incident.environment.limits = vec![text.to_owned()];
    incident.losses = vec![text.to_owned()];
    for event in &mut incident.events {
        match event {
            Event::Onset(onset) => {
                put(&mut onset.demand);
                put(&mut onset.last_progress);
                onset.partial = Some(text.to_owned());
            }
            Event::Verdict(verdict) => {
                put(&mut verdict.summary);
                verdict.next = vec![text.to_owned()];
                verdict.unknowable = vec![text.to_owned()];
                let link = |part| Link { at_ns: 1, what: text.to_owned(), part };
                verdict.chain = vec![link(Part::Cause), link(Part::Consequence)];
                for item in &mut verdict.evidence {
                    put(&mut item.signal);
                    put(&mut item.unit);
                    item.value = stallscope::diagnose::verdict::Value::Text(text.to_owned());
                }
                verdict.ruled_out.iter_mut().for_each(|item| text.clone_into(&mut item.because));
                verdict.missing.iter_mut().for_each(|item| text.clone_into(&mut item.why));
            }
            Event::Forecast(forecast) => put(&mut forecast.text),
            Event::Note { text: note, .. } => put(note),
            Event::Recovered { .. } => {}
        }
    }
    for model in incident.models.iter_mut().map(Arc::make_mut) {
        poison_model(model, text);
    }
    for profile in &mut incident.profiles {
        profile.folded = format!("{text};inner;{text} 3\nouter;{text};leaf 5\n");
    }
}

fn poison_model(model: &mut stallscope::model::Model, text: &str) {
    use stallscope::model::tiers::TierStatus;
    use stallscope_probes::sample::RingSource;
    use stallscope_probes::{Absence, Reading, Why};
    if let Reading::Got(threads) = &mut model.threads {
        for thread in Arc::make_mut(threads).iter_mut().map(Arc::make_mut) {
            text.clone_into(&mut thread.comm);
            thread.wchan = Reading::Got(text.to_owned());
            thread.syscall = Reading::absent(Why::Failed, text);
            if let Reading::Got(stack) = &mut thread.kernel_stack {
                *stack = vec![text.to_owned()];
            }
        }
    }
    if let Reading::Got(rings) = &mut model.rings {
        for ring in Arc::make_mut(rings) {
            let detail = text.to_owned();
            ring.source = RingSource::Fdinfo(Absence { why: Why::NotPermitted, detail });
            if let Reading::Got(state) = &mut ring.state
                && let Reading::Got(pending) = &mut state.pending
            {
                for (opcode, _) in pending {
                    text.clone_into(opcode);
                }
            }
        }
    }
    model.fds = Reading::absent(Why::Malformed, text);
    model.fd_kinds = Reading::absent(Why::Malformed, text);
    model.pressure = Reading::absent(Why::Malformed, text);
    for tier in Arc::make_mut(&mut model.tiers) {
        if !tier.status.is_active() {
            let absence = Absence { why: Why::NotPermitted, detail: text.to_owned() };
            tier.status = TierStatus::without(tier.tier, &absence);
        }
    }
    model.served = Reading::absent(Why::Malformed, text);
    model.tables = Reading::absent(Why::Malformed, text);
    model.epolls = Reading::absent(Why::Malformed, text);
    model.active = Reading::absent(Why::Malformed, text);
}

/// A short run with everything in it.
fn small() -> Incident {
    let mut incident = fixture::sq_not_flushed();
    incident.models = incident.models.iter().step_by(20).cloned().collect();
    incident.profiles = vec![incident.profiles[2].clone(), incident.profiles[10].clone()];
    let foreseen = fixture::accept_not_armed().events.swap_remove(0);
    assert!(matches!(foreseen, Event::Forecast(_)));
    incident.events.push(foreseen);
    incident
}

fn poisoned(text: &str) -> Incident {
    let mut incident = small();
    poison(&mut incident, text);
    incident
}

#[test]
fn hostile_text_stays_text() {
    let benign = skeleton(&page(&poisoned("benign")));
    assert!(benign.contains("frame script") && benign.contains("iframe[srcdoc]"));
    assert!(!benign.contains("script"), "the page around the frames needs no script");
    let cases = [
        "</script><script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "\" onload=\"alert(1)",
        "' onload='alert(1)",
        "</title></style><svg onload=alert(1)>",
        "--><b>",
        "]]><b>",
        "&lt;b&gt;&#60;b&#62;",
        "<iframe srcdoc='<b>'>",
        "javascript:alert(1)",
        "\u{1b}]0;owned\u{7}\u{1b}[2J",
        "\u{202e}gnp.exe\u{2066}",
        "\0\u{ffff}\u{fffe}",
    ];
    for text in cases {
        let page = page(&poisoned(text));
        assert_eq!(skeleton(&page), benign, "{text:?}");
        for char in ['\u{1b}', '\u{7}', '\0', '\u{202e}', '\u{2066}', '\u{ffff}'] {
            assert!(!page.contains(char), "{char:?} of {text:?} is in the page");
        }
        let paragraph = verdict_paragraph(&poisoned(text));
        assert!(!paragraph.chars().any(char::is_control), "{paragraph:?}");
    }
}

#[test]
fn long_text_is_cut_with_a_mark() {
    let text = "x".repeat(10_000);
    let page = page(&poisoned(&text));
    assert!(page.contains("[9600 more characters]"));
    assert!(!page.contains(&"x".repeat(2_001)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_text_stays_text(
        text in "(<|>|\"|'|&|/|;|=|`|script|svg|style|on|[[:word:]]|.|\\PC| [0-9]){0,30}"
    ) {
        // An empty name makes no unsubmitted entry and no frame of its own.
        let text = format!("x{text}");
        let benign = skeleton(&page(&poisoned("benign")));
        prop_assert_eq!(skeleton(&page(&poisoned(&text))), benign);
    }
}

#[test]
fn an_hour_of_ticks_stays_below_two_megabytes() {
    let ticks = 3_600 * 1_000 / fixture::INTERVAL_MS;
    let models = (0..ticks)
        .map(|seq| {
            let mut state = fixture::State::busy(seq);
            // As restless as it gets: no two neighbouring readings are equal.
            state.requests_per_s = ((seq * 7_919) % 10_007) as f64 * 1.37;
            state.open_fds = (seq * 31) % 1_024;
            fixture::model(seq, &state)
        })
        .collect();
    let mut incident = fixture::quiet(models);
    incident.profiles = fixture::sq_not_flushed().profiles;
    let size = html(&incident).len();
    assert!(size < 2_000_000, "{size} bytes");
}

#[test]
fn a_peak_of_one_tick_in_an_hour_is_not_lost() {
    let models = (0..72_000)
        .map(|seq| {
            let mut state = fixture::State::busy(seq);
            state.queued = if seq == 41_234 { 1_025 } else { 0 };
            fixture::model(seq, &state)
        })
        .collect();
    let page = page(&fixture::quiet(models));
    assert!(page.contains("max 1,025 · last 0"));
    let document = Html::parse_document(&page);
    let paths = Selector::parse("path").expect("selector");
    // 1,025 of a scale to 1,200 is at 14.6 of 100 from above.
    assert!(document.select(&paths).filter_map(|path| path.attr("d")).any(|d| d.contains(" 14.6")));
}
