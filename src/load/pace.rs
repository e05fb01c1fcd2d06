//! When each request of an open loop is due. Pure: the time is passed in.
//!
//! Requests are due at a fixed rhythm from the start of the run, whatever the server does. One that
//! could not be sent when it was due stays due: its latency is counted from that instant, so a
//! pause of the server shows in every request that had to wait for it (Gil Tene, "How NOT to
//! measure latency": coordinated omission).

const NS_PER_S: u128 = 1_000_000_000;

/// The schedule of one run. Instants are ns since its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    per_s: u64,
    taken: u64,
}

impl Pace {
    /// A schedule of `per_s` requests per second; 0 counts as 1.
    pub fn new(per_s: u64) -> Self {
        Self { per_s: per_s.max(1), taken: 0 }
    }

    /// When the next request is due.
    pub fn next_due_ns(&self) -> u64 {
        let ns = u128::from(self.taken) * NS_PER_S / u128::from(self.per_s);
        // 2^64 ns are 584 years.
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// Takes the next request if it is due at `now_ns`, and says since when it has been.
    pub fn take(&mut self, now_ns: u64) -> Option<u64> {
        let due_ns = self.next_due_ns();
        if due_ns > now_ns {
            return None;
        }
        self.taken += 1;
        Some(due_ns)
    }

    /// Requests due by `now_ns` that nobody has taken.
    pub fn overdue(&self, now_ns: u64) -> u64 {
        // Request k is due at floor(k / rate), so at `now` those up to floor((now + 1) * rate),
        // less one ns, are: count k with k * NS < (now + 1) * rate.
        let bound = (u128::from(now_ns) + 1) * u128::from(self.per_s);
        let due = bound.div_ceil(NS_PER_S);
        u64::try_from(due).unwrap_or(u64::MAX).saturating_sub(self.taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_are_due_at_a_fixed_rhythm() {
        let mut pace = Pace::new(4);
        assert_eq!(pace.take(0), Some(0));
        assert_eq!(pace.take(249_999_999), None);
        assert_eq!(pace.take(250_000_000), Some(250_000_000));
        // A client that comes late is told when the request was due, not when it came.
        assert_eq!(pace.take(900_000_000), Some(500_000_000));
        assert_eq!(pace.overdue(900_000_000), 1);
        assert_eq!(pace.take(900_000_000), Some(750_000_000));
        assert_eq!(pace.take(900_000_000), None);
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_does_not_drift() {
        let mut pace = Pace::new(3);
        let due: Vec<_> = std::iter::repeat_with(|| pace.take(u64::MAX)).take(7).collect();
        let expected = [
            0,
            333_333_333,
            666_666_666,
            1_000_000_000,
            1_333_333_333,
            1_666_666_666,
            2_000_000_000,
        ];
        assert_eq!(due, expected.map(Some));
    }

    proptest! {
        #[test]
        fn what_is_overdue_is_what_can_be_taken(per_s in 1..10_000u64, now_ns in 0..2_000_000_000u64) {
            let mut pace = Pace::new(per_s);
            let overdue = pace.overdue(now_ns);
            let mut taken = 0;
            while pace.take(now_ns).is_some() {
                taken += 1;
            }
            prop_assert_eq!(overdue, taken);
            prop_assert_eq!(pace.overdue(now_ns), 0);
            prop_assert!(pace.next_due_ns() > now_ns);
        }
    }
}
