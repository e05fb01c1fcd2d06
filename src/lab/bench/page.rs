//! The study as one page that opens from disk without a network. Pure: the same runs give the same
//! bytes.

use maud::{Markup, html};
use stallscope_probes::Reading;

use super::plan::{NONE, varying};
use super::record::{Outcome, RunRecord};
use super::summary::{FIGURES, Row, Summary};
use super::table::{WITH_RATIO, runs, shown_axes, shown_figures};
use super::{plots, words};
use crate::report::{Frame, hash_source, number};

/// The look of the reports, and what a study needs beside it.
const STYLE: &str = concat!(include_str!("../../report/style.css"), include_str!("page.css"));

/// The page.
pub(super) fn page(summary: &Summary) -> Vec<u8> {
    let policy = format!(
        "default-src 'none'; style-src {}; base-uri 'none'; form-action 'none'",
        hash_source(STYLE)
    );
    let sections: [(&str, &str, Markup); 7] = [
        ("results", "Results", results(summary)),
        ("plots", "Plots", plots::plots(summary)),
        ("steps", "What each step costs", steps(summary)),
        ("notes", "To be noted", notes(summary)),
        ("machine", "Machine and commands", machine(summary)),
        ("runs", "Every run", every_run(summary)),
        ("method", "How it was measured", method(summary)),
    ];
    Frame {
        title: &format!("Study of servers: {}", words::title(summary)),
        policy: &policy,
        style: STYLE,
        kind: "stallscope study",
        lead: band(summary),
        sections: &sections,
        first: "results",
        tail: html! {},
        version: &words::shown(&summary.machine.version),
    }
    .document()
    .into_bytes()
}

fn band(summary: &Summary) -> Markup {
    let tone = if summary.is_fine() { "healthy" } else { "stalled" };
    let measured: u32 = summary.rows.iter().map(|row| row.measured).sum();
    let acknowledged: Option<u64> = summary
        .rows
        .iter()
        .filter_map(|row| row.records)
        .map(|(count, _)| count)
        .reduce(|a, b| a + b);
    let best = summary
        .rows
        .iter()
        .filter_map(|row| Some((row, row.figures.first()?.got()?.median)))
        .max_by(|a, b| a.1.total_cmp(&b.1));
    html! {
        header.band.(tone) {
            h1 { (words::title(summary)) }
            p.lead { (words::verdict(summary)) "." }
            dl.facts {
                (fact("Runs", &measured.to_string(), &format!("of {}, in turns", summary.plan.runs())))
                (fact("Measured", &format!("{} s", number(summary.plan.time_ms as f64 / 1e3)), &format!("each, after {} s of warm-up", number(summary.plan.warm_up_ms as f64 / 1e3))))
                @if let Some((row, rate)) = best { (fact("Highest throughput", &format!("{}/s", number(rate)), &words::shown(&row.label))) }
                @if let Some(count) = acknowledged { (fact("Acknowledged events", &number(count as f64), "counted in Kafka")) }
                (fact("Compared with", &words::shown(summary.baseline()), "× in the table"))
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

fn results(summary: &Summary) -> Markup {
    let figures = shown_figures(summary);
    let table = html! {
        table {
            thead { tr {
                @for axis in varying(&summary.plan.cells) { th scope="col" { (capital(axis)) } }
                th.num scope="col" { "Runs" }
                @for (_, figure) in &figures {
                    th.num scope="col" { (figure.title) br; small { (figure.unit) } }
                    @if WITH_RATIO.contains(&figure.id) { th.num scope="col" { "×" } }
                }
                th.num scope="col" { "Errors" }
                th.num scope="col" { "Acknowledged" br; small { "events" } }
            } }
            tbody {
                @for (at, row) in summary.rows.iter().enumerate() {
                    tr.base[at == summary.plan.baseline] { (cells(summary, row)) }
                }
            }
        }
    };
    html! {
        p.hint {
            "Median of the rounds; below it the least and the greatest. × is the median of the ratios to "
            b { (words::shown(summary.baseline())) } " in the same round."
        }
        (scrolling("Results", &table))
        (same(summary))
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn cells(summary: &Summary, row: &Row) -> Markup {
    html! {
        @for (at, value) in shown_axes(summary, row).iter().enumerate() {
            @if at == 0 { th scope="row" { (value) } } @else { td { (value) } }
        }
        td.num.bad[row.failed > 0] { (runs(row)) }
        @for (at, figure) in shown_figures(summary) {
            @match &row.figures[at] {
                Reading::Got(spread) => {
                    td.num {
                        (words::value(figure, spread.median))
                        @if spread.rounds > 1 { small { (words::value(figure, spread.min)) " – " (words::value(figure, spread.max)) } }
                    }
                }
                Reading::Absent(absence) => { td.num.none title=(words::shown(&absence.detail)) { (words::NO_VALUE) } }
            }
            @if WITH_RATIO.contains(&figure.id) {
                td.num {
                    @match row.ratios[at] {
                        None => { (words::NO_VALUE) }
                        Some(ratio) => {
                            (format!("{:.2}", ratio.median))
                            @if ratio.rounds > 1 { small { (format!("{:.2} – {:.2}", ratio.min, ratio.max)) } }
                        }
                    }
                }
            }
        }
        td.num.bad[row.errors > 0] { (row.errors) }
        td.num.bad[row.records.is_some_and(|(acknowledged, found)| found < acknowledged)] { (words::records(row.records)) }
    }
}

/// What is the same in all cells.
fn same(summary: &Summary) -> Markup {
    let varying = varying(&summary.plan.cells);
    let same: Vec<String> = summary
        .rows
        .first()
        .into_iter()
        .flat_map(|row| &row.axes)
        .filter(|(axis, value)| !varying.contains(axis) && value != NONE)
        .map(|(axis, value)| format!("{axis} {}", words::shown(value)))
        .collect();
    html! { @if !same.is_empty() { p.hint { "The same in all cells: " (same.join(", ")) "." } } }
}

fn steps(summary: &Summary) -> Markup {
    if summary.steps.is_empty() {
        return html! { p.none { "No two cells differ by HTTP or by Kafka alone: add --work events,echo or --kafka none,embedded." } };
    }
    let table = html! {
        table {
            caption { "Ratios within a round: median, least and greatest." }
            thead { tr {
                th scope="col" { "Ratio" }
                th scope="col" { "With" }
                th scope="col" { "Without" }
                th.num scope="col" { "Throughput" }
                th.num scope="col" { "CPU per request" }
            } }
            tbody {
                @for step in &summary.steps {
                    tr {
                        th scope="row" { (words::shown(&step.what)) }
                        td { (words::shown(&step.with)) }
                        td { (words::shown(&step.without)) }
                        td.num { (words::ratio(step.rate.as_ref())) }
                        td.num { (words::ratio(step.cpu.as_ref())) }
                    }
                }
            }
        }
    };
    scrolling("What each step costs", &table)
}

fn notes(summary: &Summary) -> Markup {
    let mut absent: Vec<(&str, &str)> = summary
        .rows
        .iter()
        .flat_map(|row| FIGURES.iter().zip(&row.figures))
        .filter_map(|(figure, reading)| Some((figure.title, reading.absence()?.detail.as_str())))
        .collect();
    absent.sort_unstable();
    absent.dedup();
    html! {
        @if summary.rows.iter().all(|row| row.problems.is_empty()) { p { "Nothing went wrong in any run." } }
        dl.pairs {
            @for row in summary.rows.iter().filter(|row| !row.problems.is_empty()) {
                dt { (words::shown(&row.label)) }
                dd { ul.plain { @for (problem, times) in &row.problems { li { span.bad { (words::shown(problem)) } " " small { (times) " runs" } } } } }
            }
            @if !absent.is_empty() {
                dt { "Not measured" }
                dd { ul.plain { @for (title, detail) in absent { li { (title) ": " (words::shown(detail)) } } } }
            }
            @if !summary.notes.is_empty() {
                dt { "This study" }
                dd { ul.plain { @for note in &summary.notes { li { (words::shown(note)) } } } }
            }
        }
    }
}

fn machine(summary: &Summary) -> Markup {
    html! {
        dl.pairs {
            @for (name, value) in words::machine(summary) {
                dt { (name) }
                dd { @if name == "Command" { code.wrap { (value) } } @else { (value) } }
            }
        }
        h3 { "Each cell, as it was run last" }
        ul.commands {
            @for row in &summary.rows {
                li {
                    (words::shown(&row.label))
                    @for command in [&row.server_command, &row.load_command].into_iter().flatten() { code { (words::shown_command(command)) } }
                }
            }
        }
    }
}

fn every_run(summary: &Summary) -> Markup {
    let label = |run: &RunRecord| {
        summary.rows.iter().find(|row| row.key == run.cell).map_or("", |row| row.label.as_str())
    };
    let figures = shown_figures(summary);
    let table = html! {
        table {
            thead { tr {
                th.num scope="col" { "Round" }
                th scope="col" { "Cell" }
                th scope="col" { "Begun" }
                @for (_, figure) in &figures { th.num scope="col" { (figure.title) ", " (figure.unit) } }
                th.num scope="col" { "CPUs used" }
                th scope="col" { "What was wrong" }
            } }
            tbody {
                @for run in &summary.runs {
                    @let problems = run.problems();
                    tr {
                        td.num { (run.round + 1) }
                        th scope="row" { (words::shown(label(run))) }
                        td.time { (words::shown(&run.begun)) }
                        @for (_, figure) in &figures {
                            td.num { (one(run, |run| (figure.of)(run).got().map(|it| words::value(figure, *it)))) }
                        }
                        td.num { (one(run, |run| run.cpu_cores.got().map(|it| number(*it)))) }
                        td.bad[!problems.is_empty()] { (words::shown(&problems.join("; "))) }
                    }
                }
            }
        }
    };
    html! { details { summary { (summary.runs.len()) " runs" } (scrolling("Every run", &table)) } }
}

fn one(run: &RunRecord, of: impl Fn(&super::record::Measured) -> Option<String>) -> String {
    let value = match &run.outcome {
        Outcome::Measured(measured) => of(measured),
        Outcome::Failed { .. } => None,
    };
    value.unwrap_or_else(|| words::NO_VALUE.to_owned())
}

fn method(summary: &Summary) -> Markup {
    html! { ul.plain { @for sentence in words::method(summary) { li { (sentence) } } } }
}

#[cfg(test)]
mod tests {
    use scraper::{Html, Selector};

    use super::*;
    use crate::lab::bench::summary::tests::{hostile, study};

    fn all(page: &Html, css: &str) -> Vec<String> {
        let selector = Selector::parse(css).unwrap();
        page.select(&selector).map(|found| found.text().collect::<String>()).collect()
    }

    fn text(summary: &Summary) -> String {
        String::from_utf8(page(summary)).unwrap()
    }

    #[test]
    fn what_was_measured_is_in_the_table_and_in_the_plots() {
        let page = Html::parse_document(&text(&study()));
        assert_eq!(all(&page, "#results tbody tr").len(), 4);
        let first = all(&page, "#results tbody tr.base td");
        assert_eq!(first[4], "5,0003,333 – 10,000", "{first:?}");
        assert_eq!(all(&page, "#results td.bad"), ["2 of 3", "3", "7 LOST of 6300"]);
        assert_eq!(all(&page, "#steps tbody tr").len(), 2);
        assert_eq!(all(&page, "#plots figure").len(), 4, "throughput, CPU, latency, rounds");
        assert_eq!(all(&page, "#plots figure:first-child rect").len(), 4);
        assert_eq!(all(&page, "#runs tbody tr").len(), 12);
        assert!(all(&page, "#notes")[0].contains("does not listen"));
    }

    #[test]
    fn tables_name_their_rows_and_columns_and_plots_are_spoken() {
        let page = Html::parse_document(&text(&study()));
        assert_eq!(all(&page, "th:not([scope])"), Vec::<String>::new());
        assert_eq!(all(&page, ".scroll:not([aria-label])").len(), 0);
        assert_eq!(all(&page, "svg[role=img]:not([aria-label])").len(), 0);
    }

    #[test]
    fn text_is_text_and_nothing_is_fetched() {
        let mut summary = hostile();
        summary.runs.clear();
        let page = text(&summary);
        assert!(page.contains("&lt;script&gt;") && !page.contains('\u{1b}'));
        for word in ["https:", "<script", " src=", "url(", " style="] {
            assert!(!page.contains(word), "{word}");
        }
        assert!(page.contains("default-src 'none'; style-src 'sha256-"));
    }

    #[test]
    fn the_style_holds_nothing_that_html_would_end_or_rewrite() {
        assert!(!STYLE.contains("</") && !STYLE.contains('\r') && !STYLE.contains("url("));
    }
}
