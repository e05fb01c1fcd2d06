//! `conntrack-full`: the connection tracking table is full, and new connections are dropped.
//!
//! netfilter tracks each connection of a namespace in which a rule asks for it. Once
//! `nf_conntrack_max` entries are there and none can be thrown out early, the first packet of a new
//! connection is dropped (`__nf_conntrack_alloc`, `net/netfilter/nf_conntrack_core.c`: "table full,
//! dropping packet"). The SYN never reaches the listener, so no counter of TCP tells.

use stallscope_probes::sample::ConntrackRaw;
use stallscope_probes::{Absence, Reading};

use super::case::{Case, number};
use super::outside::{counted, ends};
use super::verdict::Confidence;
use super::{Account, Finding};
use crate::model::Model;
use crate::model::tiers::Tier;

pub(super) const NEXT: &[&str] = &[
    "Give it room now: `sysctl -w net.netfilter.nf_conntrack_max=…`, and nf_conntrack_buckets with it.",
    "Do not track what needs no tracking: a `notrack` rule for the server's port.",
    "Shorten net.netfilter.nf_conntrack_tcp_timeout_established and …_time_wait: entries of dead connections live for days by default.",
    "A restart of the server does not help: the table belongs to the namespace.",
];

fn table(model: &Model) -> Result<&ConntrackRaw, &Absence> {
    match &model.tables {
        Reading::Got(tables) => match &tables.conntrack {
            Reading::Got(conntrack) => Ok(conntrack),
            Reading::Absent(absence) => Err(absence),
        },
        Reading::Absent(absence) => Err(absence),
    }
}

fn is_full(case: &Case<'_>, conntrack: &ConntrackRaw) -> bool {
    let ratio = case.thresholds.conntrack_full_ratio;
    f64::from(conntrack.entries) >= f64::from(conntrack.max.max(1)) * ratio
}

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let Some(last) = case.last() else {
        return Finding::Missing(String::from("no sample was taken."));
    };
    let conntrack = match table(last) {
        Ok(conntrack) => conntrack,
        Err(absence) => {
            return Finding::Missing(format!(
                "the connection tracking table could not be read ({}).",
                absence.detail
            ));
        }
    };
    let (entries, max) = (conntrack.entries, conntrack.max);
    let more = |count: fn(&ConntrackRaw) -> u64| {
        let ends = ends(counted(case), |model| table(model).ok().map(count));
        ends.and_then(|(then, now)| now.checked_sub(then))
    };
    let dropped = more(|raw| raw.drops);
    let full = is_full(case, conntrack);
    if !full && !matches!(dropped, Some(1..)) {
        let nothing = dropped.map_or("", |_| ", and nothing was dropped for want of room");
        return Finding::Excluded(format!("{entries} of {max} connections are tracked{nothing}."));
    }
    let waiting = last.queued();
    if let Some(waiting @ 1..) = waiting {
        return Finding::Excluded(format!(
            "{entries} of {max} connections are tracked, but {waiting} connections got through and wait in the accept queue."
        ));
    }
    let confidence = match (full, dropped) {
        (true, Some(1..)) if waiting.is_some() => Confidence::Certain,
        (_, Some(1..)) => Confidence::Likely,
        // Full, and nobody has been turned away while somebody looked.
        _ => Confidence::Possible,
    };
    let since_ns =
        case.since(|model| table(model).ok().map(|table| is_full(case, table))).filter(|_| full);
    let mut evidence = vec![number(
        Tier::Tables,
        format!("connections tracked (nf_conntrack_max {max})"),
        f64::from(entries),
        "entries",
        since_ns,
    )];
    for (count, signal) in [
        (dropped, "packets dropped for want of room in the last seconds"),
        (more(|raw| raw.early_drops), "entries thrown out early in the last seconds"),
        (more(|raw| raw.insert_failed), "entries that could not be inserted in the last seconds"),
    ] {
        if let Some(count @ 1..) = count {
            evidence.push(number(Tier::Tables, signal, count as f64, "", None));
        }
    }
    if waiting.is_some() {
        evidence.push(number(Tier::Listeners, "accept queues", 0.0, "connections", None));
    }
    Finding::Fits(Account {
        confidence,
        summary: format!(
            "{entries} of {max} connections are tracked in the network namespace: the first packet of a new one is dropped before it reaches the server."
        ),
        evidence,
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Expect, Story, absent, hold, queue, tables};
    use super::*;
    use crate::detect::StallKind;
    use Confidence::{Certain, Likely, Possible};
    use Expect::{Excluded, Fits, Missing};

    fn tracked(entries: u32, drops: fn(u64) -> u64) -> Story {
        Story::new(StallKind::Full).stalled(move |since, model| {
            tables(model, |_, conntrack| {
                conntrack.entries = entries;
                conntrack.drops = drops(since as u64);
            });
        })
    }

    #[test]
    fn a_full_table_drops_what_the_server_never_sees() {
        hold(
            examine,
            vec![
                ("full, drops", tracked(1_000, |since| since), Fits(Certain, "1000 of 1000")),
                ("and how many", tracked(1_000, |since| since), Fits(Certain, "last seconds: 29")),
                ("drops", tracked(900, |since| since), Fits(Likely, "dropped")),
                ("full", tracked(996, |_| 0), Fits(Possible, "996 of 1000")),
                (
                    "full as of old",
                    tracked(1_000, |_| 77).throughout(|_, model| {
                        tables(model, |_, conntrack| conntrack.drops = 77);
                    }),
                    Fits(Possible, "1000 of 1000"),
                ),
                ("room", tracked(994, |_| 0), Excluded("994 of 1000")),
                (
                    "connections get through",
                    tracked(1_000, |since| since).stalled(|_, model| queue(model, 2)),
                    Excluded("2 connections got through"),
                ),
                (
                    "queues unreadable",
                    tracked(1_000, |since| since).throughout(|_, model| model.listeners = absent()),
                    Fits(Likely, "1000 of 1000"),
                ),
                (
                    "unreadable",
                    tracked(1_000, |since| since).throughout(|_, model| model.tables = absent()),
                    Missing("permission denied"),
                ),
            ],
        );
    }
}
