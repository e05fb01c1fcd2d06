//! Which stretches are wanted once a stall has been found: what it was like before, around the
//! onset, and while it lasts. Pure.

/// Healthy time wanted before an onset, ns.
pub const HEALTHY_NS: u64 = 10_000_000_000;
/// Time on both sides of the onset that makes up its own stretch, ns.
pub const AROUND_NS: u64 = 1_000_000_000;
/// The first look at the stall itself comes this long after it was found, ns.
const FIRST_AFTER_NS: u64 = 2_000_000_000;
/// Lengths of the looks after that, ns: the stall of an hour is no other than that of a minute.
const LATER_NS: [u64; 4] = [5_000_000_000, 10_000_000_000, 20_000_000_000, 30_000_000_000];
/// Shortest stretch worth a profile, ns.
const SHORTEST_NS: u64 = 200_000_000;
/// Stalls looked at in one run.
pub const STALLS_MAX: usize = 32;

/// A stretch to make a profile of, ns.
pub type Stretch = (u64, u64);

/// Follows the stalls of one run.
#[derive(Debug, Default)]
pub struct Plan {
    stall: Option<Stall>,
    /// What came before this belongs to an earlier stall, ns.
    healthy_since_ns: u64,
    stalls: usize,
    /// A stretch around an onset that has not passed yet, ns.
    around: Option<Stretch>,
}

#[derive(Debug, Clone, Copy)]
struct Stall {
    /// Up to where it has been looked at, ns.
    seen_ns: u64,
    due_ns: u64,
    looks: usize,
}

impl Plan {
    /// A stall was found at `detected_ns` that began at `onset_ns`; nothing is known of what was
    /// before `whole_since_ns`. The stretch before it.
    pub fn onset(
        &mut self,
        onset_ns: u64,
        detected_ns: u64,
        whole_since_ns: u64,
    ) -> Option<Stretch> {
        if self.stalls >= STALLS_MAX {
            return None;
        }
        self.stalls += 1;
        let since_ns = whole_since_ns.max(self.healthy_since_ns);
        let begin_ns = onset_ns.saturating_sub(HEALTHY_NS).max(since_ns);
        self.around = worth(
            onset_ns.saturating_sub(AROUND_NS).max(since_ns),
            onset_ns.saturating_add(AROUND_NS),
        )
        .filter(|(begin_ns, _)| *begin_ns < onset_ns);
        self.stall = Some(Stall {
            seen_ns: onset_ns.max(whole_since_ns),
            due_ns: detected_ns.saturating_add(FIRST_AFTER_NS),
            looks: 0,
        });
        worth(begin_ns, onset_ns)
    }

    /// Stretches that have passed by `now_ns` and are wanted.
    pub fn due(&mut self, now_ns: u64) -> Vec<Stretch> {
        let mut wanted = Vec::new();
        if let Some(around) = self.around.take_if(|around| around.1 <= now_ns) {
            wanted.push(around);
        }
        if let Some(stall) = &mut self.stall
            && now_ns >= stall.due_ns
        {
            wanted.extend(worth(stall.seen_ns, now_ns));
            stall.seen_ns = now_ns;
            stall.due_ns = LATER_NS
                .get(stall.looks)
                .map_or(u64::MAX, |length_ns| now_ns.saturating_add(*length_ns));
            stall.looks += 1;
        }
        wanted
    }

    /// The stall is over: what is still wanted of it.
    pub fn recovered(&mut self, at_ns: u64) -> Vec<Stretch> {
        self.healthy_since_ns = at_ns;
        let around =
            self.around.take().and_then(|(begin_ns, end_ns)| worth(begin_ns, end_ns.min(at_ns)));
        let last = self.stall.take().filter(|stall| stall.due_ns != u64::MAX);
        around.into_iter().chain(last.and_then(|stall| worth(stall.seen_ns, at_ns))).collect()
    }

    /// Watching ends: what is still wanted. Without a stall, the last of the run.
    pub fn end(&mut self, now_ns: u64, whole_since_ns: u64) -> Vec<Stretch> {
        if self.stall.is_some() {
            return self.recovered(now_ns);
        }
        let begin_ns =
            now_ns.saturating_sub(HEALTHY_NS).max(whole_since_ns).max(self.healthy_since_ns);
        worth(begin_ns, now_ns).into_iter().collect()
    }
}

fn worth(begin_ns: u64, end_ns: u64) -> Option<Stretch> {
    (end_ns.saturating_sub(begin_ns) >= SHORTEST_NS).then_some((begin_ns, end_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_stall_is_looked_at_before_around_and_while_it_lasts() {
        let mut plan = Plan::default();
        assert_eq!(plan.onset(100 * S, 101 * S, 50 * S), Some((90 * S, 100 * S)));
        assert_eq!(plan.due(101 * S), [(99 * S, 101 * S)]);
        assert!(plan.due(102 * S).is_empty());
        assert_eq!(plan.due(103 * S), [(100 * S, 103 * S)]);
        assert_eq!(plan.due(108 * S), [(103 * S, 108 * S)]);
        assert_eq!(plan.recovered(110 * S), [(108 * S, 110 * S)]);
        assert!(plan.due(200 * S).is_empty());
        assert_eq!(plan.end(300 * S, 270 * S), [(290 * S, 300 * S)]);
    }

    #[test]
    fn what_is_not_known_or_belongs_to_another_stall_is_not_wanted() {
        let mut plan = Plan::default();
        assert_eq!(plan.onset(10 * S, 101 * S, 100 * S), None, "it began before watching");
        assert_eq!(plan.due(103 * S), [(100 * S, 103 * S)]);
        assert_eq!(plan.recovered(104 * S), [(103 * S, 104 * S)]);
        assert_eq!(plan.onset(106 * S, 106 * S, 100 * S), Some((104 * S, 106 * S)));
    }

    #[test]
    fn a_long_stall_and_many_stalls_are_bounded() {
        let mut plan = Plan::default();
        plan.onset(0, 0, 0);
        let looks: usize = (1..4_000).map(|at| plan.due(at * S).len()).sum();
        assert_eq!(looks, 1 + 1 + LATER_NS.len() - 1);
        assert!(plan.recovered(4_000 * S).is_empty(), "the last look is long past");
        for stall in 1..STALLS_MAX as u64 {
            assert!(plan.onset(5_000 * S * stall, 5_000 * S * stall, 0).is_some());
        }
        assert_eq!(plan.onset(u64::MAX / 2, u64::MAX / 2, 0), None);
    }

    #[test]
    fn a_run_without_a_stall_keeps_its_last_seconds_if_there_are_any() {
        assert_eq!(Plan::default().end(5 * S, 4 * S), [(4 * S, 5 * S)]);
        assert!(Plan::default().end(5 * S, 5 * S).is_empty());
    }
}
