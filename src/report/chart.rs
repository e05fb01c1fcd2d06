//! Geometry of charts: scales, ticks, and lines thinned out without losing a peak. Pure numbers.

use std::fmt::Write as _;

/// Columns a chart is thinned out to: about one per pixel and a half of a wide screen.
pub(super) const COLUMNS: usize = 480;
/// Plots are drawn in a box of this many units and stretched to fit.
pub(super) const WIDTH: f64 = 1_000.0;
/// Height of that box.
pub(super) const HEIGHT: f64 = 100.0;

/// One reading: when, and what, or `None` when it was absent.
pub(super) type Point = (u64, Option<f64>);

/// The time axis that all charts share.
#[expect(clippy::struct_field_names, reason = "fields are named by their unit last")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Axis {
    pub begin_ns: u64,
    pub end_ns: u64,
    /// Longest time between two ticks that a line is drawn across.
    pub hole_ns: u64,
}

impl Axis {
    /// Position of an instant, 0 (begin) to 1 (end); instants outside are moved to the edge.
    pub fn at(&self, ns: u64) -> f64 {
        let length = self.end_ns.saturating_sub(self.begin_ns);
        if length == 0 {
            return 0.0;
        }
        ns.clamp(self.begin_ns, self.end_ns).saturating_sub(self.begin_ns) as f64 / length as f64
    }

    /// Whether an instant is on the axis.
    pub const fn holds(&self, ns: u64) -> bool {
        self.begin_ns <= ns && ns <= self.end_ns
    }

    /// Round instants relative to `zero_ns`: position, and offset in ns.
    pub fn ticks(&self, zero_ns: u64, ticks_max: u64) -> Vec<(f64, i128)> {
        let length = u128::from(self.end_ns.saturating_sub(self.begin_ns));
        if length == 0 {
            return vec![(0.0, i128::from(self.begin_ns) - i128::from(zero_ns))];
        }
        let step = STEPS_NS
            .iter()
            .copied()
            .find(|step| length / step < u128::from(ticks_max))
            .unwrap_or(length) as i128;
        let (begin, end) = (
            i128::from(self.begin_ns) - i128::from(zero_ns),
            i128::from(self.end_ns) - i128::from(zero_ns),
        );
        let first = begin.div_euclid(step) + i128::from(begin.rem_euclid(step) != 0);
        (first..=end.div_euclid(step))
            .map(|n| n * step)
            .map(|offset| ((offset - begin) as f64 / length as f64, offset))
            .collect()
    }
}

/// Tick distances: 1, 2, 5 of each power of ten up to 10 s, then those of clocks.
const STEPS_NS: [u128; 22] = [
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
    120_000_000_000,
    300_000_000_000,
    600_000_000_000,
    1_800_000_000_000,
    3_600_000_000_000,
    14_400_000_000_000,
    86_400_000_000_000,
];

/// The smallest round number that is not below `max` and has a round half; 1 for nothing at all.
pub(crate) fn nice_ceiling(max: f64) -> f64 {
    if !max.is_finite() || max <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(max.log10().floor());
    [1.0, 1.2, 1.6, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
        .into_iter()
        .map(|n| n * power)
        .find(|n| *n >= max)
        .unwrap_or(max)
}

/// The points with an absent one in the middle of every stretch in which no tick was taken for longer
/// than the axis allows: from here on, only an absence breaks a line.
pub(super) fn with_holes(points: &[Point], axis: &Axis) -> Vec<Point> {
    let mut broken = Vec::with_capacity(points.len());
    let mut last: Option<u64> = None;
    for point in points {
        if let Some(last_ns) = last.filter(|last| point.0.saturating_sub(*last) > axis.hole_ns) {
            broken.push((last_ns.midpoint(point.0), None));
        }
        broken.push(*point);
        last = Some(point.0);
    }
    broken
}

/// The `d` of an SVG path through the points, `top` being the upper edge. It is broken where a
/// reading is absent.
pub(super) fn path(points: &[Point], axis: &Axis, top: f64) -> String {
    let thinned = thin(points, axis, COLUMNS);
    let mut d = String::with_capacity(thinned.len() * 10);
    let (mut joined, mut alone) = (false, false);
    for (at_ns, value) in thinned {
        let Some(value) = value else {
            end_dot(&mut d, alone);
            (joined, alone) = (false, false);
            continue;
        };
        let x = axis.at(at_ns) * WIDTH;
        let y = HEIGHT - (value / top).clamp(0.0, 1.0) * HEIGHT;
        d.push(if joined { 'L' } else { 'M' });
        push_decimal(&mut d, x);
        d.push(' ');
        push_decimal(&mut d, y);
        alone = !joined;
        joined = true;
    }
    end_dot(&mut d, alone);
    d
}

/// A point with no neighbour is drawn as a dot: a line of no length with round ends.
fn end_dot(d: &mut String, alone: bool) {
    if alone {
        d.push_str("h0");
    }
}

fn push_decimal(d: &mut String, value: f64) {
    let _ = write!(d, "{value:.1}");
    if d.ends_with(".0") {
        d.truncate(d.len() - 2);
    }
}

/// Keeps, per column, the smallest and the greatest reading in the order in which they came. A
/// column with absent readings only becomes one absent reading. Two points a column need no thinning.
pub(super) fn thin(points: &[Point], axis: &Axis, columns: usize) -> Vec<Point> {
    if points.len() <= 2 * columns {
        return points.to_vec();
    }
    let column = |point: &Point| (axis.at(point.0) * columns as f64) as usize;
    let mut thinned = Vec::with_capacity(2 * columns);
    for group in points.chunk_by(|a, b| column(a) == column(b)) {
        let got = || group.iter().filter_map(|(at_ns, value)| Some((*at_ns, (*value)?)));
        let least = got().min_by(|a, b| a.1.total_cmp(&b.1));
        let most = got().max_by(|a, b| a.1.total_cmp(&b.1));
        match (least, most) {
            (Some(a), Some(b)) => {
                let (first, second) = if a.0 <= b.0 { (a, b) } else { (b, a) };
                thinned.push((first.0, Some(first.1)));
                if second.0 != first.0 {
                    thinned.push((second.0, Some(second.1)));
                }
            }
            _ => thinned.extend(group.first().map(|(at_ns, _)| (*at_ns, None))),
        }
    }
    thinned
}

/// Stretches in which nothing could be drawn, (begin, end) in ns: from the first absent reading to the
/// next value; where no tick was taken, from the last to the next.
pub(super) fn gaps(points: &[Point]) -> Vec<(u64, u64)> {
    let mut gaps = Vec::new();
    let mut from: Option<u64> = None;
    let mut last_ns = 0;
    for (at_ns, value) in points {
        match (value, from) {
            (None, None) => from = Some(*at_ns),
            (Some(_), Some(begin_ns)) => {
                gaps.push((begin_ns, *at_ns));
                from = None;
            }
            _ => {}
        }
        last_ns = *at_ns;
    }
    gaps.extend(from.map(|begin_ns| (begin_ns, last_ns)));
    gaps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AXIS: Axis = Axis { begin_ns: 1_000, end_ns: 2_000, hole_ns: 600 };

    #[test]
    fn a_line_breaks_where_a_reading_is_absent_or_no_tick_was_taken() {
        let cases: [(&[Point], &str); 5] = [
            (&[(1_000, Some(0.0)), (1_500, Some(5.0))], "M0 100L500 50"),
            (
                &[(1_000, Some(1.0)), (1_250, None), (1_500, Some(10.0)), (2_000, Some(0.0))],
                "M0 90h0M500 0L1000 100",
            ),
            (&[(1_000, Some(0.0)), (1_601, Some(0.0))], "M0 100h0M601 100h0"),
            (&[(1_000, None)], ""),
            (&[(1_000, Some(99.0))], "M0 0h0"),
        ];
        for (points, expected) in cases {
            assert_eq!(path(&with_holes(points, &AXIS), &AXIS, 10.0), expected, "{points:?}");
        }
    }

    #[test]
    fn a_long_line_is_one_line_and_breaks_only_where_ticks_are_missing() {
        let axis = Axis { begin_ns: 0, end_ns: 100_000, hole_ns: 10 };
        let whole: Vec<Point> = (0..=100_000).map(|n| (n, Some((n % 7) as f64))).collect();
        let moves =
            |points: &[Point]| path(&with_holes(points, &axis), &axis, 7.0).matches('M').count();
        assert_eq!(moves(&whole), 1);
        let holed: Vec<Point> =
            whole.into_iter().filter(|(at, _)| !(40_000..50_000).contains(at)).collect();
        assert_eq!(moves(&holed), 2);
    }

    #[test]
    fn gaps_reach_to_the_next_reading() {
        let points = [(1_000, Some(1.0)), (1_250, None), (1_300, None), (1_500, Some(1.0))];
        assert_eq!(gaps(&points), [(1_250, 1_500)]);
        assert_eq!(gaps(&[(1_500, None), (2_000, None)]), [(1_500, 2_000)]);
        assert_eq!(gaps(&[(1_500, Some(0.0)), (1_501, Some(1.0))]), []);
        let holed = with_holes(&[(1_000, Some(0.0)), (2_000, Some(0.0))], &AXIS);
        assert_eq!(gaps(&holed), [(1_500, 2_000)]);
    }

    #[test]
    fn ticks_are_round_and_relative_to_the_onset() {
        let s = 1_000_000_000;
        let axis = Axis { begin_ns: 10 * s, end_ns: 22 * s, hole_ns: s };
        let offsets: Vec<i128> =
            axis.ticks(13 * s, 7).iter().map(|tick| tick.1 / i128::from(s)).collect();
        assert_eq!(offsets, [-2, 0, 2, 4, 6, 8]);
        let point = Axis { begin_ns: s, end_ns: s, hole_ns: s };
        assert_eq!(point.ticks(s, 7), [(0.0, 0)]);
        assert!(point.at(s).abs() < f64::EPSILON);
    }

    #[test]
    fn ceilings_are_round() {
        for (max, top) in [(0.0, 1.0), (0.45, 0.5), (1.0, 1.0), (64.0, 80.0), (1_025.0, 1_200.0)] {
            assert!((nice_ceiling(max) - top).abs() < 1e-9, "{max}");
        }
        assert!(nice_ceiling(f64::NAN).is_normal());
    }

    proptest! {
        #[test]
        fn thinning_keeps_every_extreme(
            values in prop::collection::vec(prop::option::weighted(0.9, 0.0..1e6_f64), 1_000..3_000)
        ) {
            let points: Vec<Point> =
                values.iter().enumerate().map(|(n, value)| (n as u64, *value)).collect();
            let axis = Axis { begin_ns: 0, end_ns: values.len() as u64 - 1, hole_ns: 1_000 };
            let thinned = thin(&points, &axis, COLUMNS);
            prop_assert!(thinned.len() <= 2 * (COLUMNS + 1));
            let extreme = |points: &[Point], pick: fn(f64, f64) -> f64| {
                points.iter().filter_map(|point| point.1).reduce(pick)
            };
            prop_assert_eq!(extreme(&points, f64::max), extreme(&thinned, f64::max));
            prop_assert_eq!(extreme(&points, f64::min), extreme(&thinned, f64::min));
            prop_assert!(thinned.is_sorted_by_key(|point| point.0));
        }
    }
}
