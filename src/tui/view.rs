//! What is on the screen at one instant: live it moves with each step, frozen it is a copy, and in
//! a replay it is made again for the tick one looks at.

use std::collections::VecDeque;
use std::sync::Arc;

use super::health::Health;
use super::history::History;
use super::units;
use crate::model::Model;
use crate::watch::event::{Event, Step};

/// Lines kept in the log.
pub const LOG_MAX: usize = 500;

/// What a line of the log is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKind {
    /// A stall began.
    Onset,
    /// A cause, or a better account of it.
    Verdict,
    /// A stall is over.
    Recovered,
    /// Something will run out if it goes on like this.
    Forecast,
    /// Anything else.
    Note,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When, ns.
    pub at_ns: u64,
    /// About what.
    pub kind: LogKind,
    /// In words; may be hostile.
    pub text: String,
}

impl LogLine {
    /// The line for `event`.
    pub fn of(event: &Event) -> Self {
        let (at_ns, kind, text) = match event {
            Event::Onset(onset) => (onset.at_ns, LogKind::Onset, onset.demand.clone()),
            Event::Verdict(verdict) => (
                verdict.detected_ns,
                LogKind::Verdict,
                format!(
                    "{} ({}): {}",
                    verdict.cause.id(),
                    verdict.confidence.id(),
                    verdict.summary
                ),
            ),
            Event::Recovered { at_ns, stalled_ms } => {
                (*at_ns, LogKind::Recovered, format!("stalled for {}", units::span_ms(*stalled_ms)))
            }
            Event::Forecast(forecast) => (forecast.at_ns, LogKind::Forecast, forecast.text.clone()),
            Event::Note { at_ns, text } => (*at_ns, LogKind::Note, text.clone()),
        };
        // Kept in memory for long: no more of it than can be drawn.
        let text = text.chars().take(super::text::CHARS_MAX).collect();
        Self { at_ns, kind, text }
    }
}

/// How well the watcher itself keeps up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Lateness {
    /// How late the tick shown began, ms.
    pub now_ms: f64,
    /// The greatest so far, ms.
    pub worst_ms: f64,
    /// Ticks that never came (gaps in the numbers).
    pub lost: u64,
}

/// Everything the panels draw.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    /// The tick shown; `None` until the first has come.
    pub model: Option<Arc<Model>>,
    /// The past of its numbers.
    pub history: History,
    /// What the events say.
    pub health: Health,
    /// The events, oldest first, at most [`LOG_MAX`].
    pub log: VecDeque<LogLine>,
    /// How late the watcher is.
    pub lateness: Lateness,
}

impl View {
    /// Takes one step in.
    pub fn push(&mut self, step: &Step) {
        self.push_model(&step.model);
        for event in &step.events {
            self.push_event(event);
        }
    }

    /// Takes a tick in.
    pub fn push_model(&mut self, model: &Arc<Model>) {
        let lost = self
            .model
            .as_ref()
            .map_or(0, |before| model.seq.saturating_sub(before.seq).saturating_sub(1));
        self.history.push(model, lost);
        self.lateness = Lateness {
            now_ms: model.late_ms,
            worst_ms: self.lateness.worst_ms.max(model.late_ms),
            lost: self.lateness.lost.saturating_add(lost),
        };
        self.model = Some(Arc::clone(model));
    }

    /// Takes an event in.
    pub fn push_event(&mut self, event: &Event) {
        self.health.apply(event);
        if self.log.len() == LOG_MAX {
            self.log.pop_front();
        }
        self.log.push_back(LogLine::of(event));
    }

    /// The instant shown, ns; `None` until the first tick has come.
    pub fn now_ns(&self) -> Option<u64> {
        self.model.as_ref().map(|model| model.at_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::fixtures;

    #[test]
    fn numbers_that_jump_are_lost_ticks_and_the_worst_lateness_stays() {
        let mut view = View::default();
        let mut late = fixtures::healthy(7);
        late.late_ms = 40.0;
        view.push_model(&Arc::new(late));
        assert_eq!(view.lateness.lost, 0, "watching may begin at any number");
        view.push_model(&Arc::new(fixtures::healthy(8)));
        view.push_model(&Arc::new(fixtures::healthy(11)));
        assert_eq!(view.lateness.lost, 2);
        assert!(view.lateness.worst_ms > 39.0 && view.lateness.now_ms < 1.0);
    }

    #[test]
    fn the_log_is_bounded_in_lines_and_in_their_length() {
        let mut view = View::default();
        for at_ns in 0..LOG_MAX as u64 + 3 {
            view.push_event(&Event::Note { at_ns, text: "x".repeat(100_000) });
        }
        assert_eq!(view.log.len(), LOG_MAX);
        assert_eq!(view.log[0].at_ns, 3);
        assert!(view.log[0].text.len() <= super::super::text::CHARS_MAX);
    }
}
