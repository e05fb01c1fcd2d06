//! What watching cost.

use std::collections::BTreeMap;

use maud::{Markup, html};
use stallscope_probes::sample::ProbeId;

use super::facts::Facts;
use super::tables::scrolling;
use super::text::{count, duration_ms, duration_ns, number, plural};
use crate::model::{WatcherModel, probe_name};

/// The watcher over the whole run.
#[derive(Debug, Default)]
struct Cost {
    cpu: Vec<f64>,
    sampling_cpu: Vec<f64>,
    rss_max_bytes: Option<u64>,
    fds_max: Option<u64>,
    slowed: u64,
    slowest_ms: f64,
    /// By probe: the last cost and the greatest, and the last pace, ns.
    probes: BTreeMap<ProbeId, (u64, u64, u64)>,
}

impl Cost {
    fn of(facts: &Facts<'_>) -> Self {
        let mut all = Self::default();
        for model in &facts.incident.models {
            let watcher = &model.watcher;
            all.cpu.extend(watcher.cpu_ratio.got());
            all.sampling_cpu.extend(watcher.sampling_cpu_ratio.got());
            all.rss_max_bytes = all.rss_max_bytes.max(watcher.rss_bytes);
            all.fds_max = all.fds_max.max(watcher.open_fds);
            if watcher.slowed() {
                all.slowed += 1;
                all.slowest_ms = all.slowest_ms.max(watcher.interval_ms);
            }
            for cost in watcher.costs.iter() {
                let probe = all.probes.entry(cost.probe).or_default();
                *probe = (cost.cost_ns, probe.1.max(cost.cost_ns), cost.every_ns);
            }
        }
        all
    }
}

/// Mean and greatest of shares of a core, in words.
fn shares(ratios: &[f64]) -> String {
    let finite: Vec<f64> = ratios.iter().copied().filter(|ratio| ratio.is_finite()).collect();
    if finite.is_empty() {
        return String::from("not known: a share needs two readings, a second apart");
    }
    let mean = finite.iter().sum::<f64>() / finite.len() as f64;
    let most = finite.iter().copied().fold(0.0, f64::max);
    format!("{} % of a core on average, {} % at most", number(mean * 100.0), number(most * 100.0))
}

/// The figures of the watcher itself.
pub(super) fn draw(facts: &Facts<'_>) -> Markup {
    let Some(last) = facts.incident.models.last().map(|model| &model.watcher) else {
        return html! { p { "No tick was taken." } };
    };
    let cost = Cost::of(facts);
    let mebibytes =
        |bytes: u64| format!("{} MiB", number((bytes as f64 / f64::from(1 << 20)).round()));
    let unknown = || String::from("not known");
    html! {
        dl.pairs {
            dt { "CPU" }
            dd { (shares(&cost.cpu)) (budget(last)) }
            dt { "CPU of the thread that samples" }
            dd { (shares(&cost.sampling_cpu)) }
            dt { "Memory" }
            dd { (cost.rss_max_bytes.map_or_else(unknown, mebibytes)) " resident, at most" }
            dt { "Open fds" }
            dd { (cost.fds_max.map_or_else(unknown, count)) ", at most" }
            dt { "Pace" }
            dd { (pace(&cost, last)) }
            dt { "Ticks missed" }
            dd { (count(last.ticks_missed)) }
        }
        @if !cost.probes.is_empty() { (probes(&cost)) }
    }
}

fn budget(last: &WatcherModel) -> String {
    if last.budget_ratio > 0.0 {
        format!("; the budget was {} %", number(last.budget_ratio * 100.0))
    } else {
        String::from("; there was no budget")
    }
}

fn pace(cost: &Cost, last: &WatcherModel) -> String {
    let asked = duration_ms(last.interval_asked_ms);
    if cost.slowed == 0 {
        return format!("one tick every {asked}, as asked for");
    }
    format!(
        "one tick every {asked} was asked for; the budget slowed {}, to one every {} at most",
        plural(cost.slowed, "tick", "ticks"),
        duration_ms(cost.slowest_ms)
    )
}

fn probes(cost: &Cost) -> Markup {
    let table = html! {
        table {
            thead {
                tr {
                    th scope="col" { "Probe" }
                    th.num scope="col" { "CPU time of the last read" }
                    th.num scope="col" { "Greatest" }
                    th.num scope="col" { "Read every" }
                }
            }
            tbody {
                @for (probe, (last_ns, most_ns, every_ns)) in &cost.probes {
                    tr {
                        th scope="row" { (probe_name(*probe)) }
                        td.num { (micros(*last_ns)) }
                        td.num { (micros(*most_ns)) }
                        td.num { (duration_ns(*every_ns)) }
                    }
                }
            }
        }
    };
    scrolling("Cost of each probe", &table)
}

/// `61 µs`.
fn micros(ns: u64) -> String {
    format!("{} µs", count(ns.div_ceil(1_000)))
}

/// `0.9 % of a core on average, …, 9 MiB`, for plain text.
pub(super) fn words(facts: &Facts<'_>) -> String {
    let cost = Cost::of(facts);
    let slowed = match cost.slowed {
        0 => String::new(),
        ticks => format!("; slowed by its budget for {}", plural(ticks, "tick", "ticks")),
    };
    format!("{}{slowed}", shares(&cost.cpu))
}
