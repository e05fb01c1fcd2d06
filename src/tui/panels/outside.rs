//! What the process depends on: connections of its own making, its cgroup, pressure.
//!
//! ```text
//! ─ Outside: 3 connections to others, 2 wait ───────────────────────────────────
//! cgroup throttled in 42 % of its periods   pressure: cpu 2 %, memory 0 %, disk 0 %
//! 10.0.0.8:9092  kafka  ESTABLISHED  unsent 47 KiB  sent again 11 (+3)  rtt 0.4 ms
//! ```

use std::cmp::Reverse;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use stallscope_probes::Reading;
use stallscope_probes::sample::{PressureScope, TcpState};

use super::super::app::App;
use super::super::theme::Theme;
use super::super::{text, units};
use super::{Row, absent, panel, put};
use crate::model::{CgroupModel, Model, PeerModel, PressureModel, StallShare};

/// Columns for an address: an IPv4 one and its port; of a longer one the end is shown.
const ADDRESS: usize = 22;
/// Pressure from which on it is worth a colour: a tenth of the time.
const PRESSURE_WARN: f64 = 0.1;

/// Draws it.
pub fn draw(buffer: &mut Buffer, area: Rect, app: &App, theme: Theme) {
    let Some(model) = &app.view().model else {
        panel(buffer, area, "Outside", false, theme);
        return;
    };
    let inner = panel(buffer, area, &title(model, usize::from(area.height)), false, theme);
    let mut lines = vec![whole(model, area.width, theme)];
    match &model.peers {
        Reading::Absent(absence) => {
            let row = Row::new(area.width).text("connections to others ", theme.label());
            let columns = row.left;
            lines.push(row.text(&absent(absence, columns), theme.dim()).done());
        }
        Reading::Got(peers) => {
            let mut peers: Vec<&PeerModel> = peers.iter().collect();
            // What waits comes first, then what has most to send.
            peers.sort_by_key(|peer| (!peer.waits(), Reverse(peer.raw.unsent_bytes)));
            lines.extend(peers.iter().map(|peer| connection(peer, area.width, theme)));
        }
    }
    put(buffer, inner, &lines, 0);
}

fn title(model: &Model, rows: usize) -> String {
    let peers = model.all_peers();
    if peers.is_empty() {
        return String::from("Outside: connections to others, cgroup, pressure");
    }
    let waiting = peers.iter().filter(|peer| peer.waits()).count();
    // The title and the line for the whole.
    let hidden = (peers.len() + 2).saturating_sub(rows);
    let hidden = if hidden > 0 { format!(", {hidden} not shown") } else { String::new() };
    let named = match peers.len() {
        1 => String::from("1 connection to another"),
        count => format!("{count} connections to others"),
    };
    format!("Outside: {named}, {waiting} wait{hidden}")
}

/// The cgroup and the pressure.
fn whole(model: &Model, width: u16, theme: Theme) -> Line<'static> {
    let row = Row::new(width).text("cgroup ", theme.label());
    let row = match &model.cgroup {
        Reading::Got(cgroup) => {
            let (words, style) = limits(cgroup, theme);
            row.text(&words, style)
        }
        Reading::Absent(absence) => row.text(&absent(absence, 24), theme.dim()),
    };
    match &model.pressure {
        Reading::Got(pressure) => stalls(row, pressure, theme),
        Reading::Absent(absence) => {
            let row = row.text("   pressure ", theme.label());
            let columns = row.left;
            row.text(&absent(absence, columns), theme.dim())
        }
    }
    .done()
}

fn limits(cgroup: &CgroupModel, theme: Theme) -> (String, Style) {
    if let Some(kills) = cgroup.oom_kills_new.filter(|kills| *kills > 0) {
        return (format!("out of memory: {kills} killed"), theme.bad());
    }
    if cgroup.is_throttled() {
        let share = cgroup.throttled_ratio.map_or_else(|| String::from("?"), units::percent);
        return (format!("throttled in {share} of its periods"), theme.warn());
    }
    if cgroup.is_short_of_memory() {
        return (String::from("at its limit of memory"), theme.warn());
    }
    if cgroup.throttled_new.is_none() {
        return (String::from("throttling absent"), theme.dim());
    }
    (String::from("not throttled"), theme.plain())
}

fn stalls(row: Row, pressure: &PressureModel, theme: Theme) -> Row {
    let whose = match pressure.scope {
        PressureScope::Cgroup => "   pressure: ",
        PressureScope::Machine => "   pressure of the machine: ",
    };
    let mut row = row.text(whose, theme.label());
    for (at, (name, share)) in
        [("cpu", pressure.cpu), ("memory", pressure.memory), ("disk", pressure.io)]
            .into_iter()
            .enumerate()
    {
        let comma = if at > 0 { ", " } else { "" };
        row = row.text(&format!("{comma}{name} "), theme.label());
        row = match share {
            Some(StallShare { some, .. }) => {
                let style = if some >= PRESSURE_WARN { theme.warn() } else { theme.plain() };
                row.text(&units::percent(some), style)
            }
            None => row.text("absent", theme.dim()),
        };
    }
    row.text(" of the time", theme.label())
}

fn connection(peer: &PeerModel, width: u16, theme: Theme) -> Line<'static> {
    let raw = &peer.raw;
    let silent = raw.state == TcpState::SynSent;
    let state_style = if silent { theme.bad() } else { theme.plain() };
    let unsent_style = if raw.unsent_bytes > 0 { theme.warn() } else { theme.plain() };
    let unsent = units::bytes(u64::from(raw.unsent_bytes));
    let mut row = Row::new(width)
        .cell(&text::fit_end(&raw.remote.to_string(), ADDRESS), ADDRESS + 2, theme.plain())
        .cell(if peer.kafka { "kafka" } else { "" }, 7, theme.label())
        .cell(peer.state_name(), 13, state_style)
        .text("unsent ", theme.label())
        .cell(&unsent, 10, unsent_style);
    if let Some(info) = &raw.info {
        let new = peer.retransmitted_new.got().filter(|new| **new > 0);
        let style = if new.is_some() { theme.warn() } else { theme.plain() };
        let new = new.map_or_else(String::new, |new| format!(" (+{new})"));
        row = row
            .text("sent again ", theme.label())
            .cell(&format!("{}{new}", info.retransmitted), 12, style)
            .text("rtt ", theme.label())
            .text(&units::span_ns(u64::from(info.rtt_us) * 1_000), theme.plain());
    }
    if raw.unread_bytes > 0 {
        let unread = format!("  unread {}", units::bytes(u64::from(raw.unread_bytes)));
        row = row.first_that_fits(&[unread], theme.label());
    }
    row.done()
}
