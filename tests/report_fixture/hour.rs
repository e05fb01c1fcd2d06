//! The longest and most restless run that a report is made of.

use stallscope::detect::{Onset, StallKind};
use stallscope::watch::event::{Event, Incident};
use stallscope_probes::sample::RingState;

use super::profiles::{profile, waits, wide};
use super::{BEGIN_NS, INTERVAL_MS, MS, S, State, model, quiet, stacks};

/// An hour, or as many ticks as are asked for, as restless as it gets (no two neighbouring readings are
/// equal), stalled from its middle on, with the widest profiles of every kind that there can be.
pub fn restless_hour(ticks: u64) -> Incident {
    let models = (0..ticks)
        .map(|seq| {
            let mut state = State::busy(seq);
            state.requests_per_s = ((seq * 7_919) % 10_007) as f64 * 1.37;
            state.open_fds = (seq * 31) % 1_024;
            state.queued = ((seq * 37) % 1_021) as u32;
            let taken = 1_790_000 + seq as u32 * 58;
            state.ring = Some(RingState {
                sq_entries: 256,
                sq_head: taken,
                sq_tail: taken + ((seq * 13) % 251) as u32,
                cq_entries: 512,
                cq_head: taken,
                cq_tail: taken + ((seq * 17) % 509) as u32,
                ..RingState::default()
            });
            model(seq, &state)
        })
        .collect();
    let mut incident = quiet(models);
    let begin_s = ticks * INTERVAL_MS / 2_000;
    let onset_ns = BEGIN_NS + begin_s * S;
    incident.events = vec![Event::Onset(Onset {
        kind: StallKind::Ring,
        at_ns: onset_ns,
        within_ns: 25 * MS,
        before_watch: false,
        detected_ns: onset_ns + 500 * MS,
        demand: String::from("64 entries of ring 9 wait to be submitted"),
        last_progress: String::from("ring 9 took entry 1,804,112"),
        partial: None,
    })];
    let around = begin_s.saturating_sub(11)..begin_s + 12;
    for at_s in around.step_by(2) {
        let folded = wide(at_s < begin_s);
        incident.profiles.push(profile(at_s, &folded));
        incident.profiles.push(waits(at_s, &folded));
    }
    incident.stacks = vec![stacks::spinning(onset_ns + 700 * MS)];
    incident
}
