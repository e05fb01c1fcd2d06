//! From an incident to a post-mortem: one HTML file that opens from disk without a network, one
//! paragraph for the terminal, and Markdown. Pure: no clock, no I/O; the same incident always gives
//! the same bytes.
//!
//! ```text
//! facts      what is stated, drawn once from the incident and used by every format
//! timeline, lanes, series, absences      rows and lines, without markup
//! chart      geometry        names, text      numbers and names as words
//! frame      what is around the content of a page
//! page       the HTML page of  verdict, charts (with marks and detail), tables, threads (with stacks),
//!            rings, resources, flames (with flame_doc), method (with tiers, active and watcher), chain
//! page.js    what makes the drawn page one to look into: zoom, readout, tabs
//! paragraph  plain text
//! figures    what was counted and measured, per phase
//! markdown   the Markdown of  the same sections
//! json       the same as data, by a schema
//! compare    two runs side by side
//! ```
//!
//! Text that stems from the observed process is hostile. It passes `profile::printable` (controls,
//! direction marks, length) and then maud's escaping; the page's own policy forbids every script
//! but two (the page's and the flamegraphs') and everything remote, should both fail.

mod absences;
mod active;
mod chain;
mod chart;
mod charts;
pub mod compare;
mod detail;
mod facts;
mod figures;
mod flame_doc;
mod flames;
mod frame;
mod json;
mod lanes;
mod markdown;
mod marks;
mod method;
mod names;
mod page;
mod paragraph;
mod resources;
mod rings;
mod series;
mod stacks;
mod tables;
mod text;
mod threads;
mod tiers;
mod timeline;
mod verdict;
mod watcher;

use crate::watch::event::Incident;

#[cfg(feature = "servers")]
pub(crate) use chart::nice_ceiling;
#[cfg(feature = "servers")]
pub(crate) use charts::percent;
#[cfg(feature = "servers")]
pub(crate) use frame::Frame;
#[cfg(feature = "servers")]
pub(crate) use markdown::text as markdown_text;
#[cfg(feature = "servers")]
pub(crate) use text::number;

/// The hash of a style or script for the policy of a page, as CSP level 2 wants it.
#[cfg(feature = "servers")]
pub(crate) fn hash_source(text: &str) -> String {
    page::hash(text)
}

/// The report as one self-contained HTML file.
pub fn html(incident: &Incident) -> Vec<u8> {
    page::assemble(&facts::Facts::new(incident)).into_bytes()
}

/// The report as data: one JSON object in one line, by the schema in `docs/report.schema.json`.
/// Characters that command a terminal are escaped.
pub fn json(incident: &Incident) -> Vec<u8> {
    json::assemble(&facts::Facts::new(incident)).into_bytes()
}

/// One paragraph: what, since when, why, what to do. Safe to print on a terminal.
pub fn verdict_paragraph(incident: &Incident) -> String {
    paragraph::paragraph(&facts::Facts::new(incident))
}

/// The report as Markdown, with tables in the place of charts and flamegraphs: to be pasted into an
/// issue or a post-mortem. Safe to print on a terminal.
pub fn markdown(incident: &Incident) -> String {
    markdown::assemble(&facts::Facts::new(incident))
}
