//! The CPU profiles of the healthy and of the stalled stretch.
//!
//! Each flamegraph is a document of its own in a sandboxed `<iframe srcdoc>`: its ids cannot clash
//! with the other's, its script runs from `file://`, and neither can reach the page around it.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::facts::Facts;
use super::text::{count, duration_ns, plural, sentence};
use crate::profile::flame::{self, Drawn, Flame};
use crate::profile::folded::{self, Folded};
use crate::profile::window::{self, Window};

/// Style of a flamegraph's document.
pub(super) const STYLE: &str = include_str!("flame.css");
/// Lets one search by a form and walk by keyboard; runs after the renderer's script.
const GLUE: &str = include_str!("flame.js");
/// Height of the tools above the drawing, px.
pub(super) const TOOLS_PX: u32 = 54;
/// Rows of each list beside a flamegraph.
const ROWS_MAX: usize = 8;

/// The section's markup, and the script it needs, if any.
pub(super) struct Section {
    pub body: Markup,
    pub script: Option<String>,
}

/// Draws both profiles.
pub(super) fn draw(facts: &Facts<'_>) -> Section {
    let profiles = &facts.incident.profiles;
    if profiles.is_empty() {
        return Section { body: html! { p { (NO_PROFILE) } }, script: None };
    }
    let windows: Vec<Window<'_>> = profiles
        .iter()
        .map(|profile| Window {
            begin_ns: profile.begin_ns,
            end_ns: profile.end_ns,
            hz: profile.hz,
            folded: &profile.folded,
        })
        .collect();
    let onset_ns = facts.episode().map(|_| facts.zero_ns());
    let choice = window::choose(&windows, onset_ns, facts.recovered_ns());
    let (healthy, script_a) = part(&HEALTHY, &choice.healthy, facts.episode().is_some());
    let (stalled, script_b) = match onset_ns {
        Some(_) => part(&STALLED, &choice.stalled, true),
        None => (html! {}, None),
    };
    let body = html! {
        p.hint { (HOW) }
        (stalled)
        (healthy)
        @if choice.mixed > 0 {
            p.hint {
                (plural(choice.mixed as u64, "window holds", "windows hold"))
                " both healthy and stalled time: left out of both."
            }
        }
    };
    Section { body, script: script_b.or(script_a) }
}

const NO_PROFILE: &str = "There is no CPU profile in this run. Profiles are made by the target’s \
    own profiler and handed over through its profile directory: a server of this project started \
    with --profile has one. Any other process is watched from outside only; the thread table above \
    says what its threads were doing.";

const HOW: &str = "Width is CPU time, not elapsed time: the profiler samples only threads that run. \
    A thread that sleeps or is blocked leaves no sample, so read these beside the thread table. \
    The frame at the bottom is the thread.";

struct Part {
    id: &'static str,
    title: &'static str,
    none: &'static str,
    empty: &'static str,
}

const HEALTHY: Part = Part {
    id: "flame-healthy",
    title: "Healthy",
    none: "No profile window ended before the onset.",
    empty: "No thread burnt any CPU in this window: there is no sample to draw. The service was idle.",
};

const STALLED: Part = Part {
    id: "flame-stalled",
    title: "Stalled",
    none: "No profile window lies wholly within the stall: it was shorter than a window, or \
        watching ended first.",
    empty: "No CPU was burnt in this window by any thread, so there is nothing to draw. This is a \
        finding, not a fault of the profile: every thread was asleep, blocked or stopped. The thread \
        table says in which system call.",
};

fn part(part: &Part, windows: &[Window<'_>], stall: bool) -> (Markup, Option<String>) {
    let title = match (part.id, stall) {
        ("flame-healthy", true) => "Healthy, before the onset",
        ("flame-healthy", false) => "The last of the run",
        _ => part.title,
    };
    let folded = folded::merge(windows.iter().map(|window| window.folded));
    let covered_ns = window::covered_ns(windows);
    let heading = html! {
        h3 id=(part.id) {
            (title)
            @if !windows.is_empty() { span.unit { (scope(windows, covered_ns, &folded)) } }
        }
    };
    if windows.is_empty() {
        return (html! { (heading) p { (part.none) } }, None);
    }
    let (drawing, script) = match flame::draw(&folded, title) {
        Ok(Drawn::Flame(flame)) => (frame(title, &flame, &folded), Some(script(&flame))),
        Ok(Drawn::Empty) => {
            let thread_table = html! { " " a href="#threads" { "See the threads." } };
            (html! { p.finding { (part.empty) (thread_table) } }, None)
        }
        Err(error) => (html! { p { (sentence(&error.to_string())) } }, None),
    };
    let lost = html! {
        @if folded.bad_lines > 0 {
            p.hint { (plural(folded.bad_lines, "line", "lines")) " of the profile could not be read." }
        }
    };
    (html! { (heading) (drawing) (lost) }, script)
}

/// `4.0 s in 4 windows, 312 samples at 99 Hz: 79 % of one core`.
fn scope(windows: &[Window<'_>], covered_ns: u64, folded: &Folded) -> String {
    let time = duration_ns(covered_ns);
    let number = plural(windows.len() as u64, "window", "windows");
    let samples = plural(folded.samples, "sample", "samples");
    let hz = windows.first().map_or(0, |window| window.hz);
    let one_rate = windows.iter().all(|window| window.hz == hz);
    let expected = f64::from(hz) * covered_ns as f64 / 1e9;
    if one_rate && expected > 0.0 {
        let share = folded.samples as f64 / expected * 100.0;
        format!("{time} in {number}, {samples} at {hz} Hz: {share:.0} % of one core")
    } else {
        format!("{time} in {number}, {samples}")
    }
}

pub(super) fn script(flame: &Flame) -> String {
    format!("{}\n{GLUE}", flame.script)
}

fn frame(title: &str, flame: &Flame, folded: &Folded) -> Markup {
    let label = format!("Flamegraph: {title}, {} samples", count(folded.samples));
    html! {
        iframe.flame title=(label) sandbox="allow-scripts" height=(flame.height_px + TOOLS_PX)
            srcdoc=(document(title, flame).into_string()) {}
        div.columns {
            (shares("By thread", "Thread", &folded.by_thread(), folded.samples))
            (shares("Innermost function", "Function", &folded.by_leaf(), folded.samples))
        }
        p.hint {
            "Frames narrower than " (flame.width_percent_min) " % are left out. Click a frame, or "
            "reach it with Tab and press Enter, to zoom."
        }
    }
}

pub(super) fn document(title: &str, flame: &Flame) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                div.tools {
                    input #term type="search" aria-label="Search frames by regular expression"
                        placeholder="Search frames (regular expression)" autocomplete="off"
                        spellcheck="false";
                    button #find type="button" { "Search" }
                    button #clear type="button" { "Clear" }
                    button #reset type="button" { "Reset zoom" }
                    output #said aria-live="polite" {}
                }
                (PreEscaped(&flame.svg))
                script { (PreEscaped(script(flame))) }
            }
        }
    }
}

/// The same in figures: for readers without a pointer, and for print.
fn shares(caption: &str, column: &str, rows: &[(String, u64)], samples: u64) -> Markup {
    html! {
        table.shares {
            caption { (caption) }
            thead { tr { th scope="col" { (column) } th.num scope="col" { "Samples" } th.num scope="col" { "Share" } } }
            tbody {
                @for (name, number) in rows.iter().take(ROWS_MAX) {
                    tr {
                        th scope="row" { (name) }
                        td.num { (count(*number)) }
                        td.num { (format!("{:.1} %", *number as f64 / samples as f64 * 100.0)) }
                    }
                }
            }
        }
    }
}
