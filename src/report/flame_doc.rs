//! One flamegraph as a document of its own in a sandboxed `<iframe srcdoc>`: its ids cannot clash
//! with another's, its script runs from `file://`, and neither can reach the page around it.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::profile::flame::Flame;

/// Style of a flamegraph's document.
pub(super) const STYLE: &str = include_str!("flame.css");
/// Lets one search by a form and walk by keyboard; runs after the renderer's script.
const GLUE: &str = include_str!("flame.js");
/// Height of the tools above the drawing, less the renderer's room for a title, px.
const TOOLS_PX: u32 = 24;

/// How frames are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// By where their code is.
    Plain,
    /// By what changed.
    Difference,
}

/// The frame, `label` being what a screen reader calls it.
pub(super) fn frame(label: &str, flame: &Flame, look: Look) -> Markup {
    html! {
        iframe.flame title=(label) sandbox="allow-scripts" height=(flame.height_px + TOOLS_PX)
            srcdoc=(document(label, flame, look).into_string()) {}
    }
}

/// The script of every flamegraph's document.
pub(super) fn script(flame: &Flame) -> String {
    format!("{}\n{GLUE}", flame.script)
}

fn document(title: &str, flame: &Flame, look: Look) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body.difference[look == Look::Difference] {
                div.tools {
                    input #term type="search" aria-label="Search frames by regular expression"
                        placeholder="Search frames (regular expression)" autocomplete="off"
                        spellcheck="false";
                    button #find type="button" { "Search" }
                    button #clear type="button" { "Clear" }
                    button #reset type="button" { "Reset zoom" }
                    output #said aria-live="polite" {}
                }
                (PreEscaped(&flame.svg))
                script { (PreEscaped(script(flame))) }
            }
        }
    }
}
