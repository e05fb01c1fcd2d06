//! Bounded series behind the sparklines. A value that could not be read is a gap, and stays one.

use std::collections::VecDeque;

use stallscope_probes::sample::RingState;

use crate::model::Model;

/// Points kept per series.
pub const HISTORY_MAX: usize = 1200;

/// What is kept over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named by the field of the model it follows")]
pub enum Track {
    FdsOpen,
    PortsInUse,
    CpuCores,
    AcceptQueued,
    SqUnsubmitted,
    CqUnreaped,
    Accepts,
    Requests,
    Responses,
    Delivered,
    ProducerQueue,
}

impl Track {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 11] = [
        Self::FdsOpen,
        Self::PortsInUse,
        Self::CpuCores,
        Self::AcceptQueued,
        Self::SqUnsubmitted,
        Self::CqUnreaped,
        Self::Accepts,
        Self::Requests,
        Self::Responses,
        Self::Delivered,
        Self::ProducerQueue,
    ];

    /// The value in `model`, unless it is absent there.
    fn of(self, model: &Model) -> Option<f64> {
        let app = model.app.got();
        let value = match self {
            Self::FdsOpen => model.fds.got().map(|fds| fds.open as f64),
            Self::PortsInUse => model.ports.got().map(|ports| f64::from(ports.in_use)),
            Self::CpuCores => model.process.got().and_then(|all| all.cpu_cores.got().copied()),
            Self::AcceptQueued => model.queued().map(|queued| queued as f64),
            Self::SqUnsubmitted => rings(model, RingState::sq_pending),
            Self::CqUnreaped => rings(model, RingState::cq_pending),
            Self::Accepts => app.and_then(|app| app.accepts_per_s.got().copied()),
            Self::Requests => app.and_then(|app| app.requests_per_s.got().copied()),
            Self::Responses => app.and_then(|app| app.responses_per_s.got().copied()),
            Self::Delivered => app.and_then(|app| app.delivered_per_s.got().copied()),
            Self::ProducerQueue => app.map(|app| app.raw.producer_queue as f64),
        };
        value.filter(|value| value.is_finite())
    }
}

/// The sum over all rings; a gap when not one of them could be read.
fn rings(model: &Model, of: impl Fn(&RingState) -> u32) -> Option<f64> {
    let mut readable = model.rings.got()?.iter().filter_map(|ring| ring.state.got()).peekable();
    readable.peek()?;
    Some(readable.map(|state| f64::from(of(state))).sum())
}

/// One value over time, at most [`HISTORY_MAX`] points.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    points: VecDeque<Option<f64>>,
    /// Points ever pushed: keeps the borders of columns in place while the picture moves.
    pushed: u64,
}

impl Series {
    /// Adds a point or a gap.
    pub fn push(&mut self, point: Option<f64>) {
        if self.points.len() == HISTORY_MAX {
            self.points.pop_front();
        }
        self.points.push_back(point);
        self.pushed += 1;
    }

    /// The last `columns` columns of `per_column` points each, oldest first: the greatest value in
    /// each, so that a short peak survives; a column without any value is a gap.
    ///
    /// Columns begin at multiples of `per_column` of all points ever pushed, so that a peak does
    /// not hop between columns from one frame to the next.
    pub fn columns(&self, columns: usize, per_column: usize) -> Vec<Option<f64>> {
        let per = per_column.max(1) as u64;
        let oldest = self.pushed - self.points.len() as u64;
        let mut out: Vec<Option<f64>> = vec![None; columns];
        let last_column = self.pushed.saturating_sub(1) / per;
        for (at, point) in self.points.iter().enumerate() {
            let column = (oldest + at as u64) / per;
            let from_right = (last_column - column) as usize;
            if from_right >= columns {
                continue;
            }
            let slot = &mut out[columns - 1 - from_right];
            *slot = match (*slot, *point) {
                (Some(left), Some(right)) => Some(left.max(right)),
                (left, right) => left.or(right),
            };
        }
        out
    }

    /// The greatest value kept.
    pub fn peak(&self) -> Option<f64> {
        self.points.iter().flatten().copied().reduce(f64::max)
    }
}

/// All series.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    series: [Series; Track::ALL.len()],
}

impl Default for History {
    fn default() -> Self {
        Self { series: std::array::from_fn(|_| Series::default()) }
    }
}

impl History {
    /// Adds what `model` holds, after `lost` ticks that never came: each of those is a gap.
    pub fn push(&mut self, model: &Model, lost: u64) {
        let gaps = usize::try_from(lost).map_or(HISTORY_MAX, |lost| lost.min(HISTORY_MAX));
        for track in Track::ALL {
            let series = &mut self.series[track as usize];
            for _ in 0..gaps {
                series.push(None);
            }
            series.push(track.of(model));
        }
    }

    /// One of them.
    pub fn of(&self, track: Track) -> &Series {
        &self.series[track as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::fixtures;
    use proptest::prelude::*;

    fn series(points: &[Option<f64>]) -> Series {
        let mut series = Series::default();
        for point in points {
            series.push(*point);
        }
        series
    }

    #[test]
    fn a_short_peak_survives_and_a_gap_stays_a_gap() {
        let given = series(&[Some(1.0), Some(9.0), None, None, Some(2.0), None]);
        assert_eq!(given.columns(3, 2), [Some(9.0), None, Some(2.0)]);
        assert_eq!(given.columns(5, 2), [None, None, Some(9.0), None, Some(2.0)]);
        assert_eq!(given.columns(2, 1), [Some(2.0), None]);
        assert_eq!(given.peak(), Some(9.0));
        assert_eq!(series(&[None]).peak(), None);
    }

    #[test]
    fn borders_of_columns_stay_in_place_while_points_come() {
        let mut given = series(&[Some(1.0), Some(2.0), Some(3.0)]);
        assert_eq!(given.columns(2, 2), [Some(2.0), Some(3.0)]);
        given.push(Some(4.0));
        assert_eq!(given.columns(2, 2), [Some(2.0), Some(4.0)]);
        given.push(Some(5.0));
        assert_eq!(given.columns(2, 2), [Some(4.0), Some(5.0)]);
    }

    #[test]
    fn no_more_points_than_the_bound() {
        let mut given = Series::default();
        for at in 0..HISTORY_MAX * 2 {
            given.push(Some(at as f64));
        }
        assert_eq!(given.points.len(), HISTORY_MAX);
        assert_eq!(given.columns(1, 1), [Some((HISTORY_MAX * 2 - 1) as f64)]);
    }

    #[test]
    fn lost_ticks_and_absent_readings_are_gaps() {
        let mut history = History::default();
        history.push(&fixtures::healthy(0), 0);
        history.push(&fixtures::foreign(3), 2);
        let fds = history.of(Track::FdsOpen).columns(4, 1);
        assert!(fds[0].is_some());
        assert_eq!(fds[1..], [None, None, None]);
        history.push(&fixtures::foreign(4), u64::MAX);
        assert_eq!(history.of(Track::FdsOpen).peak(), None);
    }

    #[test]
    fn every_track_has_its_own_slot() {
        for (at, track) in Track::ALL.into_iter().enumerate() {
            assert_eq!(track as usize, at);
        }
    }

    proptest! {
        #[test]
        fn the_greatest_point_is_in_some_column(
            points in prop::collection::vec(prop::option::of(0.0..1e6_f64), 1..300),
            per in 1_usize..9,
        ) {
            let given = series(&points);
            let columns = given.columns(300, per);
            let peak = columns.iter().flatten().copied().reduce(f64::max);
            prop_assert_eq!(peak, given.peak());
        }
    }
}
