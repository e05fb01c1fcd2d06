//! The page of keys, made from their table.

use ratatui::text::Line;

use super::super::app::App;
use super::super::keys;
use super::super::text;
use super::super::theme::Theme;
use super::Row;

/// Columns for the keys.
const KEYS: usize = 14;

/// The lines of the page.
pub fn lines(app: &App, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let mut lines: Vec<_> = keys::help(app.mode())
        .into_iter()
        .map(|(keys, words)| {
            Row::new(width).gap(2).cell(&keys, KEYS, theme.key()).text(words, theme.plain()).done()
        })
        .collect();
    lines.push(Line::default());
    for sentence in [
        "A blank in a sparkline is a gap (nothing was read); a dot is a measured zero.",
        "\"absent\" is a reading that could not be had; page a says why. It is never zero.",
        "delay: share of the time a thread was ready and waited for a CPU.",
        "sw/s: times a second a thread was put on a CPU. S: its state, as in proc(5).",
        "Accept queues: connections waiting/limit, and dropped since the socket was made (+new).",
        "Outside: bytes not acknowledged by others, segments sent again (+new); time lost waiting.",
        "lost: ticks that never came. watcher: its own CPU time and memory; page a says more.",
        "Rings: SQ entries not submitted, CQ completions not reaped, of the entries there are.",
        "All times are UTC; (+7.1 s) is the time since watching began.",
    ] {
        let columns = usize::from(width).saturating_sub(4);
        for line in text::wrap(sentence, columns, 2) {
            lines.push(Line::styled(format!("  {line}"), theme.label()));
        }
    }
    lines
}
