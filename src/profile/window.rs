//! Which stretches of profiling show the healthy service, and which the stalled one.

/// Healthy time looked at, back from the onset: long enough for samples, short enough to be "just
/// before".
pub const HEALTHY_NS_MAX: u64 = 10_000_000_000;

/// One stretch of profiling. Times are `CLOCK_MONOTONIC` ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window<'a> {
    /// Begin.
    pub begin_ns: u64,
    /// End.
    pub end_ns: u64,
    /// Samples per second of CPU time.
    pub hz: u32,
    /// Folded stacks. Hostile text.
    pub folded: &'a str,
}

impl Window<'_> {
    const fn length_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.begin_ns)
    }
}

/// The windows of both kinds, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice<'a> {
    /// Ended before the onset, at most [`HEALTHY_NS_MAX`] in all (or one window, if longer). In a
    /// run without a stall: the last of the run.
    pub healthy: Vec<Window<'a>>,
    /// Began after the onset and ended before recovery.
    pub stalled: Vec<Window<'a>>,
    /// Hold both healthy and stalled time, so they are in neither.
    pub mixed: usize,
}

/// Sorts windows by the onset and the end of a stall.
pub fn choose<'a>(
    windows: &[Window<'a>],
    onset_ns: Option<u64>,
    recovered_ns: Option<u64>,
) -> Choice<'a> {
    let onset_ns = onset_ns.unwrap_or(u64::MAX);
    let recovered_ns = recovered_ns.unwrap_or(u64::MAX);
    let mut choice = Choice::default();
    let mut healthy_ns = 0_u64;
    for window in windows.iter().rev() {
        if window.end_ns <= onset_ns {
            healthy_ns = healthy_ns.saturating_add(window.length_ns());
            if choice.healthy.is_empty() || healthy_ns <= HEALTHY_NS_MAX {
                choice.healthy.push(*window);
            }
        } else if window.begin_ns >= onset_ns && window.end_ns <= recovered_ns {
            choice.stalled.push(*window);
        } else if window.begin_ns < recovered_ns {
            choice.mixed += 1;
        }
    }
    choice.healthy.reverse();
    choice.stalled.reverse();
    choice
}

/// Time that the windows cover, ns.
pub fn covered_ns(windows: &[Window<'_>]) -> u64 {
    windows.iter().fold(0, |sum, window| sum.saturating_add(window.length_ns()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn seconds(bounds: &[(u64, u64)]) -> Vec<Window<'static>> {
        bounds
            .iter()
            .map(|(begin, end)| Window { begin_ns: begin * S, end_ns: end * S, hz: 99, folded: "" })
            .collect()
    }

    #[test]
    fn each_window_is_healthy_stalled_mixed_or_out() {
        let every_2s: Vec<(u64, u64)> = (0..20).map(|n| (n * 2, n * 2 + 2)).collect();
        let windows = seconds(&every_2s);
        let choice = choose(&windows, Some(21 * S), Some(31 * S));
        let begins =
            |windows: &[Window<'_>]| windows.iter().map(|w| w.begin_ns / S).collect::<Vec<_>>();
        assert_eq!(begins(&choice.healthy), [10, 12, 14, 16, 18]);
        assert_eq!(begins(&choice.stalled), [22, 24, 26, 28]);
        assert_eq!(choice.mixed, 2);
        assert_eq!(covered_ns(&choice.stalled), 8 * S);
    }

    #[test]
    fn without_an_onset_the_last_windows_are_healthy() {
        let windows = seconds(&[(0, 6), (6, 12)]);
        let choice = choose(&windows, None, None);
        assert_eq!(choice.healthy.len(), 1);
        assert_eq!(choice.healthy[0].begin_ns, 6 * S);
        assert!(choice.stalled.is_empty());
    }

    #[test]
    fn a_single_window_longer_than_the_bound_is_still_looked_at() {
        let windows = seconds(&[(0, 60)]);
        assert_eq!(choose(&windows, Some(60 * S), None).healthy.len(), 1);
    }

    #[test]
    fn a_stall_that_never_ends_takes_every_later_window() {
        let windows = seconds(&[(0, 5), (5, 10), (10, 15)]);
        assert_eq!(choose(&windows, Some(5 * S), None).stalled.len(), 2);
    }

    #[test]
    fn a_window_that_ends_before_it_begins_covers_nothing() {
        assert_eq!(covered_ns(&seconds(&[(5, 3)])), 0);
    }
}
