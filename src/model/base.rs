//! The reading that shares and differences are taken from: old enough for them to mean something.

/// Shortest time over which a share is taken: what comes in bursts or clock ticks is noise below.
pub(super) const BASE_NS: u64 = 1_000_000_000;

/// Remembers two readings, so that there is always one between [`BASE_NS`] and twice that old
/// (older when readings come seldom).
#[derive(Debug)]
pub(super) struct Base<T> {
    base: Option<(u64, T)>,
    next: Option<(u64, T)>,
}

impl<T> Default for Base<T> {
    fn default() -> Self {
        Self { base: None, next: None }
    }
}

impl<T: Clone> Base<T> {
    /// Takes in the reading of `at_ns` and gives the one to compare it with: seconds between the
    /// two, and its value. `None` until there is one that is old enough. A reading that is carried
    /// along from an earlier tick gives the same answer again.
    pub(super) fn before(&mut self, at_ns: u64, now: &T) -> Option<(f64, T)> {
        let fresh = || Some((at_ns, now.clone()));
        if self.base.as_ref().is_none_or(|(then_ns, _)| *then_ns > at_ns) {
            self.base = fresh();
            self.next = fresh();
            return None;
        }
        let ripe = |(then_ns, _): &(u64, T)| at_ns.saturating_sub(*then_ns) >= BASE_NS;
        if self.next.as_ref().is_some_and(ripe) {
            self.base = std::mem::replace(&mut self.next, fresh());
        }
        let (then_ns, then) = self.base.as_ref().filter(|base| ripe(base))?;
        Some((at_ns.saturating_sub(*then_ns) as f64 / 1e9, then.clone()))
    }

    /// Begins anew from this reading: what was counted is something else by now.
    pub(super) fn restart(&mut self, at_ns: u64, now: &T) {
        self.base = Some((at_ns, now.clone()));
        self.next = Some((at_ns, now.clone()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_base_is_between_one_and_two_seconds_old() {
        let mut base = Base::default();
        let ages: Vec<Option<f64>> = (0..10)
            .map(|tick| base.before(S + tick * S / 2, &tick).map(|(age_s, _)| age_s))
            .collect();
        let (one, more) = (Some(1.0), Some(1.5));
        assert_eq!(ages, [None, None, one, more, one, more, one, more, one, more]);
    }

    #[test]
    fn what_is_carried_along_is_compared_with_the_same_again() {
        let mut base = Base::default();
        base.before(S, &1);
        let read = base.before(2 * S, &5);
        assert_eq!(read, Some((1.0, 1)));
        assert_eq!(base.before(2 * S, &5), read);
        base.restart(3 * S, &7);
        assert_eq!(base.before(3 * S + S / 2, &8), None);
        assert_eq!(base.before(4 * S, &9), Some((1.0, 7)));
    }

    proptest! {
        /// Clocks of a recording may say anything.
        #[test]
        fn no_base_is_too_young(times in proptest::collection::vec(0_u64..6 * S, 1..20)) {
            let mut base = Base::default();
            for at_ns in times {
                if let Some((age_s, then)) = base.before(at_ns, &at_ns) {
                    prop_assert!(age_s >= 1.0 && then + BASE_NS <= at_ns);
                }
            }
        }
    }
}
