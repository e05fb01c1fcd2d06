//! The comparison as data. Runs are described as in the JSON of a report.

use serde_json::{Value as Json, json};
use stallscope_probes::Reading;

use super::change::Change;
use super::conditions::Condition;
use super::flames::{own, total};
use super::sides::{Comparison, Pair, Side};
use super::words;
use crate::report::figures::profiles::Share;
use crate::report::json::{rounded, run, spread};
use crate::watch;

const SCHEMA: &str = "stallscope-comparison";
/// Raised when a field goes or changes its meaning.
const SCHEMA_VERSION: u64 = 1;

/// The whole document, one line.
pub(super) fn assemble(comparison: &Comparison<'_>) -> String {
    let document = json!({
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "written_by": env!("CARGO_PKG_VERSION"),
        "summary": words::summary(comparison),
        "a": side(&comparison.a),
        "b": side(&comparison.b),
        "is_fair": comparison.conditions.iter().all(|condition| condition.unfair.is_none()),
        "conditions": comparison.conditions.iter().map(condition).collect::<Vec<_>>(),
        "figures": comparison.changes.iter().map(change).collect::<Vec<_>>(),
        "profiles": comparison.profiles().iter().map(profile).collect::<Vec<_>>(),
    });
    let mut line = watch::json::line(&document);
    line.push('\n');
    line
}

fn side(side: &Side<'_>) -> Json {
    json!({
        "label": side.label,
        "target": run::target(&side.facts),
        "environment": run::environment(&side.facts),
        "run": run::run(&side.facts),
        "episodes": run::episodes(&side.facts),
        "stalled_ms": side.stalled_ms().round(),
        "causes": side.causes(),
    })
}

fn condition(condition: &Condition) -> Json {
    json!({
        "what": condition.what,
        "a": condition.a,
        "b": condition.b,
        "is_unfair": condition.unfair.is_some(),
        "why": condition.unfair.unwrap_or("it may be what is compared"),
    })
}

fn change(change: &Change) -> Json {
    json!({
        "id": change.spec.id,
        "title": change.spec.title,
        "unit": change.spec.unit,
        "phase": change.phase.id(),
        "a": change.a.as_ref().map(spread),
        "b": change.b.as_ref().map(spread),
        "ratio": match &change.ratio {
            Reading::Got(ratio) => Reading::Got(rounded(*ratio)),
            absent @ Reading::Absent(_) => absent.clone(),
        },
        "difference": change.difference.id(),
    })
}

fn profile(pair: &Pair<'_>) -> Json {
    let shares = |rows: Vec<Share>| -> Json {
        let row = |row: &Share| {
            json!({
                "name": row.function,
                "a_ratio": rounded(row.before),
                "b_ratio": rounded(row.after),
            })
        };
        rows.iter().map(row).collect()
    };
    json!({
        "kind": pair.a.kind,
        "maker": pair.a.maker,
        "phase": pair.a.phase.id(),
        "unit": pair.a.kind.unit(),
        "a_count": pair.a.folded.samples,
        "b_count": pair.b.folded.samples,
        "self": shares(own(pair)),
        "total": shares(total(pair)),
    })
}
