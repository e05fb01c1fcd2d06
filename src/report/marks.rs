//! What is marked on the time axis: the events of the chain, onset, detection and recovery of each
//! stall, and faults made on purpose; and the stalls themselves.

use maud::{Markup, html};

use super::chain;
use super::chart::Axis;
use super::charts::percent;
use super::detail::offset_ms;
use super::facts::{Episode, Facts};
use super::text::duration_ns;

/// Stalls marked.
const EPISODES_MAX: usize = 20;
/// Height of one row of flags, px.
const ROW_PX: usize = 17;
/// Events of the chain nearer to each other than this share of the axis have one mark together.
const APART_MIN: f64 = 0.022;

/// An instant with a name.
pub(super) struct Marker {
    at_ns: u64,
    class: &'static str,
    label: String,
}

/// All that is marked, and the instant that offsets are relative to.
pub(super) struct Marks {
    markers: Vec<Marker>,
    /// Begin and end of each stall, ns.
    bands: Vec<(u64, u64)>,
    /// Instants of the chain, each with its number.
    chain: Vec<(usize, u64)>,
    axis: Axis,
    zero_ns: u64,
}

impl Marks {
    /// Draws them from the facts.
    pub fn new(facts: &Facts<'_>, axis: Axis) -> Self {
        let band = |episode: &Episode<'_>| {
            let end_ns = episode.recovered.map_or(facts.end_ns, |(at_ns, _)| at_ns);
            Some((episode.begin_ns()?, end_ns))
        };
        let chain = chain::links(facts).iter().enumerate();
        Self {
            markers: markers(facts, &axis),
            bands: facts.episodes.iter().take(EPISODES_MAX).filter_map(band).collect(),
            chain: chain
                .map(|(n, link)| (n + 1, link.at_ns))
                .filter(|(_, at_ns)| axis.holds(*at_ns))
                .collect(),
            axis,
            zero_ns: facts.zero_ns(),
        }
    }

    /// An attribute's value that tells the script where something belongs, ms.
    pub fn ms(&self, at_ns: u64) -> i64 {
        offset_ms(at_ns, self.zero_ns)
    }

    fn x(&self, at_ns: u64) -> String {
        percent(self.axis.at(at_ns))
    }

    /// The stalls as shaded stretches of one plot.
    pub fn stalls(&self) -> Markup {
        html! {
            @for (begin_ns, end_ns) in &self.bands {
                @let (begin, end) = (self.axis.at(*begin_ns), self.axis.at(*end_ns));
                rect.stall x=(percent(begin)) width=(percent(end - begin)) height="100%"
                    data-from=(self.ms(*begin_ns)) data-to=(self.ms(*end_ns)) {}
            }
        }
    }

    /// The instants as lines through one plot.
    pub fn lines(&self) -> Markup {
        html! {
            @for marker in &self.markers {
                line.(marker.class) data-at=(self.ms(marker.at_ns)) x1=(self.x(marker.at_ns))
                    x2=(self.x(marker.at_ns)) y1="0" y2="100%" {}
            }
        }
    }

    /// The row of the chain's numbers and the names of the instants, above the first plot. One row
    /// per kind, so that neighbouring instants do not write over each other.
    pub fn flags(&self) -> Markup {
        const ROWS: [&str; 4] = ["m-fault", "m-onset", "m-detected", "m-recovered"];
        let rows: Vec<&str> =
            ROWS.into_iter().filter(|row| self.markers.iter().any(|m| m.class == *row)).collect();
        let above_px = if self.chain.is_empty() { 0 } else { ROW_PX + 5 };
        html! {
            @if above_px > 0 || !rows.is_empty() {
                div.lane.flags aria-hidden="true" {
                    span.side { @if above_px > 0 { "The events above, by number" } }
                    span {}
                    svg.plot width="100%" height=(above_px + rows.len() * ROW_PX) {
                        @if above_px > 0 { (self.chain_row()) }
                        @for (n, row) in rows.iter().enumerate() {
                            @for marker in self.markers.iter().filter(|marker| marker.class == *row) {
                                (self.flag(marker, above_px + n * ROW_PX))
                            }
                        }
                    }
                }
            }
        }
    }

    fn flag(&self, marker: &Marker, top: usize) -> Markup {
        let (anchor, dx) =
            if self.axis.at(marker.at_ns) > 0.6 { ("end", "-5") } else { ("start", "5") };
        let x = self.x(marker.at_ns);
        let ms = self.ms(marker.at_ns);
        html! {
            line.(marker.class) data-at=(ms) x1=(x) x2=(x) y1=(top) y2="100%" {}
            text.(marker.class) data-at=(ms) x=(x) dx=(dx) y=(top + 12) text-anchor=(anchor) {
                (marker.label)
            }
        }
    }

    /// Numbers that would lie upon each other are drawn as one, `2–5`. Sorted by time, so that a
    /// script can do the same at another scale.
    fn chain_row(&self) -> Markup {
        let mut sorted = self.chain.clone();
        sorted.sort_by_key(|(number, at_ns)| (*at_ns, *number));
        let instants: Vec<String> =
            sorted.iter().map(|(number, at_ns)| format!("{number}:{}", self.ms(*at_ns))).collect();
        let mut groups: Vec<(u64, usize, usize)> = Vec::new();
        for (number, at_ns) in sorted {
            match groups.last_mut() {
                Some((first_ns, _, last))
                    if self.axis.at(at_ns) - self.axis.at(*first_ns) < APART_MIN =>
                {
                    *last = number;
                }
                _ => groups.push((at_ns, number, number)),
            }
        }
        html! {
            g.links data-links=(instants.join(" ")) {
                @for (at_ns, first, last) in groups {
                    text.link x=(self.x(at_ns)) y="13" text-anchor="middle" {
                        (first) @if last != first { "–" (last) }
                    }
                }
            }
        }
    }
}

fn markers(facts: &Facts<'_>, axis: &Axis) -> Vec<Marker> {
    let mut markers = Vec::new();
    for fault in &facts.faults {
        let label = format!("fault {}", fault.fault.id());
        markers.push(Marker { at_ns: fault.begin_ns, class: "m-fault", label });
    }
    for episode in facts.episodes.iter().take(EPISODES_MAX) {
        if let Some(onset_ns) = episode.onset_ns() {
            let label =
                if episode.began_before_watch() { "stalled already" } else { "onset" }.to_owned();
            markers.push(Marker { at_ns: onset_ns, class: "m-onset", label });
        }
        if let Some(detected_ns) = episode.detected_ns() {
            let latency_ns = detected_ns.saturating_sub(episode.begin_ns().unwrap_or(detected_ns));
            let label = format!("detected +{}", duration_ns(latency_ns));
            markers.push(Marker { at_ns: detected_ns, class: "m-detected", label });
        }
        if let Some((at_ns, _)) = episode.recovered {
            markers.push(Marker { at_ns, class: "m-recovered", label: String::from("recovered") });
        }
    }
    markers.retain(|marker| axis.holds(marker.at_ns));
    markers
}
