//! The stall in its order, from cause to consequence; what can no longer be known; what goes on.

use maud::{Markup, html};

use super::facts::Facts;
use super::text::{offset, sentence};
use crate::diagnose::verdict::Link;
use crate::watch::words;

/// Links shown.
const LINKS_MAX: usize = 40;

/// What stands right after the verdict; nothing where there is nothing to say.
pub(super) fn draw(facts: &Facts<'_>) -> Markup {
    let links = links(facts);
    let unknowable = unknowable(facts);
    html! {
        @if !links.is_empty() {
            section id="chain" aria-labelledby="h-chain" {
                h2 id="h-chain" { "In order: what led to it, and what came of it" }
                ol.chain { @for (n, link) in links.iter().enumerate() { (one(facts, n + 1, link)) } }
            }
        }
        @if !unknowable.is_empty() {
            section id="unknowable" aria-labelledby="h-unknowable" {
                h2 id="h-unknowable" { "What can no longer be known" }
                ul.plain { @for one in &unknowable { li { (one) } } }
            }
        }
    }
}

/// The number is that of its mark on the time line.
fn one(facts: &Facts<'_>, number: usize, link: &Link) -> Markup {
    let part = words::part(link.part);
    html! {
        li.(format!("p-{part}")) {
            span.number { (number) } " "
            time datetime=(facts.wall(link.at_ns)) { (facts.clock(link.at_ns)) } " "
            span.offset { (offset(link.at_ns, facts.zero_ns())) } " "
            span.tag { (part) } " "
            span { (sentence(&link.what)) }
        }
    }
}

/// The chain of the verdict that the report is about, oldest first.
pub(super) fn links<'a>(facts: &Facts<'a>) -> &'a [Link] {
    let chain = facts.verdict().map_or(&[][..], |verdict| &verdict.chain);
    &chain[..chain.len().min(LINKS_MAX)]
}

/// What can no longer be known, sentences made printable.
pub(super) fn unknowable(facts: &Facts<'_>) -> Vec<String> {
    let Some(verdict) = facts.verdict() else { return Vec::new() };
    let known = words::unknowable(verdict, facts.incident.anchor);
    known.into_iter().map(sentence).collect()
}

/// What goes on all the same, printable; of a stall that is partial only.
pub(super) fn partial(facts: &Facts<'_>) -> Option<String> {
    Some(sentence(facts.episode()?.onset?.partial.as_deref()?))
}

/// The chain as one sentence, printable.
pub(super) fn in_words(facts: &Facts<'_>) -> Option<String> {
    Some(super::text::shown(&words::chain(facts.verdict()?, facts.incident.anchor)?))
}
