//! Two runs side by side: before against after, one runtime against another. Pure, as the report.
//!
//! ```text
//! sides       each run by itself, and what is comparable between the two
//! change      two spreads of one figure: ratio, and whether they are apart
//! conditions  what differs in how the two were run and watched
//! words       the sentences at the top
//! page (charts, flames), markdown, json      the three forms
//! ```
//!
//! Healthy time is compared with healthy time and stalls with stalls: medians over a whole run
//! would say more about how long each stalled than about the service. A difference is said to be
//! one where the middle halves of the readings have no value in common.

mod change;
mod charts;
mod conditions;
mod flames;
mod json;
mod markdown;
mod page;
mod sides;
mod words;

use crate::watch::event::Incident;
use sides::Comparison;

/// What the two runs are called. Made printable where it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// The first run.
    pub a: String,
    /// The second.
    pub b: String,
}

/// The comparison as one self-contained HTML file.
pub fn html(a: &Incident, b: &Incident, labels: &Labels) -> Vec<u8> {
    page::assemble(&Comparison::new(a, b, labels)).into_bytes()
}

/// The comparison as Markdown. Safe to print on a terminal.
pub fn markdown(a: &Incident, b: &Incident, labels: &Labels) -> String {
    markdown::assemble(&Comparison::new(a, b, labels))
}

/// The comparison as one JSON object in one line, by the schema in `docs/compare.schema.json`.
pub fn json(a: &Incident, b: &Incident, labels: &Labels) -> Vec<u8> {
    json::assemble(&Comparison::new(a, b, labels)).into_bytes()
}

/// What differs most, in a few sentences. Safe to print on a terminal.
pub fn summary(a: &Incident, b: &Incident, labels: &Labels) -> String {
    words::summary(&Comparison::new(a, b, labels)).join(" ")
}
