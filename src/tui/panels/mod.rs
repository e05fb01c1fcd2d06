//! One file per panel. Each makes lines from the view; what is common to them is here.

pub mod accept;
pub mod active;
pub mod banner;
pub mod conditions;
pub mod detail;
pub mod footer;
pub mod header;
pub mod help;
pub mod limits;
pub mod log;
pub mod outside;
pub mod rings;
pub mod threads;
pub mod throughput;
pub mod tiers;
pub mod too_small;
pub mod watcher;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;
use stallscope_probes::{Absence, Why};

use super::app::Extent;
use super::history::{HISTORY_MAX, Series};
use super::text;
use super::theme::Theme;

/// The stretch of time that sparklines show, ms.
const SPARK_SPAN_MS: u64 = 60_000;
/// Lines that the reason of an absence may take in a panel.
const REASON_LINES_MAX: usize = 3;
/// Heights of a bar, lowest first.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// A measured zero in a sparkline: a gap is blank instead.
const ZERO: char = '.';

/// Draws the line with the title and returns the area below it.
fn panel(buffer: &mut Buffer, area: Rect, title: &str, focused: bool, theme: Theme) -> Rect {
    let style = if focused { theme.focus() } else { theme.title() };
    let mark = if focused { "▶" } else { "─" };
    panel_styled(buffer, area, title, (mark, style), theme)
}

/// As [`panel`], with the mark and the style of the title given.
fn panel_styled(
    buffer: &mut Buffer,
    area: Rect,
    title: &str,
    (mark, style): (&'static str, Style),
    theme: Theme,
) -> Rect {
    let width = usize::from(area.width);
    let title = text::fit(title, width.saturating_sub(5));
    let used = text::width(&title) + 4;
    let line = Line::from(vec![
        Span::styled(mark, theme.rule()),
        Span::styled(format!(" {title} "), style),
        Span::styled("─".repeat(width.saturating_sub(used - 1)), theme.rule()),
    ]);
    line.render(Rect { height: 1, ..area }, buffer);
    Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area }
}

/// Draws as many of `lines` as fit, from `offset` on; tells how much there is.
fn put(buffer: &mut Buffer, area: Rect, lines: &[Line<'_>], offset: usize) -> Extent {
    let visible = usize::from(area.height);
    let extent = Extent { rows: lines.len(), visible };
    let from = offset.min(extent.offset_max());
    for (row, line) in lines.iter().skip(from).take(visible).enumerate() {
        line.render(Rect { y: area.y + row as u16, height: 1, ..area }, buffer);
    }
    extent
}

/// The title, or its first word with what is scrolled out of sight: `Threads 3-8 of 12`.
fn scrolled_title(title: &str, rows: usize, visible: usize, offset: usize) -> String {
    if rows <= visible {
        return title.to_owned();
    }
    let title = title.split(':').next().unwrap_or(title);
    let from = offset.min(rows - visible);
    format!("{title} {}-{} of {rows} ↕", from + 1, from + visible)
}

/// Draws a page of `lines` with its title.
pub(super) fn page(
    buffer: &mut Buffer,
    area: Rect,
    title: &str,
    lines: &[Line<'_>],
    offset: usize,
    theme: Theme,
) -> Extent {
    let visible = usize::from(area.height.saturating_sub(1));
    let title = scrolled_title(title, lines.len(), visible, offset);
    let inner = panel(buffer, area, &title, true, theme);
    put(buffer, inner, lines, offset)
}

/// A line that is filled from the left, column by column.
struct Row {
    spans: Vec<Span<'static>>,
    left: usize,
}

impl Row {
    fn new(width: u16) -> Self {
        Self { spans: Vec::new(), left: usize::from(width) }
    }

    /// Text in exactly `columns`, or in what is left.
    fn cell(mut self, content: &str, columns: usize, style: Style) -> Self {
        let columns = columns.min(self.left);
        self.left -= columns;
        self.spans.push(Span::styled(text::pad(content, columns), style));
        self
    }

    /// As [`Self::cell`], aligned to the right.
    fn number(mut self, content: &str, columns: usize, style: Style) -> Self {
        let columns = columns.min(self.left);
        self.left -= columns;
        self.spans.push(Span::styled(text::pad_left(content, columns), style));
        self
    }

    /// Text in as many columns as it needs.
    fn text(self, content: &str, style: Style) -> Self {
        // One more than is left is enough to know that the text must be cut.
        let needed = text::width(&text::fit(content, self.left + 1));
        self.cell(content, needed, style)
    }

    /// The first of `choices` that fits in whole; else nothing: a cut fact is a wrong fact.
    fn first_that_fits(self, choices: &[String], style: Style) -> Self {
        let left = self.left;
        let fits = |choice: &&String| text::width(&text::fit(choice, left + 1)) <= left;
        match choices.iter().find(fits) {
            Some(choice) => self.text(choice, style),
            None => self,
        }
    }

    /// Empty columns.
    fn gap(self, columns: usize) -> Self {
        self.cell("", columns, Style::new())
    }

    fn done(self) -> Line<'static> {
        Line::from(self.spans)
    }
}

/// The class of a reason in two words.
pub(super) const fn why(why: Why) -> &'static str {
    match why {
        Why::NotPermitted => "not permitted",
        Why::Gone => "gone",
        Why::Unsupported => "unsupported",
        Why::NotSampled => "not sampled",
        Why::Locked => "locked by kernel",
        Why::Malformed => "malformed",
        Why::NoPrevious => "needs two readings",
        Why::Restarted => "counter restarted",
        Why::Failed => "read failed",
    }
}

/// `absent: reason`, in the words that fit: a narrow cell says `absent` and page `a` the rest.
fn absent(absence: &Absence, columns: usize) -> String {
    let long = format!("absent: {}", why(absence.why));
    if text::width(&long) <= columns { long } else { text::fit("absent", columns) }
}

/// `absent: reason: detail`, in as many lines as it needs up to [`REASON_LINES_MAX`].
fn absent_in_full(absence: &Absence, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let sentence = format!("absent: {}: {}", why(absence.why), absence.detail);
    text::wrap(&sentence, usize::from(width).saturating_sub(1), REASON_LINES_MAX)
        .into_iter()
        .map(|line| Line::styled(line, theme.dim()))
        .collect()
}

/// Points per column so that `columns` of them span [`SPARK_SPAN_MS`], as far as the history goes.
fn points_per_column(columns: usize, interval_ms: u64) -> usize {
    let wanted = usize::try_from(SPARK_SPAN_MS / interval_ms.max(1)).unwrap_or(HISTORY_MAX);
    wanted.clamp(1, HISTORY_MAX).div_ceil(columns.max(1))
}

/// The stretch of time that sparklines show at this interval, in words.
fn spark_span(interval_ms: u64) -> String {
    let kept_ms = (HISTORY_MAX as u64).saturating_mul(interval_ms.max(1));
    format!("last {:.0} s", kept_ms.min(SPARK_SPAN_MS) as f64 / 1e3)
}

/// The last minute of `series` in `columns` characters, scaled to the peak among them.
fn spark(series: &Series, columns: usize, interval_ms: u64) -> String {
    let values = series.columns(columns, points_per_column(columns, interval_ms));
    let peak = values.iter().flatten().copied().fold(0.0, f64::max);
    values.iter().map(|value| bar(*value, peak)).collect()
}

fn bar(value: Option<f64>, peak: f64) -> char {
    let Some(value) = value else { return ' ' };
    if value <= 0.0 || peak <= 0.0 {
        return ZERO;
    }
    let steps = BARS.len() as f64;
    let step = (value / peak * steps).ceil().clamp(1.0, steps) as usize;
    BARS[step - 1]
}

/// A gauge in `columns` characters; never empty for a share above zero, full only from 1 on.
fn gauge(ratio: f64, columns: usize) -> String {
    const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    if columns == 0 {
        return String::new();
    }
    if !ratio.is_finite() {
        return "?".repeat(columns);
    }
    let parts = columns * 8;
    let filled = match (ratio.clamp(0.0, 1.0) * parts as f64).round() as usize {
        0 if ratio > 0.0 => 1,
        all if all == parts && ratio < 1.0 => parts - 1,
        some => some,
    };
    let mut out: String = "█".repeat(filled / 8);
    if let Some(part) = (filled % 8).checked_sub(1) {
        out.push(EIGHTHS[part]);
    }
    let used = filled.div_ceil(8);
    out.push_str(&"░".repeat(columns - used));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_are_empty_only_at_zero_and_full_only_at_one() {
        assert_eq!(gauge(0.0, 4), "░░░░");
        assert_eq!(gauge(0.0001, 4), "▏░░░");
        assert_eq!(gauge(0.5, 4), "██░░");
        assert_eq!(gauge(0.9999, 4), "███▉");
        assert_eq!(gauge(1.0, 4), "████");
        assert_eq!(gauge(1.7, 4), "████");
        assert_eq!(gauge(f64::NAN, 2), "??");
        assert_eq!(gauge(0.5, 0), "");
    }

    #[test]
    fn sparklines_tell_zero_from_a_gap() {
        let mut series = Series::default();
        for point in [Some(0.0), None, Some(1.0), Some(8.0)] {
            series.push(point);
        }
        assert_eq!(spark(&series, 4, SPARK_SPAN_MS), ". ▁█");
        let mut flat = Series::default();
        flat.push(Some(0.0));
        assert_eq!(spark(&flat, 2, SPARK_SPAN_MS), " .");
    }

    #[test]
    fn a_minute_or_what_the_history_holds() {
        assert_eq!(points_per_column(60, 100), 10);
        assert_eq!(points_per_column(60, 1), HISTORY_MAX / 60);
        assert_eq!(points_per_column(0, 0), HISTORY_MAX);
        assert_eq!(spark_span(100), "last 60 s");
        assert_eq!(spark_span(10), "last 12 s");
    }

    #[test]
    fn an_absence_says_as_much_as_fits() {
        let absence = Absence { why: Why::NotPermitted, detail: String::from("EACCES") };
        assert_eq!(absent(&absence, 21), "absent: not permitted");
        assert_eq!(absent(&absence, 20), "absent");
        assert_eq!(absent(&absence, 6), "absent");
    }
}
