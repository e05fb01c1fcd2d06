//! Every threshold of detection, each with its reason. The constants are the defaults; those in
//! [`Thresholds`] can be set in a file (`--config`, `docs/config.md`).

use serde::{Deserialize, Serialize};

/// Looks without progress that a stall needs, however long they are apart.
pub const BARREN_LOOKS_MIN: u32 = 3;

/// The same where what waits records itself since when it has waited: one look could have come just
/// before the answer.
pub const BARREN_LOOKS_ON_RECORD_MIN: u32 = 2;

/// At most this much of the time between two looks counts towards a hold: a watcher that was
/// paused itself (a late sample) must not invent a stall.
pub const GAP_COUNTED_MAX_NS: u64 = 250_000_000;

/// Progress must go on for this long before a stall is called over: a single accept when one fd
/// came free is not recovery.
pub const RECOVERY_HOLD_NS: u64 = 500_000_000;

/// While recovering, progress may pause this long.
pub const RECOVERY_PAUSE_MAX_NS: u64 = 300_000_000;

/// The server's own record of its last progress replaces the onset seen from outside when it lies
/// no further before it than this (a few sampling intervals): otherwise it was idle in between,
/// and the onset is when demand began.
pub const REFINE_MAX_NS: u64 = 300_000_000;

/// A counter of drops that rose this short a time ago still rises: clients whose SYN was dropped
/// try again after one second (tcp(7)), so drops of one and the same overload are as far apart.
pub const DROPS_APART_MAX_NS: u64 = 1_500_000_000;

/// A request that is younger than this is no demand: it is being worked on.
pub const REQUEST_YOUNG_MS: u32 = 250;

/// At how many looks at least a port must have been seen served before its clients' patience is
/// learned, however long they are apart.
pub const LEARNED_LOOKS_MIN: u32 = 10;

/// How long each kind of demand may go unmet before it is a stall, and what counts as full. Times
/// are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// A frozen ring and a missing beat speak for themselves: entries that nobody moves for half a
    /// second are not a batch any more. Healthy pauses (a garbage collector, a slow poll) stay
    /// well below.
    pub frozen_hold_ms: u64,
    /// SIGSTOP has no healthy look-alike but a debugger's moment.
    pub stopped_hold_ms: u64,
    /// An accept queue may legitimately wait for a pause of the acceptor (accept back-off on EMFILE
    /// is 10 to 100 ms, a rate-limited acceptor some hundred), but not for a second.
    pub accept_hold_ms: u64,
    /// Unread bytes while the loop does not turn: without the server's own word (a heartbeat page)
    /// a second, since a long poll of half a second is slow but not a stall.
    pub unread_hold_ms: u64,
    /// A beat older than this, while beats are due every 50 ms, is missing.
    pub beat_missing_ms: u64,
    /// Requests that nobody answers, while a Kafka broker is seen to be in trouble: a second, as
    /// for everything with a reason in sight.
    pub answers_kafka_trouble_hold_ms: u64,
    /// Requests that nobody answers, in a process with a Kafka producer and no trouble in sight: a
    /// broker that copes answers within a second or two.
    pub answers_kafka_hold_ms: u64,
    /// Requests that nobody answers, and nothing says why they should have been: long polls and
    /// server-sent events wait for 20 to 30 s by design.
    pub answers_hold_ms: u64,
    /// Fewer clients that wait, on a loop that has read all they asked, may have asked for something
    /// slow: a report, a long poll, the next message of a queue.
    pub crowd_clients_min: u32,
    /// How long a port must have been seen served before its clients' patience is learned: longer
    /// than a long poll takes (20 to 30 s), so that one would have been seen to wait.
    pub learned_service_ms: u64,
    /// What was learned counts when so many clients wait: fewer may all have asked for something slow.
    pub learned_clients_min: u32,
    /// Clients that all wait are given so many times the longest wait that was seen…
    pub learned_times: u32,
    /// …and this at least: a database that fails over takes some seconds.
    pub learned_hold_ms_min: u64,
    /// Connections accepted and never read, while the ring holds more accepts than the loop can
    /// have in hand: nobody knows of them.
    pub neglected_leak_hold_ms: u64,
    /// Connections accepted and never read, and no more is known: a server that handles so many at
    /// a time lets the others wait their turn.
    pub neglected_hold_ms: u64,
    /// A listening socket that is gone: a deploy opens another one within a moment.
    pub listener_gone_hold_ms: u64,
    /// Another listener of the same port whose queue does not move.
    pub sibling_hold_ms: u64,
    /// Drops at a listener that accepts: a burst that overflows once is over when its clients try
    /// again a second later.
    pub overflow_hold_ms: u64,
    /// Handshakes dropped: as long as one retry of a client takes.
    pub syn_hold_ms: u64,
    /// A full table or port range.
    pub full_hold_ms: u64,
    /// Used-up CPU quota: a few periods (100 ms) in a row may be a burst.
    pub throttled_hold_ms: u64,
    /// Completions of nothing but errors.
    pub storm_hold_ms: u64,
    /// Completions a second, all of them errors, that are a storm.
    pub storm_completions_per_s: f64,
    /// Failures in a row of the active probe: one may be lost.
    pub probe_failures_min: u32,
    /// Share of a port range to one destination from which on it is full: a few ports are reserved
    /// or in hand at any time.
    pub ports_full_ratio: f64,
    /// Share of the connection tracking table from which on it is full.
    pub conntrack_full_ratio: f64,
    /// Share of the periods in which a cgroup is throttled that means: most of the time.
    pub throttled_periods_ratio: f64,
    /// Time throttled, per second or two, that goes with it, ms.
    pub throttled_ms: f64,
    /// Share of a limit from which on it is foretold that it will be reached.
    pub forecast_from_ratio: f64,
    /// How far ahead, s: what is further off may never come.
    pub forecast_within_s: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            frozen_hold_ms: 500,
            stopped_hold_ms: 300,
            accept_hold_ms: 1_000,
            unread_hold_ms: 1_000,
            beat_missing_ms: 250,
            answers_kafka_trouble_hold_ms: 1_000,
            answers_kafka_hold_ms: 3_000,
            answers_hold_ms: 30_000,
            crowd_clients_min: 4,
            learned_service_ms: 30_000,
            learned_clients_min: 8,
            learned_times: 10,
            learned_hold_ms_min: 10_000,
            neglected_leak_hold_ms: 1_000,
            neglected_hold_ms: 10_000,
            listener_gone_hold_ms: 1_000,
            sibling_hold_ms: 2_000,
            overflow_hold_ms: 2_000,
            syn_hold_ms: 1_000,
            full_hold_ms: 1_000,
            throttled_hold_ms: 1_000,
            storm_hold_ms: 1_000,
            storm_completions_per_s: 10_000.0,
            probe_failures_min: 2,
            ports_full_ratio: 0.98,
            conntrack_full_ratio: 0.995,
            throttled_periods_ratio: 0.8,
            throttled_ms: 500.0,
            forecast_from_ratio: 0.5,
            forecast_within_s: 120.0,
        }
    }
}

impl Thresholds {
    /// What is wrong with these values, as a sentence; a hold of hours or a ratio above one is a
    /// slip of the pen.
    pub fn check(&self) -> Result<(), String> {
        let holds = [
            ("frozen_hold_ms", self.frozen_hold_ms),
            ("stopped_hold_ms", self.stopped_hold_ms),
            ("accept_hold_ms", self.accept_hold_ms),
            ("unread_hold_ms", self.unread_hold_ms),
            ("beat_missing_ms", self.beat_missing_ms),
            ("answers_kafka_trouble_hold_ms", self.answers_kafka_trouble_hold_ms),
            ("answers_kafka_hold_ms", self.answers_kafka_hold_ms),
            ("answers_hold_ms", self.answers_hold_ms),
            ("learned_service_ms", self.learned_service_ms),
            ("learned_hold_ms_min", self.learned_hold_ms_min),
            ("neglected_leak_hold_ms", self.neglected_leak_hold_ms),
            ("neglected_hold_ms", self.neglected_hold_ms),
            ("listener_gone_hold_ms", self.listener_gone_hold_ms),
            ("sibling_hold_ms", self.sibling_hold_ms),
            ("overflow_hold_ms", self.overflow_hold_ms),
            ("syn_hold_ms", self.syn_hold_ms),
            ("full_hold_ms", self.full_hold_ms),
            ("throttled_hold_ms", self.throttled_hold_ms),
            ("storm_hold_ms", self.storm_hold_ms),
        ];
        check_ms(&holds)?;
        let ratios = [
            ("ports_full_ratio", self.ports_full_ratio),
            ("conntrack_full_ratio", self.conntrack_full_ratio),
            ("throttled_periods_ratio", self.throttled_periods_ratio),
            ("forecast_from_ratio", self.forecast_from_ratio),
        ];
        check_shares(&ratios)?;
        let amounts = [
            ("storm_completions_per_s", self.storm_completions_per_s),
            ("throttled_ms", self.throttled_ms),
            ("forecast_within_s", self.forecast_within_s),
            ("crowd_clients_min", f64::from(self.crowd_clients_min)),
            ("learned_clients_min", f64::from(self.learned_clients_min)),
            ("learned_times", f64::from(self.learned_times)),
            ("probe_failures_min", f64::from(self.probe_failures_min)),
        ];
        check_amounts(&amounts)
    }
}

/// What is wrong with times in milliseconds, as a sentence.
pub(crate) fn check_ms(times: &[(&str, u64)]) -> Result<(), String> {
    const MS_MAX: u64 = 3_600_000;
    refuse(times, |ms| (50..=MS_MAX).contains(ms), "lie between 50 and 3600000 ms")
}

/// What is wrong with shares of a whole.
pub(crate) fn check_shares(shares: &[(&str, f64)]) -> Result<(), String> {
    refuse(shares, |share| (0.01..=1.0).contains(share), "lie between 0.01 and 1")
}

/// What is wrong with counts, rates and the like.
pub(crate) fn check_amounts(amounts: &[(&str, f64)]) -> Result<(), String> {
    refuse(amounts, |amount| (1.0..1e9).contains(amount), "be at least 1")
}

fn refuse<T: std::fmt::Display>(
    values: &[(&str, T)],
    makes_sense: impl Fn(&T) -> bool,
    must: &str,
) -> Result<(), String> {
    let slip = values.iter().find(|(_, value)| !makes_sense(value));
    slip.map_or(Ok(()), |(name, value)| Err(format!("{name} is {value}: it must {must}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_make_sense_and_slips_are_refused() {
        assert_eq!(Thresholds::default().check(), Ok(()));
        let refused = |change: fn(&mut Thresholds)| {
            let mut thresholds = Thresholds::default();
            change(&mut thresholds);
            thresholds.check().unwrap_err()
        };
        assert!(refused(|set| set.accept_hold_ms = 0).contains("accept_hold_ms is 0"));
        assert!(refused(|set| set.ports_full_ratio = 98.0).contains("between 0.01 and 1"));
        assert!(refused(|set| set.forecast_within_s = f64::NAN).contains("at least 1"));
        assert!(refused(|set| set.probe_failures_min = 0).contains("at least 1"));
    }
}
