//! What differs in how the two were run and watched: it may explain a difference of the figures.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use stallscope_probes::Reading;

use super::change::{Change, Difference};
use super::sides::Side;
use crate::model::tiers::Tier;
use crate::profile::printable::printable;
use crate::report::figures::Phase;
use crate::report::text::{CMDLINE_CHARS_MAX, count, duration_ms, shown};

/// Thresholds named that differ.
const THRESHOLDS_MAX: usize = 20;
/// A run that was watched so many times longer than the other is no equal of it.
const LENGTH_TIMES_MAX: f64 = 2.0;

/// One condition that differs. Values are printable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    /// Within a sentence: `interval`.
    pub what: &'static str,
    pub a: String,
    pub b: String,
    /// Why it makes the comparison unfair; `None` where it may be what is compared.
    pub unfair: Option<&'static str>,
}

/// All that differ.
pub(super) fn of(a: &Side<'_>, b: &Side<'_>, changes: &[Change]) -> Vec<Condition> {
    let mut all = plain(a, b);
    all.extend(lengths(a, b));
    all.extend(load(changes));
    all.extend(thresholds(a, b));
    all.push(tiers(a, b));
    all.retain(|condition| condition.a != condition.b);
    all
}

fn plain(a: &Side<'_>, b: &Side<'_>) -> Vec<Condition> {
    let both = |what, unfair, read: fn(&Side<'_>) -> String| Condition {
        what,
        a: read(a),
        b: read(b),
        unfair,
    };
    vec![
        both("process", None, |side| shown(&side.facts.incident.target.comm)),
        both("command", None, |side| {
            printable(&side.facts.incident.target.cmdline, CMDLINE_CHARS_MAX)
        }),
        both("kernel", Some("another kernel does the same work at another price"), |side| {
            shown(&side.facts.incident.environment.kernel)
        }),
        both("number of CPUs", Some("the service had more of the machine, or less"), |side| {
            side.facts.incident.environment.cpus.to_string()
        }),
        both("limit of fds", Some("where fds run out depends on it"), fd_limits),
        both("interval", Some("a finer look sees shorter peaks, and dates stalls finer"), |side| {
            format!("{} ms", side.facts.incident.environment.interval_ms)
        }),
        both("version of stallscope", Some("another version may judge otherwise"), |side| {
            shown(&side.facts.incident.environment.version)
        }),
    ]
}

fn fd_limits(side: &Side<'_>) -> String {
    let limit = |limit: Option<u64>| limit.map_or_else(|| String::from("none"), count);
    match &side.facts.incident.environment.fd_limits {
        Reading::Got(fds) => format!("soft {}, hard {}", limit(fds.soft), limit(fds.hard)),
        Reading::Absent(absence) => format!("unknown: {}", shown(&absence.detail)),
    }
}

fn lengths(a: &Side<'_>, b: &Side<'_>) -> Option<Condition> {
    let (a_ms, b_ms) = (a.length_ms(), b.length_ms());
    (a_ms.max(b_ms) > LENGTH_TIMES_MAX * a_ms.min(b_ms)).then(|| Condition {
        what: "length of the run",
        a: duration_ms(a_ms),
        b: duration_ms(b_ms),
        unfair: Some("a longer run has more time to warm up, and to go wrong"),
    })
}

/// Other load is no condition of the machine, but nothing else makes figures differ as much.
fn load(changes: &[Change]) -> Option<Condition> {
    let of_load =
        |change: &&Change| change.spec.id == "requests_per_s" && change.phase == Phase::Healthy;
    let change = changes.iter().find(of_load)?;
    let (a, b) = change.medians()?;
    (change.difference == Difference::BeyondSpread).then(|| Condition {
        what: "load",
        a: format!("{} requests per second", change.spec.shown(a)),
        b: format!("{} requests per second", change.spec.shown(b)),
        unfair: Some("under another load, compare figures per response rather than per second"),
    })
}

/// The thresholds that differ, by name.
fn thresholds(a: &Side<'_>, b: &Side<'_>) -> Option<Condition> {
    let of = |side: &Side<'_>| serde_json::to_value(side.facts.incident.config).ok();
    let (of_a, of_b) = (of(a)?, of(b)?);
    let (mut named_a, mut named_b) = (Vec::new(), Vec::new());
    for part in ["detect", "diagnose"] {
        let Some(Json::Object(fields)) = of_a.get(part) else { continue };
        for (name, a) in fields {
            let b = of_b.get(part).and_then(|fields| fields.get(name)).unwrap_or(&Json::Null);
            if a != b && named_a.len() < THRESHOLDS_MAX {
                named_a.push(format!("{name} {a}"));
                named_b.push(format!("{name} {b}"));
            }
        }
    }
    (!named_a.is_empty()).then(|| Condition {
        what: "thresholds",
        a: named_a.join(", "),
        b: named_b.join(", "),
        unfair: Some("what is a stall for one is none for the other"),
    })
}

/// The kinds of evidence that only one of them ever had. What is read on suspicion only is lacking
/// where nothing was suspected, and of rings only where there are some.
fn tiers(a: &Side<'_>, b: &Side<'_>) -> Condition {
    let has_ring = |side: &Side<'_>| {
        side.facts.incident.models.iter().any(|model| !model.all_rings().is_empty())
    };
    let both_have_rings = has_ring(a) && has_ring(b);
    let is_comparable = |tier: Tier| match tier {
        Tier::KernelStacks | Tier::Epolls => false,
        Tier::RingMemory | Tier::RingFdinfo => both_have_rings,
        _ => true,
    };
    let active = |side: &Side<'_>| -> BTreeSet<Tier> {
        let tiers = side.facts.incident.models.iter().flat_map(|model| model.tiers.iter());
        let active = tiers.filter(|tier| tier.status.is_active()).map(|tier| tier.tier);
        active.filter(|tier| is_comparable(*tier)).collect()
    };
    let (of_a, of_b) = (active(a), active(b));
    let names = |tiers: BTreeSet<&Tier>| {
        let names: Vec<&str> = tiers.iter().map(|tier| tier.name()).collect();
        if names.is_empty() {
            String::from("none more")
        } else {
            format!("also {}", names.join(", "))
        }
    };
    Condition {
        what: "evidence",
        a: names(of_a.difference(&of_b).collect()),
        b: names(of_b.difference(&of_a).collect()),
        unfair: Some("more was seen of one than of the other"),
    }
}
