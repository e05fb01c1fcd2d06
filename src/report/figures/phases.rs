//! Which part of a run an instant belongs to: figures are compared with their like only.

use crate::report::facts::Facts;

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::report) enum Phase {
    /// Before the first stall; of a run without one, all of it.
    Healthy,
    /// Within a stall.
    Stalled,
    /// After a stall, and in none.
    Recovered,
}

impl Phase {
    /// All of them, in the order in which they may come.
    pub const ALL: [Self; 3] = [Self::Healthy, Self::Stalled, Self::Recovered];

    /// As in JSON.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Stalled => "stalled",
            Self::Recovered => "recovered",
        }
    }
}

/// The stalls of a run, as stretches of time.
#[derive(Debug, Clone)]
pub(in crate::report) struct Phases {
    begin_ns: u64,
    end_ns: u64,
    /// Begin and end of each, oldest first, ns; one that lasts ends with the run.
    stalls: Vec<(u64, u64)>,
}

impl Phases {
    /// Those of a run.
    pub fn of(facts: &Facts<'_>) -> Self {
        let stalls = facts.episodes.iter().filter_map(|episode| {
            let end_ns = episode.recovered.map_or(u64::MAX, |(at_ns, _)| at_ns);
            Some((episode.begin_ns()?, end_ns))
        });
        Self { begin_ns: facts.begin_ns, end_ns: facts.end_ns, stalls: stalls.collect() }
    }

    /// The part in which an instant lies.
    pub fn at(&self, at_ns: u64) -> Phase {
        let within = |(begin_ns, end_ns): &(u64, u64)| (*begin_ns..*end_ns).contains(&at_ns);
        if self.stalls.iter().any(within) {
            Phase::Stalled
        } else if self.stalls.iter().any(|(begin_ns, _)| *begin_ns <= at_ns) {
            Phase::Recovered
        } else {
            Phase::Healthy
        }
    }

    /// How much of the run a part takes, ms.
    pub fn length_ms(&self, phase: Phase) -> f64 {
        let run_ns = self.end_ns.saturating_sub(self.begin_ns);
        let stalled_ns = self.stalls.iter().fold(0_u64, |sum, (begin_ns, end_ns)| {
            let end_ns = (*end_ns).min(self.end_ns);
            sum.saturating_add(end_ns.saturating_sub((*begin_ns).max(self.begin_ns)))
        });
        let first_ns = self.stalls.first().map_or(self.end_ns, |(begin_ns, _)| *begin_ns);
        let healthy_ns = first_ns.min(self.end_ns).saturating_sub(self.begin_ns);
        let ns = match phase {
            Phase::Healthy => healthy_ns,
            Phase::Stalled => stalled_ns,
            Phase::Recovered => run_ns.saturating_sub(healthy_ns).saturating_sub(stalled_ns),
        };
        ns as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn phases(stalls: &[(u64, u64)]) -> Phases {
        let ns = |(begin, end): &(u64, u64)| (begin * MS, end.saturating_mul(MS));
        Phases { begin_ns: 100 * MS, end_ns: 200 * MS, stalls: stalls.iter().map(ns).collect() }
    }

    #[test]
    fn every_instant_has_one_part_and_the_parts_make_up_the_run() {
        type Case = (&'static [(u64, u64)], [u64; 3]);
        let cases: [Case; 5] = [
            (&[], [100, 0, 0]),
            (&[(150, u64::MAX)], [50, 50, 0]),
            (&[(120, 130), (150, 180)], [20, 40, 40]),
            (&[(50, 130)], [0, 30, 70]),
            (&[(50, u64::MAX)], [0, 100, 0]),
        ];
        for (stalls, lengths_ms) in cases {
            let phases = phases(stalls);
            let found_ms = Phase::ALL.map(|phase| phases.length_ms(phase).round() as u64);
            assert_eq!(found_ms, lengths_ms, "{stalls:?}");
        }
        let two = phases(&[(120, 130), (150, 180)]);
        let at = |ms: u64| two.at(ms * MS);
        assert_eq!([at(119), at(120), at(129)], [Phase::Healthy, Phase::Stalled, Phase::Stalled]);
        assert_eq!(
            [at(130), at(150), at(180)],
            [Phase::Recovered, Phase::Stalled, Phase::Recovered]
        );
    }
}
