//! The report from outside: golden text per case, hostile names, bounds.

mod report_fixture;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use proptest::prelude::*;
use report_fixture as fixture;
use report_fixture::poison::poisoned;
use scraper::{ElementRef, Html, Selector};
use stallscope::report::{html, markdown, verdict_paragraph};
use stallscope::watch::event::Incident;

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

#[test]
fn hostile_text_stays_text() {
    let benign = skeleton(&page(&poisoned("benign")));
    assert!(benign.contains("frame script") && benign.contains("iframe[srcdoc]"));
    // The page has a data block and its own script; no more can come in.
    let scripts = |page: &str| {
        let document = Html::parse_document(page);
        document.select(&Selector::parse("script").expect("selector")).count()
    };
    assert_eq!(scripts(&page(&poisoned("benign"))), 2);
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
        assert_eq!(scripts(&page), 2, "{text:?}");
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
    let incident = fixture::restless_hour(3_600 * 1_000 / fixture::INTERVAL_MS);
    let page = page(&incident);
    let drawn = Html::parse_document(&page);
    let frames = drawn.select(&Selector::parse("iframe").expect("selector")).count();
    assert_eq!(frames, 7, "every kind of flamegraph is in it");
    let size = page.len();
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
    assert!(page.contains(",1025,"), "nor is it from the data block");
    let document = Html::parse_document(&page);
    let paths = Selector::parse("path").expect("selector");
    // 1,025 of a scale to 1,200 is at 14.6 of 100 from above.
    assert!(document.select(&paths).filter_map(|path| path.attr("d")).any(|d| d.contains(" 14.6")));
}
