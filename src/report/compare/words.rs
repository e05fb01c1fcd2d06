//! The sentences at the top: how both went, what differs most, whether that is more than the
//! spread, and what makes the comparison unfair.

use super::change::{Change, Difference};
use super::sides::{Comparison, Side};
use crate::report::facts::Outcome;
use crate::report::figures::Phase;
use crate::report::text::number;

/// Conditions named.
const CONDITIONS_MAX: usize = 6;

/// Two to five sentences, printable.
pub(super) fn summary(comparison: &Comparison<'_>) -> Vec<String> {
    let mut sentences = vec![outcome(comparison)];
    if comparison.changes.iter().all(|change| change.difference == Difference::Unknown) {
        sentences.push(String::from("The two runs have no figure in common."));
    }
    for phase in Phase::ALL {
        sentences.extend(most_different(comparison, phase));
    }
    let unfair: Vec<&str> = comparison
        .conditions
        .iter()
        .filter(|condition| condition.unfair.is_some())
        .take(CONDITIONS_MAX)
        .map(|condition| condition.what)
        .collect();
    if !unfair.is_empty() {
        let differ = if unfair.len() == 1 { "differs" } else { "differ" };
        let unfair = listed(&unfair);
        sentences.push(format!("The comparison is not quite fair: {unfair} {differ}."));
    }
    sentences
}

fn outcome(comparison: &Comparison<'_>) -> String {
    let (a, b) = (&comparison.a, &comparison.b);
    let is = |side: &Side<'_>, outcome| side.facts.outcome == outcome;
    if is(a, Outcome::Healthy) && is(b, Outcome::Healthy) {
        return format!("Neither {} nor {} stalled.", a.label, b.label);
    }
    format!("{} {}; {} {}.", a.label, a.outcome(), b.label, b.outcome())
}

/// What differs most in one phase; nothing where the two do not share it.
fn most_different(comparison: &Comparison<'_>, phase: Phase) -> Option<String> {
    let known: Vec<&Change> = comparison
        .read(phase)
        .filter(|change| {
            !matches!(change.difference, Difference::Unknown | Difference::FewReadings)
        })
        .collect();
    let when = when(phase);
    if known.is_empty() {
        let any = comparison.read(phase).next().is_some();
        return any.then(|| format!("{when}, too little was read to compare."));
    }
    let most = |difference| {
        largest(known.iter().copied().filter(|change| change.difference == difference))
    };
    if let Some(change) = most(Difference::BeyondSpread) {
        return Some(format!(
            "{when}, what differs most is {}: {}. That is larger than the spread: the middle halves \
             of the readings have no value in common.",
            title(change),
            in_figures(comparison, change)?
        ));
    }
    if let Some(change) = most(Difference::WithinSpread) {
        return Some(format!(
            "{when}, no difference is larger than the spread of the readings; the largest is {}: {}.",
            title(change),
            in_figures(comparison, change)?
        ));
    }
    Some(format!(
        "{when}, no difference: the medians of all {} figures that both have are alike.",
        known.len()
    ))
}

const fn when(phase: Phase) -> &'static str {
    match phase {
        Phase::Healthy => "In healthy time",
        Phase::Stalled => "While stalled",
        Phase::Recovered => "After the stalls",
    }
}

/// Of equals the first: they stand in the order of what matters.
fn largest<'a>(changes: impl Iterator<Item = &'a Change>) -> Option<&'a Change> {
    changes.reduce(|most, change| if change.share() > most.share() { change } else { most })
}

/// `CPU time per response`, within a sentence.
fn title(change: &Change) -> String {
    let title = change.spec.title;
    let mut letters = title.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() && first.is_ascii_uppercase() => {
            format!("{}{}", first.to_ascii_lowercase(), title.get(1..).unwrap_or_default())
        }
        _ => title.to_owned(),
    }
}

/// `0.31 ms against 0.52 ms (medians), 1.68 times as much in new`.
fn in_figures(comparison: &Comparison<'_>, change: &Change) -> Option<String> {
    let (a, b) = change.medians()?;
    let spec = change.spec;
    let times = change.ratio.got().map_or_else(String::new, |ratio| {
        format!(", {} times as much in {}", factor(*ratio), comparison.b.label)
    });
    Some(format!(
        "{} {unit} in {} against {} {unit} in {}{times}",
        spec.shown(a),
        comparison.a.label,
        spec.shown(b),
        comparison.b.label,
        unit = spec.shown_unit(),
    ))
}

/// `0.97`, `1.00`, `12.5`.
pub(super) fn factor(ratio: f64) -> String {
    if (0.01..10.0).contains(&ratio) { format!("{ratio:.2}") } else { number(ratio) }
}

/// `a, b and c`.
fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
