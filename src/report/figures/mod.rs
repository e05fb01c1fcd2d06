//! What is counted and measured of a run, as figures per phase: the same for Markdown, JSON and
//! the comparison of two runs.
//!
//! ```text
//! spec      what there is to count, and how it is read from a tick
//! phases    healthy, stalled, recovered
//! spread    median, quartiles, extremes
//! profiles  stacks per kind of profile and phase
//! stacks    which looks at the stacks of all threads are worth showing
//! ```

mod phases;
pub(super) mod profiles;
mod spec;
mod spread;
pub(super) mod stacks;

use std::collections::BTreeMap;
use std::sync::Arc;

use stallscope_probes::{Absence, Reading, Why};

pub(super) use phases::{Phase, Phases};
pub(super) use spec::{SPECS, Spec};
pub(super) use spread::Spread;

use super::chart::Point;
use crate::model::Model;

/// One figure of one run.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    pub spec: &'static Spec,
    /// Per phase, as in [`Phase::ALL`]; absent with the reason given most often,
    /// that it was not due last of all.
    pub phases: [Reading<Spread>; 3],
    /// Ticks per phase without a reading.
    pub ticks_without: [u64; 3],
}

impl Figure {
    /// The readings of one phase.
    pub const fn of(&self, phase: Phase) -> &Reading<Spread> {
        &self.phases[phase as usize]
    }
}

/// All figures of a run, in the order of [`SPECS`].
pub(super) fn of_run(models: &[Arc<Model>], phases: &Phases) -> Vec<Figure> {
    SPECS.iter().map(|spec| figure(spec, models, phases)).collect()
}

/// Readings of one phase, and the reasons where there was none.
#[derive(Default)]
struct Tally {
    values: Vec<f64>,
    ticks_without: u64,
    reasons: BTreeMap<(&'static str, String), (u64, Why)>,
}

impl Tally {
    fn add(&mut self, reading: Reading<f64>) {
        match reading {
            Reading::Got(value) => self.values.push(value),
            Reading::Absent(Absence { why, detail }) => {
                self.ticks_without += 1;
                let key = (super::text::why(why), detail);
                // Reasons hold numbers at times: the first ones are as good as all.
                if self.reasons.len() < REASONS_MAX || self.reasons.contains_key(&key) {
                    let reason = self.reasons.entry(key).or_insert((0, why));
                    reason.0 += 1;
                }
            }
        }
    }

    fn spread(self) -> Reading<Spread> {
        if let Some(spread) = Spread::of(self.values) {
            return Reading::Got(spread);
        }
        // That a seldom read was not due says less than any other reason.
        let most = self
            .reasons
            .into_iter()
            .max_by_key(|(_, (times, why))| (*why != Why::NotSampled, *times));
        match most {
            Some(((_, detail), (_, why))) => Reading::absent(why, detail),
            None => Reading::absent(Why::NotSampled, "no tick lies in this phase"),
        }
    }
}

/// Different reasons told apart per figure and phase.
const REASONS_MAX: usize = 32;

fn figure(spec: &'static Spec, models: &[Arc<Model>], phases: &Phases) -> Figure {
    let mut tallies: [Tally; 3] = Default::default();
    for (index, model) in models.iter().enumerate() {
        tallies[phases.at(model.at_ns) as usize].add(spec.read(models, index));
    }
    let ticks_without = [0, 1, 2].map(|phase: usize| tallies[phase].ticks_without);
    Figure { spec, phases: tallies.map(Tally::spread), ticks_without }
}

/// One figure at every tick, for a chart.
pub(super) fn points(spec: &Spec, models: &[Arc<Model>]) -> Vec<Point> {
    let point = |(index, model): (usize, &Arc<Model>)| {
        let value = spec.read(models, index).got().copied().filter(|value| value.is_finite());
        (model.at_ns, value)
    };
    models.iter().enumerate().map(point).collect()
}
