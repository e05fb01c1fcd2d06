//! How long the clients of a port may wait for their answers, learned from how long they had to while
//! all was well. Pure.
//!
//! Nothing outside a server tells a long poll from a request that hangs. Half a minute is what both
//! are given; but where dozens of seconds of service have shown that nobody waits for more than a
//! moment, clients that wait all at once need not be given that much.

use std::collections::BTreeMap;

use super::thresholds::{LEARNED_LOOKS_MIN, Thresholds};
use crate::model::answers::waiting;
use crate::model::{Model, ServedModel};

/// What was learned, by port.
#[derive(Debug, Default)]
pub(super) struct Patience {
    ports: BTreeMap<u16, Learned>,
}

#[derive(Debug, Clone, Copy)]
struct Learned {
    since_ns: u64,
    until_ns: u64,
    looks: u32,
    /// The longest that a client was seen to have waited.
    longest_ms: u32,
}

impl Patience {
    /// Takes a census between which and the one before somebody was answered.
    pub(super) fn learn(&mut self, served: &ServedModel) {
        let Some(answers) = served.raw.answers else { return };
        let waited_ms = waiting(&answers).1.unwrap_or_default();
        let at_ns = served.at_ns;
        let learned = self.ports.entry(served.raw.port).or_insert(Learned {
            since_ns: at_ns,
            until_ns: at_ns,
            looks: 0,
            longest_ms: 0,
        });
        learned.until_ns = at_ns;
        learned.looks = learned.looks.saturating_add(1);
        learned.longest_ms = learned.longest_ms.max(waited_ms);
    }

    /// Forgets ports that are no longer served.
    pub(super) fn keep(&mut self, is_served: impl Fn(u16) -> bool) {
        self.ports.retain(|port, _| is_served(*port));
    }

    /// How long the requests of this census may go unanswered: as long as any where nothing was
    /// learned, few wait, or some do not.
    pub(super) fn hold_ms(&self, served: Option<&ServedModel>, set: &Thresholds) -> u64 {
        let full_ms = set.answers_hold_ms;
        let learned = || {
            let served = served?;
            let learned = self.ports.get(&served.raw.port)?;
            let (count, _) = waiting(&served.raw.answers?);
            let all_wait = count >= set.learned_clients_min
                && u64::from(count) * 5 >= u64::from(served.raw.accepted_open) * 4;
            let seen_ms = learned.until_ns.saturating_sub(learned.since_ns) / 1_000_000;
            let long = learned.looks >= LEARNED_LOOKS_MIN && seen_ms >= set.learned_service_ms;
            let times = u64::from(learned.longest_ms).saturating_mul(u64::from(set.learned_times));
            (all_wait && long).then_some(times.max(set.learned_hold_ms_min).min(full_ms))
        };
        learned().unwrap_or(full_ms)
    }
}

/// Who waits for an answer at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crowd {
    /// Whether they are too many to have asked, each for itself, for something slow; or not all that was
    /// asked was even read.
    pub(super) is_one: bool,
    /// Whether more wait than threads can have in hand, each a request of its own; or not all that was
    /// asked was even read.
    pub(super) outnumbers_threads: bool,
}

impl Crowd {
    /// By the census of the port, else by the server's own page.
    pub(super) fn of(served: Option<&ServedModel>, now: &Model, set: &Thresholds) -> Self {
        let crowd_min = set.crowd_clients_min;
        let queued = now.queued().is_some_and(|queued| queued > 0);
        let answers = served.and_then(|served| served.raw.answers);
        let (count, unread, was_answered) = if let Some(answers) = answers {
            // To consumers that never got anything nothing is owed; a server that never answered
            // anybody who came to it owes all of them.
            let was_answered =
                answers.last_sent_ms.is_some() || answers.never_answered >= crowd_min;
            (u64::from(waiting(&answers).0), answers.awaiting_unread > 0, was_answered)
        } else {
            let page = now.app.got().map(|app| &app.raw);
            let open = page.map(|page| page.requests.saturating_sub(page.responses));
            (open.unwrap_or(u64::MAX), false, true)
        };
        let unread = unread || queued;
        Self {
            is_one: unread || (count >= u64::from(crowd_min) && was_answered),
            outnumbers_threads: unread || count > now.runtime_threads().count() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use stallscope_probes::sample::{AnswersRaw, ServedRaw};

    use super::*;

    const S: u64 = 1_000_000_000;

    /// A census of 20 connections, of which so many wait, the oldest for so long.
    fn census(at_s: u64, awaiting: u32, oldest_ms: u32) -> ServedModel {
        let answers = AnswersRaw {
            awaiting,
            oldest_ms: Some(oldest_ms),
            answered: 1,
            ..AnswersRaw::default()
        };
        let raw = ServedRaw {
            port: 80,
            accepted_open: 20,
            answers: Some(answers),
            ..ServedRaw::default()
        };
        ServedModel { raw, at_ns: at_s * S }
    }

    #[test]
    fn clients_are_given_what_they_were_seen_to_need() {
        // How long it was learned, s; the longest wait, ms; who waits now; the hold, ms.
        let set = Thresholds::default();
        let full_ms = set.answers_hold_ms;
        let cases = [
            (60, 40, 20, set.learned_hold_ms_min),
            (60, 1_500, 20, 15_000),
            (60, 3_000, 20, full_ms),
            (60, 40, 15, full_ms),
            (60, 40, set.learned_clients_min - 1, full_ms),
            (20, 40, 20, full_ms),
        ];
        for (for_s, longest_ms, waiting_now, expected_ms) in cases {
            let mut patience = Patience::default();
            for at_s in 0..=for_s {
                let oldest_ms = if at_s == for_s / 2 { longest_ms } else { 3 };
                patience.learn(&census(at_s, 5, oldest_ms));
            }
            let now = census(for_s + 9, waiting_now, 9_000);
            let case = (for_s, longest_ms, waiting_now);
            assert_eq!(patience.hold_ms(Some(&now), &set), expected_ms, "{case:?}");
        }
        let untaught = Patience::default();
        assert_eq!(untaught.hold_ms(Some(&census(9, 20, 9_000)), &set), full_ms);
        assert_eq!(untaught.hold_ms(None, &set), full_ms);
    }
}
