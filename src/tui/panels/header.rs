//! The two lines at the top.
//!
//! ```text
//!  stallscope  LIVE  pid 4242 hello  tokio-uring  Linux 6.18.2, 2 CPUs
//!  12:00:07.100 UTC (+7.1 s)  late 0.2 ms, worst 3.1 ms, 0 lost  tick 71 every 100 ms
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
    let mut row = Row::new(width).text(" stallscope ", theme.title()).text(&state, state_style);
    let losses = app.recording().map_or(0, |recording| recording.losses.len());
    if losses > 0 {
        row = row.text(&format!(" ! {losses} damaged"), theme.warn());
    }
    row = row
        .text(&format!(" pid {} ", info.target.pid), theme.plain())
        .text(&text::fit(&info.target.comm, NAME_COLUMNS_MAX), theme.plain());
    if let Some(heartbeat) = app.view().model.as_ref().and_then(|model| model.app.got()) {
        let stack = text::fit(&heartbeat.raw.stack, NAME_COLUMNS_MAX);
        row = row.gap(2).text(&stack, theme.plain());
    }
    let place = &info.environment;
    let version = place.kernel.split('-').next().unwrap_or(&place.kernel);
    row.first_that_fits(
        &[
            format!("  {}, {} CPUs", place.kernel, place.cpus),
            format!("  {}", place.kernel),
            format!("  {version}"),
        ],
        theme.label(),
    )
    .done()
}

fn when(app: &App, width: u16, theme: Theme) -> Line<'static> {
    let view = app.view();
    let interval_ms = app.info().environment.interval_ms;
    let row = Row::new(width).gap(1);
    let Some(model) = &view.model else {
        return row.text(&format!("one tick every {interval_ms} ms"), theme.label()).done();
    };
    // The budget may have made it longer than was asked for.
    let slowed = model.watcher.slowed();
    let interval_ms = if slowed { model.watcher.interval_ms } else { interval_ms as f64 };
    let late = view.lateness;
    // A tick that began later than the next was due: the picture is coarser than it pretends.
    let is_late = late.now_ms >= interval_ms;
    let was_late = late.worst_ms >= interval_ms;
    let mark = |bad: bool| if bad { "! " } else { "" };
    let style = |bad: bool| if bad { theme.warn() } else { theme.label() };
    let since_ns = model.at_ns.saturating_sub(app.info().anchor.mono_ns);
    let clock = app.info().anchor.clock_time(model.at_ns);
    let row = row
        .text(&format!("{clock} UTC (+{})  ", units::span_ns(since_ns)), theme.plain())
        .text(&format!("{}late {}, ", mark(is_late), units::span_ms(late.now_ms)), style(is_late))
        .text(&format!("worst {}, ", units::span_ms(late.worst_ms)), style(was_late))
        .text(&format!("{}{} lost", mark(late.lost > 0), late.lost), style(late.lost > 0));
    let tick = format!("  tick {}", model.seq);
    let every = format!(" every {}", units::span_ms(interval_ms));
    let choices = [format!("{tick}{every}"), format!(" {every}"), tick];
    row.first_that_fits(&choices, style(slowed)).done()
}
