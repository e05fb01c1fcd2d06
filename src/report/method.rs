//! Where and how it was measured, and what could not be seen.

use maud::{Markup, html};
use stallscope_probes::Reading;

use super::absences::{Row, of_run};
use super::active;
use super::facts::Facts;
use super::tables::scrolling;
use super::text::{CMDLINE_CHARS_MAX, count, duration_ms, plural, sentence, shown};
use crate::profile::printable::printable;

/// Losses listed.
const LOSSES_MAX: usize = 100;

/// The machine, the process and the conditions.
pub(super) fn environment(facts: &Facts<'_>) -> Markup {
    let target = &facts.incident.target;
    let environment = &facts.incident.environment;
    let siblings: Vec<String> = target.siblings.iter().map(ToString::to_string).collect();
    html! {
        dl.pairs {
            dt { "Process" }
            dd { (shown(&target.comm)) ", pid " (target.pid) }
            dt { "Command line" }
            dd { code.wrap { (printable(&target.cmdline, CMDLINE_CHARS_MAX)) } }
            dt { "Executable" }
            dd {
                @if let Some(exe) = &target.exe { code.wrap { (shown(&exe.to_string_lossy())) } }
                @else { span.none { "could not be read" } }
            }
            @if target.foreign_netns {
                dt { "Network" } dd { "The process lives in another network namespace than the watcher." }
            }
            @if !siblings.is_empty() {
                dt { "Shares its listeners with" } dd { "pid " (siblings.join(", ")) }
            }
            dt { "fd limits" }
            dd {
                @match &environment.fd_limits {
                    Reading::Got(fds) => { "soft " (limit(fds.soft)) ", hard " (limit(fds.hard)) }
                    Reading::Absent(absence) => { span.none { "unknown: " (shown(&absence.detail)) } }
                }
            }
            dt { "Kernel" }
            dd { (shown(&environment.kernel)) }
            dt { "CPUs" }
            dd { (environment.cpus) }
            dt { "stallscope" }
            dd { (shown(&environment.version)) }
            dt { "Interval" }
            dd { (environment.interval_ms) " ms" }
            dt { "Not permitted or not there" }
            dd {
                @if environment.limits.is_empty() { "nothing" } @else {
                    ul.plain { @for limit in &environment.limits { li { (sentence(limit)) } } }
                }
            }
        }
    }
}

fn limit(limit: Option<u64>) -> String {
    limit.map_or_else(|| String::from("none"), count)
}

/// How, and what was missed.
pub(super) fn method(facts: &Facts<'_>) -> Markup {
    let models = &facts.incident.models;
    let losses = &facts.incident.losses;
    let absences: Vec<Row> = of_run(models).rows().collect();
    html! {
        p {
            "Every value was read from outside the process, from /proc, by socket diagnosis and from "
            "its rings' memory, mapped read-only, "
            "without stopping, signalling or tracing it. The heartbeat page, where there is one, was "
            "written by the process itself; of flamegraphs each says who made it. Readings are points in time: what "
            "came and went between two ticks was not seen. A value that could not be read is shown "
            "as absent, never as zero."
        }
        @if let Some(own) = active::sentences(facts) { p { (own) } }
        h3 { "What could be seen" }
        (super::tiers::draw(facts))
        h3 { "What watching cost" }
        (super::watcher::draw(facts))
        h3 { "Ticks" }
        (ticks(facts))
        h3 { "Lost or damaged" }
        @if losses.is_empty() { p { "Nothing was lost." } } @else {
            ul.plain {
                @for loss in losses.iter().take(LOSSES_MAX) { li { (sentence(loss)) } }
                @if losses.len() > LOSSES_MAX { li { (losses.len() - LOSSES_MAX) " more." } }
            }
        }
        h3 { "Readings that were absent" }
        @if absences.is_empty() { p { "None." } } @else { (absence_table(&absences)) }
    }
}

fn absence_table(rows: &[Row]) -> Markup {
    let table = html! {
        table {
            thead {
                tr {
                    th scope="col" { "What" }
                    th scope="col" { "Why" }
                    th.num scope="col" { "Times" }
                    th scope="col" { "First reason given" }
                }
            }
            tbody {
                @for row in rows {
                    tr {
                        th scope="row" { (row.what) }
                        td { (row.why) }
                        td.num { (count(row.times)) }
                        td { (row.detail) }
                    }
                }
            }
        }
    };
    scrolling("Absent readings", &table)
}

fn ticks(facts: &Facts<'_>) -> Markup {
    html! { p { (ticks_words(facts)) } }
}

/// How many, how evenly, how many are missing: one or two sentences.
pub(super) fn ticks_words(facts: &Facts<'_>) -> String {
    let models = &facts.incident.models;
    let mut late: Vec<f64> =
        models.iter().map(|model| model.late_ms).filter(|ms| ms.is_finite()).collect();
    if late.is_empty() {
        return String::from("No tick was taken.");
    }
    late.sort_by(f64::total_cmp);
    let interval_ms = facts.incident.environment.interval_ms as f64;
    let at = |share: f64| {
        let index = ((late.len() - 1) as f64 * share).round() as usize;
        late.get(index).copied().map_or_else(|| String::from("unknown"), duration_ms)
    };
    let coarse = match late.iter().filter(|ms| **ms > interval_ms).count() as u64 {
        0 => String::from("none was late by more than an interval."),
        over => format!(
            "{} late by more than an interval: what is dated there is dated more coarsely.",
            plural(over, "tick was", "ticks were")
        ),
    };
    let missing = match skipped(facts) {
        0 => String::new(),
        skipped => {
            format!(" {} missing in the numbering.", plural(skipped, "tick is", "ticks are"))
        }
    };
    format!(
        "{}, one meant every {}. A tick began late by {} (median), {} (99th percentile), {} (worst); \
         {coarse}{missing}",
        plural(models.len() as u64, "tick", "ticks"),
        duration_ms(interval_ms),
        at(0.5),
        at(0.99),
        at(1.0),
    )
}

/// Numbers missing between the ticks kept.
pub(super) fn skipped(facts: &Facts<'_>) -> u64 {
    let models = &facts.incident.models;
    models
        .iter()
        .zip(models.iter().skip(1))
        .map(|(a, b)| b.seq.saturating_sub(a.seq).saturating_sub(1))
        .fold(0, u64::saturating_add)
}
