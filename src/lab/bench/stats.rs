//! Medians with their spread, and ratios of what was measured side by side. Pure.

use serde::Serialize;

/// Several values of one thing: of a handful of rounds the whole range is told, since their quartiles
/// would say more than there is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Values it is made of.
    pub rounds: u64,
    /// The least.
    pub min: f64,
    /// Half of the values are below.
    pub median: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of finite values; `None` without any.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            values.get(middle.checked_sub(1)?)?.midpoint(*values.get(middle)?)
        } else {
            *values.get(middle)?
        };
        Some(Self {
            rounds: values.len() as u64,
            min: *values.first()?,
            median,
            max: *values.last()?,
        })
    }
}

/// The ratios `value / base` of the rounds that both have: the machine was about the same to both
/// then.
pub fn ratios(values: &[(u32, f64)], base: &[(u32, f64)]) -> Option<Spread> {
    let of_round = |round: u32| base.iter().find(|(other, _)| *other == round).map(|(_, it)| *it);
    Spread::of(values.iter().filter_map(|(round, value)| {
        let base = of_round(*round).filter(|base| *base > 0.0)?;
        Some(value / base)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_median_and_range() {
        type Case = (&'static [f64], Option<(f64, f64, f64)>);
        let cases: [Case; 5] = [
            (&[], None),
            (&[f64::NAN, f64::INFINITY], None),
            (&[3.0], Some((3.0, 3.0, 3.0))),
            (&[3.0, 1.0], Some((1.0, 2.0, 3.0))),
            (&[9.0, 1.0, 2.0, f64::NAN], Some((1.0, 2.0, 9.0))),
        ];
        for (values, expected) in cases {
            let spread = Spread::of(values.iter().copied());
            assert_eq!(spread.map(|it| (it.min, it.median, it.max)), expected, "{values:?}");
        }
    }

    #[test]
    fn ratios_are_within_rounds() {
        let values = [(0, 10.0), (1, 40.0), (2, 30.0), (4, 5.0)];
        let base = [(0, 5.0), (1, 20.0), (2, 10.0), (3, 1.0), (4, 0.0)];
        let spread = ratios(&values, &base).unwrap();
        // The machine was four times as fast in round 1, to both.
        assert_eq!((spread.rounds, spread.min, spread.median, spread.max), (3, 2.0, 2.0, 3.0));
        assert_eq!(ratios(&values, &[]), None);
    }
}
