//! What will run out, and when.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::thresholds::Thresholds;
use crate::model::{ListenerModel, Model};

/// What runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForecastKind {
    /// fds.
    Fds,
    /// Ephemeral ports to one destination.
    Ports,
    /// Room in an accept queue.
    AcceptQueue,
    /// Entries of a submission queue that are prepared and not flushed.
    Submissions,
}

/// Something runs out if it goes on like this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// What.
    pub kind: ForecastKind,
    /// When this was foreseen, ns.
    pub at_ns: u64,
    /// In how many seconds it will have run out; `None` when it is nearly full and no trend shows.
    pub in_s: Option<f64>,
    /// How full it is, 0 to 1.
    pub used_ratio: f64,
    /// One sentence; may hold hostile text.
    pub text: String,
}

/// Looks at what is used up, tick by tick.
#[derive(Debug, Default)]
pub struct Forecaster {
    fds: Trend,
    ports: Trend,
    /// Per ring: the head of its submission queue, since when it has stood still, and how many
    /// entries waited then.
    submissions: BTreeMap<i32, (u32, u64, u32)>,
    told: BTreeMap<ForecastKind, (u64, Option<f64>)>,
    present: Vec<Forecast>,
}

/// A forecast is told again after this long, or when only half of the time is left.
const TELL_AGAIN_NS: u64 = 30_000_000_000;
/// From here on an accept queue is nearly full: the next burst overflows it.
const QUEUE_NEARLY_FULL: f64 = 0.8;
/// Entries that stay unsubmitted for so long while more are added are not about to be flushed; a
/// loop turns a thousand times in it.
const NOT_FLUSHED_NS: u64 = 200_000_000;

impl Forecaster {
    /// What is foreseen at present.
    pub fn present(&self) -> &[Forecast] {
        &self.present
    }

    /// Takes the next model; returns what is news.
    pub fn push(&mut self, now: &Model, thresholds: &Thresholds) -> Vec<Forecast> {
        let mut present = Vec::new();
        present.extend(self.fds(now, thresholds));
        present.extend(self.ports(now, thresholds));
        present.extend(accept_queue(now));
        present.extend(self.submissions(now));
        self.told.retain(|kind, (told_ns, _)| {
            let stands = present.iter().any(|forecast| forecast.kind == *kind);
            // One that comes and goes is not told each time.
            stands || now.at_ns.saturating_sub(*told_ns) < TELL_AGAIN_NS
        });
        let news = present.iter().filter(|forecast| self.is_news(forecast)).cloned();
        let news: Vec<Forecast> = news.collect();
        for forecast in &news {
            self.told.insert(forecast.kind, (forecast.at_ns, forecast.in_s));
        }
        self.present = present;
        news
    }

    fn is_news(&self, forecast: &Forecast) -> bool {
        let Some((told_ns, told_s)) = self.told.get(&forecast.kind) else { return true };
        let halved =
            matches!((told_s, forecast.in_s), (Some(told), Some(now)) if now * 2.0 < *told);
        halved || forecast.at_ns.saturating_sub(*told_ns) >= TELL_AGAIN_NS
    }

    fn fds(&mut self, now: &Model, thresholds: &Thresholds) -> Option<Forecast> {
        let fds = now.fds.got()?;
        let limit = fds.soft_limit().filter(|limit| *limit > 0)?;
        self.fds.push(now.at_ns, fds.open as f64);
        let in_s = self.fds.reaches(limit as f64, thresholds)?;
        Some(Forecast {
            kind: ForecastKind::Fds,
            at_ns: now.at_ns,
            in_s: Some(in_s),
            used_ratio: fds.open as f64 / limit as f64,
            text: format!(
                "{} of {limit} fds are open: at this rate the limit is reached in {in_s:.0} s",
                fds.open
            ),
        })
    }

    fn ports(&mut self, now: &Model, thresholds: &Thresholds) -> Option<Forecast> {
        let ports = now.ports.got().filter(|ports| ports.size > 0)?;
        let (address, used) = ports.top.first()?;
        self.ports.push(now.at_ns, f64::from(*used));
        let in_s = self.ports.reaches(f64::from(ports.size), thresholds)?;
        Some(Forecast {
            kind: ForecastKind::Ports,
            at_ns: now.at_ns,
            in_s: Some(in_s),
            used_ratio: f64::from(*used) / f64::from(ports.size),
            text: format!(
                "{used} of {} ephemeral ports to {address} are in use: at this rate they run out in {in_s:.0} s",
                ports.size
            ),
        })
    }

    fn submissions(&mut self, now: &Model) -> Option<Forecast> {
        let rings = now.rings.got()?;
        self.submissions.retain(|fd, _| rings.iter().any(|ring| ring.fd == *fd));
        let mut worst: Option<Forecast> = None;
        for ring in rings.iter() {
            let Some(state) = ring.state.got() else { continue };
            let pending = state.sq_pending();
            let fresh = (state.sq_head, ring.at_ns, pending);
            let since = self.submissions.entry(ring.fd).or_insert(fresh);
            if since.0 != state.sq_head || pending == 0 {
                *since = fresh;
            }
            let still_ns = ring.at_ns.saturating_sub(since.1);
            let used_ratio = f64::from(pending) / f64::from(state.sq_entries.max(1));
            let worse = worst.as_ref().is_none_or(|worst| used_ratio > worst.used_ratio);
            if still_ns >= NOT_FLUSHED_NS && pending > since.2 && worse {
                worst = Some(Forecast {
                    kind: ForecastKind::Submissions,
                    at_ns: now.at_ns,
                    in_s: None,
                    used_ratio,
                    text: format!(
                        "{pending} entries of ring {} are prepared, and more are added, but none has been submitted for {} ms",
                        ring.fd,
                        still_ns / 1_000_000
                    ),
                });
            }
        }
        worst
    }
}

fn accept_queue(now: &Model) -> Option<Forecast> {
    let used = |listener: &ListenerModel| {
        let limit = listener.limit.filter(|limit| *limit > 0)?;
        Some((f64::from(listener.queued) / f64::from(limit), limit))
    };
    let (used_ratio, limit, listener) = now
        .own_listeners()
        .filter_map(|listener| used(listener).map(|(ratio, limit)| (ratio, limit, listener)))
        .max_by(|(a, ..), (b, ..)| a.total_cmp(b))?;
    (used_ratio >= QUEUE_NEARLY_FULL).then(|| Forecast {
        kind: ForecastKind::AcceptQueue,
        at_ns: now.at_ns,
        in_s: None,
        used_ratio,
        text: format!(
            "the accept queue of {} is {:.0} % full ({} of {limit})",
            listener.local,
            used_ratio * 100.0,
            listener.queued
        ),
    })
}

/// A quantity over the last ten seconds.
#[derive(Debug, Default)]
struct Trend {
    points: VecDeque<(u64, f64)>,
}

/// Points kept, and how far they are apart: together ten seconds.
const POINTS_MAX: usize = 40;
const POINTS_APART_NS: u64 = 250_000_000;
/// A trend of less time is a burst.
const SPAN_MIN_NS: u64 = 4_000_000_000;
/// Share of the steps between points that must go up: a staircase of two bursts is no trend.
const STEPS_UP_MIN: f64 = 0.4;

impl Trend {
    fn push(&mut self, at_ns: u64, value: f64) {
        let due = |(last_ns, _): &(u64, f64)| at_ns.saturating_sub(*last_ns) >= POINTS_APART_NS;
        if self.points.back().is_none_or(due) {
            if self.points.len() == POINTS_MAX {
                self.points.pop_front();
            }
            self.points.push_back((at_ns, value));
        }
    }

    /// In how many seconds the trend reaches `limit`; `None` when there is no trend, or it is too
    /// far off.
    fn reaches(&self, limit: f64, thresholds: &Thresholds) -> Option<f64> {
        let ((first_ns, _), (last_ns, last)) = (*self.points.front()?, *self.points.back()?);
        let span_ns = last_ns.saturating_sub(first_ns);
        if span_ns < SPAN_MIN_NS || last < limit * thresholds.forecast_from_ratio || last >= limit {
            return None;
        }
        let steps = self.points.iter().zip(self.points.iter().skip(1));
        let up = steps.filter(|((_, then), (_, now))| now > then).count();
        if (up as f64) < STEPS_UP_MIN * (self.points.len() - 1) as f64 {
            return None;
        }
        let per_s = self.slope(first_ns)?;
        let in_s = (limit - last) / per_s;
        (per_s > 0.0 && in_s <= thresholds.forecast_within_s).then_some(in_s)
    }

    /// Least squares, per second.
    fn slope(&self, first_ns: u64) -> Option<f64> {
        let count = self.points.len() as f64;
        let seconds = |at_ns: u64| at_ns.saturating_sub(first_ns) as f64 / 1e9;
        let mean_s = self.points.iter().map(|(at_ns, _)| seconds(*at_ns)).sum::<f64>() / count;
        let mean = self.points.iter().map(|(_, value)| value).sum::<f64>() / count;
        let (mut above, mut below) = (0.0, 0.0);
        for (at_ns, value) in &self.points {
            let s = seconds(*at_ns) - mean_s;
            above += s * (value - mean);
            below += s * s;
        }
        (below > 0.0).then(|| above / below)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: u64 = 1_000_000_000;

    fn trend(values: impl Iterator<Item = f64>) -> Trend {
        let mut trend = Trend::default();
        for (index, value) in values.enumerate() {
            trend.push(S + index as u64 * POINTS_APART_NS, value);
        }
        trend
    }

    #[test]
    fn a_steady_rise_has_a_date_and_a_burst_has_none() {
        let set = Thresholds::default();
        // Ten fds a second, four points a second.
        let rising = trend((0..40).map(|point| 600.0 + f64::from(point) * 2.5));
        let in_s = rising.reaches(1_000.0, &set).unwrap();
        assert!((in_s - 30.25).abs() < 0.1, "{in_s}");
        assert_eq!(rising.reaches(100_000.0, &set), None, "hardly used");
        let flat = trend((0..40).map(|_| 990.0));
        assert_eq!(flat.reaches(1_000.0, &set), None);
        let burst = trend((0..40).map(|point| if point < 20 { 100.0 } else { 900.0 }));
        assert_eq!(burst.reaches(1_000.0, &set), None);
        let falling = trend((0..40).map(|point| 990.0 - f64::from(point)));
        assert_eq!(falling.reaches(1_000.0, &set), None);
        let short = trend((0..8).map(|point| 600.0 + f64::from(point) * 40.0));
        assert_eq!(short.reaches(1_000.0, &set), None, "two seconds are a burst");
    }

    proptest! {
        #[test]
        fn a_forecast_lies_ahead_and_within_reach(
            values in proptest::collection::vec((0_u64..60 * S, -1e9_f64..1e9), 0..60),
            limit in 0.0_f64..1e9,
        ) {
            let set = Thresholds::default();
            let mut trend = Trend::default();
            for (at_ns, value) in values {
                trend.push(at_ns, value);
            }
            if let Some(in_s) = trend.reaches(limit, &set) {
                prop_assert!(in_s > 0.0 && in_s <= set.forecast_within_s);
            }
        }
    }
}
