//! What runs out: fds, ephemeral ports; and the process as a whole.
//!
//! ```text
//! ─ Limits, last 60 s ──────────────────────────
//! fds   ████████░░  79 %     812/1024   ▂▃▅▆▇█
//! ports ▏░░░░░░░░░   4 %    1204/28232  ......
//! cpu   0.98 cores  34 MiB  12 threads  ▂▃▅▆▇█
//!       52 sockets, 1 ring, 4 files
//!       most to 10.0.0.7:9092: 800 ports
//!       conntrack 99 % full: 260000/262144
//! ```

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use stallscope_probes::Reading;
use stallscope_probes::sample::{FdKindsRaw, TablesRaw};

use super::super::app::App;
use super::super::history::Track;
use super::super::theme::Theme;
use super::super::{text, units};
use super::{Row, absent, gauge, panel_styled, put, spark, spark_span};
use crate::model::{FdsModel, Model, PortsModel, ProcessModel};

/// Columns of the word in front.
const LABEL: usize = 6;
/// From here on a table that others fill too is worth a word.
const TABLE_FULL_WARN: f64 = 0.7;

/// Draws it.
pub fn draw(buffer: &mut Buffer, area: Rect, app: &App, theme: Theme) {
    let interval_ms = app.info().environment.interval_ms;
    let full = app.view().model.as_ref().map_or_else(Vec::new, |model| full_tables(model));
    let (title, mark) = title(&full, area.width, interval_ms, theme);
    let inner = panel_styled(buffer, area, &title, mark, theme);
    let Some(model) = &app.view().model else { return };
    let sheet = Sheet { app, width: inner.width, interval_ms, theme };
    let mut lines = vec![sheet.fds(&model.fds), sheet.ports(&model.ports)];
    lines.push(sheet.process(&model.process));
    lines.extend(full.iter().map(|table| {
        sheet.row("").first_that_fits(&table.words(), theme.fill(table.used_ratio())).done()
    }));
    lines.extend(sheet.more(model));
    put(buffer, inner, &lines, 0);
}

/// A small screen has no line to spare, but for the title.
fn title(
    full: &[Table],
    width: u16,
    interval_ms: u64,
    theme: Theme,
) -> (String, (&'static str, Style)) {
    if full.is_empty() {
        return (format!("Limits, {}", spark_span(interval_ms)), ("─", theme.title()));
    }
    let tables: Vec<String> = full
        .iter()
        .map(|table| format!("{} {}", table.name, units::percent(table.used_ratio())))
        .collect();
    let style = full.iter().map(Table::used_ratio).fold(0.0, f64::max);
    let tables = tables.join(", ");
    let long = format!("Limits: {tables} full");
    // The mark, the blanks and the end of the rule.
    let room = usize::from(width).saturating_sub(5);
    let title = if text::width(&long) <= room { long } else { tables };
    (title, ("!", theme.fill(style.max(0.8))))
}

/// A table that others fill too.
pub(super) struct Table {
    name: &'static str,
    used: u64,
    max: u64,
    /// What it has turned away, or who need not mind.
    more: String,
}

impl Table {
    fn used_ratio(&self) -> f64 {
        if self.max == 0 { 0.0 } else { self.used as f64 / self.max as f64 }
    }

    /// The longest words first.
    pub(super) fn words(&self) -> Vec<String> {
        let (used, max) = (units::count(self.used), units::count(self.max));
        let short = format!("{} {} full", self.name, units::percent(self.used_ratio()));
        let counts = format!("{short}: {used}/{max}");
        vec![format!("{counts}{}", self.more), counts, short]
    }
}

/// Those that could be read.
pub(super) fn tables(tables: &TablesRaw) -> Vec<Table> {
    let files = tables.files.got().map(|files| Table {
        name: "file table",
        used: files.open,
        max: files.max,
        more: match files.exempt {
            Some(true) => String::from(", but this process may go beyond"),
            Some(false) | None => String::new(),
        },
    });
    let conntrack = tables.conntrack.got().map(|table| Table {
        name: "conntrack",
        used: table.entries.into(),
        max: table.max.into(),
        more: format!(", {} dropped so far", units::count(table.drops)),
    });
    files.into_iter().chain(conntrack).collect()
}

fn full_tables(model: &Model) -> Vec<Table> {
    let mut full = model.tables.got().map_or_else(Vec::new, tables);
    full.retain(|table| table.used_ratio() > TABLE_FULL_WARN);
    full.sort_by(|a, b| b.used_ratio().total_cmp(&a.used_ratio()));
    full
}

struct Sheet<'a> {
    app: &'a App,
    width: u16,
    interval_ms: u64,
    theme: Theme,
}

impl Sheet<'_> {
    fn row(&self, label: &str) -> Row {
        Row::new(self.width).cell(label, LABEL, self.theme.label())
    }

    fn with_spark(&self, row: Row, track: Track) -> Line<'static> {
        let columns = row.left.saturating_sub(2);
        let picture = spark(self.app.view().history.of(track), columns, self.interval_ms);
        row.gap(1).cell(&picture, columns, self.theme.plain()).done()
    }

    fn absent<T>(&self, label: &str, reading: &Reading<T>) -> Option<Line<'static>> {
        let absence = reading.absence()?;
        let row = self.row(label);
        let columns = row.left;
        Some(row.cell(&absent(absence, columns), columns, self.theme.dim()).done())
    }

    fn share(&self, label: &str, ratio: f64, of: &str, track: Track) -> Line<'static> {
        let columns = if self.width >= 50 { 12 } else { 8 };
        let style = self.theme.fill(ratio);
        let row = self
            .row(label)
            .cell(&gauge(ratio, columns), columns, style)
            .number(&units::percent(ratio), 6, style)
            .number(of, 12, self.theme.plain());
        self.with_spark(row, track)
    }

    fn fds(&self, reading: &Reading<FdsModel>) -> Line<'static> {
        if let Some(line) = self.absent("fds", reading) {
            return line;
        }
        let Some(fds) = reading.got() else { return Line::default() };
        if let (Some(ratio), Some(limit)) = (fds.used_ratio(), fds.soft_limit()) {
            let of = format!("{}/{}", units::count(fds.open), units::count(limit));
            return self.share("fds", ratio, &of, Track::FdsOpen);
        }
        let limit = if fds.limit.got().is_some() { "no limit" } else { "limit unknown" };
        let open = format!("{} open, {limit}", units::count(fds.open));
        let row = self.row("fds").cell(&open, 26, self.theme.plain());
        self.with_spark(row, Track::FdsOpen)
    }

    fn ports(&self, reading: &Reading<PortsModel>) -> Line<'static> {
        if let Some(line) = self.absent("ports", reading) {
            return line;
        }
        let Some(ports) = reading.got() else { return Line::default() };
        if ports.size == 0 {
            return self.row("ports").text("the range is empty", self.theme.warn()).done();
        }
        let ratio = f64::from(ports.in_use) / f64::from(ports.size);
        let of = format!("{}/{}", ports.in_use, ports.size);
        self.share("ports", ratio, &of, Track::PortsInUse)
    }

    fn process(&self, reading: &Reading<ProcessModel>) -> Line<'static> {
        if let Some(line) = self.absent("cpu", reading) {
            return line;
        }
        let Some(process) = reading.got() else { return Line::default() };
        let row = self.row("cpu");
        let row = match &process.cpu_cores {
            Reading::Got(cores) => row.text(&format!("{cores:.2} cores"), self.theme.plain()),
            Reading::Absent(_) => row.text("absent", self.theme.dim()),
        };
        let size = units::bytes(process.rss_bytes);
        let rest = format!("  {size}  {} threads", process.threads);
        let used = LABEL + 26;
        let taken = usize::from(self.width).saturating_sub(row.left);
        let row =
            row.cell(&rest, used.saturating_sub(taken).max(text::width(&rest)), self.theme.plain());
        self.with_spark(row, Track::CpuCores)
    }

    /// What one likes to know when there is room.
    fn more(&self, model: &Model) -> Vec<Line<'static>> {
        let mut lines = Vec::new();
        if let Some(kinds) = model.fd_kinds.got() {
            let row = self.row("").first_that_fits(&kind_words(kinds), self.theme.label());
            lines.push(row.done());
        }
        if let Some(ports) = model.ports.got() {
            let (first, last) = ports.range;
            let range = format!("port range {first}-{last}, {} in TIME_WAIT", ports.time_wait);
            lines.push(self.row("").text(&range, self.theme.label()).done());
            if let Some((to, used)) = ports.top.first() {
                let most = format!("most to {to}: {used} ports");
                lines.push(self.row("").text(&most, self.theme.label()).done());
            }
        }
        if let Some(true) = model.frozen.got() {
            let line = self.row("").text("its cgroup is frozen", self.theme.bad()).done();
            lines.insert(0, line);
        }
        lines
    }
}

/// What the fds are, most first: in full, then only the most frequent ones.
fn kind_words(kinds: &FdKindsRaw) -> Vec<String> {
    let mut counts = [
        (kinds.sockets, "sockets"),
        (kinds.rings, "rings"),
        (kinds.epolls, "epolls"),
        (kinds.anonymous, "anonymous"),
        (kinds.pipes, "pipes"),
        (kinds.files, "files"),
    ];
    counts.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let words: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| {
            let name = if *count == 1 { name.trim_end_matches('s') } else { name };
            format!("{count} {name}")
        })
        .collect();
    let more = if kinds.truncated { ", …" } else { "" };
    (1..=words.len()).rev().map(|shown| format!("{}{more}", words[..shown].join(", "))).collect()
}
