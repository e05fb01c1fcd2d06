//! The `io_uring` instances.
//!
//! ```text
//! ─ Rings: SQ unsubmitted/all, CQ unreaped/all ─
//! ring 9  SQ 17/256  CQ 0/512  overflow no
//!   submits 0/s, reaps 0/s  memory  SQ ▂▃▅▆▇█
//!   armed accept 1, read 52, 1.2 s ago
//!   unsubmitted: 12 WRITE, 5 ACCEPT
//!   unreaped errors: 3 errno 24
//! ```

use std::collections::BTreeMap;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use stallscope_probes::Reading;
use stallscope_probes::sample::{RingSource, RingState};

use super::super::app::{App, Extent, Pane};
use super::super::health::Health;
use super::super::history::Track;
use super::super::theme::Theme;
use super::super::{text, units};
use super::{Row, absent_in_full, panel, put, scrolled_title, spark};
use crate::model::{Model, RingModel};

/// Names of the armed operations worth naming (`include/uapi/linux/io_uring.h`, `enum io_uring_op`).
const OPCODES: [(u8, &str); 7] = [
    (13, "accept"),
    (22, "read"),
    (27, "recv"),
    (10, "recvmsg"),
    (6, "poll"),
    (11, "timeout"),
    (26, "send"),
];
/// Age from which a reading of a ring is called old, ms.
const OLD_MS: f64 = 500.0;

/// Draws it.
pub fn draw(buffer: &mut Buffer, area: Rect, app: &App, theme: Theme) -> Extent {
    let lines = app
        .view()
        .model
        .as_ref()
        .map_or_else(Vec::new, |model| lines(app, model, area.width, theme));
    let visible = usize::from(area.height.saturating_sub(1));
    let offset = app.offset(Pane::Rings);
    let title = "Rings: SQ unsubmitted, CQ unreaped";
    let title = scrolled_title(title, lines.len(), visible, offset);
    let inner = panel(buffer, area, &title, app.focus() == Pane::Rings, theme);
    put(buffer, inner, &lines, offset)
}

fn lines(app: &App, model: &Model, width: u16, theme: Theme) -> Vec<Line<'static>> {
    match &model.rings {
        Reading::Absent(absence) => absent_in_full(absence, width, theme),
        Reading::Got(rings) if rings.is_empty() => {
            vec![Line::styled("none: the process holds no io_uring", theme.label())]
        }
        Reading::Got(rings) => {
            let only = rings.len() == 1;
            rings.iter().flat_map(|ring| one(app, model, ring, only, width, theme)).collect()
        }
    }
}

fn one(
    app: &App,
    model: &Model,
    ring: &RingModel,
    only: bool,
    width: u16,
    theme: Theme,
) -> Vec<Line<'static>> {
    let state = match &ring.state {
        Reading::Got(state) => state,
        Reading::Absent(absence) => {
            let row = Row::new(width).text(&format!("ring {}  ", ring.fd), theme.label());
            let columns = row.left;
            return vec![row.text(&super::absent(absence, columns), theme.dim()).done()];
        }
    };
    let mut waiting = Vec::new();
    if let Some(pending) = state.pending.got().filter(|pending| !pending.is_empty()) {
        waiting.push(unsubmitted(pending, state.sq_pending(), width, theme));
    }
    for (label, errors) in
        [("  unreaped errors: ", &state.failed), ("  recent errors: ", &state.recent)]
    {
        if let Some(errors) = errors.got().filter(|errors| !errors.is_empty()) {
            waiting.push(failed(label, errors, width, theme));
        }
    }
    let mut lines = vec![queues(ring, state, width, theme), rates(app, ring, only, width, theme)];
    let armed = armed(ring, state, model.at_ns, width, theme);
    // What a ring waits with matters most during a stall; else it comes and goes all the time, and
    // must not push the other lines about.
    if matches!(app.view().health, Health::Stalled { .. } | Health::Suspect(_)) {
        lines.append(&mut waiting);
    }
    lines.push(armed);
    lines.append(&mut waiting);
    lines
}

fn failed(label: &'static str, errors: &[(i32, u32)], width: u16, theme: Theme) -> Line<'static> {
    let failed = errors.iter().map(|(errno, count)| format!("{count} errno {errno}"));
    let failed = failed.collect::<Vec<_>>().join(", ");
    Row::new(width).text(label, theme.label()).text(&failed, theme.bad()).done()
}

fn queues(ring: &RingModel, state: &RingState, width: u16, theme: Theme) -> Line<'static> {
    let (sq, cq) = (state.sq_pending(), state.cq_pending());
    let style = |used: u32, all: u32| {
        let full = all > 0 && used >= all;
        if full { theme.bad() } else { theme.plain() }
    };
    let listed = ring.armed.got().map_or(0, |armed| armed.overflow);
    // The flag is read at every tick, the list seldom.
    let (overflow, overflow_style) = match (state.overflowing, listed) {
        (false, _) => (String::from("no"), theme.plain()),
        (true, 0) => (String::from("yes"), theme.bad()),
        (true, listed) => (listed.to_string(), theme.bad()),
    };
    // Counters of five digits leave little room, and an overflow must not be cut away.
    let mut choices = vec![format!("overflow {overflow}"), format!("ovf {overflow}")];
    if state.overflowing {
        choices.push(String::from("OVF"));
    }
    let gap = if sq.max(cq).max(state.sq_entries) < 1_000 { "  " } else { " " };
    Row::new(width)
        .text(&format!("ring {}{gap}", ring.fd), theme.label())
        .text(&format!("SQ {sq}/{}{gap}", state.sq_entries), style(sq, state.sq_entries))
        .text(&format!("CQ {cq}/{}{gap}", state.cq_entries), style(cq, state.cq_entries))
        .first_that_fits(&choices, overflow_style)
        .done()
}

fn rates(app: &App, ring: &RingModel, only: bool, width: u16, theme: Theme) -> Line<'static> {
    let mut row = Row::new(width).gap(2);
    for (label, reading) in
        [("submits ", &ring.submissions_per_s), (", reaps ", &ring.completions_per_s)]
    {
        row = row.text(label, theme.label());
        row = match reading {
            Reading::Got(per_s) => row.text(&units::rate(*per_s), theme.plain()),
            Reading::Absent(_) => row.text("absent", theme.dim()),
        };
    }
    let source = match ring.source {
        RingSource::Memory { .. } => String::from("  memory"),
        RingSource::Fdinfo(_) => String::from("  fdinfo"),
    };
    row = row.first_that_fits(&[source], theme.label());
    // The history is the sum over all rings: beside one of several it would mislead.
    if only && row.left > 12 {
        let row = row.text("  SQ ", theme.label());
        let columns = row.left.saturating_sub(1);
        let series = app.view().history.of(Track::SqUnsubmitted);
        let picture = spark(series, columns, app.info().environment.interval_ms);
        return row.cell(&picture, columns, theme.plain()).done();
    }
    row.done()
}

fn armed(
    ring: &RingModel,
    state: &RingState,
    now_ns: u64,
    width: u16,
    theme: Theme,
) -> Line<'static> {
    let row = Row::new(width).text("  armed ", theme.label());
    let armed = match &ring.armed {
        Reading::Got(armed) => armed,
        Reading::Absent(absence) => {
            let columns = row.left;
            return row.text(&super::absent(absence, columns), theme.dim()).done();
        }
    };
    let mut parts: Vec<String> =
        OPCODES[..2].iter().map(|(op, name)| format!("{name} {}", armed.of(*op))).collect();
    for (op, name) in &OPCODES[2..] {
        let count = armed.of(*op);
        if count > 0 {
            parts.push(format!("{name} {count}"));
        }
    }
    if state.sqpoll == Some(true) {
        parts.push(String::from("SQPOLL"));
    }
    let mut row = row.text(&parts.join(", "), theme.plain());
    let age_ns = now_ns.saturating_sub(armed.at_ns);
    let age = format!(", {} ago", units::span_ns(age_ns));
    if age_ns as f64 / 1e6 >= OLD_MS && text::width(&age) <= row.left {
        row = row.text(&age, theme.label());
    }
    row.done()
}

fn unsubmitted(pending: &[(String, i32)], waiting: u32, width: u16, theme: Theme) -> Line<'static> {
    let mut by_name: BTreeMap<&str, u32> = BTreeMap::new();
    for (name, _) in pending {
        *by_name.entry(name).or_default() += 1;
    }
    let listed = by_name.iter().map(|(name, count)| format!("{count} {name}"));
    let mut listed = listed.collect::<Vec<_>>().join(", ");
    // Only the first entries are listed by the probe.
    if (pending.len() as u64) < u64::from(waiting) {
        listed.push_str(", …");
    }
    Row::new(width).text("  unsubmitted: ", theme.label()).text(&listed, theme.plain()).done()
}
