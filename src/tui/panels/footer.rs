//! The line at the bottom: how watching ended, the keys one needs most, what watching costs.
//!
//! ```text
//!  ENDED: the target has exited   ? help  q leave  space freeze    watcher 0.8 % CPU, 9.0 MiB
//! ```

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::super::app::{App, Pane};
use super::super::text;
use super::super::theme::Theme;
use super::{Row, put};

/// Columns that the keys need at least beside what watching costs.
const KEYS_MIN: usize = 55;
/// Columns that the keys of a replay need more.
const REPLAY_KEYS: usize = 30;

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
    let cost = cost(app, row.left);
    let reserved = cost.as_ref().map_or(0, |(words, _)| text::width(words) + 2);
    for (key, words) in hints(app) {
        // Whole hints or none.
        if text::width(key) + text::width(&words) + 4 + reserved <= row.left {
            row = row.gap(1).text(key, theme.key()).gap(1).text(&words, theme.label()).gap(1);
        }
    }
    if let Some((words, slowed)) = cost {
        let style = if slowed { theme.warn() } else { theme.label() };
        let before = row.left.saturating_sub(text::width(&words) + 1);
        row = row.gap(before).text(&words, style);
    }
    put(buffer, area, &[row.done()], 0);
}

/// What watching costs, in the words that leave room for the keys; whether it is slowed.
fn cost(app: &App, columns: usize) -> Option<(String, bool)> {
    let watcher = &app.view().model.as_ref()?.watcher;
    // The keys of a replay need the room, and its watcher is no more.
    let columns =
        if app.recording().is_some() { columns.saturating_sub(REPLAY_KEYS) } else { columns };
    let words = super::watcher::short(watcher).into_iter();
    let fits = |words: &String| text::width(words) + KEYS_MIN <= columns;
    Some((words.into_iter().find(fits)?, watcher.slowed()))
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
    hints.extend([("v", own("verdict")), ("a", own("evidence"))]);
    let focus = match app.focus() {
        Pane::Log => "log",
        Pane::Accept => "accept queues",
        Pane::Rings => "rings",
        Pane::Threads | Pane::Page => "threads",
    };
    hints.push(("Tab", format!("scrolls {focus}")));
    hints
}
