//! From one dump to the next: what was accepted, what was closed. Pure.

use std::collections::HashMap;

use super::{Alive, Census, ServedTally};
use crate::sample::{ServedRaw, SocketsRaw};

/// Ports whose counters are kept.
pub const TRACKED_PORTS_MAX: usize = 256;

/// Turns counts into counters, remembering which connections were there before.
///
/// What was there at the first count of a port adds neither to the accepted nor to the closed. A
/// count that was cut moves no counter, and the next whole one is a first one again. A connection
/// that came and went between two counts is not seen. The inodes kept are those of one count
/// ([`DUMP_MAX`](super::DUMP_MAX)).
#[derive(Debug, Clone, Default)]
pub struct Tracker {
    ports: HashMap<u16, Tracked>,
}

#[derive(Debug, Clone, Default)]
struct Tracked {
    /// Accepted connections of the last whole count, sorted; `None` before there is one.
    inodes: Option<Vec<u32>>,
    /// Those that waited to be accepted at that count, sorted.
    waiting: Vec<u32>,
    accepted_seen: u64,
    closed_seen: u64,
    left_queue_seen: u64,
}

impl Tracker {
    /// Goes on with a whole census.
    pub fn update(&mut self, census: Census) -> SocketsRaw {
        let (total, truncated) = (census.alive.total, census.alive.truncated);
        SocketsRaw { served: self.advance(census.alive), ports: census.ports, total, truncated }
    }

    /// Goes on with a count without TIME_WAIT ([`super::Diag::connections_alive`]); what it cannot
    /// tell is carried on from the last whole one. A port that was not served then has no
    /// TIME_WAIT until the next whole one.
    pub fn update_alive(&mut self, alive: Alive, before: &SocketsRaw) -> SocketsRaw {
        let truncated = alive.truncated;
        let mut served = self.advance(alive);
        for port in &mut served {
            let known = before.served.iter().find(|known| known.port == port.port);
            port.time_wait = known.map_or(0, |known| known.time_wait);
        }
        SocketsRaw { served, ports: before.ports.clone(), total: before.total, truncated }
    }

    fn advance(&mut self, alive: Alive) -> Vec<ServedRaw> {
        for (port, tracked) in &mut self.ports {
            if alive.served.iter().all(|tally| tally.counts.port != *port) {
                // Not counted: the port may be served again later, by other connections.
                tracked.inodes = None;
            }
        }
        let truncated = alive.truncated;
        alive.served.into_iter().map(|tally| self.advance_port(tally, truncated)).collect()
    }

    fn advance_port(&mut self, tally: ServedTally, truncated: bool) -> ServedRaw {
        let ServedTally { mut counts, inodes, waiting } = tally;
        if self.ports.contains_key(&counts.port) || self.ports.len() < TRACKED_PORTS_MAX {
            let tracked = self.ports.entry(counts.port).or_default();
            tracked.advance(inodes, waiting, truncated);
            counts.accepted_seen = tracked.accepted_seen;
            counts.closed_seen = tracked.closed_seen;
            counts.left_queue_seen = tracked.left_queue_seen;
        }
        counts
    }
}

impl Tracked {
    fn advance(&mut self, held: Vec<u32>, waiting: Vec<u32>, truncated: bool) {
        if truncated {
            self.inodes = None;
            return;
        }
        if let Some(before) = &self.inodes {
            let both = in_both(&held, before);
            self.accepted_seen += held.len() as u64 - both;
            self.closed_seen += before.len() as u64 - both;
            let still = in_both(&waiting, &self.waiting);
            self.left_queue_seen += self.waiting.len() as u64 - still;
        }
        self.waiting = waiting;
        self.inodes = Some(held);
    }
}

/// How many numbers two sorted lists without repeats share.
fn in_both(mut a: &[u32], mut b: &[u32]) -> u64 {
    use std::cmp::Ordering;
    let mut both = 0;
    while let (Some((first, after_first)), Some((second, after_second))) =
        (a.split_first(), b.split_first())
    {
        match first.cmp(second) {
            Ordering::Less => a = after_first,
            Ordering::Greater => b = after_second,
            Ordering::Equal => {
                both += 1;
                (a, b) = (after_first, after_second);
            }
        }
    }
    both
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sample::PortsRaw;

    const PORT: u16 = 8080;

    fn alive(port: u16, inodes: &[u32], truncated: bool) -> Alive {
        let mut inodes: Vec<u32> = inodes.to_vec();
        inodes.sort_unstable();
        let counts = ServedRaw { port, ..ServedRaw::default() };
        let total = inodes.len() as u32;
        Alive {
            served: vec![ServedTally { counts, inodes, waiting: Vec::new() }],
            total,
            truncated,
        }
    }

    fn census(alive: Alive) -> Census {
        let ports = PortsRaw { range: (1, 2), in_use: 3, time_wait: 4, top: Vec::new() };
        Census { alive, ports, outgoing: Vec::new() }
    }

    #[test]
    fn accepted_and_closed_from_one_count_to_the_next() {
        // Each step: the inodes seen, whether the count was cut, the counters after it.
        let steps: [(&[u32], bool, (u64, u64)); 8] = [
            (&[1, 2, 3], false, (0, 0)),
            (&[1, 2, 3], false, (0, 0)),
            (&[2, 3, 4], false, (1, 1)),
            (&[], false, (1, 4)),
            (&[5, 6], false, (3, 4)),
            (&[5], true, (3, 4)),
            (&[5, 7], false, (3, 4)),
            (&[5, 7, 8], false, (4, 4)),
        ];
        let mut tracker = Tracker::default();
        for (at, (inodes, truncated, expected)) in steps.into_iter().enumerate() {
            let raw = tracker.update(census(alive(PORT, inodes, truncated)));
            assert_eq!(raw.truncated, truncated);
            let raw = raw.served[0];
            assert_eq!((raw.accepted_seen, raw.closed_seen), expected, "step {at}");
        }
    }

    #[test]
    fn who_waited_and_no_longer_does_has_left_the_queue() {
        // Each step: who waits, whether the count was cut, how many have left so far.
        let steps: [(&[u32], bool, u64); 6] = [
            (&[1, 2, 3], false, 0),
            (&[1, 2, 3], false, 0),
            (&[3, 4, 5], false, 2),
            (&[3], true, 2),
            (&[6], false, 2),
            (&[], false, 3),
        ];
        let mut tracker = Tracker::default();
        for (at, (waiting, truncated, expected)) in steps.into_iter().enumerate() {
            let mut count = alive(PORT, &[], truncated);
            count.served[0].waiting = waiting.to_vec();
            let raw = tracker.update(census(count)).served[0];
            assert_eq!(raw.left_queue_seen, expected, "step {at}");
        }
    }

    #[test]
    fn a_port_that_is_served_later_begins_with_a_baseline_and_keeps_its_counters() {
        let mut tracker = Tracker::default();
        let mut seen = |port, inodes: &[u32]| {
            tracker.update(census(alive(port, inodes, false))).served[0].accepted_seen
        };
        assert_eq!(seen(1, &[1]), 0);
        assert_eq!(seen(PORT, &[1, 2]), 0);
        assert_eq!(seen(PORT, &[1, 2, 3]), 1);
        assert_eq!(seen(1, &[9]), 0);
        assert_eq!(seen(PORT, &[10, 11]), 1);
    }

    #[test]
    fn what_a_count_without_time_wait_cannot_tell_is_carried_on() {
        let mut tracker = Tracker::default();
        let mut whole = alive(PORT, &[1, 2], false);
        whole.served[0].counts.time_wait = 9;
        let before = tracker.update(census(whole));
        let after = tracker.update_alive(alive(PORT, &[2, 3], false), &before);
        let served = ServedRaw {
            port: PORT,
            time_wait: 9,
            accepted_seen: 1,
            closed_seen: 1,
            ..ServedRaw::default()
        };
        assert_eq!(after, SocketsRaw { served: vec![served], ..before.clone() });
        let other = tracker.update_alive(alive(PORT + 1, &[], true), &before);
        assert_eq!((other.served[0].time_wait, other.truncated), (0, true));
    }

    #[test]
    fn no_more_ports_are_kept_than_the_bound() {
        let mut tracker = Tracker::default();
        for port in 0..TRACKED_PORTS_MAX as u16 + 10 {
            tracker.update(census(alive(port, &[], false)));
        }
        assert_eq!(tracker.ports.len(), TRACKED_PORTS_MAX);
    }

    proptest! {
        #[test]
        fn counters_never_go_back_and_balance(
            counts in proptest::collection::vec(
                proptest::collection::hash_set(1_u32..30, 0..20), 1..12),
        ) {
            let mut tracker = Tracker::default();
            let baseline = counts[0].len() as u64;
            let mut last = (0, 0);
            for inodes in counts {
                let inodes: Vec<u32> = inodes.into_iter().collect();
                let raw = tracker.update(census(alive(PORT, &inodes, false))).served[0];
                prop_assert!(raw.accepted_seen >= last.0 && raw.closed_seen >= last.1);
                last = (raw.accepted_seen, raw.closed_seen);
                prop_assert_eq!(
                    baseline + raw.accepted_seen - raw.closed_seen,
                    inodes.len() as u64
                );
            }
        }
    }
}
