//! A stall that is partial, with its chain; tables that are nearly full; an active probe.

use std::sync::Arc;

use stallscope_probes::Reading::Got;
use stallscope_probes::sample::{
    ActiveHow, ActiveOutcome, ActivePlan, ActiveRaw, AnswersRaw, ConntrackRaw, EpollRaw,
    FileTableRaw, TablesRaw,
};

use super::{at_ns, fd_exhausted, onset, sq_verdict};
use crate::detect::{Forecast, ForecastKind, Onset, StallKind};
use crate::diagnose::verdict::{Cause, Link, Part, Verdict};
use crate::model::Model;
use crate::model::tiers::{Tier, TierStatus};

/// The 34th attempt, begun at tick 60.
pub fn probed(outcome: ActiveOutcome) -> ActiveRaw {
    ActiveRaw {
        plan: ActivePlan { how: ActiveHow::Http, every_ms: 1_000 },
        target: ([127, 0, 0, 1], 8080).into(),
        began_ns: at_ns(60),
        outcome,
        attempts: 34,
        failures_in_a_row: 0,
        last_success_ns: Some(at_ns(20)),
    }
}

/// Nobody accepts, clients wait for answers, tables that others share are nearly full.
pub fn pressed(seq: u64) -> Model {
    let mut model = fd_exhausted(seq);
    model.tables = Got(TablesRaw {
        files: Got(FileTableRaw { open: 182_340, max: 200_000, exempt: Some(true) }),
        conntrack: Got(ConntrackRaw {
            entries: 262_144,
            max: 262_144,
            drops: 4_711,
            early_drops: 0,
            insert_failed: 0,
        }),
    });
    model.epolls = Got([EpollRaw { fd: 5, watched: 54, listeners: vec![(31_337, false)] }].into());
    if let Got(served) = &mut model.served {
        Arc::make_mut(served)[0].raw.answers = Some(AnswersRaw {
            awaiting: 12,
            awaiting_unread: 9,
            never_answered: 3,
            oldest_ms: Some(3_200),
            last_sent_ms: Some(3_100),
            last_received_ms: Some(40),
            ..AnswersRaw::default()
        });
    }
    for tier in Arc::make_mut(&mut model.tiers) {
        if matches!(tier.tier, Tier::Tables | Tier::Epolls | Tier::ActiveProbe) {
            tier.status = TierStatus::Active;
        }
    }
    model.active = Got(ActiveRaw {
        failures_in_a_row: 3,
        ..probed(ActiveOutcome::NoAnswer { connect_us: 90 })
    });
    model
}

/// Accepting stalls, and what was accepted before goes on.
pub fn partial_onset() -> Onset {
    Onset {
        kind: StallKind::Accept,
        demand: String::from("9 connections wait in the accept queue of 0.0.0.0:8080"),
        last_progress: String::from("the last accept"),
        partial: Some(String::from("the 52 connections accepted before are answered")),
        ..onset()
    }
}

/// With a chain, and what can no longer be known.
pub fn chained_verdict() -> Verdict {
    let link = |seq, part, what: &str| Link { at_ns: at_ns(seq), what: what.to_owned(), part };
    Verdict {
        before_watch: true,
        cause: Cause::AcceptNotArmed,
        summary: String::from(
            "The event loop turns and serves 52 connections, and nobody asks the listener for more.",
        ),
        chain: vec![
            link(12, Part::Cause, "1 accept failed with EMFILE: 1024 of 1024 fds were open"),
            link(14, Part::Cause, "the accept loop ended: the last operation ACCEPT is gone"),
            link(20, Part::Consequence, "the accept queue of 0.0.0.0:8080 began to fill"),
            link(24, Part::Consequence, "new clients wait, and those accepted before are answered"),
        ],
        unknowable: vec![String::from(
            "which error ended the accept loop: its completion was reaped before the first look",
        )],
        ..sq_verdict()
    }
}

pub fn forecast() -> Forecast {
    Forecast {
        kind: ForecastKind::Fds,
        at_ns: at_ns(10),
        in_s: Some(42.0),
        used_ratio: 0.93,
        text: String::from("fds run out in 42 s: 953 of 1024 are open, 1.7 more each second"),
    }
}
