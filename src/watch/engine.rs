//! One pipe for live and replayed samples: sample → model → onset → verdict.

use std::collections::VecDeque;
use std::sync::Arc;

use stallscope_probes::sample::Sample;

use super::config::Config;
use super::event::{Event, Step};
use super::notes::{self, Slowness};
use crate::detect::{Detector, Forecast, Forecaster, Onset, Transition};
use crate::diagnose::verdict::{Cause, Confidence, Verdict};
use crate::diagnose::{self, Case};
use crate::model::{Model, ModelBuilder};

/// Ticks kept for detection and diagnosis: a minute at 50 ms.
pub const HISTORY_MAX: usize = 1_200;

/// How long an `unknown` is held back, in case evidence is still to come (a census, a ring read
/// that the kernel's lock left out).
const UNKNOWN_PATIENCE_NS: u64 = 1_500_000_000;

/// Turns samples into models, onsets and verdicts. Holds no clock: time comes with the samples.
#[derive(Debug)]
pub struct Engine {
    builder: ModelBuilder,
    config: Config,
    detector: Detector,
    forecaster: Forecaster,
    /// Onsets of late, ns.
    onsets: VecDeque<u64>,
    history: VecDeque<Arc<Model>>,
    verdict: Option<Verdict>,
    /// When a verdict that stands was held against what came after it.
    reviewed_ns: u64,
    onset_ns: Option<u64>,
    calm: Calm,
    slowness: Slowness,
}

/// What is said of a server that is not stalled: seldom, and only when it changes for good.
#[derive(Debug, Default)]
struct Calm {
    looked_ns: Option<u64>,
    said: Option<Cause>,
    /// A state other than the one said, and how many looks in a row have shown it.
    other: Option<(Cause, u32)>,
}

/// How often a verdict under which the server works on is held against what came after it.
const REVIEW_EVERY_NS: u64 = 1_000_000_000;

/// Whether a server with this trouble works all the while, so that worse can come meanwhile.
const fn lets_work_go_on(cause: Cause) -> bool {
    matches!(cause, Cause::AcceptQueueOverflow | Cause::SynBacklogFull)
}

/// Stalls that come and go are told of when there were so many within so long.
const FLAPS_MIN: usize = 3;
const FLAPS_WITHIN_NS: u64 = 60_000_000_000;
/// Onsets remembered for that.
const FLAPS_MAX: usize = 64;

/// How often a server that is not stalled is judged.
const CALM_LOOK_EVERY_NS: u64 = 1_000_000_000;
/// Looks in a row that must agree before idle becomes busy or the other way round: a server with a
/// request now and then is not a matter for the log.
const CALM_LOOKS_MIN: u32 = 3;

impl Calm {
    /// Whether a look is due; the first comes one interval after the first tick.
    fn is_due(&mut self, now_ns: u64) -> bool {
        let looked_ns = *self.looked_ns.get_or_insert(now_ns);
        let due = now_ns.saturating_sub(looked_ns) >= CALM_LOOK_EVERY_NS;
        if due {
            self.looked_ns = Some(now_ns);
        }
        due
    }

    /// Whether `cause` is worth saying.
    fn is_news(&mut self, cause: Cause) -> bool {
        if self.said == Some(cause) {
            self.other = None;
            return false;
        }
        let looks = match self.other {
            Some((other, looks)) if other == cause => looks + 1,
            _ => 1,
        };
        self.other = Some((cause, looks));
        let news = self.said.is_none() || looks >= CALM_LOOKS_MIN;
        if news {
            self.said = Some(cause);
            self.other = None;
        }
        news
    }
}

fn case<'a>(
    onset: &'a Onset,
    history: &'a [Arc<Model>],
    now_ns: u64,
    config: &'a Config,
) -> Case<'a> {
    let (thresholds, weights) = (&config.detect, &config.diagnose);
    Case { onset, history, now_ns, thresholds, weights }
}

impl Engine {
    /// For the process `pid`; `ticks_per_s` is `sysconf(_SC_CLK_TCK)` of its machine.
    pub fn new(pid: i32, ticks_per_s: u64) -> Self {
        Self::with(pid, ticks_per_s, Config::default())
    }

    /// The same, with thresholds of the user's own.
    pub fn with(pid: i32, ticks_per_s: u64, config: Config) -> Self {
        Self {
            builder: ModelBuilder::new(pid, ticks_per_s),
            config,
            detector: Detector::new(config.detect),
            forecaster: Forecaster::default(),
            onsets: VecDeque::new(),
            history: VecDeque::with_capacity(HISTORY_MAX),
            verdict: None,
            reviewed_ns: 0,
            onset_ns: None,
            calm: Calm::default(),
            slowness: Slowness::default(),
        }
    }

    /// Whether something waits and does not move.
    pub fn is_suspicious(&self) -> bool {
        self.detector.is_suspicious()
    }

    /// The present stall.
    pub fn onset(&self) -> Option<&Onset> {
        self.detector.onset()
    }

    /// The verdict on the present stall, if one was given.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    fn healthy(&mut self) -> Verdict {
        let now_ns = self.history.back().map_or(0, |model| model.at_ns);
        diagnose::healthy(self.history.make_contiguous(), now_ns, &self.config.diagnose)
    }

    /// The verdict as things stand: on the present stall, held back or not; healthy without one.
    pub fn conclude(&mut self) -> Verdict {
        let now_ns = self.history.back().map_or(0, |model| model.at_ns);
        match (&self.verdict, self.detector.onset().cloned()) {
            (Some(verdict), _) => verdict.clone(),
            (None, Some(onset)) => {
                let history = self.history.make_contiguous();
                diagnose::diagnose(&case(&onset, history, now_ns, &self.config))
            }
            (None, None) => self.healthy(),
        }
    }

    /// Takes the next sample.
    pub fn push(&mut self, sample: &Sample) -> Step {
        let model = Arc::new(self.builder.push(sample));
        // The clock of samples does not go back (clock_gettime(2)): a file may hold anything.
        if self.history.back().is_some_and(|last| model.at_ns < last.at_ns) {
            return Step { model, events: Vec::new() };
        }
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(Arc::clone(&model));
        let before = self.history.iter().rev().nth(1);
        let mut events = before.map_or_else(Vec::new, |before| notes::between(before, &model));
        events.extend(self.slowness.push(&model));
        let ahead = self.forecaster.push(&model, &self.config.detect);
        events.extend(ahead.into_iter().map(Event::Forecast));
        match self.detector.push(&model) {
            Some(Transition::Onset(onset)) => {
                self.onset_ns = Some(onset.at_ns);
                let flaps = self.flaps(model.at_ns);
                events.push(Event::Onset(onset));
                events.extend(flaps);
            }
            Some(Transition::Recovered(at_ns)) => events.push(self.recovered(at_ns)),
            None => {}
        }
        let verdict = match self.detector.onset() {
            Some(_) => self.judge(model.at_ns),
            None => self.judge_calm(model.at_ns),
        };
        events.extend(verdict.map(Event::Verdict));
        Step { model, events }
    }

    /// What is foreseen at present.
    pub fn forecasts(&self) -> &[Forecast] {
        self.forecaster.present()
    }

    /// A line for the log when stalls come and go.
    fn flaps(&mut self, now_ns: u64) -> Option<Event> {
        self.onsets.retain(|at_ns| now_ns.saturating_sub(*at_ns) <= FLAPS_WITHIN_NS);
        self.onsets.push_back(now_ns);
        if self.onsets.len() > FLAPS_MAX {
            self.onsets.pop_front();
        }
        let count = self.onsets.len();
        (count >= FLAPS_MIN).then(|| Event::Note {
            at_ns: now_ns,
            text: format!("it flaps: {count} stalls within a minute, each of them over by itself"),
        })
    }

    fn recovered(&mut self, at_ns: u64) -> Event {
        self.verdict = None;
        self.calm = Calm::default();
        let stalled_ns = self.onset_ns.take().map_or(0, |onset_ns| at_ns.saturating_sub(onset_ns));
        Event::Recovered { at_ns, stalled_ms: stalled_ns as f64 / 1e6 }
    }

    /// What to say of a server that is not stalled, when there is news.
    fn judge_calm(&mut self, now_ns: u64) -> Option<Verdict> {
        if self.detector.is_demand_unmet() || !self.calm.is_due(now_ns) {
            return None;
        }
        let verdict = self.healthy();
        // Of a process that cannot be seen nothing is said before the end.
        let seen = verdict.cause != Cause::Unknown;
        (seen && self.calm.is_news(verdict.cause)).then_some(verdict)
    }

    /// A verdict that is new, or surer than the one given before. A certain one stands, unless it is
    /// of a server that works on and something stops it for good meanwhile.
    fn judge(&mut self, now_ns: u64) -> Option<Verdict> {
        let onset = self.detector.onset()?.clone();
        let before = self.verdict.as_ref();
        if let Some(verdict) = before
            && verdict.confidence == Confidence::Certain
        {
            let is_due = now_ns.saturating_sub(self.reviewed_ns) >= REVIEW_EVERY_NS;
            if !lets_work_go_on(verdict.cause) || !is_due {
                return None;
            }
            self.reviewed_ns = now_ns;
        }
        let history = self.history.make_contiguous();
        let verdict = diagnose::diagnose(&case(&onset, history, now_ns, &self.config));
        let unknown = verdict.cause == Cause::Unknown;
        let patience_over = now_ns.saturating_sub(onset.detected_ns) >= UNKNOWN_PATIENCE_NS;
        let better = match before {
            None => !unknown || patience_over,
            Some(before) if before.cause == Cause::Unknown => !unknown,
            Some(before) if before.confidence == Confidence::Certain => {
                verdict.confidence == Confidence::Certain
                    && verdict.cause != before.cause
                    && !lets_work_go_on(verdict.cause)
            }
            Some(before) => !unknown && verdict.confidence > before.confidence,
        };
        if !better {
            return None;
        }
        self.verdict = Some(verdict.clone());
        Some(verdict)
    }
}
