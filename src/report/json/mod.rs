//! The report as data: everything that the page states, by the schema in `docs/report.schema.json`.
//!
//! Names agree with the lines of `watch --headless` (`docs/json.md`): target, events, verdicts and
//! tiers are those very objects, ticks are the model of a `sample`. What may be absent is
//! `{"got": VALUE}` or `{"absent": {"why", "detail"}}`. Text from the process is kept as it came;
//! the writer escapes what commands a terminal.

mod measured;
pub(super) mod run;
mod seen;

use serde_json::{Value as Json, json};
use stallscope_probes::{Reading, Why};

use super::facts::Facts;
use super::figures::Spread;
use super::paragraph;
use crate::watch;

/// Which schema this is.
const SCHEMA: &str = "stallscope-report";
/// Its version: raised when a field goes or changes its meaning.
const SCHEMA_VERSION: u64 = 1;

/// The whole document, one line.
pub(super) fn assemble(facts: &Facts<'_>) -> String {
    let anchor = facts.incident.anchor;
    let verdict = match facts.verdict() {
        Some(verdict) => Reading::Got(watch::json::verdict(verdict, anchor)),
        None => Reading::absent(Why::NotSampled, "watching ended before a verdict was reached"),
    };
    let document = json!({
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "written_by": env!("CARGO_PKG_VERSION"),
        "target": run::target(facts),
        "environment": run::environment(facts),
        "run": run::run(facts),
        "summary": paragraph::paragraph(facts),
        "verdict": verdict,
        "episodes": run::episodes(facts),
        "events": run::events(facts),
        "faults": run::faults(facts),
        "figures": measured::figures(facts),
        "series": measured::series(facts),
        "profiles": measured::profiles(facts),
        "ticks": seen::ticks(facts),
        "rings": seen::rings(facts),
        "stacks": seen::stacks(facts),
        "tiers": seen::tiers(facts),
        "absences": seen::absences(facts),
        "losses": facts.incident.losses,
        "watcher": seen::watcher(facts),
    });
    let mut line = watch::json::line(&document);
    line.push('\n');
    line
}

/// An instant in both of its forms.
fn instant(facts: &Facts<'_>, at_ns: u64) -> Json {
    json!({ "at": facts.wall(at_ns), "at_ns": at_ns })
}

/// A spread, rounded.
pub(super) fn spread(spread: &Spread) -> Json {
    json!({
        "readings": spread.readings,
        "min": rounded(spread.min),
        "p25": rounded(spread.p25),
        "median": rounded(spread.median),
        "p75": rounded(spread.p75),
        "max": rounded(spread.max),
    })
}

/// Five significant digits: more than any of these is good for.
pub(super) fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let factor = 10_f64.powf(4.0 - value.abs().log10().floor());
    if factor.is_finite() && factor >= 1.0 {
        (value * factor).round() / factor
    } else {
        value.round()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_digits_stay_and_whole_numbers_are_whole() {
        let cases = [
            (0.0, 0.0),
            (0.000_123_456_7, 0.000_123_46),
            (1.234_567, 1.234_6),
            (-98.765_43, -98.765),
            (50_331_648.0, 50_331_648.0),
            (1_234_567.4, 1_234_567.0),
        ];
        for (value, expected) in cases {
            let found: f64 = rounded(value);
            assert!((found - expected).abs() < 1e-12, "{value}: {found}");
        }
    }
}
