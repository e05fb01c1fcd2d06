//! The study as Markdown. Pure.

use std::fmt::Write as _;

use super::plan::{NONE, varying};
use super::summary::{FIGURES, Figure, RATE, Row, Summary};
use super::words;
use crate::report::markdown_text::{escaped, fenced, heading, table_head, table_row};

/// Figures whose ratio to the baseline has a column of its own.
pub(super) const WITH_RATIO: [&str; 3] =
    ["requests_per_s", "cpu_us_per_request", "saturation_per_s"];

/// The figures that some cell has, with their place; the throughput always.
pub(super) fn shown_figures(summary: &Summary) -> Vec<(usize, &'static Figure)> {
    let has = |(at, _): &(usize, &Figure)| *at == RATE || summary.has(*at);
    FIGURES.iter().enumerate().filter(has).collect()
}

/// The values of the axes by which cells differ.
pub(super) fn shown_axes(summary: &Summary, row: &Row) -> Vec<String> {
    let varying = varying(&summary.plan.cells);
    let of = |(axis, _): &&(&'static str, String)| varying.contains(axis);
    row.axes.iter().filter(of).map(|(_, value)| words::shown(value)).collect()
}

/// The whole document.
pub(super) fn markdown(summary: &Summary) -> String {
    let mut out = format!("# Study: {}\n\n{}.", words::title(summary), words::verdict(summary));
    results(&mut out, summary);
    steps(&mut out, summary);
    problems(&mut out, summary);
    conditions(&mut out, summary);
    heading(&mut out, "Machine");
    for (name, value) in words::machine(summary) {
        let _ = writeln!(out, "- {name}: {}", escaped(&value));
    }
    commands(&mut out, summary);
    heading(&mut out, "How it was measured");
    for sentence in words::method(summary) {
        let _ = writeln!(out, "- {}", escaped(&sentence));
    }
    out
}

/// What is the same in all cells.
fn conditions(out: &mut String, summary: &Summary) {
    let varying = varying(&summary.plan.cells);
    let Some(row) = summary.rows.first() else { return };
    let same = row.axes.iter().filter(|(axis, value)| !varying.contains(axis) && value != NONE);
    let said: Vec<String> =
        same.map(|(axis, value)| format!("{axis} {}", escaped(&words::shown(value)))).collect();
    if !said.is_empty() {
        heading(out, "The same in all cells");
        let _ = writeln!(out, "{}", said.join(", "));
    }
}

fn results(out: &mut String, summary: &Summary) {
    heading(out, "Results");
    let baseline = escaped(&words::shown(summary.baseline()));
    let _ = writeln!(
        out,
        "Median of the rounds, in brackets least and greatest; × is the median of the ratios to *{baseline}* in \
         the same round.\n"
    );
    let figures = shown_figures(summary);
    let mut names: Vec<String> =
        varying(&summary.plan.cells).into_iter().map(str::to_owned).collect();
    names.push(String::from("runs:"));
    for (_, figure) in &figures {
        names.push(format!("{}, {}:", figure.title, figure.unit));
        if WITH_RATIO.contains(&figure.id) {
            names.push(String::from("×:"));
        }
    }
    names.extend([String::from("errors:"), String::from("acknowledged events:")]);
    table_head(out, &names.iter().map(String::as_str).collect::<Vec<_>>());
    for row in &summary.rows {
        let mut cells: Vec<String> =
            shown_axes(summary, row).iter().map(|value| escaped(value)).collect();
        cells.push(runs(row));
        for (at, figure) in &figures {
            cells.push(words::spread(figure, &row.figures[*at]));
            if WITH_RATIO.contains(&figure.id) {
                cells.push(words::ratio(row.ratios[*at].as_ref()));
            }
        }
        cells.extend([row.errors.to_string(), words::records(row.records)]);
        table_row(out, &cells);
    }
}

/// `5`, `3 of 5`.
pub(super) fn runs(row: &Row) -> String {
    match row.failed {
        0 => row.measured.to_string(),
        failed => format!("{} of {}", row.measured, row.measured + failed),
    }
}

fn steps(out: &mut String, summary: &Summary) {
    if summary.steps.is_empty() {
        return;
    }
    heading(out, "What each step costs");
    table_head(out, &["ratio", "with", "without", "Throughput:", "CPU per request:"]);
    for step in &summary.steps {
        let cells = [
            escaped(&words::shown(&step.what)),
            escaped(&words::shown(&step.with)),
            escaped(&words::shown(&step.without)),
            words::ratio(step.rate.as_ref()),
            words::ratio(step.cpu.as_ref()),
        ];
        table_row(out, &cells);
    }
}

fn problems(out: &mut String, summary: &Summary) {
    let wrong = summary.rows.iter().filter(|row| !row.problems.is_empty());
    let mut lines: Vec<String> = wrong
        .flat_map(|row| {
            row.problems.iter().map(|(problem, times)| {
                let label = escaped(&words::shown(&row.label));
                format!("- **{label}**, {times} runs: {}", escaped(&words::shown(problem)))
            })
        })
        .collect();
    lines.extend(summary.notes.iter().map(|note| format!("- {}", escaped(&words::shown(note)))));
    let absent = summary.rows.iter().flat_map(|row| {
        FIGURES.iter().zip(&row.figures).filter_map(|(figure, reading)| {
            let detail = &reading.absence()?.detail;
            Some(format!("- {}: not measured, {}", figure.title, escaped(&words::shown(detail))))
        })
    });
    for line in absent {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    if !lines.is_empty() {
        heading(out, "To be noted");
        let _ = writeln!(out, "{}", lines.join("\n"));
    }
}

fn commands(out: &mut String, summary: &Summary) {
    heading(out, "Commands");
    let mut lines = Vec::new();
    for row in &summary.rows {
        lines.push(format!("# {}", words::shown(&row.label)));
        let commands = [row.server_command.as_deref(), row.load_command.as_deref()];
        lines.extend(commands.into_iter().flatten().map(words::shown_command));
    }
    let _ = writeln!(out, "{}", fenced(&lines));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::bench::summary::tests::{hostile, study};

    #[test]
    fn the_whole_document() {
        insta::assert_snapshot!(markdown(&study()));
    }

    #[test]
    fn hostile_names_break_no_table() {
        let text = markdown(&hostile());
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text}");
        // Within the fence of the commands it is text, which nothing in it can end.
        let outside: String = text.split("````").step_by(2).collect();
        assert!(outside.contains("\\<script\\>") && !outside.contains("<script>"), "{outside}");
        let columns = |line: &str| line.replace("\\|", "").matches('|').count();
        for section in outside.split("\n## ").take(3) {
            let lines: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).collect();
            assert!(lines.iter().all(|line| columns(line) == columns(lines[0])), "{section}");
        }
    }
}
