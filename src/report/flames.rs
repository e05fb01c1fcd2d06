//! The flamegraphs, one tab each: what burnt CPU and what waited, when all was well, in the stall and
//! around its onset, and what the stall changed.

use maud::{Markup, html};

use super::facts::Facts;
use super::flame_doc::{self, Look};
use super::text::{count, duration_ns, plural, sentence};
use crate::profile::diff::{self, Change};
use crate::profile::flame::{self, Drawn, FlameError, SVG_BYTES_MAX, Unit};
use crate::profile::folded::{self, Folded};
use crate::profile::stacks::{Kind, Maker};
use crate::profile::window::{self, Choice, Window};
use crate::profile::{roles, runtime};
use crate::watch::event::ProfileWindow;

pub(super) use super::flame_doc::STYLE;

/// Rows of each list beside a flamegraph.
const ROWS_MAX: usize = 8;
/// Notes shown of the windows of one flamegraph.
const NOTES_MAX: usize = 6;
/// Bytes of all flamegraphs together, as they stand in the page.
const PAGE_BYTES_MAX: usize = 900_000;
/// What a flamegraph's document takes beside its drawing, bytes: mostly the script.
const DOCUMENT_BYTES: usize = 26_000;

/// The section's markup, and the script it needs, if any.
pub(super) struct Section {
    pub body: Markup,
    pub script: Option<String>,
}

/// One tab.
struct Tab {
    id: &'static str,
    name: &'static str,
    title: String,
    /// How much it rests on, after the title.
    scope: String,
    body: Markup,
    script: Option<String>,
}

/// What is drawn of one tab: windows of one kind in one stretch.
struct Part<'a> {
    id: &'static str,
    name: &'static str,
    title: &'static str,
    kind: Kind,
    windows: Vec<Window<'a>>,
    /// What to say where there is no window; without it there is no tab either.
    none: Option<&'static str>,
}

/// Draws all that there is.
pub(super) fn draw(facts: &Facts<'_>) -> Section {
    let profiles = &facts.incident.profiles;
    if profiles.is_empty() {
        return Section { body: html! { p { (NO_PROFILE) } }, script: None };
    }
    let windows: Vec<Window<'_>> = profiles.iter().map(window).collect();
    let onset_ns = facts.episode().map(|_| facts.zero_ns());
    let choose = |kind| window::choose(&windows, kind, onset_ns, facts.recovered_ns());
    let (cpu, off, wall) = (choose(Kind::Cpu), choose(Kind::OffCpu), choose(Kind::Wall));
    let mixed = cpu.mixed + off.mixed + wall.mixed;
    let compared = onset_ns.and_then(|_| {
        window::choose_comparable(&windows, Kind::Cpu, onset_ns, facts.recovered_ns())
    });
    // Where one side is empty there is nothing to compare: the other's own tab says it all.
    let compared = compared.filter(|(healthy, stalled)| {
        for_view(healthy).samples > 0 && for_view(stalled).samples > 0
    });
    let mut parts = if onset_ns.is_some() { stall(cpu, off, wall) } else { calm(cpu, off, wall) };
    parts.retain(|part| !part.windows.is_empty() || part.none.is_some());
    let graphs = parts.iter().filter(|part| !part.windows.is_empty()).count()
        + usize::from(compared.is_some());
    let bytes_max = bytes_each(graphs);
    let mut tabs: Vec<Tab> = parts.iter().map(|part| tab(part, bytes_max)).collect();
    if let Some((healthy, stalled)) = compared {
        let place = tabs.len().min(2);
        tabs.insert(place, difference(&healthy, &stalled, bytes_max));
    }
    let script = tabs.iter().find_map(|tab| tab.script.clone());
    Section { body: section(&tabs, mixed), script }
}

/// A window as the choice of windows wants it.
pub(super) fn window(profile: &ProfileWindow) -> Window<'_> {
    Window {
        begin_ns: profile.begin_ns,
        end_ns: profile.end_ns,
        kind: profile.kind,
        maker: profile.maker,
        hz: profile.hz,
        folded: &profile.folded,
        notes: &profile.notes,
    }
}

/// The stacks of some windows as they are to be read: threads by what they are for, and the
/// runtimes' own frames folded, so that what stands out is the task that holds the thread. The one
/// place where stacks are changed for view: everything drawn or listed has passed here.
pub(super) fn for_view(windows: &[Window<'_>]) -> Folded {
    let folded = folded::merge(windows.iter().map(|window| window.folded));
    runtime::collapse(&roles::group(&folded))
}

/// Room for each drawing. In `srcdoc` its markup is escaped once more, which makes 10 bytes 17 or so.
const fn bytes_each(graphs: usize) -> usize {
    let each = PAGE_BYTES_MAX / if graphs == 0 { 1 } else { graphs };
    let bytes = each.saturating_sub(DOCUMENT_BYTES) / 17 * 10;
    if bytes < SVG_BYTES_MAX { bytes } else { SVG_BYTES_MAX }
}

fn stall<'a>(cpu: Choice<'a>, off: Choice<'a>, wall: Choice<'a>) -> Vec<Part<'a>> {
    let part = |id, name, title, kind, windows, none| Part { id, name, title, kind, windows, none };
    vec![
        part(
            "flame-stalled",
            "Stalled",
            "On a CPU in the stall",
            Kind::Cpu,
            cpu.stalled,
            Some(NO_STALLED),
        ),
        part(
            "flame-healthy",
            "Healthy",
            "On a CPU before the onset",
            Kind::Cpu,
            cpu.healthy,
            Some(NO_HEALTHY),
        ),
        part("flame-onset", "Onset", "On a CPU around the onset", Kind::Cpu, cpu.onset, None),
        part(
            "flame-off",
            "Off-CPU, stalled",
            "Waiting in the stall",
            Kind::OffCpu,
            off.stalled,
            None,
        ),
        part(
            "flame-off-healthy",
            "Off-CPU, healthy",
            "Waiting before the onset",
            Kind::OffCpu,
            off.healthy,
            None,
        ),
        part(
            "flame-off-onset",
            "Off-CPU, onset",
            "Waiting around the onset",
            Kind::OffCpu,
            off.onset,
            None,
        ),
        part(
            "flame-wall",
            "All threads",
            "All threads in the stall",
            Kind::Wall,
            wall.stalled,
            None,
        ),
    ]
}

fn calm<'a>(cpu: Choice<'a>, off: Choice<'a>, wall: Choice<'a>) -> Vec<Part<'a>> {
    let part = |id, name, title, kind, windows| Part { id, name, title, kind, windows, none: None };
    vec![
        part("flame-healthy", "On a CPU", "On a CPU, the last of the run", Kind::Cpu, cpu.healthy),
        part("flame-off", "Off-CPU", "Waiting, the last of the run", Kind::OffCpu, off.healthy),
        part(
            "flame-wall",
            "All threads",
            "All threads, the last of the run",
            Kind::Wall,
            wall.healthy,
        ),
    ]
}

const NO_PROFILE: &str = "There is no profile in this run. Profiles are made by the watcher, where it \
    may look (perf_event_open), or by the target’s own profiler and handed over through its profile \
    directory: a server of this project started with --profile has one. The thread table above says \
    what the threads were doing.";

const NO_HEALTHY: &str = "No profile window ended before the onset.";

const NO_STALLED: &str = "No profile window lies wholly within the stall: it was shorter than a \
    window, or watching ended first.";

const NO_CPU: &str = "No CPU was burnt in this window by any thread, so there is nothing to draw. \
    This is a finding, not a fault of the profile: every thread was asleep, blocked or stopped.";

const NO_WAIT: &str = "No wait ended or was looked at in this window, so there is nothing to draw.";

/// How to read a kind, one line.
const fn how(kind: Kind) -> &'static str {
    match kind {
        Kind::Cpu => {
            "Width is CPU time, not elapsed time: a thread that sleeps leaves no sample. The frame at \
             the bottom is the thread; where one ends, that function itself was running."
        }
        Kind::OffCpu => {
            "Width is time spent waiting, off the CPU. The frame at the bottom is the thread; the top \
             ones are what it waited in."
        }
        Kind::Wall => "Width is elapsed time of every thread, running or not.",
    }
}

/// With fewer samples on a side, shares say little.
const SAMPLES_MIN: u64 = 200;
const HOW_DIFFERENCE: &str = "As wide as in the stall. Red: more of it than before, blue: less, white: \
    as before; a ★ and a dark edge: only in the stall. Both totals are made equal, and the colour is of \
    a frame’s own samples; what is gone from the stall stands in the table.";

fn section(tabs: &[Tab], mixed: usize) -> Markup {
    html! {
        div #flames.graphs {
            @if tabs.len() > 1 {
                div.tabs data-label="Flamegraphs" data-first=(first(tabs)) {
                    @for tab in tabs { a href=(format!("#{}", tab.id)) { (tab.name) } }
                }
            }
            @for tab in tabs {
                div.panel id=(tab.id) {
                    h3 { (tab.title) " " @if !tab.scope.is_empty() { span.unit { (tab.scope) } } }
                    (tab.body)
                }
            }
        }
        @if mixed > 0 {
            p.hint {
                (plural(mixed as u64, "window holds", "windows hold"))
                " both healthy and stalled time: left out of both."
            }
        }
    }
}

/// The tab that is shown first: what burns CPU in the stall or, where nothing does, what waits.
fn first(tabs: &[Tab]) -> usize {
    let drawn = |id| tabs.iter().position(|tab| tab.id == id && tab.script.is_some());
    drawn("flame-stalled").or_else(|| drawn("flame-off")).unwrap_or(0)
}

fn tab(part: &Part<'_>, bytes_max: usize) -> Tab {
    let Part { id, name, title, kind, windows, none } = part;
    let title = (*title).to_owned();
    if let (true, Some(none)) = (windows.is_empty(), none) {
        let body = html! { p { (none) } };
        return Tab { id, name, title, scope: String::new(), body, script: None };
    }
    let folded = for_view(windows);
    let label = format!("Flamegraph: {title}, {}", amount(*kind, folded.samples));
    let lists = html! {
        div.columns {
            (shares("By thread", "Thread", *kind, &folded.by_thread(), folded.samples))
            @if *kind == Kind::Cpu {
                (shares("Innermost function", "Function", *kind, &folded.by_leaf(), folded.samples))
            } @else {
                (shares("Waited in, innermost function of the program", "Function", *kind,
                    &folded.by_call(), folded.samples))
            }
        }
    };
    let drawn = flame::draw(&folded, *kind, bytes_max);
    let (drawing, script) = drawing(drawn, &label, Look::Plain, *kind, &lists);
    let body = html! {
        @if script.is_some() { p.hint { (how(*kind)) } }
        (drawing)
        (notes(windows, folded.bad_lines))
    };
    Tab { id, name, title, scope: scope(*kind, windows, &folded), body, script }
}

fn difference(healthy: &[Window<'_>], stalled: &[Window<'_>], bytes_max: usize) -> Tab {
    let (before, after) = (for_view(healthy), for_view(stalled));
    let title = String::from("What the stall changed");
    let label = format!("Flamegraph: {title}");
    let changes = diff::changes(&before, &after);
    let drawn = flame::draw_difference(&before, &after, Kind::Cpu, bytes_max);
    let (drawing, script) =
        drawing(drawn, &label, Look::Difference, Kind::Cpu, &change_table(&changes));
    let body = html! {
        p.hint { (HOW_DIFFERENCE) @if let Some(few) = few(&before, &after) { " " (few) } }
        (drawing)
        (notes(stalled, before.bad_lines + after.bad_lines))
    };
    let [of, to] = [&after, &before].map(|folded| plural(folded.samples, "sample", "samples"));
    let scope = format!("{of} in the stall against {to} before, {}", maker(stalled));
    Tab { id: "flame-difference", name: "Difference", title, scope, body, script }
}

/// Said where shares on two sides are no more than a hint.
pub(super) fn few(before: &Folded, after: &Folded) -> Option<&'static str> {
    (before.samples.min(after.samples) < SAMPLES_MIN)
        .then_some("There are few samples on a side: differences of some points may be chance.")
}

/// The drawing with its lists, or in words why there is none.
fn drawing(
    drawn: Result<Drawn, FlameError>,
    label: &str,
    look: Look,
    kind: Kind,
    lists: &Markup,
) -> (Markup, Option<String>) {
    match drawn {
        Ok(Drawn::Flame(flame)) => {
            let body = html! {
                (flame_doc::frame(label, &flame, look))
                (lists)
                p.hint {
                    "Frames narrower than " (flame.width_percent_min) " % are left out. Click a frame, "
                    "or reach it with Tab and press Enter, to zoom."
                    @if look == Look::Plain {
                        " Orange is the kernel, blue Rust, grey its standard library, yellow other code; "
                        "a dashed edge: guessed."
                    }
                }
            };
            (body, Some(flame_doc::script(&flame)))
        }
        Ok(Drawn::Empty) => {
            let finding = if kind == Kind::Cpu { NO_CPU } else { NO_WAIT };
            let body = html! {
                p.finding { (finding) " " a href="#threads" { "See the threads." } }
            };
            (body, None)
        }
        Err(error) => (html! { p { (sentence(&error.to_string())) } }, None),
    }
}

/// What the windows could not see, each sentence once.
fn notes(windows: &[Window<'_>], bad_lines: u64) -> Markup {
    let mut notes: Vec<&str> = Vec::new();
    for note in windows.iter().flat_map(|window| window.notes) {
        if !notes.contains(&note.as_str()) && notes.len() <= NOTES_MAX {
            notes.push(note);
        }
    }
    html! {
        @if bad_lines > 0 {
            p.hint { (plural(bad_lines, "line", "lines")) " of the profile could not be read." }
        }
        @if !notes.is_empty() {
            ul.plain.notes {
                @for note in notes.iter().take(NOTES_MAX) { li { (sentence(note)) } }
                @if notes.len() > NOTES_MAX { li { "There are more notes of this kind." } }
            }
        }
    }
}

/// `4.0 s in 4 windows by the watcher, 312 samples at 99 Hz: 79 % of one core`.
fn scope(kind: Kind, windows: &[Window<'_>], folded: &Folded) -> String {
    let covered_ns = window::covered_ns(windows);
    let time = duration_ns(covered_ns);
    let number = plural(windows.len() as u64, "window", "windows");
    let maker = maker(windows);
    let amount = amount(kind, folded.samples);
    if kind != Kind::Cpu {
        return format!("{amount} in {time}, {number} {maker}");
    }
    let hz = windows.first().map_or(0, |window| window.hz);
    let one_rate = windows.iter().all(|window| window.hz == hz);
    let expected = f64::from(hz) * covered_ns as f64 / 1e9;
    if one_rate && expected > 0.0 {
        let share = folded.samples as f64 / expected * 100.0;
        format!("{time} in {number} {maker}, {amount} at {hz} Hz: {share:.0} % of one core")
    } else {
        format!("{time} in {number} {maker}, {amount}")
    }
}

/// Who made the windows of one tab, which are all of one maker.
fn maker(windows: &[Window<'_>]) -> &'static str {
    match windows.first().map(|window| window.maker) {
        Some(Maker::Watcher) => "seen from outside",
        Some(Maker::Itself) | None => "by the process itself",
    }
}

/// `312 samples`, `2,400 ms`.
fn amount(kind: Kind, total: u64) -> String {
    if kind == Kind::Cpu { plural(total, "sample", "samples") } else { shown(kind, total, total) }
}

/// A count in the unit that fits the total.
fn shown(kind: Kind, number: u64, total: u64) -> String {
    let unit = Unit::of(kind, total);
    let value = count((number as f64 * unit.factor).round() as u64);
    if kind == Kind::Cpu { value } else { format!("{value} {}", unit.name) }
}

/// The same in figures: for readers without a pointer, and for print.
fn shares(caption: &str, column: &str, kind: Kind, rows: &[(String, u64)], total: u64) -> Markup {
    let unit = if kind == Kind::Cpu { "Samples" } else { "Time" };
    html! {
        table.shares {
            caption { (caption) }
            thead {
                tr {
                    th scope="col" { (column) }
                    th.num scope="col" { (unit) }
                    th.num scope="col" { "Share" }
                }
            }
            tbody {
                @for (name, number) in rows.iter().take(ROWS_MAX) {
                    tr {
                        th scope="row" { (folded::in_words(name)) }
                        td.num { (shown(kind, *number, total)) }
                        td.num { (percent(*number as f64 / total as f64)) }
                    }
                }
            }
        }
    }
}

fn change_table(changes: &[Change]) -> Markup {
    html! {
        table.shares.changes {
            caption { "Innermost functions whose share changed most" }
            thead {
                tr {
                    th scope="col" { "Function" }
                    th.num scope="col" { "Before" }
                    th.num scope="col" { "In the stall" }
                    th.num scope="col" { "Change" }
                }
            }
            tbody {
                @for change in changes.iter().take(2 * ROWS_MAX) {
                    @let points = (change.after - change.before) * 100.0;
                    tr.more[points > 0.0].less[points < 0.0] {
                        th scope="row" { (folded::in_words(&change.name)) }
                        td.num { @if change.before > 0.0 { (percent(change.before)) } @else { "–" } }
                        td.num { @if change.after > 0.0 { (percent(change.after)) } @else { "gone" } }
                        td.num { (signed(points)) }
                    }
                }
            }
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// `+12.5`, `−3.0`: points of percent.
fn signed(points: f64) -> String {
    format!("{}{:.1}", if points < 0.0 { '−' } else { '+' }, points.abs())
}
