//! Which stretches of profiling show the healthy service, which the stalled one, and which its onset.

use super::stacks::{Kind, Maker};

/// Healthy time looked at, back from the onset: long enough for samples, short enough to be "just
/// before".
pub const HEALTHY_NS_MAX: u64 = 10_000_000_000;
/// A window that holds the onset shows it only if it is this short; a longer one mixes healthy and
/// stalled time.
pub const ONSET_NS_MAX: u64 = 3_000_000_000;

/// One stretch of profiling. Times are `CLOCK_MONOTONIC` ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window<'a> {
    /// Begin.
    pub begin_ns: u64,
    /// End.
    pub end_ns: u64,
    /// What is counted, and in what unit.
    pub kind: Kind,
    /// Who made it.
    pub maker: Maker,
    /// Samples per second of CPU time.
    pub hz: u32,
    /// Folded stacks. Hostile text.
    pub folded: &'a str,
    /// What it could not see, one sentence each.
    pub notes: &'a [String],
}

impl Window<'_> {
    const fn length_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.begin_ns)
    }
}

/// The windows of each stretch, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice<'a> {
    /// Ended before the onset, at most [`HEALTHY_NS_MAX`] in all (or one window, if longer). In a
    /// run without a stall: the last of the run.
    pub healthy: Vec<Window<'a>>,
    /// Began after the onset and ended before recovery.
    pub stalled: Vec<Window<'a>>,
    /// Hold the onset, and are short ([`ONSET_NS_MAX`]).
    pub onset: Vec<Window<'a>>,
    /// Hold both healthy and stalled time, so they are in neither.
    pub mixed: usize,
}

/// Sorts the windows of one kind by the onset and the end of a stall. Of each stretch those are taken
/// that the watcher made, if there are any: they see the kernel's frames and every thread.
pub fn choose<'a>(
    windows: &[Window<'a>],
    kind: Kind,
    onset_ns: Option<u64>,
    recovered_ns: Option<u64>,
) -> Choice<'a> {
    let [watcher, itself] = [Maker::Watcher, Maker::Itself]
        .map(|maker| sort(windows, kind, maker, onset_ns, recovered_ns));
    let mixed = if watcher.mixed > 0 { watcher.mixed } else { itself.mixed };
    let first = |a: Vec<Window<'a>>, b| if a.is_empty() { b } else { a };
    Choice {
        healthy: first(watcher.healthy, itself.healthy),
        stalled: first(watcher.stalled, itself.stalled),
        onset: first(watcher.onset, itself.onset),
        mixed,
    }
}

/// As [`choose`], of one maker's windows only: what two stretches must have in common to be compared.
pub fn choose_comparable<'a>(
    windows: &[Window<'a>],
    kind: Kind,
    onset_ns: Option<u64>,
    recovered_ns: Option<u64>,
) -> Option<(Vec<Window<'a>>, Vec<Window<'a>>)> {
    [Maker::Watcher, Maker::Itself]
        .map(|maker| sort(windows, kind, maker, onset_ns, recovered_ns))
        .into_iter()
        .find(|choice| !choice.healthy.is_empty() && !choice.stalled.is_empty())
        .map(|choice| (choice.healthy, choice.stalled))
}

fn sort<'a>(
    windows: &[Window<'a>],
    kind: Kind,
    maker: Maker,
    onset_ns: Option<u64>,
    recovered_ns: Option<u64>,
) -> Choice<'a> {
    let onset_ns = onset_ns.unwrap_or(u64::MAX);
    let recovered_ns = recovered_ns.unwrap_or(u64::MAX);
    let mut choice = Choice::default();
    let mut healthy_ns = 0_u64;
    let of_kind = |window: &&Window<'_>| window.kind == kind && window.maker == maker;
    for window in windows.iter().filter(of_kind).rev() {
        if window.end_ns <= onset_ns {
            healthy_ns = healthy_ns.saturating_add(window.length_ns());
            if choice.healthy.is_empty() || healthy_ns <= HEALTHY_NS_MAX {
                choice.healthy.push(*window);
            }
        } else if window.begin_ns >= onset_ns && window.end_ns <= recovered_ns {
            choice.stalled.push(*window);
        } else if window.begin_ns < onset_ns && window.length_ns() <= ONSET_NS_MAX {
            choice.onset.push(*window);
        } else if window.begin_ns < recovered_ns {
            choice.mixed += 1;
        }
    }
    choice.healthy.reverse();
    choice.stalled.reverse();
    choice.onset.reverse();
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

    fn window(begin_s: u64, end_s: u64, maker: Maker) -> Window<'static> {
        Window {
            begin_ns: begin_s * S,
            end_ns: end_s * S,
            kind: Kind::Cpu,
            maker,
            hz: 99,
            folded: "",
            notes: &[],
        }
    }

    fn seconds(bounds: &[(u64, u64)]) -> Vec<Window<'static>> {
        bounds.iter().map(|(begin, end)| window(*begin, *end, Maker::Itself)).collect()
    }

    fn choose<'a>(windows: &[Window<'a>], onset: Option<u64>, end: Option<u64>) -> Choice<'a> {
        super::choose(windows, Kind::Cpu, onset, end)
    }

    #[test]
    fn each_window_is_healthy_stalled_mixed_or_out() {
        let every_2s: Vec<(u64, u64)> = (0..20).map(|n| (n * 2, n * 2 + 2)).collect();
        // The windows of 20 s to 22 s and 30 s to 32 s hold the onset and the recovery.
        let windows = seconds(&every_2s);
        let choice = choose(&windows, Some(21 * S), Some(31 * S));
        let begins =
            |windows: &[Window<'_>]| windows.iter().map(|w| w.begin_ns / S).collect::<Vec<_>>();
        assert_eq!(begins(&choice.healthy), [10, 12, 14, 16, 18]);
        assert_eq!(begins(&choice.stalled), [22, 24, 26, 28]);
        assert_eq!(begins(&choice.onset), [20]);
        assert_eq!(choice.mixed, 1);
        assert_eq!(covered_ns(&choice.stalled), 8 * S);
    }

    #[test]
    fn a_long_window_across_the_onset_shows_neither_side_of_it() {
        let choice = choose(&seconds(&[(0, 10)]), Some(5 * S), None);
        assert_eq!((choice.onset.len(), choice.mixed), (0, 1));
        assert_eq!(choose(&seconds(&[(3, 6)]), Some(5 * S), None).onset.len(), 1);
    }

    #[test]
    fn each_stretch_is_the_watchers_if_it_has_one_and_kinds_are_apart() {
        let mut windows = seconds(&[(0, 4), (6, 9)]);
        windows.push(window(7, 9, Maker::Watcher));
        windows.push(Window { kind: Kind::OffCpu, ..window(6, 8, Maker::Watcher) });
        let choice = choose(&windows, Some(5 * S), None);
        assert_eq!(choice.healthy[0].maker, Maker::Itself);
        assert_eq!((choice.stalled.len(), choice.stalled[0].maker), (1, Maker::Watcher));
        let off = super::choose(&windows, Kind::OffCpu, Some(5 * S), None);
        assert_eq!((off.healthy.len(), off.stalled.len()), (0, 1));
        // Two makers see different frames: only windows of the same one are compared.
        let comparable = |windows: &[Window<'_>]| {
            choose_comparable(windows, Kind::Cpu, Some(5 * S), None)
                .map(|(healthy, stalled)| (healthy[0].maker, stalled[0].maker))
        };
        assert_eq!(comparable(&windows), Some((Maker::Itself, Maker::Itself)));
        windows.push(window(1, 3, Maker::Watcher));
        assert_eq!(comparable(&windows), Some((Maker::Watcher, Maker::Watcher)));
        assert_eq!(comparable(&windows[1..2]), None);
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
