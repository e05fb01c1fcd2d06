//! The two lines at the top.
//!
//! ```text
//!  stallscope  LIVE  pid 4242 hello  tokio-uring  Linux 6.18.2, 2 CPUs    watched 7.1 s
//!  12:00:07.100 UTC  tick 71, every 100 ms  late 0.2 ms, worst 3.1 ms, 0 ticks lost
//! ```

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;

use super::super::app::App;
use super::super::theme::Theme;
use super::super::{text, units};
use super::{Row, put};

/// Columns for a name that the process chose.
const NAME_COLUMNS_MAX: usize = 16;

/// Draws it.
pub fn draw(buffer: &mut Buffer, area: Rect, app: &App, theme: Theme) {
    put(buffer, area, &[who(app, area.width, theme), when(app, area.width, theme)], 0);
}

fn badge(app: &App, theme: Theme) -> (String, Style) {
    if let Some(recording) = app.recording() {
        let (at, all) = recording.position();
        let state = if recording.playing() { "playing" } else { "paused" };
        return (format!(" REPLAY {at}/{all} {state} "), theme.bar_neutral());
    }
    if app.is_frozen() {
        return (format!(" FROZEN {} ticks behind ", app.ticks_behind()), theme.bar_warn());
    }
    if app.ended().is_some() {
        return (String::from(" ENDED "), theme.bar_neutral());
    }
    (String::from(" LIVE "), theme.bar_good())
}

fn who(app: &App, width: u16, theme: Theme) -> Line<'static> {
    let info = app.info();
    let (state, state_style) = badge(app, theme);
    let mut row = Row::new(width)
        .text(" stallscope  ", theme.title())
        .text(&state, state_style)
        .gap(2)
        .text(&format!("pid {} ", info.target.pid), theme.plain())
        .text(&text::fit(&info.target.comm, NAME_COLUMNS_MAX), theme.plain());
    if let Some(heartbeat) = app.view().model.as_ref().and_then(|model| model.app.got()) {
        let stack = text::fit(&heartbeat.raw.stack, NAME_COLUMNS_MAX);
        row = row.gap(2).text(&stack, theme.plain());
    }
    let watched = app.view().now_ns().map_or_else(
        || String::from("waiting for the first tick "),
        |now_ns| {
            let since_ns = now_ns.saturating_sub(info.anchor.mono_ns);
            format!("watched {} ", units::span_ns(since_ns))
        },
    );
    let kernel = &info.environment.kernel;
    let place = format!("{kernel}, {} CPUs", info.environment.cpus);
    let room = row.left.saturating_sub(text::width(&watched) + 3);
    let place = if text::width(&text::fit(&place, room + 1)) <= room { &place } else { kernel };
    let rest = row.left.saturating_sub(2);
    row = row.gap(2).cell(&text::fit(place, room), room, theme.label());
    row.number(&watched, rest.saturating_sub(room), theme.label()).done()
}

fn when(app: &App, width: u16, theme: Theme) -> Line<'static> {
    let view = app.view();
    let interval_ms = app.info().environment.interval_ms;
    let row = Row::new(width).gap(1);
    let Some(model) = &view.model else {
        return row.text(&format!("one tick every {interval_ms} ms"), theme.label()).done();
    };
    let late = view.lateness;
    // A tick that began later than the next was due: the picture is coarser than it pretends.
    let is_late = late.now_ms >= interval_ms as f64;
    let was_late = late.worst_ms >= interval_ms as f64;
    let mark = |bad: bool| if bad { "! " } else { "" };
    let style = |bad: bool| if bad { theme.warn() } else { theme.label() };
    let clock = app.info().anchor.clock_time(model.at_ns);
    let mut row = row
        .text(&format!("{clock} UTC"), theme.plain())
        .text(&format!("  tick {}, every {interval_ms} ms  ", model.seq), theme.label())
        .text(&format!("{}late {}, ", mark(is_late), units::span_ms(late.now_ms)), style(is_late))
        .text(&format!("worst {}, ", units::span_ms(late.worst_ms)), style(was_late))
        .text(&format!("{}{} ticks lost", mark(late.lost > 0), late.lost), style(late.lost > 0));
    let losses = app.recording().map_or(0, |recording| recording.losses.len());
    if losses > 0 {
        row = row.text(&format!("  ! {losses} damaged parts"), theme.warn());
    }
    row.done()
}
