//! What was sampled of one process, kept within bounds, and the figures that follow from it. Pure.

use serde::Serialize;

/// Most points kept of one run: a longer one is reduced to medians of so many equal windows.
pub const POINTS_MAX: usize = 3_600;
/// Most points a line is fitted through: there are half as many pairs as its square.
const FITTED_MAX: usize = 240;

/// One look at a process. What could not be read is `None`, and the run has the reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Point {
    /// Time since the load began, s.
    pub at_s: f64,
    /// Resident memory, KiB.
    pub rss_kib: Option<f64>,
    /// Resident memory that is no file's, KiB.
    pub anon_kib: Option<f64>,
    /// Open fds.
    pub fds: Option<f64>,
    /// Threads.
    pub threads: Option<f64>,
    /// CPU time since the look before, cores.
    pub cpu_cores: Option<f64>,
    /// Time the main thread could run and had no CPU since the look before, s a second.
    pub waited_for_cpu: Option<f64>,
    /// Responses since the look before, a second.
    pub responses_per_s: Option<f64>,
    /// Records in the producer's queue.
    pub producer_queue: Option<f64>,
}

/// The figures of a [`Point`], in order.
type Figure = fn(&mut Point) -> &mut Option<f64>;
const FIGURES: [Figure; 8] = [
    |point| &mut point.rss_kib,
    |point| &mut point.anon_kib,
    |point| &mut point.fds,
    |point| &mut point.threads,
    |point| &mut point.cpu_cores,
    |point| &mut point.waited_for_cpu,
    |point| &mut point.responses_per_s,
    |point| &mut point.producer_queue,
];

/// Points of a whole run: at most [`POINTS_MAX`], each the median of a window.
#[derive(Debug, Clone)]
pub struct Series {
    window_s: f64,
    points: Vec<Point>,
    pending: Vec<Point>,
}

impl Series {
    /// For a run of this length, looked at every `every_s`.
    pub fn new(time_s: f64, every_s: f64) -> Self {
        let window_s = every_s.max(time_s / POINTS_MAX as f64);
        Self { window_s, points: Vec::new(), pending: Vec::new() }
    }

    /// Adds a look. Of those beyond the end of the run nothing is kept.
    pub fn add(&mut self, point: Point) {
        let window = |at_s: f64| (at_s / self.window_s) as u64;
        let is_next =
            self.pending.first().is_some_and(|first| window(first.at_s) != window(point.at_s));
        if is_next {
            self.close();
        }
        self.pending.push(point);
    }

    fn close(&mut self) {
        if self.points.len() < POINTS_MAX
            && let Some(point) = median_point(&mut self.pending)
        {
            self.points.push(point);
        }
        self.pending.clear();
    }

    /// All of them.
    pub fn finish(mut self) -> Vec<Point> {
        self.close();
        self.points
    }
}

fn median_point(points: &mut [Point]) -> Option<Point> {
    let mut at: Vec<f64> = points.iter().map(|point| point.at_s).collect();
    let mut reduced = Point { at_s: median(&mut at)?, ..Point::default() };
    for figure in FIGURES {
        let mut values: Vec<f64> = points.iter_mut().filter_map(|point| *figure(point)).collect();
        *figure(&mut reduced) = median(&mut values);
    }
    Some(reduced)
}

/// The middle of `values`, which it sorts; of an even number the mean of the two in the middle.
pub fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[middle - 1], upper) })
}

/// The slope of a line through points (x, y) that outliers do not bend: the median of the slopes of
/// all pairs (Theil and Sen). Of many points, medians are taken first.
pub fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let points = thinned(points);
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (number, &(x, y)) in points.iter().enumerate() {
        let later = points[number + 1..].iter().filter(|(later, _)| *later > x);
        slopes.extend(later.map(|(later, value)| (value - y) / (later - x)));
    }
    median(&mut slopes)
}

fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let each = points.len().div_ceil(FITTED_MAX).max(1);
    let middle = |chunk: &[(f64, f64)], which: fn(&(f64, f64)) -> f64| {
        median(&mut chunk.iter().map(which).collect::<Vec<_>>()).unwrap_or_default()
    };
    points
        .chunks(each)
        .map(|chunk| (middle(chunk, |point| point.0), middle(chunk, |point| point.1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_those_of_the_middle() {
        for (values, expected) in [
            (&[][..], None),
            (&[3.0][..], Some(3.0)),
            (&[5.0, 1.0, 2.0][..], Some(2.0)),
            (&[4.0, 1.0, 2.0, 9.0][..], Some(3.0)),
        ] {
            assert_eq!(median(&mut values.to_vec()), expected, "{values:?}");
        }
    }

    #[test]
    fn a_slope_is_not_bent_by_outliers() {
        let line = |number: u32| (f64::from(number), 2.0 * f64::from(number) + 5.0);
        for length in [2, 50, 1_000, 3_600] {
            let mut points: Vec<_> = (0..length).map(line).collect();
            for outlier in points.iter_mut().step_by(7).skip(1) {
                outlier.1 += 1e6;
            }
            let slope = slope(&points).unwrap();
            assert!((slope - 2.0).abs() < 0.01, "{length}: {slope}");
        }
        assert_eq!(slope(&[]), None);
        assert_eq!(slope(&[(1.0, 1.0)]), None);
    }

    #[test]
    fn long_runs_keep_medians_and_no_more_than_the_bound() {
        let mut series = Series::new(36_000.0, 1.0);
        for second in 0..36_100 {
            // One look in ten sees something wild; another could not read the fds.
            let wild = second % 10 == 3;
            series.add(Point {
                at_s: f64::from(second),
                rss_kib: Some(if wild { 1e9 } else { 100.0 }),
                fds: (second % 10 != 4).then_some(7.0),
                ..Point::default()
            });
        }
        let points = series.finish();
        assert_eq!(points.len(), POINTS_MAX);
        assert!(points.iter().all(|point| point.rss_kib == Some(100.0) && point.fds == Some(7.0)));
        assert!((points[1].at_s - 14.5).abs() < 1e-9);
        assert_eq!(points[1].threads, None, "absent is not zero");
    }

    #[test]
    fn short_runs_keep_every_look() {
        let mut series = Series::new(20.0, 1.0);
        for second in 0..20 {
            series.add(Point { at_s: f64::from(second) + 0.2, ..Point::default() });
        }
        assert_eq!(series.finish().len(), 20);
    }
}
