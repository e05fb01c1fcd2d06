//! Each run by itself, and what is comparable between the two.

use super::Labels;
use super::change::Change;
use super::conditions::{self, Condition};
use crate::report::facts::{Episode, Facts, Outcome};
use crate::report::figures::profiles::{self, Group};
use crate::report::figures::{self, Figure, Phase, Phases};
use crate::report::text::{duration_ms, number, plural, shown};
use crate::watch::event::Incident;

/// One run.
pub(super) struct Side<'a> {
    /// Printable.
    pub label: String,
    pub facts: Facts<'a>,
    pub phases: Phases,
    pub figures: Vec<Figure>,
    pub profiles: Vec<Group>,
}

impl<'a> Side<'a> {
    fn new(incident: &'a Incident, label: &str) -> Self {
        let facts = Facts::new(incident);
        let phases = Phases::of(&facts);
        let figures = figures::of_run(&incident.models, &phases);
        let profiles = profiles::groups(&facts);
        Self { label: shown(label), facts, phases, figures, profiles }
    }

    /// Time stalled in all, ms.
    pub fn stalled_ms(&self) -> f64 {
        self.phases.length_ms(Phase::Stalled)
    }

    /// Length of the run, ms.
    pub fn length_ms(&self) -> f64 {
        self.facts.end_ns.saturating_sub(self.facts.begin_ns) as f64 / 1e6
    }

    /// `stalled for 6.15 s of 20.0 s (fd-exhausted, certain)`, `did not stall in 20.0 s`.
    pub fn outcome(&self) -> String {
        let length = duration_ms(self.length_ms());
        let causes = self.causes().join(", ");
        let named = if causes.is_empty() { String::from("cause not named") } else { causes };
        match self.facts.outcome {
            Outcome::NoData => String::from("could not be read"),
            Outcome::Healthy => format!("did not stall in {length}"),
            Outcome::Stalled | Outcome::Recovered => {
                let times = match self.facts.episodes.len() as u64 {
                    1 => String::new(),
                    stalls => format!(" in {}", plural(stalls, "stall", "stalls")),
                };
                format!(
                    "stalled for {} of {length}{times} ({named})",
                    duration_ms(self.stalled_ms())
                )
            }
        }
    }

    /// The causes named, each once, in the order in which they were.
    pub fn causes(&self) -> Vec<&'static str> {
        let mut causes = Vec::new();
        for verdict in self.facts.episodes.iter().filter_map(Episode::verdict) {
            if !causes.contains(&verdict.cause.id()) {
                causes.push(verdict.cause.id());
            }
        }
        causes
    }
}

/// What is said of one run in a cell, printable.
type Cell = fn(&Side<'_>) -> String;

/// How each run went, row by row.
pub(super) const STALL_ROWS: [(&str, Cell); 6] = [
    ("Watched for", |side| duration_ms(side.length_ms())),
    ("Stalls", |side| side.facts.episodes.len().to_string()),
    ("Time stalled", |side| duration_ms(side.stalled_ms())),
    ("Of the run", |side| {
        let share = side.stalled_ms() / side.length_ms().max(f64::MIN_POSITIVE) * 100.0;
        format!("{} %", number(share.min(100.0)))
    }),
    ("Causes", |side| {
        let causes = side.causes().join(", ");
        if causes.is_empty() { String::from("none named") } else { causes }
    }),
    ("At the end", |side| {
        let outcome = match side.facts.outcome {
            Outcome::Stalled => "still stalled",
            Outcome::Recovered => "recovered",
            Outcome::Healthy => "healthy",
            Outcome::NoData => "nothing could be read",
        };
        outcome.to_owned()
    }),
];

/// Profiles of one kind, maker and phase of both runs.
pub(super) struct Pair<'a> {
    pub a: &'a Group,
    pub b: &'a Group,
}

/// Both runs.
pub(super) struct Comparison<'a> {
    pub a: Side<'a>,
    pub b: Side<'a>,
    /// Every figure in every phase that both runs have, in order of phase.
    pub changes: Vec<Change>,
    pub conditions: Vec<Condition>,
}

impl<'a> Comparison<'a> {
    /// Of two runs.
    pub fn new(a: &'a Incident, b: &'a Incident, labels: &Labels) -> Self {
        let (a, b) = (Side::new(a, &labels.a), Side::new(b, &labels.b));
        let has = |side: &Side<'_>, phase: Phase| {
            side.facts.incident.models.iter().any(|model| side.phases.at(model.at_ns) == phase)
        };
        let mut changes = Vec::new();
        for phase in Phase::ALL.into_iter().filter(|phase| has(&a, *phase) && has(&b, *phase)) {
            let both = a.figures.iter().zip(&b.figures);
            changes.extend(both.map(|(a, b)| Change::of(a, b, phase)));
        }
        let conditions = conditions::of(&a, &b, &changes);
        Self { a, b, changes, conditions }
    }

    /// The figures of one phase of which at least one side has a reading.
    pub fn read(&self, phase: Phase) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(move |change| change.phase == phase && change.is_read())
    }

    /// The figures that neither side has in any phase, with a reason.
    pub fn unread(&self) -> Vec<(&'static str, String)> {
        let mut unread: Vec<(&'static str, String)> = Vec::new();
        for change in &self.changes {
            let title = change.spec.title;
            let is_read =
                self.changes.iter().any(|other| other.spec.title == title && other.is_read());
            if is_read || unread.iter().any(|(other, _)| *other == title) {
                continue;
            }
            let reason = change.a.absence().map(|absence| absence.detail.clone());
            unread.push((title, reason.unwrap_or_default()));
        }
        unread
    }

    /// Profiles that both runs have.
    pub fn profiles(&self) -> Vec<Pair<'_>> {
        let of_b = |a: &Group| {
            let same = |b: &&Group| (a.kind, a.maker, a.phase) == (b.kind, b.maker, b.phase);
            self.b.profiles.iter().find(same)
        };
        self.a.profiles.iter().filter_map(|a| Some(Pair { a, b: of_b(a)? })).collect()
    }

    /// What `sides` are aligned at: their onsets when both have one, else their begins, ns.
    pub fn zeros(&self) -> (u64, u64) {
        if self.is_aligned_at_onset() {
            (self.a.facts.zero_ns(), self.b.facts.zero_ns())
        } else {
            (self.a.facts.begin_ns, self.b.facts.begin_ns)
        }
    }

    /// Whether both have a stall.
    pub fn is_aligned_at_onset(&self) -> bool {
        self.a.facts.episode().is_some() && self.b.facts.episode().is_some()
    }
}
