//! What is the matter: the one thing to read.
//!
//! ```text
//!  STALLED since 12:00:02.000 UTC ±50 ms for 5.1 s    sq-not-flushed (certain)
//!  17 entries wait in the submission queue of ring 9 and the runtime never parks.
//!  · ring 9 unsubmitted entries: 17 entries, since 12:00:02.000
//!  · … 3 more: v
//! ```

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;

use super::super::app::App;
use super::super::health::Health;
use super::super::theme::Theme;
use super::super::{text, units};
use super::{Row, put};
use crate::detect::Onset;
use crate::diagnose::verdict::{Evidence, Verdict};
use crate::watch::event::Anchor;

/// Lines for the summary.
const SUMMARY_LINES_MAX: usize = 2;
/// Rows under the bar from which one of them says what the verdict rests on.
const RESTS_ON_ROWS_MIN: usize = 6;

/// Draws it.
pub fn draw(buffer: &mut Buffer, area: Rect, app: &App, theme: Theme) {
    let (titles, style) = title(app, theme);
    let columns = usize::from(area.width);
    let fits = |title: &&String| text::width(title) <= columns;
    let title = titles.iter().find(fits).or(titles.last()).map_or("", String::as_str);
    let bar = Line::styled(text::pad(title, columns), style);
    let mut lines = vec![bar];
    lines.extend(below(app, area.width, usize::from(area.height).saturating_sub(1), theme));
    put(buffer, area, &lines, 0);
}

/// The words of the bar, the longest first, and its style.
fn title(app: &App, theme: Theme) -> (Vec<String>, Style) {
    let anchor = app.info().anchor;
    let now_ns = app.view().now_ns();
    match &app.view().health {
        Health::Unknown => (vec![String::from(" WATCHING: no verdict yet")], theme.bar_neutral()),
        Health::Healthy(verdict) => {
            (vec![format!(" HEALTHY   {}", named(verdict))], theme.bar_good())
        }
        Health::Suspect(onset) => {
            let titles = since(onset, anchor, now_ns)
                .into_iter()
                .map(|since| format!(" STALL SUSPECTED {since}   no cause named yet"));
            (titles.collect(), theme.bar_warn())
        }
        Health::Stalled { onset, verdict } => {
            let since = match (onset, verdict.onset_ns) {
                (Some(onset), _) => since(onset, anchor, now_ns),
                (None, Some(onset_ns)) => {
                    let at = anchor.clock_time(onset_ns);
                    vec![
                        format!("since {at} UTC{}", lasting(onset_ns, now_ns)),
                        format!("since {at}"),
                    ]
                }
                (None, None) => vec![String::from("since before watching began")],
            };
            let is_partial = onset.as_ref().is_some_and(|onset| onset.partial.is_some());
            let partly = if is_partial { "PARTLY " } else { "" };
            let named = named(verdict);
            let titles =
                since.into_iter().map(|since| format!(" {partly}STALLED {since}   {named}"));
            (titles.collect(), theme.bar_bad())
        }
        Health::Recovered { at_ns, stalled_ms, verdict } => {
            let was = verdict.as_ref().map_or(String::from("no cause was named"), named);
            let at = anchor.clock_time(*at_ns);
            let stalled = units::span_ms(*stalled_ms);
            let titles = vec![
                format!(" RECOVERED at {at} UTC, stalled for {stalled}   {was}"),
                format!(" RECOVERED at {at}, after {stalled}   {was}"),
            ];
            (titles, theme.bar_good())
        }
    }
}

fn named(verdict: &Verdict) -> String {
    format!("{} ({})", verdict.cause.id(), verdict.confidence.id())
}

fn lasting(onset_ns: u64, now_ns: Option<u64>) -> String {
    now_ns
        .and_then(|now_ns| now_ns.checked_sub(onset_ns))
        .map_or(String::new(), |ns| format!(" for {}", units::span_ns(ns)))
}

/// Since when, the longest words first: the cause and its confidence must not be cut off.
fn since(onset: &Onset, anchor: Anchor, now_ns: Option<u64>) -> Vec<String> {
    let at = anchor.clock_time(onset.at_ns);
    if onset.before_watch && onset.at_ns >= anchor.mono_ns {
        return vec![
            format!("since before watching began at {at} UTC"),
            String::from("since before watching began"),
        ];
    }
    let within = match onset.within_ns {
        0 => String::new(),
        ns => format!(" ±{}", units::span_ns(ns)),
    };
    let lasting = lasting(onset.at_ns, now_ns);
    vec![
        format!("since {at} UTC{within}{lasting}"),
        format!("since {at} UTC{lasting}"),
        format!("since {at}{lasting}"),
        format!("since {at}"),
    ]
}

/// The lines under the bar, at most `rows`.
fn below(app: &App, width: u16, rows: usize, theme: Theme) -> Vec<Line<'static>> {
    let health = &app.view().health;
    if let Some(verdict) = health.verdict() {
        let partial = health.onset().and_then(|onset| onset.partial.as_deref());
        return of_verdict(verdict, partial, app.info().anchor, width, rows, theme);
    }
    let sentences = match health {
        Health::Suspect(onset) => {
            let mut sentences = vec![
                format!("waiting: {}", onset.demand),
                format!("last progress: {}", onset.last_progress),
                format!("noticed at {} UTC", app.info().anchor.clock_time(onset.detected_ns)),
            ];
            if let Some(partial) = &onset.partial {
                sentences.insert(1, partial_words(partial));
            }
            sentences
        }
        Health::Recovered { .. } => vec![String::from("It ended before a cause was named.")],
        _ => vec![String::from(
            "The first one needs a few ticks and enough readings (a: what is absent).",
        )],
    };
    let columns = usize::from(width).saturating_sub(1);
    sentences
        .iter()
        .take(rows)
        .map(|sentence| Line::styled(format!(" {}", text::fit(sentence, columns)), theme.plain()))
        .collect()
}

/// `still works: connections that were accepted before are answered`.
pub(super) fn partial_words(partial: &str) -> String {
    format!("still works: {partial}")
}

fn of_verdict(
    verdict: &Verdict,
    partial: Option<&str>,
    anchor: Anchor,
    width: u16,
    rows: usize,
    theme: Theme,
) -> Vec<Line<'static>> {
    let columns = usize::from(width).saturating_sub(2);
    // Of a stall that is partial only, what goes on is as much news as what does not.
    let others = 1 + usize::from(partial.is_some());
    let lines_max = SUMMARY_LINES_MAX.min(rows.saturating_sub(others).max(1));
    let mut lines: Vec<_> = text::wrap(&verdict.summary, columns, lines_max)
        .into_iter()
        .map(|line| Line::styled(format!(" {line}"), theme.plain()))
        .collect();
    if let Some(partial) = partial {
        let said = text::fit(&partial_words(partial), columns);
        lines.push(Line::styled(format!(" {said}"), theme.good()));
    }
    // On a small screen the evidence itself is worth more.
    let rests_on = (rows >= RESTS_ON_ROWS_MIN && !verdict.rests_on.is_empty())
        .then(|| Row::new(width).gap(1).text(&rests_on_words(verdict), theme.label()).done());
    let room = rows.saturating_sub(lines.len() + usize::from(rests_on.is_some()));
    let total = verdict.evidence.len();
    // The last line tells of the rest, on the line of the evidence in front of it.
    for (at, evidence) in verdict.evidence.iter().take(room).enumerate() {
        let hidden = if at + 1 == room { total - room } else { 0 };
        let more = if hidden > 0 { format!("  (v: {hidden} more)") } else { String::new() };
        let columns = columns.saturating_sub(text::width(&more) + 2);
        let said = text::fit(&evidence_words(evidence, anchor), columns);
        let row = Row::new(width).text(" · ", theme.label()).text(&said, theme.plain());
        lines.push(row.text(&more, theme.key()).done());
    }
    lines.extend(rests_on);
    lines
}

/// `rests on: thread states, ring memory`.
pub(super) fn rests_on_words(verdict: &Verdict) -> String {
    let names: Vec<&str> = verdict.rests_on.iter().map(|tier| tier.name()).collect();
    format!("rests on: {}", names.join(", "))
}

/// One piece of evidence in words; hostile until it is made fit for the screen.
pub(super) fn evidence_words(evidence: &Evidence, anchor: Anchor) -> String {
    let unit = if evidence.unit.is_empty() { "" } else { " " };
    let since =
        evidence.since_ns.map_or(String::new(), |ns| format!(", since {}", anchor.clock_time(ns)));
    format!("{}: {}{unit}{}{since}", evidence.signal, evidence.value, evidence.unit)
}
