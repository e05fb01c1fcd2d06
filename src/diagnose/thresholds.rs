//! From where on a reading counts as evidence, each with its reason. They can be set in a file
//! (`--config`, `docs/config.md`). What is settled by mechanism (how many samples must agree, which
//! errno it is) stands beside the rule that needs it.

use serde::{Deserialize, Serialize};

use crate::detect::thresholds::{check_amounts, check_ms, check_shares};

/// How much of something it takes for a cause to be named, and how surely.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// A request that waits for less is an ordinary one.
    pub request_waits_ms_min: u32,
    /// A broker, or another service, owes an answer for so long that it is no fetch of a consumer,
    /// which waits there for up to half a second by default (`fetch.wait.max.ms`).
    pub kafka_owed_ms_min: u32,
    /// Owed for so long, with requests that wait: no ordinary answer takes that.
    pub kafka_owed_certain_ms_min: u32,
    /// A debt that is longer by so many times than any before it is none by design.
    pub kafka_usual_times_max: u32,
    /// A round trip this long is a slow broker or a slow way to it, and no lost segment.
    pub kafka_far_rtt_ms_min: u32,
    /// A state of the brokers must have lasted so long: reconnecting takes librdkafka a moment
    /// (`reconnect.backoff.ms`, 100 ms).
    pub kafka_held_ms: u64,
    /// The thread that polls beats twenty times a second; while it hands over deliveries it comes
    /// later.
    pub kafka_beat_stale_ms: u64,
    /// rust-rdkafka's thread polls with a timeout of 100 ms, so it wakes ten times a second; below
    /// this it does not poll.
    pub kafka_polls_per_s_min: f64,
    /// Throttled in every second period or more: half the time or more goes by waiting.
    pub throttled_periods_ratio_min: f64,
    /// The differences are taken over one to two seconds, so this is half of it at least (on several
    /// CPUs their times are summed up).
    pub throttled_ms_min: f64,
    /// A thread that waits for a CPU for this share of the time is starved of it.
    pub starved_delay_ratio_min: f64,
    /// A thread that gets this share of a CPU makes progress, throttled or not.
    pub starved_cpu_ratio_max: f64,
    /// Share of the samples in which a runtime's only thread must be seen running to be called busy.
    pub running_share_min: f64,
    /// A loop that turns spends 3 to 12 % of its time in the kernel, one that spins on a failing call
    /// more; a computation next to nothing.
    pub computing_kernel_share_max: f64,
    /// Beyond this the thread goes from system call to system call: it may well be its event loop.
    pub looping_kernel_share_min: f64,
    /// Share of the samples in which a runtime's only thread must be seen blocked: it may wake now
    /// and then to look whether what it waits for has come (librdkafka's flush does so ten times a
    /// second).
    pub blocked_share_min: f64,
    /// Share of the samples in which every worker must be seen away from its loop.
    pub away_share_min: f64,
    /// The kernel counts open files per CPU and adds up exactly only near the limit
    /// (`get_nr_files`): the figure of `/proc/sys/fs/file-nr` may lag by a batch per CPU.
    pub files_full_ratio: f64,
    /// So many half-open connections are no ordinary traffic on a listener of any size: a handshake
    /// lasts a round trip.
    pub half_open_many_min: u32,
    /// With fewer than these a drop at the socket has another reason (memory, a route, a filter).
    pub half_open_few_min: u32,
    /// So many accepts in flight more than at the first look are not a design any more.
    pub leaked_accepts_min: u32,
    /// Completions a second that only a loop without back-off makes.
    pub eagain_completions_per_s_min: f64,
    /// A process that uses more of a core than this is doing something.
    pub busy_cores_min: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            request_waits_ms_min: 500,
            kafka_owed_ms_min: 750,
            kafka_owed_certain_ms_min: 1_000,
            kafka_usual_times_max: 2,
            kafka_far_rtt_ms_min: 500,
            kafka_held_ms: 500,
            kafka_beat_stale_ms: 1_000,
            kafka_polls_per_s_min: 1.0,
            throttled_periods_ratio_min: 0.5,
            throttled_ms_min: 1_000.0,
            starved_delay_ratio_min: 0.3,
            starved_cpu_ratio_max: 0.5,
            running_share_min: 0.9,
            computing_kernel_share_max: 0.02,
            looping_kernel_share_min: 0.3,
            blocked_share_min: 0.9,
            away_share_min: 0.9,
            files_full_ratio: 0.99,
            half_open_many_min: 64,
            half_open_few_min: 8,
            leaked_accepts_min: 8,
            eagain_completions_per_s_min: 1_000.0,
            busy_cores_min: 0.05,
        }
    }
}

impl Thresholds {
    /// What is wrong with these values, as a sentence.
    pub fn check(&self) -> Result<(), String> {
        let times = [
            ("request_waits_ms_min", u64::from(self.request_waits_ms_min)),
            ("kafka_owed_ms_min", u64::from(self.kafka_owed_ms_min)),
            ("kafka_owed_certain_ms_min", u64::from(self.kafka_owed_certain_ms_min)),
            ("kafka_far_rtt_ms_min", u64::from(self.kafka_far_rtt_ms_min)),
            ("kafka_held_ms", self.kafka_held_ms),
            ("kafka_beat_stale_ms", self.kafka_beat_stale_ms),
        ];
        check_ms(&times)?;
        let shares = [
            ("throttled_periods_ratio_min", self.throttled_periods_ratio_min),
            ("starved_delay_ratio_min", self.starved_delay_ratio_min),
            ("starved_cpu_ratio_max", self.starved_cpu_ratio_max),
            ("running_share_min", self.running_share_min),
            ("computing_kernel_share_max", self.computing_kernel_share_max),
            ("looping_kernel_share_min", self.looping_kernel_share_min),
            ("blocked_share_min", self.blocked_share_min),
            ("away_share_min", self.away_share_min),
            ("files_full_ratio", self.files_full_ratio),
            ("busy_cores_min", self.busy_cores_min),
        ];
        check_shares(&shares)?;
        let amounts = [
            ("kafka_usual_times_max", f64::from(self.kafka_usual_times_max)),
            ("kafka_polls_per_s_min", self.kafka_polls_per_s_min),
            ("throttled_ms_min", self.throttled_ms_min),
            ("half_open_many_min", f64::from(self.half_open_many_min)),
            ("half_open_few_min", f64::from(self.half_open_few_min)),
            ("leaked_accepts_min", f64::from(self.leaked_accepts_min)),
            ("eagain_completions_per_s_min", self.eagain_completions_per_s_min),
        ];
        check_amounts(&amounts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_is_slow_by_design_is_told_so() {
        use super::super::fixtures::{Story, peers, requests_wait, with_kafka};
        use super::super::{Finding, kafka_slow};
        let story = Story::new(crate::detect::StallKind::Answers).throughout(|_, model| {
            with_kafka(model);
            requests_wait(model, 8);
            peers(model, |peer| {
                let info = peer.raw.info.as_mut().unwrap();
                (info.last_sent_ms, info.last_received_ms) = (2_000, 2_100);
            });
        });
        let fits = |weights: &Thresholds| {
            matches!(story.judged_by(weights, kafka_slow::examine), Finding::Fits(_))
        };
        assert!(fits(&Thresholds::default()));
        assert!(!fits(&Thresholds { kafka_owed_ms_min: 60_000, ..Thresholds::default() }));
    }

    #[test]
    fn the_defaults_make_sense_and_slips_are_refused() {
        assert_eq!(Thresholds::default().check(), Ok(()));
        let refused = |change: fn(&mut Thresholds)| {
            let mut thresholds = Thresholds::default();
            change(&mut thresholds);
            thresholds.check().unwrap_err()
        };
        assert!(refused(|set| set.kafka_owed_ms_min = 1).contains("kafka_owed_ms_min is 1"));
        assert!(refused(|set| set.blocked_share_min = 90.0).contains("between 0.01 and 1"));
        assert!(refused(|set| set.half_open_few_min = 0).contains("at least 1"));
        assert!(refused(|set| set.throttled_ms_min = f64::NAN).contains("at least 1"));
    }
}
