//! A stall that is partial, with its chain, foreseen, and probed; one that nothing explains; one in
//! which nothing burns CPU.

use std::sync::Arc;

use stallscope::detect::{Forecast, ForecastKind, Onset, StallKind};
use stallscope::diagnose::verdict::{Cause, Confidence, Link, Part, Verdict};
use stallscope::model::tiers::{Tier, TierStatus};
use stallscope::model::{Model, ServedModel};
use stallscope::watch::event::{Event, Incident};
use stallscope_probes::Reading;
use stallscope_probes::sample::{
    ActiveHow, ActiveOutcome, ActivePlan, ActiveRaw, AnswersRaw, ConntrackRaw, FileTableRaw,
    ServedRaw, SyscallRaw, TablesRaw, TaskState,
};

use super::profiles::{profile, serving, sleeping, waiting, waits};
use super::{
    BEGIN_NS, INTERVAL_MS, MS, S, State, addr, figure, model, quiet, ruled_out, stacks, text,
};

const ONSET_TICK: u64 = 160;
const ONSET_NS: u64 = BEGIN_NS + ONSET_TICK * INTERVAL_MS * MS;
const TICKS_PER_S: u64 = 1_000 / INTERVAL_MS;

/// The accept loop has ended: what was accepted before is served, nobody else gets in.
pub fn accept_not_armed() -> Incident {
    let models = (0..300)
        .map(|seq| {
            let mut state = State::busy(seq);
            if seq >= ONSET_TICK {
                state.queued = ((seq - ONSET_TICK) / 4) as u32;
            }
            let mut model = model(seq, &state);
            widen(Arc::make_mut(&mut model), seq);
            model
        })
        .collect();
    let mut incident = quiet(models);
    incident.events = vec![
        Event::Forecast(Forecast {
            kind: ForecastKind::Fds,
            at_ns: BEGIN_NS + 2 * S,
            in_s: Some(42.0),
            used_ratio: 0.93,
            text: String::from("fds run out in 42 s: 953 of 1,024 are open, 1.7 more each second"),
        }),
        Event::Onset(Onset {
            kind: StallKind::Accept,
            at_ns: ONSET_NS,
            within_ns: 25 * MS,
            before_watch: false,
            detected_ns: ONSET_NS + 1_050 * MS,
            demand: String::from("5 connections wait in the accept queue"),
            last_progress: String::from("the last accept"),
            partial: Some(String::from("the 52 connections accepted before are answered")),
        }),
        Event::Verdict(verdict()),
    ];
    incident
}

/// What the other cases do not have: answers, shared tables, an active probe.
fn widen(model: &mut Model, seq: u64) {
    let waiting = seq >= ONSET_TICK;
    let answers = AnswersRaw {
        awaiting: if waiting { 3 } else { 0 },
        oldest_ms: waiting.then(|| ((seq - ONSET_TICK) * INTERVAL_MS) as u32),
        ..AnswersRaw::default()
    };
    let raw =
        ServedRaw { port: 8080, accepted_open: 52, answers: Some(answers), ..ServedRaw::default() };
    model.served = Reading::Got([ServedModel { raw, at_ns: model.at_ns }].into());
    model.tables = Reading::Got(TablesRaw {
        files: Reading::Got(FileTableRaw { open: 182_340, max: 200_000, exempt: Some(false) }),
        conntrack: Reading::Got(ConntrackRaw {
            entries: 260_101,
            max: 262_144,
            drops: 17,
            early_drops: 0,
            insert_failed: 0,
        }),
    });
    for tier in Arc::make_mut(&mut model.tiers) {
        if matches!(tier.tier, Tier::Tables | Tier::Epolls | Tier::ActiveProbe) {
            tier.status = TierStatus::Active;
        }
    }
    // One attempt a second, at the first tick of each.
    let attempts = seq / TICKS_PER_S + 1;
    let failures = if waiting { (seq - ONSET_TICK) / TICKS_PER_S + 1 } else { 0 };
    model.active = Reading::Got(ActiveRaw {
        plan: ActivePlan { how: ActiveHow::Http, every_ms: 1_000 },
        target: addr(8080),
        began_ns: BEGIN_NS + (attempts - 1) * S,
        outcome: match seq % TICKS_PER_S {
            0 => ActiveOutcome::Pending,
            _ if waiting => ActiveOutcome::NoAnswer { connect_us: 90 },
            _ => ActiveOutcome::Answered { connect_us: 85, answer_us: Some(400 + attempts as u32) },
        },
        attempts,
        failures_in_a_row: failures as u32,
        last_success_ns: Some(BEGIN_NS + (attempts - failures) * S),
    });
}

fn verdict() -> Verdict {
    let link = |at_ns, part, what: &str| Link { at_ns, what: what.to_owned(), part };
    Verdict {
        onset_ns: Some(ONSET_NS),
        before_watch: false,
        detected_ns: ONSET_NS + 1_050 * MS,
        cause: Cause::AcceptNotArmed,
        confidence: Confidence::Likely,
        summary: String::from(
            "The event loop turns and serves 52 connections, and nobody asks the listener for more",
        ),
        evidence: vec![
            figure(
                Tier::Listeners,
                "accept queue of 127.0.0.1:8080",
                5.0,
                "connections",
                Some(ONSET_NS),
            ),
            text(Tier::Epolls, "epoll 5 watches the listener", "no", None),
        ],
        ruled_out: vec![ruled_out(Cause::FdExhausted, "953 of 1,024 fds are open")],
        rests_on: vec![Tier::Listeners, Tier::Epolls],
        missing: Vec::new(),
        chain: vec![
            link(ONSET_NS - 310 * MS, Part::Cause, "an accept failed with ECONNABORTED"),
            link(ONSET_NS - 290 * MS, Part::Cause, "the accept loop ended"),
            link(ONSET_NS, Part::Consequence, "the accept queue of 127.0.0.1:8080 began to fill"),
            link(ONSET_NS + 2 * S, Part::Consequence, "a new client got no answer within 2 s"),
        ],
        unknowable: vec![String::from(
            "which error ended the accept loop: its completion was reaped before it was looked at",
        )],
        next: vec![String::from("Let the accept loop go on after an error")],
    }
}

/// A stall that nothing explains, begun before watching.
pub fn unknown() -> Incident {
    let mut incident = quiet((0..60).map(|seq| model(seq, &State::busy(seq))).collect());
    incident.events = vec![
        Event::Onset(Onset {
            kind: StallKind::Accept,
            at_ns: BEGIN_NS,
            within_ns: 0,
            before_watch: true,
            detected_ns: BEGIN_NS + 500 * MS,
            demand: String::from("3 connections wait in the accept queue"),
            last_progress: String::from("none was seen"),
            partial: None,
        }),
        Event::Verdict(Verdict {
            onset_ns: None,
            before_watch: false,
            detected_ns: BEGIN_NS + 500 * MS,
            cause: Cause::Unknown,
            confidence: Confidence::Possible,
            summary: String::from("Connections wait and none is accepted; no known cause fits"),
            evidence: Vec::new(),
            ruled_out: Vec::new(),
            rests_on: Vec::new(),
            missing: Vec::new(),
            chain: Vec::new(),
            unknowable: Vec::new(),
            next: vec![String::from("Run as the same user as the target to see its threads")],
        }),
    ];
    incident
}

/// A blocking call on the runtime's thread: no CPU is burnt, so the stalled profile is empty.
pub fn runtime_blocked() -> Incident {
    let onset_ns = BEGIN_NS + 200 * INTERVAL_MS * MS;
    let models = (0..420)
        .map(|seq| {
            let mut state = State::busy(seq);
            if seq >= 200 {
                state.requests_per_s = 0.0;
                state.beat_age_ms = (seq - 200) as f64 * 50.0;
                state.queued = (seq - 200) as u32;
                state.runtime = (
                    TaskState::Sleeping,
                    0.0,
                    SyscallRaw::In { nr: 230, arg0: 0 },
                    "hrtimer_nanosleep",
                );
                state.stack = Some(vec![
                    "hrtimer_nanosleep",
                    "common_nsleep",
                    "__x64_sys_clock_nanosleep",
                    "do_syscall_64",
                    "entry_SYSCALL_64_after_hwframe",
                ]);
            }
            model(seq, &state)
        })
        .collect();
    let mut incident = quiet(models);
    incident.events = vec![
        Event::Onset(Onset {
            kind: StallKind::Runtime,
            at_ns: onset_ns,
            within_ns: 10 * MS,
            before_watch: false,
            detected_ns: onset_ns + 410 * MS,
            demand: String::from("8 connections wait to be accepted"),
            last_progress: String::from("a beat of the runtime"),
            partial: None,
        }),
        Event::Verdict(Verdict {
            onset_ns: Some(onset_ns),
            before_watch: false,
            detected_ns: onset_ns + 410 * MS,
            cause: Cause::RuntimeBlocked,
            confidence: Confidence::Certain,
            summary: String::from(
                "The runtime’s thread sleeps in clock_nanosleep instead of polling",
            ),
            evidence: vec![text(
                Tier::ThreadCalls,
                "runtime thread 4242 sleeps in",
                "hrtimer_nanosleep",
                Some(onset_ns),
            )],
            ruled_out: vec![ruled_out(Cause::FdExhausted, "188 of 1,024 fds are open")],
            rests_on: vec![Tier::ThreadCalls],
            missing: Vec::new(),
            chain: Vec::new(),
            unknowable: Vec::new(),
            next: vec![String::from("Move the blocking call to spawn_blocking")],
        }),
    ];
    incident.profiles =
        (0..10).map(|n| profile(n * 2, &if n < 5 { serving() } else { String::new() })).collect();
    let off = (2..10).map(|n| waits(n * 2, &if n < 5 { waiting() } else { sleeping() }));
    incident.profiles.extend(off);
    incident.stacks = vec![stacks::sleeping(onset_ns + 610 * MS)];
    incident
}
