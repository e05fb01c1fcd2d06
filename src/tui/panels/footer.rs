//! The line at the bottom: how watching ended, and the keys one needs most.
//!
//! ```text
//!  ENDED: the target has exited   ? help  q leave  space freeze  v verdict  a absent
//! ```

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::super::app::{App, Pane};
use super::super::text;
use super::super::theme::Theme;
use super::{Row, put};

/// Draws it.
pub fn draw(buffer: &mut Buffer, area: Rect, app: &App, theme: Theme) {
    let mut row = Row::new(area.width);
    if let Some(ended) = app.ended() {
        row = row.text(&format!(" ENDED: {} ", ended.words()), theme.bar_neutral());
    }
    if let Some(left_ns) = app.closing_in_ns() {
        let seconds = left_ns.div_ceil(1_000_000_000);
        row = row.text(&format!(" closes in {seconds} s, any key stays "), theme.warn());
    }
    for (key, words) in hints(app) {
        // Whole hints or none.
        if text::width(key) + text::width(&words) + 4 <= row.left {
            row = row.gap(1).text(key, theme.key()).gap(1).text(&words, theme.label()).gap(1);
        }
    }
    put(buffer, area, &[row.done()], 0);
}

fn hints(app: &App) -> Vec<(&'static str, String)> {
    let own = |words: &str| words.to_owned();
    if app.page().is_some() {
        return vec![
            ("q", own("close")),
            ("↑↓ PgUp PgDn", own("scroll")),
            ("Ctrl-C", own("leave")),
        ];
    }
    let mut hints = vec![("?", own("help")), ("q", own("leave"))];
    match app.recording() {
        Some(recording) => {
            let play = if recording.playing() { "pause" } else { "play" };
            hints.push(("space", own(play)));
            hints.extend([("←→", own("tick")), ("[ ]", own("1 s")), ("o", own("onset"))]);
        }
        None if app.is_frozen() => hints.push(("space", own("go on"))),
        None if app.ended().is_none() => hints.push(("space", own("freeze"))),
        None => {}
    }
    hints.extend([("v", own("verdict")), ("a", own("absent"))]);
    let focus = match app.focus() {
        Pane::Log => "log",
        Pane::Accept => "accept queues",
        Pane::Rings => "rings",
        Pane::Threads | Pane::Page => "threads",
    };
    hints.push(("Tab", format!("scrolls {focus}")));
    hints
}
