//! What happened, newest last.
//!
//! ```text
//! ─ Log ──────────────────────────────────────────────────────────────
//! 12:00:02.000 onset     17 entries wait in ring 9
//! 12:00:02.600 verdict   sq-not-flushed (certain): …
//! ```

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;

use super::super::app::{App, Extent, Pane};
use super::super::theme::Theme;
use super::super::view::{LogKind, LogLine};
use super::{Row, panel, put, scrolled_title};

/// Draws it.
pub fn draw(buffer: &mut Buffer, area: Rect, app: &App, theme: Theme) -> Extent {
    let log = &app.view().log;
    let visible = usize::from(area.height.saturating_sub(1));
    let extent = Extent { rows: log.len(), visible };
    let from_top = extent.offset_max().saturating_sub(app.offset(Pane::Log));
    let title = scrolled_title("Log", log.len(), visible, from_top);
    let inner = panel(buffer, area, &title, app.focus() == Pane::Log, theme);
    if log.is_empty() {
        put(buffer, inner, &[Line::styled("nothing has happened yet", theme.dim())], 0);
        return extent;
    }
    let lines: Vec<_> = log
        .iter()
        .skip(from_top)
        .take(visible)
        .map(|line| one(line, app, area.width, theme))
        .collect();
    put(buffer, inner, &lines, 0);
    extent
}

fn kind(kind: LogKind, theme: Theme) -> (&'static str, Style) {
    match kind {
        LogKind::Onset => ("onset", theme.warn()),
        LogKind::Verdict => ("verdict", theme.title()),
        LogKind::Recovered => ("recovered", theme.good()),
        LogKind::Forecast => ("forecast", theme.warn()),
        LogKind::Note => ("note", theme.label()),
    }
}

fn one(line: &LogLine, app: &App, width: u16, theme: Theme) -> Line<'static> {
    let (word, style) = kind(line.kind, theme);
    Row::new(width)
        .cell(&app.info().anchor.clock_time(line.at_ns), 13, theme.label())
        .cell(word, 10, style)
        .text(&line.text, theme.plain())
        .done()
}
