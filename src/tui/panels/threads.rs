//! The threads, those of the runtime first.
//!
//! ```text
//! ─ Threads 1-4 of 12 ↕ ─────────────────────────────────────────────────────────
//! tid     name            role  S     cpu  delay    sw/s system call    sleeps in
//! 4242    hello           rt    R    98 %   <1 %   120/s (running)      -
//! ```

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use stallscope_probes::sample::{SyscallRaw, TaskState};
use stallscope_probes::{Absence, Reading};

use super::super::app::{App, Extent, Pane};
use super::super::theme::Theme;
use super::super::units;
use super::{Row, absent, absent_in_full, panel, put, scrolled_title};
use crate::model::syscall;
use crate::model::{Model, ThreadModel, ThreadRole};

/// Draws it.
pub fn draw(buffer: &mut Buffer, area: Rect, app: &App, theme: Theme) -> Extent {
    let rows = usize::from(area.height.saturating_sub(2));
    let columns = Columns::of(area.width);
    let lines = app
        .view()
        .model
        .as_ref()
        .map_or_else(Vec::new, |model| lines(model, area.width, columns, theme));
    let offset = app.offset(Pane::Threads);
    let title = scrolled_title("Threads", lines.len(), rows, offset);
    let inner = panel(buffer, area, &title, app.focus() == Pane::Threads, theme);
    put(buffer, inner, &[columns.head(area.width, theme)], 0);
    let below = Rect { y: inner.y + 1, height: inner.height.saturating_sub(1), ..inner };
    put(buffer, below, &lines, offset)
}

/// Widths of the columns that grow with the screen.
#[derive(Debug, Clone, Copy)]
struct Columns {
    name: usize,
    role: usize,
    state: usize,
    switches: usize,
    syscall: usize,
}

const TID: usize = 8;
const NUMBER: usize = 7;

impl Columns {
    const fn of(width: u16) -> Self {
        match width {
            0..100 => Self { name: 15, role: 6, state: 2, switches: 8, syscall: 15 },
            100..160 => Self { name: 18, role: 8, state: 10, switches: 9, syscall: 24 },
            _ => Self { name: 24, role: 8, state: 10, switches: 9, syscall: 30 },
        }
    }

    fn head(self, width: u16, theme: Theme) -> Line<'static> {
        let style = theme.label();
        let roomy = self.state > 2;
        let state = if roomy { "state" } else { "S" };
        let switches = if roomy { "switch/s" } else { "sw/s" };
        Row::new(width)
            .cell("tid", TID, style)
            .cell("name", self.name + 1, style)
            .cell("role", self.role, style)
            .cell(state, self.state, style)
            .number("cpu", NUMBER, style)
            .number("delay", NUMBER, style)
            .number(switches, self.switches, style)
            .gap(1)
            .cell("system call", self.syscall, style)
            .text("sleeps in", style)
            .done()
    }
}

fn lines(model: &Model, width: u16, columns: Columns, theme: Theme) -> Vec<Line<'static>> {
    match &model.threads {
        Reading::Absent(absence) => absent_in_full(absence, width, theme),
        Reading::Got(threads) => {
            let mut sorted: Vec<_> = threads.iter().collect();
            sorted.sort_by_key(|thread| (rank(thread.role), thread.tid));
            sorted.into_iter().map(|thread| row(thread, width, columns, theme)).collect()
        }
    }
}

const fn rank(role: ThreadRole) -> u8 {
    match role {
        ThreadRole::Runtime => 0,
        ThreadRole::Kafka => 1,
        ThreadRole::IoWorker => 2,
        ThreadRole::Other => 3,
    }
}

const fn role_name(role: ThreadRole, columns: usize) -> &'static str {
    match role {
        ThreadRole::Runtime if columns < 8 => "rt",
        ThreadRole::Runtime => "runtime",
        ThreadRole::Kafka => "kafka",
        ThreadRole::IoWorker => "io_wq",
        ThreadRole::Other => "other",
    }
}

const fn state_name(state: TaskState) -> &'static str {
    match state {
        TaskState::Running => "running",
        TaskState::Sleeping => "sleeping",
        TaskState::DiskSleep => "disk wait",
        TaskState::Stopped => "stopped",
        TaskState::Tracing => "traced",
        TaskState::Zombie => "zombie",
        TaskState::Dead => "dead",
        TaskState::Idle => "idle",
        TaskState::Other(_) => "unknown",
    }
}

fn row(thread: &ThreadModel, width: u16, columns: Columns, theme: Theme) -> Line<'static> {
    let letter = thread.state.letter().to_string();
    let state = if columns.state > 2 { state_name(thread.state) } else { &letter };
    let state_style = match thread.state {
        TaskState::Running | TaskState::Sleeping | TaskState::Idle => theme.plain(),
        TaskState::DiskSleep => theme.warn(),
        _ => theme.bad(),
    };
    let name_style = if thread.role == ThreadRole::Runtime { theme.title() } else { theme.plain() };
    let row = Row::new(width)
        .cell(&thread.tid.to_string(), TID, theme.label())
        .cell(&super::text::fit(&thread.comm, columns.name), columns.name + 1, name_style)
        .cell(role_name(thread.role, columns.role), columns.role, theme.label())
        .cell(state, columns.state, state_style);
    let row = number(row, &thread.cpu_ratio, units::percent, NUMBER, theme);
    let row = number(row, &thread.delay_ratio, units::percent, NUMBER, theme);
    let row = number(row, &thread.switches_per_s, units::rate, columns.switches, theme).gap(1);
    let row = match &thread.syscall {
        Reading::Got(call) => {
            row.cell(&call_words(*call), columns.syscall - 1, theme.plain()).gap(1)
        }
        Reading::Absent(absence) => gone(row, absence, columns.syscall, theme),
    };
    let rest = row.left;
    let row = match &thread.wchan {
        Reading::Got(place) if place.is_empty() => row.cell("-", rest, theme.dim()),
        Reading::Got(place) => row.cell(place, rest, theme.plain()),
        Reading::Absent(absence) => gone(row, absence, rest, theme),
    };
    row.done()
}

fn gone(row: Row, absence: &Absence, columns: usize, theme: Theme) -> Row {
    row.cell(&absent(absence, columns.saturating_sub(1)), columns, theme.dim())
}

fn number(
    row: Row,
    reading: &Reading<f64>,
    words: impl Fn(f64) -> String,
    columns: usize,
    theme: Theme,
) -> Row {
    match reading {
        Reading::Got(value) => row.number(&words(*value), columns, theme.plain()),
        Reading::Absent(_) => row.number("absent", columns, theme.dim()),
    }
}

fn call_words(call: SyscallRaw) -> String {
    match call {
        SyscallRaw::Running => String::from("(running)"),
        SyscallRaw::NotInSyscall => String::from("(none)"),
        SyscallRaw::In { nr, .. } => {
            syscall::name(nr).map_or_else(|| format!("number {nr}"), str::to_owned)
        }
    }
}
