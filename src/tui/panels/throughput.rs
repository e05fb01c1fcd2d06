//! What the server says of itself through its heartbeat page.
//!
//! ```text
//! ─ Heartbeat 12 ms ago, last 60 s ─────────────
//! requests   12.3k/s  ▂▃▅▆▇█
//! responses  12.3k/s  ▂▃▅▆▇█
//! accepts     120/s  52 open conns
//! Kafka     12.3k/s  12 msgs queued
//! ```

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use stallscope_probes::Reading;

use super::super::app::App;
use super::super::history::Track;
use super::super::theme::Theme;
use super::super::units;
use super::{Row, absent_in_full, panel_styled, put, spark, spark_span};
use crate::model::AppModel;

/// Columns of the word in front, and of the number.
const LABEL: usize = 10;
const NUMBER: usize = 9;
/// Intervals without a beat after which the age is worth a warning.
const BEATS_MISSED_WARN: f64 = 5.0;

/// Draws it.
pub fn draw(buffer: &mut Buffer, area: Rect, app: &App, theme: Theme) {
    let (title, mark) = title(app, theme);
    let inner = panel_styled(buffer, area, &title, mark, theme);
    let Some(model) = &app.view().model else { return };
    let lines = match &model.app {
        Reading::Got(heartbeat) => {
            let sheet = Sheet { app, heartbeat, width: inner.width, theme };
            if inner.height >= 6 { sheet.roomy() } else { sheet.compact() }
        }
        Reading::Absent(absence) => absent_in_full(absence, inner.width, theme),
    };
    put(buffer, inner, &lines, 0);
}

/// The age of the last beat, and the span of the sparklines.
fn title(app: &App, theme: Theme) -> (String, (&'static str, Style)) {
    let span = spark_span(app.info().environment.interval_ms);
    let heartbeat = app.view().model.as_ref().and_then(|model| model.app.got());
    let Some(heartbeat) = heartbeat else {
        return (String::from("Heartbeat"), ("─", theme.title()));
    };
    let Some(age_ms) = heartbeat.beat_age_ms else {
        return (format!("Heartbeat: none yet, {span}"), ("─", theme.warn()));
    };
    let due_ms = heartbeat.raw.beat_every_ns as f64 / 1e6;
    let missed = due_ms > 0.0 && age_ms > due_ms * BEATS_MISSED_WARN;
    let mark = if missed { ("!", theme.warn()) } else { ("─", theme.title()) };
    (format!("Heartbeat {} ago, {span}", units::span_ms(age_ms)), mark)
}

struct Sheet<'a> {
    app: &'a App,
    heartbeat: &'a AppModel,
    width: u16,
    theme: Theme,
}

impl Sheet<'_> {
    fn compact(&self) -> Vec<Line<'static>> {
        let beat = &self.heartbeat;
        let accepts = self.value(self.row("accepts"), &beat.accepts_per_s);
        let kafka = self.value(self.row("Kafka"), &beat.delivered_per_s);
        vec![
            self.rate("requests", &beat.requests_per_s, Track::Requests),
            self.rate("responses", &beat.responses_per_s, Track::Responses),
            accepts.text(&format!("  {} open conns", beat.raw.open), self.theme.plain()).done(),
            kafka.text(&self.kafka_words(), self.theme.plain()).done(),
        ]
    }

    fn roomy(&self) -> Vec<Line<'static>> {
        let beat = &self.heartbeat;
        let queue = units::count(beat.raw.producer_queue);
        let failed = if beat.raw.failed > 0 { self.theme.bad() } else { self.theme.label() };
        let queue_row = self
            .row("queue")
            .number(&queue, NUMBER, self.theme.plain())
            .text(" msgs", self.theme.label());
        vec![
            self.rate("requests", &beat.requests_per_s, Track::Requests),
            self.rate("responses", &beat.responses_per_s, Track::Responses),
            self.rate("accepts", &beat.accepts_per_s, Track::Accepts),
            self.rate("delivered", &beat.delivered_per_s, Track::Delivered),
            self.with_spark(queue_row, Track::ProducerQueue),
            self.row("open")
                .number(&units::count(beat.raw.open), NUMBER, self.theme.plain())
                .text(" conns", self.theme.label())
                .done(),
            self.row("failed")
                .number(&units::count(beat.raw.failed), NUMBER, failed)
                .text(" events", self.theme.label())
                .text(&format!("  {} accept errors", beat.raw.accept_errors), self.theme.label())
                .text(&self.errno_words(), self.theme.label())
                .done(),
        ]
    }

    fn row(&self, label: &str) -> Row {
        Row::new(self.width).cell(label, LABEL, self.theme.label())
    }

    fn value(&self, row: Row, reading: &Reading<f64>) -> Row {
        match reading {
            Reading::Got(per_s) => row.number(&units::rate(*per_s), NUMBER, self.theme.plain()),
            Reading::Absent(_) => row.number("absent", NUMBER, self.theme.dim()),
        }
    }

    fn rate(&self, label: &str, reading: &Reading<f64>, track: Track) -> Line<'static> {
        self.with_spark(self.value(self.row(label), reading), track)
    }

    fn with_spark(&self, row: Row, track: Track) -> Line<'static> {
        let row = row.gap(2);
        let columns = row.left.saturating_sub(1);
        let interval_ms = self.app.info().environment.interval_ms;
        let picture = spark(self.app.view().history.of(track), columns, interval_ms);
        row.cell(&picture, columns, self.theme.plain()).done()
    }

    fn kafka_words(&self) -> String {
        let raw = &self.heartbeat.raw;
        let queue = units::count(raw.producer_queue);
        let failed = match raw.failed {
            0 => String::new(),
            failed => format!(", {} failed", units::count(failed)),
        };
        format!("  {queue} msgs queued{failed}")
    }

    fn errno_words(&self) -> String {
        let errno = self.heartbeat.raw.accept_errno;
        errno.map_or(String::new(), |errno| format!(" (last: errno {errno})"))
    }
}
