//! Figures per phase, lines over time, profiles.

use serde_json::{Value as Json, json};
use stallscope_probes::{Reading, Why};

use super::{instant, rounded, spread};
use crate::profile::folded::Folded;
use crate::report::absences::Absences;
use crate::report::chart::{self, Axis, COLUMNS};
use crate::report::facts::Facts;
use crate::report::figures::profiles::{self, Group};
use crate::report::figures::{self, Figure, Phase, Phases};
use crate::report::series::{self, Panel, Series};

/// Stacks listed per profile, the heaviest first.
const STACKS_MAX: usize = 100;
/// Functions listed per profile, by own and by total count each.
const FUNCTIONS_MAX: usize = 40;

/// Figures, each with its spread per phase.
pub(super) fn figures(facts: &Facts<'_>) -> Json {
    let phases = Phases::of(facts);
    let figures = figures::of_run(&facts.incident.models, &phases);
    figures.iter().map(figure).collect()
}

fn figure(figure: &Figure) -> Json {
    let part = |phase: Phase| {
        json!({
            "spread": figure.of(phase).as_ref().map(spread),
            "ticks_without": figure.ticks_without[phase as usize],
        })
    };
    json!({
        "id": figure.spec.id,
        "title": figure.spec.title,
        "unit": figure.spec.unit,
        "healthy": part(Phase::Healthy),
        "stalled": part(Phase::Stalled),
        "recovered": part(Phase::Recovered),
    })
}

/// The lines of the charts, thinned as they are drawn.
pub(super) fn series(facts: &Facts<'_>) -> Json {
    let axis = Axis { begin_ns: facts.begin_ns, end_ns: facts.end_ns, hole_ns: 0 };
    series::panels(facts.incident).iter().map(|panel| one_panel(panel, &axis)).collect()
}

fn one_panel(panel: &Panel, axis: &Axis) -> Json {
    let limit = match &panel.limit {
        Some((label, value)) => Reading::Got(json!({ "label": label, "value": value })),
        None => Reading::absent(Why::Unsupported, "there is no limit, or it could not be read"),
    };
    let lines = if panel.series.is_empty() {
        let reason = panel.absences.sentences().join(" ");
        let reason = if reason.is_empty() { panel.none.to_owned() } else { reason };
        Reading::absent(Why::Unsupported, reason)
    } else {
        Reading::Got(panel.series.iter().map(|series| line(series, axis)).collect::<Vec<_>>())
    };
    json!({
        "id": slug(panel.title),
        "title": panel.title,
        "unit": panel.unit,
        "hint": panel.hint,
        "limit": limit,
        "lines": lines,
        "lines_left_out": panel.undrawn,
        "absences": absences(&panel.absences),
    })
}

/// Points are pairs of ms since the begin of the run and the reading, null where it was absent.
fn line(series: &Series, axis: &Axis) -> Json {
    let points: Vec<Json> = chart::thin(&series.points, axis, COLUMNS)
        .into_iter()
        .map(|(at_ns, value)| {
            json!([at_ns.saturating_sub(axis.begin_ns) / 1_000_000, value.map(rounded)])
        })
        .collect();
    json!({ "label": series.label, "points": points })
}

/// `Open file descriptors` as `open-file-descriptors`.
fn slug(title: &str) -> String {
    let words = title.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

/// Reasons for absent readings, counted.
pub(super) fn absences(absences: &Absences) -> Json {
    absences
        .rows()
        .map(|row| {
            json!({ "what": row.what, "why": row.why, "times": row.times, "detail": row.detail })
        })
        .collect()
}

/// Profiles, merged per kind, maker and phase.
pub(super) fn profiles(facts: &Facts<'_>) -> Json {
    profiles::groups(facts).iter().map(|group| profile(facts, group)).collect()
}

fn profile(facts: &Facts<'_>, group: &Group) -> Json {
    let folded = &group.folded;
    let hz = match group.hz {
        Some(hz) => Reading::Got(hz),
        None => Reading::absent(Why::Unsupported, "its windows differ in it"),
    };
    json!({
        "kind": group.kind,
        "maker": group.maker,
        "phase": group.phase.id(),
        "begin": instant(facts, group.begin_ns),
        "end": instant(facts, group.end_ns),
        "covered_ms": (group.covered_ns as f64 / 1e6).round(),
        "windows": group.windows,
        "hz": hz,
        "unit": group.kind.unit(),
        "count": folded.samples,
        "bad_lines": folded.bad_lines,
        "notes": group.notes,
        "self": functions(&folded.by_leaf()),
        "total": functions(&profiles::totals(folded)),
        "threads": functions(&folded.by_thread()),
        "stacks": stacks(folded),
        "stacks_left_out": {
            "stacks": folded.stacks.len().saturating_sub(STACKS_MAX),
            "count": left_out(folded),
        },
    })
}

fn functions(rows: &[(String, u64)]) -> Json {
    let row = |(name, count): &(String, u64)| json!({ "name": name, "count": count });
    rows.iter().take(FUNCTIONS_MAX).map(row).collect()
}

fn heaviest(folded: &Folded) -> Vec<(&String, u64)> {
    let mut stacks: Vec<(&String, u64)> =
        folded.stacks.iter().map(|(stack, count)| (stack, *count)).collect();
    stacks.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    stacks.truncate(STACKS_MAX);
    stacks
}

fn stacks(folded: &Folded) -> Json {
    let stack = |(stack, count): (&String, u64)| json!({ "frames": stack.split(';').collect::<Vec<_>>(), "count": count });
    heaviest(folded).into_iter().map(stack).collect()
}

fn left_out(folded: &Folded) -> u64 {
    let listed = heaviest(folded).iter().fold(0_u64, |sum, stack| sum.saturating_add(stack.1));
    folded.samples.saturating_sub(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_makes_an_id() {
        assert_eq!(
            slug("io_uring: completion queue, not reaped"),
            "io-uring-completion-queue-not-reaped"
        );
        assert_eq!(slug("Age of the runtime’s last beat"), "age-of-the-runtime-s-last-beat");
    }

    #[test]
    fn what_is_not_listed_is_counted() {
        let lines: Vec<String> =
            (0..STACKS_MAX + 3).map(|n| format!("t;f{n}x {}", n + 1)).collect();
        let folded = crate::profile::folded::merge(lines.iter().map(String::as_str));
        assert_eq!(stacks(&folded).as_array().unwrap().len(), STACKS_MAX);
        assert_eq!(left_out(&folded), 1 + 2 + 3);
    }
}
