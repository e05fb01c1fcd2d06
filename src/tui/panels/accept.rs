//! Accept queues, and the connections behind them.
//!
//! ```text
//! ─ Accept queue: waiting/limit, drops ─────────
//! 0.0.0.0:8080     ███████░    129/128  17 (+3)
//! waiting          ▂▃▅▆▇█          peak 129
//! :8080 52 open, 0 CLOSE_WAIT, 3 unread (12 KiB), 1.2 s ago
//! :8080 waiting for an answer: 3, oldest 3.2 s
//! probe http every 1.0 s, 34 attempts, last answered in 0.4 ms
//! ```

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use stallscope_probes::Reading;
use stallscope_probes::sample::Holder;

use super::super::app::{App, Extent, Pane};
use super::super::history::Track;
use super::super::theme::Theme;
use super::super::{text, units};
use super::{Row, absent_in_full, active, gauge, panel, put, scrolled_title, spark};
use crate::model::{ListenerModel, Model, ServedModel};

/// Columns of `waiting/limit`: both may have five digits.
const DEPTH: usize = 11;
/// Columns of the drops: `99999 (+999)`.
const DROPS: usize = 13;

/// A request that waits for longer is worth a warning.
const UNANSWERED_WARN_MS: u32 = 1_000;

/// Draws it.
pub fn draw(buffer: &mut Buffer, area: Rect, app: &App, theme: Theme) -> Extent {
    let lines = app
        .view()
        .model
        .as_ref()
        .map_or_else(Vec::new, |model| lines(app, model, area.width, theme));
    let visible = usize::from(area.height.saturating_sub(1));
    let offset = app.offset(Pane::Accept);
    let title = "Accept queue: waiting/limit, drops";
    let title = scrolled_title(title, lines.len(), visible, offset);
    let inner = panel(buffer, area, &title, app.focus() == Pane::Accept, theme);
    put(buffer, inner, &lines, offset)
}

fn lines(app: &App, model: &Model, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let mut lines = match &model.listeners {
        Reading::Absent(absence) => absent_in_full(absence, width, theme),
        Reading::Got(listeners) if listeners.is_empty() => {
            vec![Line::styled("none: the process listens on no TCP port", theme.label())]
        }
        Reading::Got(listeners) => {
            let mut lines: Vec<_> =
                listeners.iter().map(|listener| queue(listener, width, theme)).collect();
            if active::is_failing(model) {
                lines.extend(active::line(model, width, theme));
            }
            lines.push(past(app, width, theme));
            lines
        }
    };
    match &model.served {
        Reading::Absent(absence) => {
            let row = Row::new(width).text("connections ", theme.label());
            let columns = row.left;
            lines.push(row.text(&super::absent(absence, columns), theme.dim()).done());
        }
        Reading::Got(served) => {
            lines.extend(served.iter().map(|port| census(port, model.at_ns, width, theme)));
            lines.extend(served.iter().filter_map(|port| unanswered(port, width, theme)));
        }
    }
    lines.extend(unwatched(model, width, theme));
    let said =
        active::is_failing(model) && model.listeners.got().is_some_and(|all| !all.is_empty());
    if !said {
        lines.extend(active::line(model, width, theme));
    }
    lines
}

fn queue(listener: &ListenerModel, width: u16, theme: Theme) -> Line<'static> {
    let bar: usize = if width >= 50 { 9 } else { 0 };
    // tcp(7) and the kernel's sk_acceptq_is_full: a queue is full at limit + 1.
    let ratio = listener.limit.map(|limit| f64::from(listener.queued) / (f64::from(limit) + 1.0));
    let style = match ratio {
        Some(ratio) if listener.queued > 0 => theme.fill(ratio),
        _ => theme.plain(),
    };
    let picture = ratio.map_or_else(String::new, |ratio| gauge(ratio, bar.saturating_sub(1)));
    let limit = listener.limit.map_or_else(|| String::from("?"), |limit| limit.to_string());
    let columns = usize::from(width).saturating_sub(bar + DEPTH + DROPS);
    let name = match listener.holder {
        Holder::Target => listener.local.to_string(),
        Holder::Other => format!("(other's) {}", listener.local),
        Holder::Unknown => format!("(whose?) {}", listener.local),
    };
    let drops_style = match listener.drops_new {
        Reading::Got(new) if new > 0 => theme.bad(),
        _ if listener.drops.is_none() => theme.dim(),
        _ => theme.plain(),
    };
    Row::new(width)
        .cell(&text::fit_end(&name, columns.saturating_sub(1)), columns, theme.plain())
        .cell(&picture, bar, style)
        .number(&format!("{}/{limit}", listener.queued), DEPTH, style)
        .number(&drops(listener), DROPS, drops_style)
        .done()
}

fn drops(listener: &ListenerModel) -> String {
    match (listener.drops, &listener.drops_new) {
        (None, _) => String::from("absent"),
        (Some(all), Reading::Got(new)) if *new > 0 => format!("{all} (+{new})"),
        (Some(all), _) => format!("{all}"),
    }
}

fn past(app: &App, width: u16, theme: Theme) -> Line<'static> {
    let series = app.view().history.of(Track::AcceptQueued);
    let peak = series.peak().map_or(String::new(), |peak| format!("  peak {peak:.0} conns"));
    let row = Row::new(width).cell("waiting", 10, theme.label());
    let columns = row.left.saturating_sub(text::width(&peak));
    let picture = spark(series, columns, app.info().environment.interval_ms);
    row.cell(&picture, columns, theme.plain()).text(&peak, theme.label()).done()
}

fn census(port: &ServedModel, now_ns: u64, width: u16, theme: Theme) -> Line<'static> {
    let raw = &port.raw;
    let age = units::span_ns(now_ns.saturating_sub(port.at_ns));
    let closing = if raw.close_wait > 0 { theme.warn() } else { theme.plain() };
    let mut row = Row::new(width)
        .text(&format!(":{} ", raw.port), theme.label())
        .text(&format!("{} open, ", raw.accepted_open), theme.plain())
        .text(&format!("{} CLOSE_WAIT", raw.close_wait), closing);
    let unread = format!(", {} unread", raw.unread_sockets);
    let size = format!("{unread} ({})", units::bytes(raw.unread_bytes));
    let unread = if raw.unread_sockets > 0 { vec![size, unread] } else { vec![unread] };
    row = row.first_that_fits(&unread, theme.plain());
    if raw.syn_recv > 0 {
        row = row.first_that_fits(&[format!(", {} SYN_RECV", raw.syn_recv)], theme.plain());
    }
    row.first_that_fits(&[format!(", {age} ago")], theme.label()).done()
}

/// Connections on which data came in, and nothing went out since.
fn unanswered(port: &ServedModel, width: u16, theme: Theme) -> Option<Line<'static>> {
    let (count, oldest_ms) = crate::model::answers::waiting(&port.raw.answers?);
    if count == 0 {
        return None;
    }
    let oldest = oldest_ms
        .map_or_else(String::new, |ms| format!(", oldest {}", units::span_ms(f64::from(ms))));
    let late = oldest_ms.is_some_and(|ms| ms >= UNANSWERED_WARN_MS);
    let choices = [
        format!("waiting for an answer: {count}{oldest}"),
        format!("{count} await an answer{oldest}"),
        format!("{count} await an answer"),
    ];
    let row = Row::new(width).text(&format!(":{} ", port.raw.port), theme.label());
    let style = if late { theme.warn() } else { theme.plain() };
    Some(row.first_that_fits(&choices, style).done())
}

/// Own listeners that no epoll instance asks for. A process with a ring may accept through that.
fn unwatched(model: &Model, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let Some(epolls) = model.epolls.got().filter(|epolls| !epolls.is_empty()) else {
        return Vec::new();
    };
    if model.rings.got().is_none_or(|rings| !rings.is_empty()) {
        return Vec::new();
    }
    let asked = |inode| epolls.iter().any(|epoll| epoll.listeners.contains(&(inode, true)));
    model
        .own_listeners()
        .filter(|listener| !asked(listener.inode))
        .map(|listener| {
            let words = format!(":{} no epoll set asks for it", listener.local.port());
            Row::new(width).text(&words, theme.warn()).done()
        })
        .collect()
}
