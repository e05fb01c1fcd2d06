//! What a report states, drawn from the incident once and used by every format.

use std::sync::Arc;

use stallscope_probes::sample::FaultRaw;

use crate::detect::Onset;
use crate::diagnose::verdict::Verdict;
use crate::model::Model;
use crate::watch::event::{EndReason, Event, Incident};

/// Everything from one onset to its recovery.
#[derive(Debug, Clone, Default)]
pub(super) struct Episode<'a> {
    /// The onset as detected; a single diagnosis has a verdict only.
    pub onset: Option<&'a Onset>,
    /// Verdicts on it, oldest first.
    pub verdicts: Vec<&'a Verdict>,
    /// When it ended and how long it lasted, ms.
    pub recovered: Option<(u64, f64)>,
}

impl<'a> Episode<'a> {
    /// The last word on the cause.
    pub fn verdict(&self) -> Option<&'a Verdict> {
        self.verdicts.last().copied()
    }

    /// When it began, or was first seen.
    pub fn onset_ns(&self) -> Option<u64> {
        self.onset
            .map(|onset| onset.at_ns)
            .or_else(|| self.verdicts.iter().find_map(|verdict| verdict.onset_ns))
    }

    /// Whether `onset_ns` is the first look rather than the beginning.
    pub fn began_before_watch(&self) -> bool {
        match self.onset {
            Some(onset) => onset.before_watch,
            None => self.onset_ns().is_none(),
        }
    }

    /// When it was noticed.
    pub fn detected_ns(&self) -> Option<u64> {
        self.onset
            .map(|onset| onset.detected_ns)
            .or_else(|| self.verdicts.first().map(|verdict| verdict.detected_ns))
    }

    /// The begin, or failing that the moment it was noticed.
    pub fn begin_ns(&self) -> Option<u64> {
        self.onset_ns().or_else(|| self.detected_ns())
    }
}

/// How a run went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Stalled, and still so when watching ended.
    Stalled,
    /// Stalled and over.
    Recovered,
    /// Watched, no stall.
    Healthy,
    /// Nothing was seen of the process: no judgement.
    NoData,
}

/// The facts.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub incident: &'a Incident,
    /// First instant of the run, ns.
    pub begin_ns: u64,
    /// Last instant of the run, ns.
    pub end_ns: u64,
    /// All stalls, oldest first.
    pub episodes: Vec<Episode<'a>>,
    /// The one the report is about: the one that lasts, else the longest.
    main: Option<usize>,
    /// The last verdict that says healthy.
    pub healthy: Option<&'a Verdict>,
    /// Faults that the process recorded on its heartbeat page, oldest first.
    pub faults: Vec<FaultRaw>,
    pub outcome: Outcome,
}

impl<'a> Facts<'a> {
    /// Draws the facts.
    pub fn new(incident: &'a Incident) -> Self {
        let episodes = episodes(&incident.events);
        let (begin_ns, end_ns) = span(incident);
        let main = main_episode(&episodes, end_ns);
        let outcome = match main.and_then(|main| episodes.get(main)) {
            Some(episode) if episode.recovered.is_some() => Outcome::Recovered,
            Some(_) => Outcome::Stalled,
            None if incident.models.iter().any(|model| model.process.got().is_some()) => {
                Outcome::Healthy
            }
            None => Outcome::NoData,
        };
        let healthy = incident.events.iter().rev().find_map(|event| match event {
            Event::Verdict(verdict) if !verdict.cause.is_stall() => Some(verdict),
            _ => None,
        });
        let faults = faults(&incident.models);
        Self { incident, begin_ns, end_ns, episodes, main, healthy, faults, outcome }
    }

    /// The stall the report is about.
    pub fn episode(&self) -> Option<&Episode<'a>> {
        self.main.and_then(|main| self.episodes.get(main))
    }

    /// The verdict the report is about.
    pub fn verdict(&self) -> Option<&'a Verdict> {
        match self.episode() {
            Some(episode) => episode.verdict(),
            None => self.healthy,
        }
    }

    /// The instant that offsets are relative to: the onset, else the begin of the run.
    pub fn zero_ns(&self) -> u64 {
        self.episode().and_then(Episode::begin_ns).unwrap_or(self.begin_ns)
    }

    /// When the stall the report is about ended, if it did.
    pub fn recovered_ns(&self) -> Option<u64> {
        self.episode().and_then(|episode| episode.recovered).map(|(at_ns, _)| at_ns)
    }

    /// How long the stall lasted, or has lasted when watching ended, ms.
    pub fn stalled_ms(&self) -> Option<f64> {
        let episode = self.episode()?;
        match episode.recovered {
            Some((_, stalled_ms)) => Some(stalled_ms),
            None => Some(self.end_ns.saturating_sub(episode.begin_ns()?) as f64 / 1e6),
        }
    }

    /// The first tick at or after an instant.
    pub fn model_from(&self, at_ns: u64) -> Option<&'a Model> {
        self.incident.models.iter().map(Arc::as_ref).find(|model| model.at_ns >= at_ns)
    }

    /// The ticks of the stall, oldest first; of the whole run when there was none.
    pub fn stall_models(&self) -> impl DoubleEndedIterator<Item = &'a Model> + use<'a> {
        let from_ns = self.episode().and_then(Episode::begin_ns).unwrap_or(0);
        let to_ns = self.recovered_ns().unwrap_or(u64::MAX);
        self.incident
            .models
            .iter()
            .map(Arc::as_ref)
            .filter(move |model| model.at_ns >= from_ns && model.at_ns < to_ns)
    }

    /// RFC 3339 with milliseconds, UTC.
    pub fn wall(&self, at_ns: u64) -> String {
        self.incident.anchor.rfc3339(at_ns)
    }

    /// `HH:MM:SS.mmm`, UTC.
    pub fn clock(&self, at_ns: u64) -> String {
        self.incident.anchor.clock_time(at_ns)
    }
}

/// Why watching ended, in words.
pub(super) const fn end_reason(end: EndReason) -> &'static str {
    match end {
        EndReason::TimeUp => "Watching ended: the time given was up.",
        EndReason::Stalled => "Watching ended: a stall had been named.",
        EndReason::TargetGone => "Watching ended: the process exited.",
        EndReason::Interrupted => "Watching ended: it was interrupted.",
        EndReason::RecordingEnds => "The recording ends here.",
        EndReason::RecordingFull => "The recording reached its bound here; watching went on.",
    }
}

fn episodes(events: &[Event]) -> Vec<Episode<'_>> {
    let mut episodes: Vec<Episode<'_>> = Vec::new();
    let mut open = false;
    for event in events {
        match event {
            Event::Onset(onset) => {
                episodes.push(Episode { onset: Some(onset), ..Episode::default() });
                open = true;
            }
            Event::Verdict(verdict) if verdict.cause.is_stall() => match episodes.last_mut() {
                // A verdict may arrive in the very tick of recovery, after it.
                Some(episode) if open || episode.onset_ns() == verdict.onset_ns => {
                    episode.verdicts.push(verdict);
                }
                _ => {
                    episodes.push(Episode { verdicts: vec![verdict], ..Episode::default() });
                    open = true;
                }
            },
            Event::Recovered { at_ns, stalled_ms } => {
                if let Some(episode) = episodes.last_mut().filter(|_| open) {
                    episode.recovered = Some((*at_ns, *stalled_ms));
                }
                open = false;
            }
            Event::Verdict(_) | Event::Forecast(_) | Event::Note { .. } => {}
        }
    }
    episodes
}

fn main_episode(episodes: &[Episode<'_>], end_ns: u64) -> Option<usize> {
    let length_ms = |episode: &Episode<'_>| match episode.recovered {
        Some((_, stalled_ms)) => stalled_ms,
        None => end_ns.saturating_sub(episode.begin_ns().unwrap_or(end_ns)) as f64 / 1e6,
    };
    let key = |index: &usize| {
        episodes.get(*index).map(|episode| (episode.recovered.is_none(), length_ms(episode)))
    };
    (0..episodes.len()).max_by(|a, b| {
        let (Some((open_a, ms_a)), Some((open_b, ms_b))) = (key(a), key(b)) else {
            return std::cmp::Ordering::Equal;
        };
        // Of two that last equally long, the earlier.
        open_a.cmp(&open_b).then(ms_a.total_cmp(&ms_b)).then(b.cmp(a))
    })
}

/// From the first to the last instant known: ticks, else events, else the anchor.
fn span(incident: &Incident) -> (u64, u64) {
    let ticks = incident.models.iter().map(|model| model.at_ns);
    let events = incident.events.iter().map(event_ns);
    let begin_ns = ticks.clone().chain(events.clone()).min().unwrap_or(incident.anchor.mono_ns);
    let end_ns = ticks.chain(events).max().unwrap_or(incident.anchor.mono_ns);
    (incident.models.first().map_or(begin_ns, |model| model.at_ns), end_ns)
}

/// When an event became known.
pub(super) const fn event_ns(event: &Event) -> u64 {
    match event {
        Event::Onset(onset) => onset.at_ns,
        Event::Verdict(verdict) => verdict.detected_ns,
        Event::Forecast(forecast) => forecast.at_ns,
        Event::Recovered { at_ns, .. } | Event::Note { at_ns, .. } => *at_ns,
    }
}

/// Distinct faults by begin; the last reading of each, since the end is recorded later.
fn faults(models: &[Arc<Model>]) -> Vec<FaultRaw> {
    let mut faults: Vec<FaultRaw> = Vec::new();
    let read = models.iter().filter_map(|model| model.app.got()?.raw.fault);
    for fault in read {
        let same =
            |last: &&mut FaultRaw| last.begin_ns == fault.begin_ns && last.fault == fault.fault;
        if let Some(last) = faults.last_mut().filter(same) {
            *last = fault;
        } else if faults.len() < FAULTS_MAX {
            faults.push(fault);
        }
    }
    faults
}

/// Faults listed.
const FAULTS_MAX: usize = 32;
