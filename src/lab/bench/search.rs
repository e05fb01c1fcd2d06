//! The highest rate that a server carries: up in equal ratios until one is too high, then halving
//! what is left in between. Pure.

/// Rates tried at most.
pub const STEPS_MAX: usize = 24;
/// Rates below this are not tried.
const RATE_MIN: u64 = 10;
/// Each rate is this much above the one before, until one is too high.
const UP: f64 = 1.4;
/// Where the lowest that is too high lies this close above the highest that is carried, it is known.
const CLOSE: f64 = 1.04;
/// Responses a second of those asked for, from which a rate counts as reached.
pub const REACHED_MIN: f64 = 0.98;
/// A rate that is missed by no more than this may have been missed by chance.
const NEARLY_MIN: f64 = 0.9;
/// A latency of this many times what is allowed may have come by chance.
const NEARLY_P99: u64 = 4;

/// How a rate went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Reached, in time, without an error.
    Carried,
    /// Missed by so little that chance may have done it.
    Nearly,
    /// Missed.
    Missed,
}

/// What came of one rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tried {
    /// Requests asked for, a second.
    pub asked: u64,
    /// Responses got, a second.
    pub reached: f64,
    /// 99th percentile of the latency, µs; `None` without a response.
    pub p99_us: Option<u64>,
    /// Requests that failed or were refused, and those that were never sent.
    pub errors: u64,
}

/// What is to be said of it.
pub fn judge(tried: &Tried, p99_max_us: u64) -> Verdict {
    let share = tried.reached / tried.asked.max(1) as f64;
    let Some(p99_us) = tried.p99_us else { return Verdict::Missed };
    if tried.errors > 0 {
        Verdict::Missed
    } else if share >= REACHED_MIN && p99_us < p99_max_us {
        Verdict::Carried
    } else if share >= NEARLY_MIN && p99_us < p99_max_us.saturating_mul(NEARLY_P99) {
        Verdict::Nearly
    } else {
        Verdict::Missed
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// This rate, a second.
    Try(u64),
    /// It is known: the highest carried, if any was.
    Known(Option<u64>),
}

/// What comes after `steps` (rate and verdict of each), beginning at `start`.
///
/// What only nearly went well is tried once more: noise makes a server slower, never faster.
pub fn next(start: u64, steps: &[(u64, Verdict)]) -> Next {
    let best = steps.iter().filter(|(_, it)| *it == Verdict::Carried).map(|(rate, _)| *rate).max();
    if steps.len() >= STEPS_MAX {
        return Next::Known(best);
    }
    let Some((last, verdict)) = steps.last().copied() else {
        return Next::Try(start.max(RATE_MIN));
    };
    let times = steps.iter().filter(|(rate, _)| *rate == last).count();
    if verdict == Verdict::Nearly && times == 1 {
        return Next::Try(last);
    }
    let above = best.unwrap_or_default();
    let too_high = steps
        .iter()
        .filter(|(rate, verdict)| *verdict != Verdict::Carried && *rate > above)
        .map(|(rate, _)| *rate)
        .min();
    match (best, too_high) {
        (None, None) => Next::Try(start.max(RATE_MIN)),
        (None, Some(rate)) if rate <= RATE_MIN => Next::Known(None),
        (None, Some(rate)) => Next::Try((rate / 2).max(RATE_MIN)),
        (Some(best), None) => Next::Try(((best as f64 * UP) as u64).max(best + 1)),
        (Some(best), Some(rate)) if rate as f64 <= best as f64 * CLOSE || rate - best < 2 => {
            Next::Known(Some(best))
        }
        (Some(best), Some(rate)) => Next::Try(best.midpoint(rate)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Verdict::{Carried, Missed, Nearly};
    use super::*;

    #[test]
    fn what_comes_next() {
        let cases: [(&[(u64, Verdict)], Next); 12] = [
            (&[], Next::Try(1_000)),
            (&[(1_000, Carried)], Next::Try(1_400)),
            (&[(1_000, Missed)], Next::Try(500)),
            (&[(1_000, Nearly)], Next::Try(1_000)),
            (&[(1_000, Nearly), (1_000, Nearly)], Next::Try(500)),
            (&[(1_000, Nearly), (1_000, Carried)], Next::Try(1_400)),
            (&[(1_000, Carried), (1_400, Missed)], Next::Try(1_200)),
            (&[(1_000, Carried), (1_400, Missed), (1_200, Carried)], Next::Try(1_300)),
            (&[(1_000, Carried), (1_040, Missed)], Next::Known(Some(1_000))),
            (&[(10, Missed)], Next::Known(None)),
            // What failed below a rate that went well was noise.
            (&[(500, Missed), (1_000, Carried)], Next::Try(1_400)),
            (&[(2, Carried), (3, Missed)], Next::Known(Some(2))),
        ];
        for (steps, expected) in cases {
            assert_eq!(next(1_000, steps), expected, "{steps:?}");
        }
        assert_eq!(next(0, &[]), Next::Try(10));
        assert_eq!(next(1, &[(5, Carried); STEPS_MAX]), Next::Known(Some(5)));
    }

    #[test]
    fn a_rate_is_carried_when_it_is_reached_in_time_without_errors() {
        let good = Tried { asked: 1_000, reached: 980.0, p99_us: Some(49_999), errors: 0 };
        let cases = [
            (good, Carried),
            (Tried { reached: 979.0, ..good }, Nearly),
            (Tried { reached: 899.0, ..good }, Missed),
            (Tried { p99_us: Some(50_000), ..good }, Nearly),
            (Tried { p99_us: Some(200_000), ..good }, Missed),
            (Tried { p99_us: None, ..good }, Missed),
            (Tried { errors: 1, ..good }, Missed),
        ];
        for (tried, expected) in cases {
            assert_eq!(judge(&tried, 50_000), expected, "{tried:?}");
        }
    }

    proptest! {
        /// A server that carries exactly so much is found out, from wherever it begins.
        #[test]
        fn the_search_ends_close_below_the_truth(truth in 20..500_000_u64, start in 10..500_000_u64) {
            let mut steps = Vec::new();
            let found = loop {
                match next(start, &steps) {
                    Next::Try(rate) => {
                        let verdict = if rate <= truth { Carried } else { Missed };
                        steps.push((rate, verdict));
                    }
                    Next::Known(found) => break found,
                }
            };
            prop_assert!(steps.len() <= STEPS_MAX);
            let found = found.unwrap_or(0);
            prop_assert!(found <= truth);
            // From too far away it may run out of steps; the lab starts within a factor of 8.
            if (truth / 8..truth * 8).contains(&start) {
                prop_assert!(found as f64 * CLOSE * 1.05 + 2.0 >= truth as f64, "{found} {steps:?}");
            }
        }
    }
}
