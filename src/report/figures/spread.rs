//! Many readings of one thing in five numbers.

/// Median, quartiles and extremes of the readings of one thing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::report) struct Spread {
    /// Readings it is made of.
    pub readings: u64,
    pub min: f64,
    /// A quarter of the readings lies below.
    pub p25: f64,
    pub median: f64,
    /// A quarter of the readings lies above.
    pub p75: f64,
    pub max: f64,
}

impl Spread {
    /// Of finite readings; `None` without any.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        Some(Self {
            readings: values.len() as u64,
            min: *values.first()?,
            p25: quantile(&values, 0.25)?,
            median: quantile(&values, 0.5)?,
            p75: quantile(&values, 0.75)?,
            max: *values.last()?,
        })
    }

    /// Whether the middle halves of two have no value in common.
    pub fn is_apart_from(&self, other: &Self) -> bool {
        self.p25 > other.p75 || other.p25 > self.p75
    }
}

/// Between the two nearest of sorted values, in proportion.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let at = sorted.len().checked_sub(1)? as f64 * share;
    let (low, high) = (sorted.get(at.floor() as usize)?, sorted.get(at.ceil() as usize)?);
    Some(low + (high - low) * at.fract())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quartiles_lie_between_their_neighbours() {
        let spread = Spread::of(vec![4.0, 1.0, f64::NAN, 3.0, 2.0]).unwrap();
        let Spread { readings, min, p25, median, p75, max } = spread;
        assert_eq!((readings, min, p25, median, p75, max), (4, 1.0, 1.75, 2.5, 3.25, 4.0));
        assert_eq!(Spread::of(vec![f64::INFINITY]), None);
    }

    #[test]
    fn apart_is_without_a_common_value_in_the_middle() {
        let of = |values: &[f64]| Spread::of(values.to_vec()).unwrap();
        let (low, high) = (of(&[1.0, 2.0, 3.0]), of(&[2.6, 3.0, 9.0]));
        assert!(low.is_apart_from(&high) && high.is_apart_from(&low));
        assert!(!low.is_apart_from(&of(&[2.0, 3.0, 9.0])));
        assert!(!low.is_apart_from(&low));
    }

    proptest! {
        #[test]
        fn the_five_are_in_order(values in prop::collection::vec(-1e9..1e9_f64, 1..50)) {
            let s = Spread::of(values).unwrap();
            prop_assert!([s.min, s.p25, s.median, s.p75, s.max].is_sorted(), "{s:?}");
        }
    }
}
