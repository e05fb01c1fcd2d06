//! Two spreads of one figure: their ratio, and whether they are apart.

use stallscope_probes::{Reading, Why};

use crate::report::figures::{Figure, Phase, Spec, Spread};

/// Medians that differ by less than this share of the greater are alike.
const SHARE_MIN: f64 = 0.1;
/// With fewer readings on a side, quartiles mean little.
const READINGS_MIN: u64 = 8;

/// What is to be said of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Difference {
    /// The medians are alike.
    Alike,
    /// The medians differ, and the middle halves of the readings overlap.
    WithinSpread,
    /// The middle halves have no value in common.
    BeyondSpread,
    /// Too few readings on a side.
    FewReadings,
    /// A side has no reading.
    Unknown,
}

impl Difference {
    /// As in JSON.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Alike => "none",
            Self::WithinSpread => "within-spread",
            Self::BeyondSpread => "beyond-spread",
            Self::FewReadings => "few-readings",
            Self::Unknown => "unknown",
        }
    }

    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Alike => "no difference",
            Self::WithinSpread => "within the spread",
            Self::BeyondSpread => "larger than the spread",
            Self::FewReadings => "too few readings to say",
            Self::Unknown => "not to be said",
        }
    }
}

/// One figure of both runs in one phase.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub spec: &'static Spec,
    pub phase: Phase,
    pub a: Reading<Spread>,
    pub b: Reading<Spread>,
    /// Median of B over median of A; 1 where both are 0.
    pub ratio: Reading<f64>,
    pub difference: Difference,
}

impl Change {
    /// Of the same figure of two runs.
    pub fn of(a: &Figure, b: &Figure, phase: Phase) -> Self {
        let (spec, a, b) = (a.spec, a.of(phase).clone(), b.of(phase).clone());
        let (ratio, difference) = match (&a, &b) {
            (Reading::Got(a), Reading::Got(b)) => {
                (ratio(a.median, b.median), difference(a, b, spec.floor))
            }
            (Reading::Absent(absence), _) | (_, Reading::Absent(absence)) => {
                (Reading::Absent(absence.clone()), Difference::Unknown)
            }
        };
        Self { spec, phase, a, b, ratio, difference }
    }

    /// Both medians, where both sides have one.
    pub fn medians(&self) -> Option<(f64, f64)> {
        Some((self.a.got()?.median, self.b.got()?.median))
    }

    /// How much the medians differ, 0 (alike) to 1 (one of them is 0): for ranking.
    pub fn share(&self) -> f64 {
        self.medians().map_or(0.0, |(a, b)| share(a, b))
    }

    /// Whether any side has a reading.
    pub const fn is_read(&self) -> bool {
        self.a.got().is_some() || self.b.got().is_some()
    }
}

fn share(a: f64, b: f64) -> f64 {
    let greater = a.abs().max(b.abs());
    if greater > 0.0 { ((b - a).abs() / greater).min(1.0) } else { 0.0 }
}

fn ratio(a: f64, b: f64) -> Reading<f64> {
    let is_zero = |value: f64| value.abs() < f64::EPSILON;
    match (is_zero(a), is_zero(b)) {
        (true, true) => Reading::Got(1.0),
        (false, false) => Reading::Got(b / a),
        _ => Reading::absent(Why::Unsupported, "the median of one side is 0"),
    }
}

fn difference(a: &Spread, b: &Spread, floor: f64) -> Difference {
    if (b.median - a.median).abs() < floor || share(a.median, b.median) < SHARE_MIN {
        Difference::Alike
    } else if a.readings.min(b.readings) < READINGS_MIN {
        Difference::FewReadings
    } else if a.is_apart_from(b) {
        Difference::BeyondSpread
    } else {
        Difference::WithinSpread
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spread(values: &[f64]) -> Spread {
        Spread::of(values.repeat(3)).unwrap()
    }

    #[test]
    fn what_is_said_of_a_difference() {
        let cases: [(&[f64], &[f64], Difference); 6] = [
            (&[100.0, 101.0, 102.0], &[100.0, 101.0, 102.0], Difference::Alike),
            (&[100.0, 101.0, 102.0], &[108.0, 109.0, 110.0], Difference::Alike),
            (&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0], Difference::Alike),
            (&[50.0, 100.0, 150.0], &[90.0, 130.0, 170.0], Difference::WithinSpread),
            (&[100.0, 101.0, 102.0], &[200.0, 201.0, 202.0], Difference::BeyondSpread),
            (&[0.0, 0.0, 0.0], &[200.0, 201.0, 202.0], Difference::BeyondSpread),
        ];
        for (a, b, expected) in cases {
            let (a, b) = (spread(a), spread(b));
            assert_eq!(difference(&a, &b, 5.0), expected, "{a:?} {b:?}");
            assert_eq!(difference(&b, &a, 5.0), expected, "swapped: {a:?} {b:?}");
        }
        let few = Spread::of(vec![200.0]).unwrap();
        assert_eq!(difference(&spread(&[1.0]), &few, 5.0), Difference::FewReadings);
    }

    #[test]
    fn a_ratio_to_nothing_is_absent_and_not_infinite() {
        assert_eq!(ratio(0.0, 0.0), Reading::Got(1.0));
        assert_eq!(ratio(2.0, 5.0), Reading::Got(2.5));
        for (a, b) in [(0.0, 5.0), (5.0, 0.0)] {
            assert!(ratio(a, b).absence().is_some());
        }
    }

    proptest! {
        #[test]
        fn swapped_sides_invert_the_ratio(a in 0.001..1e9_f64, b in 0.001..1e9_f64) {
            let (there, back) = (ratio(a, b), ratio(b, a));
            prop_assert!((there.got().unwrap() * back.got().unwrap() - 1.0).abs() < 1e-9);
            prop_assert!((share(a, b) - share(b, a)).abs() < 1e-12);
        }
    }
}
