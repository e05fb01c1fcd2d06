//! The matrix as one page that opens from disk without a network. Pure: the same runs give the same
//! bytes.

use maud::{Markup, html};

use super::catalogue::{self, Expected};
use super::record::{HEALTHY, RunRecord};
use super::table::{COLUMNS, allowed, one_need, place, spread, victim};
use super::tally::{Confusion, Counts, Summary};
use crate::profile::printable::printable;
use crate::report::{Frame, hash_source};

/// The look of the reports, and what a matrix needs beside it.
const STYLE: &str = concat!(include_str!("../../report/style.css"), include_str!("style.css"));
/// Notes are sentences; a longer one is cut with a visible mark.
const NOTE_CHARS_MAX: usize = 400;

/// The page.
pub fn page(summary: &Summary, records: &[RunRecord]) -> Vec<u8> {
    let policy = format!(
        "default-src 'none'; style-src {}; base-uri 'none'; form-action 'none'",
        hash_source(STYLE)
    );
    let sections: [(&str, &str, Markup); 6] = [
        ("scenarios", "Scenarios", scenarios(summary)),
        ("confusion", "Expected and named", confusion(&summary.confusion)),
        ("figures", "How soon and how exactly", figures(summary)),
        ("notes", "What was not right", notes(summary)),
        ("runs", "Every run", runs(records)),
        ("method", "How this was made", method()),
    ];
    Frame {
        title: &format!("Matrix of stalls: {}", verdict(summary)),
        policy: &policy,
        style: STYLE,
        kind: "stallscope matrix",
        lead: band(summary),
        sections: &sections,
        first: "scenarios",
        tail: html! {},
        version: &summary.versions.join(", "),
    }
    .document()
    .into_bytes()
}

fn verdict(summary: &Summary) -> String {
    let judged = summary.total.judged();
    if judged == 0 {
        return String::from("nothing was judged");
    }
    format!("{} of {judged} right", summary.total.right)
}

fn band(summary: &Summary) -> Markup {
    let tone = match summary.total.judged() {
        0 => "",
        _ if summary.is_fine() => "healthy",
        _ => "stalled",
    };
    let minutes = format!("{:.1} min", summary.healthy_s / 60.0);
    let rate = summary.false_alarms_per_h().map(|rate| format!("{rate:.1} an hour"));
    html! {
        header.band.(tone) {
            h1 { (verdict(summary)) }
            p.lead { "Servers were made to stall for real, each watched from before the fault and from five seconds after it." }
            dl.facts {
                (fact("Runs", &summary.runs.to_string(), "each watched up to twice"))
                (fact("Wrong, unknown, missed", &(summary.total.wrong + summary.total.unknown + summary.total.missed).to_string(), "verdicts on stalls"))
                (fact("False alarms", &summary.false_alarms.to_string(), &format!("in {minutes} of health{}", rate.map_or_else(String::new, |rate| format!(", {rate}")))))
                (fact("Verdicts changed", &summary.flips.to_string(), "on the same stall"))
                (fact("Not run", &summary.total.not_run.to_string(), "not possible here"))
                (fact("Broken", &summary.total.broken.to_string(), "the run itself went wrong"))
            }
        }
    }
}

fn fact(name: &str, value: &str, more: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) " " small { (more) } } } }
}

/// A table that scrolls by itself when the page is narrow, also by keyboard.
fn scrolling(label: &str, table: &Markup) -> Markup {
    html! { div.scroll role="region" aria-label=(label) tabindex="0" { (table) } }
}

fn scenarios(summary: &Summary) -> Markup {
    let table = html! {
        table {
            thead { tr {
                th scope="col" { "Scenario" }
                th scope="col" { "Expected" }
                th scope="col" { "Watched from" }
                @for (name, _) in COLUMNS { th.num scope="col" { (name) } }
            } }
            @for row in &summary.scenarios {
                tbody {
                    @for (first, way, counts) in [(true, "before", &row.before), (false, "after", &row.after)] {
                        tr {
                            @if first {
                                th scope="rowgroup" rowspan="2" { (row.scenario) (what(&row.scenario)) }
                                td rowspan="2" { (row.expected) }
                            }
                            td { (way) }
                            (counted(counts))
                        }
                    }
                }
            }
            tfoot { tr { th scope="row" colspan="3" { "All" } (counted(&summary.total)) } }
        }
    };
    scrolling("Scenarios", &table)
}

/// One cell per outcome; what is not fine stands out, not by its colour alone.
fn counted(counts: &Counts) -> Markup {
    html! {
        @for (name, count) in COLUMNS {
            @let count = count(counts);
            @let tone = match (count, name) { (0, _) => "zero", (_, "right") => "good", (_, "not run") => "", _ => "bad" };
            td.num.(tone) { (count) }
        }
    }
}

/// What happens in a scenario, from the catalogue.
fn what(name: &str) -> Markup {
    html! { @if let Some(scenario) = catalogue::find(name) { " " small { (scenario.what) } } }
}

fn confusion(confusion: &Confusion) -> Markup {
    if confusion.rows.is_empty() {
        return html! { p.none { "Nothing was judged." } };
    }
    let table = html! {
        table.confusion {
            caption { "Rows: what had to be found. Columns: what was named. Both ways of watching together." }
            thead { tr {
                td {}
                @for name in &confusion.columns { th.turned scope="col" { span { (name) } } }
            } }
            tbody {
                @for (expected, counts) in &confusion.rows {
                    tr {
                        th scope="row" { (expected) }
                        @for (name, count) in confusion.columns.iter().zip(counts) {
                            @let tone = match (*count, Confusion::is_right(expected, name)) { (0, true) => "own zero", (0, false) => "zero", (_, true) => "own good", (_, false) => "bad" };
                            td.num.(tone) { (count) }
                        }
                    }
                }
            }
        }
    };
    scrolling("Expected and named", &table)
}

fn figures(summary: &Summary) -> Markup {
    let table = html! {
        table {
            caption { "Milliseconds, median / 95th percentile. The onset against the truth is judged where the watcher was there before the fault; a verdict may take 500 ms and what the definition of its cause takes." }
            thead { tr {
                th scope="col" { "Cause" }
                th.num scope="col" { "Onset error" }
                th.num scope="col" { "Named after the fault" }
                th.num scope="col" { "Named after attaching late" }
                th.num scope="col" { "Allowed" }
                th.num scope="col" { "In time" }
            } }
            tbody {
                @for row in &summary.causes {
                    @let tone = if row.in_time == row.named { "" } else { "bad" };
                    tr {
                        th scope="row" { (row.cause) }
                        td.num { (spread(row.onset_error_ms)) }
                        td.num { (spread(row.delay_before_ms)) }
                        td.num { (spread(row.delay_after_ms)) }
                        td.num { (allowed(row.allowed_ms)) }
                        td.num.(tone) { (row.in_time) " of " (row.named) }
                    }
                }
            }
        }
    };
    scrolling("How soon and how exactly", &table)
}

fn notes(summary: &Summary) -> Markup {
    let noted: Vec<_> = summary.scenarios.iter().filter(|row| !row.notes.is_empty()).collect();
    html! {
        @if noted.is_empty() && summary.left_out.is_empty() { p.none { "Nothing to note." } }
        dl.pairs {
            @for row in noted {
                dt { (row.scenario) }
                dd { ul.plain { @for note in &row.notes { li { (printable(note, NOTE_CHARS_MAX)) } } } }
            }
            @if !summary.left_out.is_empty() {
                dt { "Left out" }
                dd { ul.plain { @for left_out in &summary.left_out { li { (left_out) } } } }
            }
        }
    }
}

fn runs(records: &[RunRecord]) -> Markup {
    let ms = |value: Option<f64>| value.map_or_else(|| String::from("-"), |ms| format!("{ms:.0}"));
    let table = html! {
        table {
            thead { tr {
                th scope="col" { "Run" }
                th scope="col" { "Watched from" }
                th scope="col" { "Outcome" }
                th scope="col" { "Named" }
                th.num scope="col" { "Onset error, ms" }
                th.num scope="col" { "Named after, ms" }
                th scope="col" { "Files" }
            } }
            tbody {
                @for record in records {
                    @for way in &record.ways {
                        @let tone = if way.outcome.is_fine() { "" } else { "bad" };
                        tr {
                            th scope="row" { (record.scenario) " " (record.rep) }
                            td { (way.way.id()) }
                            td.(tone) { (way.outcome.id()) }
                            td { (way.named.as_deref().unwrap_or("-")) @if let Some(sure) = &way.confidence { " " small { (sure) } } }
                            td.num { (ms(way.onset_error_ms)) }
                            td.num { (ms(way.delay_ms)) }
                            td { @if way.outcome.is_judged() { code { (record.scenario) "/" (record.rep) "/" (way.way.id()) ".html" } } }
                        }
                    }
                }
            }
        }
    };
    html! { details { summary { (records.len()) " runs" } (scrolling("Every run", &table)) } }
}

fn method() -> Markup {
    html! {
        p { "Each run starts a server that keeps no record a watcher could read (those named serve- keep one), lets a fault take hold of it at a random instant, and has that server write down the instant itself. Two watchers of the kind any user starts look on: one that was there before, one that comes five seconds later. Right is a run whose last verdict names the cause, in which no other cause was given as likely or certain, whose onset is within 250 ms of the truth (watched from before) or is said to be older than the watch (from after), and which had no alarm before the fault. A healthy run is right when nothing was said." }
        dl.pairs {
            @for scenario in catalogue::all() {
                dt { (scenario.name) }
                dd {
                    code { (victim(scenario.victim)) } ", " (place(scenario.place))
                    @for need in scenario.needs { ", " (one_need(*need)) }
                    @if let Expected::Stall(cause) = scenario.expected { "; " (cause.id()) } @else { "; " (HEALTHY) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::tally::tests::mixed;
    use scraper::{Html, Selector};

    fn all(page: &Html, css: &str) -> Vec<String> {
        let selector = Selector::parse(css).unwrap();
        page.select(&selector).map(|found| found.text().collect::<String>()).collect()
    }

    fn drawn() -> String {
        let records = mixed();
        String::from_utf8(page(&Summary::of(&records), &records)).unwrap()
    }

    #[test]
    fn every_number_of_the_summary_is_on_the_page() {
        let page = Html::parse_document(&drawn());
        assert_eq!(all(&page, "h1"), ["3 of 7 right"]);
        assert_eq!(all(&page, "#scenarios tfoot td"), ["3", "0", "1", "1", "1", "1", "1", "1"]);
        let row = all(&page, "#confusion tbody tr:first-child td");
        assert_eq!(row, ["1", "2", "1", "1"]);
        assert_eq!(all(&page, "#confusion .own").len(), 2);
        assert!(all(&page, "#figures tbody td").contains(&String::from("1 of 2")));
        assert_eq!(all(&page, "#runs tbody tr").len(), 9);
    }

    #[test]
    fn tables_name_their_rows_and_columns() {
        let page = Html::parse_document(&drawn());
        assert_eq!(all(&page, "th:not([scope])"), Vec::<String>::new());
        assert_eq!(all(&page, ".scroll:not([aria-label])").len(), 0);
        assert!(all(&page, "#confusion caption")[0].contains("Rows"));
    }

    #[test]
    fn text_is_text_and_nothing_is_fetched() {
        let page = drawn();
        assert!(page.contains("&lt;b&gt;") && !page.contains("<b>"));
        for word in ["http:", "https:", "<script", " src=", "url("] {
            assert!(!page.contains(word), "{word}");
        }
        assert!(page.contains("default-src 'none'; style-src 'sha256-"));
    }

    #[test]
    fn an_empty_matrix_has_a_page() {
        let page = String::from_utf8(page(&Summary::default(), &[])).unwrap();
        assert!(page.contains("nothing was judged"));
    }
}
