//! A recording and the place in it one looks at. Time passes only when it is told so.

use std::sync::Arc;

use super::app::Seek;
use super::health::Health;
use super::history::HISTORY_MAX;
use super::view::View;
use crate::model::Model;
use crate::watch::event::{Event, Incident};

const SECOND_NS: i128 = 1_000_000_000;

/// A recording with a playhead.
#[derive(Debug, Clone)]
pub struct Recording {
    models: Vec<Arc<Model>>,
    /// Each with the instant from which the watcher knew of it.
    events: Vec<(u64, Event)>,
    /// What was lost or damaged, one sentence each.
    pub losses: Vec<String>,
    at: usize,
    playing: bool,
    playhead_ns: u64,
}

impl Recording {
    /// At the first tick of `incident`.
    pub fn new(incident: &Incident) -> Self {
        // Events stand in the order in which they were told, so none was known before the one
        // in front of it, whatever instant it speaks of.
        let mut known_ns = 0;
        let events = incident.events.iter().map(|event| {
            known_ns = known_ns.max(told_ns(event));
            (known_ns, event.clone())
        });
        Self {
            events: events.collect(),
            models: incident.models.clone(),
            losses: incident.losses.clone(),
            at: 0,
            playing: false,
            playhead_ns: 0,
        }
    }

    /// Place and number of ticks, for people: from 1.
    pub const fn position(&self) -> (usize, usize) {
        (self.at + 1, self.models.len())
    }

    /// Whether it plays.
    pub const fn playing(&self) -> bool {
        self.playing
    }

    /// The instant of tick `at`, ns.
    fn time_ns(&self, at: usize) -> u64 {
        self.models.get(at).map_or(0, |model| model.at_ns)
    }

    const fn last(&self) -> usize {
        self.models.len().saturating_sub(1)
    }

    /// Moves the playhead; returns whether it moved.
    pub fn seek(&mut self, seek: Seek) -> bool {
        let before = self.at;
        self.at = match seek {
            Seek::First => 0,
            Seek::Last => self.last(),
            Seek::Ticks(ticks) => self.at.saturating_add_signed(ticks).min(self.last()),
            Seek::Seconds(seconds) => self.by_seconds(seconds),
            Seek::Onset => self.next_onset(),
        };
        self.playhead_ns = self.time_ns(self.at);
        self.at != before
    }

    /// At least one tick away, so that the key never seems dead in a sparse recording.
    fn by_seconds(&self, seconds: i32) -> usize {
        let wanted = i128::from(self.time_ns(self.at)) + i128::from(seconds) * SECOND_NS;
        if seconds < 0 {
            let after = self.models.partition_point(|model| i128::from(model.at_ns) <= wanted);
            after.saturating_sub(1).min(self.at.saturating_sub(1))
        } else {
            let first = self.models.partition_point(|model| i128::from(model.at_ns) < wanted);
            first.max(self.at + 1).min(self.last())
        }
    }

    /// The first tick at or after the next onset; after the last onset, the first one again.
    fn next_onset(&self) -> usize {
        let ticks = self.events.iter().filter_map(|(_, event)| match event {
            Event::Onset(onset) => {
                let tick = self.models.partition_point(|model| model.at_ns < onset.at_ns);
                Some(tick.min(self.last()))
            }
            _ => None,
        });
        let ticks: Vec<_> = ticks.collect();
        ticks.iter().find(|tick| **tick > self.at).or(ticks.first()).copied().unwrap_or(self.at)
    }

    /// Plays, from the start when it stands at the end; or pauses.
    pub fn toggle_play(&mut self) {
        if !self.playing && self.at == self.last() {
            self.at = 0;
        }
        self.playing = !self.playing;
        self.playhead_ns = self.time_ns(self.at);
    }

    /// Lets `ns` pass; returns whether anything changed.
    pub fn elapse(&mut self, ns: u64) -> bool {
        if !self.playing {
            return false;
        }
        self.playhead_ns = self.playhead_ns.saturating_add(ns);
        let before = self.at;
        let after = self.models.partition_point(|model| model.at_ns <= self.playhead_ns);
        self.at = after.saturating_sub(1).clamp(before, self.last());
        self.playing = self.at < self.last();
        self.at != before || !self.playing
    }

    /// The screen as the watcher had it at this tick, with one piece of hindsight: between an
    /// onset and its detection the stall is already shown as suspected.
    pub fn view(&self) -> View {
        let mut view = View::default();
        let shown = &self.models[..self.models.len().min(self.at + 1)];
        for model in &shown[shown.len().saturating_sub(HISTORY_MAX)..] {
            view.push_model(model);
        }
        view.lateness.worst_ms = shown.iter().map(|model| model.late_ms).fold(0.0, f64::max);
        view.lateness.lost = shown
            .windows(2)
            .map(|pair| pair[1].seq.saturating_sub(pair[0].seq).saturating_sub(1))
            .fold(0, u64::saturating_add);
        let now_ns = self.time_ns(self.at);
        for (_, event) in self.events.iter().filter(|(known_ns, _)| *known_ns <= now_ns) {
            view.push_event(event);
        }
        if view.health.onset().is_none()
            && let Some(onset) = self.events.iter().find_map(|(known_ns, event)| match event {
                Event::Onset(onset) if (onset.at_ns..*known_ns).contains(&now_ns) => Some(onset),
                _ => None,
            })
        {
            view.health = Health::Suspect(onset.clone());
        }
        view
    }
}

/// When the watcher could have told of `event`, ns.
const fn told_ns(event: &Event) -> u64 {
    match event {
        Event::Onset(onset) => onset.detected_ns,
        Event::Verdict(verdict) => verdict.detected_ns,
        Event::Forecast(forecast) => forecast.at_ns,
        Event::Recovered { at_ns, .. } | Event::Note { at_ns, .. } => *at_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::fixtures;

    /// Ticks every 100 ms; onset at tick 20, noticed at tick 25, recovery at tick 40.
    fn recording() -> Recording {
        Recording::new(&fixtures::incident())
    }

    #[test]
    fn steps_stay_within_the_recording() {
        let mut tape = recording();
        assert!(!tape.seek(Seek::Ticks(-1)));
        assert!(tape.seek(Seek::Ticks(3)));
        assert_eq!(tape.position(), (4, 60));
        assert!(tape.seek(Seek::Seconds(1)));
        assert_eq!(tape.position().0, 14);
        assert!(tape.seek(Seek::Seconds(-1)));
        assert_eq!(tape.position().0, 4);
        assert!(tape.seek(Seek::Last));
        assert!(!tape.seek(Seek::Seconds(1)));
        assert!(!tape.seek(Seek::Ticks(1)));
        assert!(tape.seek(Seek::First));
        assert_eq!(tape.position().0, 1);
    }

    #[test]
    fn onset_is_shown_in_hindsight_and_the_cause_when_it_was_known() {
        let mut tape = recording();
        assert!(matches!(tape.view().health, Health::Unknown));
        tape.seek(Seek::Onset);
        assert_eq!(tape.position().0, 21);
        assert!(matches!(tape.view().health, Health::Suspect(_)));
        assert!(tape.view().log.is_empty(), "the log holds only what was known");
        tape.seek(Seek::Ticks(5));
        assert!(matches!(tape.view().health, Health::Stalled { .. }));
        tape.seek(Seek::Last);
        assert!(matches!(tape.view().health, Health::Recovered { .. }));
        tape.seek(Seek::Onset);
        assert_eq!(tape.position().0, 21, "after the last onset, the first one again");
    }

    #[test]
    fn plays_in_real_time_and_stops_at_the_end() {
        let mut tape = recording();
        assert!(!tape.elapse(1_000_000_000), "paused");
        tape.toggle_play();
        assert!(tape.elapse(250_000_000));
        assert_eq!(tape.position().0, 3);
        assert!(!tape.elapse(10_000_000), "between two ticks");
        assert!(tape.elapse(u64::MAX));
        assert_eq!((tape.position().0, tape.playing()), (60, false));
        tape.toggle_play();
        assert_eq!((tape.position().0, tape.playing()), (1, true));
    }

    #[test]
    fn an_empty_recording_moves_nowhere() {
        let mut tape = Recording::new(&Incident {
            models: Vec::new(),
            events: Vec::new(),
            ..fixtures::incident()
        });
        for seek in [Seek::First, Seek::Last, Seek::Ticks(1), Seek::Seconds(-1), Seek::Onset] {
            assert!(!tape.seek(seek), "{seek:?}");
        }
        assert_eq!(tape.view().model, None);
    }
}
