//! Warnings from inside a loop, at a bounded rate.

use std::sync::atomic::{AtomicU64, Ordering};

/// Lets one warning through per interval and counts the others.
#[derive(Debug)]
pub struct RateLimit {
    every_ns: u64,
    last_ns: AtomicU64,
    held_back: AtomicU64,
}

impl RateLimit {
    /// One warning per `every_ns` nanoseconds.
    pub const fn every_ns(every_ns: u64) -> Self {
        Self { every_ns, last_ns: AtomicU64::new(0), held_back: AtomicU64::new(0) }
    }

    /// Whether to warn at `now_ns`; if so, how often the same was held back since the last time.
    pub fn admit(&self, now_ns: u64) -> Option<u64> {
        let last_ns = self.last_ns.load(Ordering::Relaxed);
        let is_due = last_ns == 0 || now_ns.saturating_sub(last_ns) >= self.every_ns;
        let is_ours = is_due
            && self
                .last_ns
                .compare_exchange(last_ns, now_ns.max(1), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if is_ours {
            Some(self.held_back.swap(0, Ordering::Relaxed))
        } else {
            self.held_back.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_per_interval_and_the_rest_is_counted() {
        let limit = RateLimit::every_ns(10);
        assert_eq!(limit.admit(5), Some(0));
        assert_eq!(limit.admit(6), None);
        assert_eq!(limit.admit(14), None);
        assert_eq!(limit.admit(15), Some(2));
        assert_eq!(limit.admit(16), None);
    }
}
