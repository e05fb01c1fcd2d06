//! The top of the page: what is the matter, how sure, since when, for how long.

use maud::{Markup, html};

use super::facts::{Facts, Outcome};
use super::text::{duration_ms, duration_ns, offset, plural, sentence, shown};
use super::{chain, names};

impl Outcome {
    /// The word on the status band.
    const fn label(self) -> &'static str {
        match self {
            Self::Stalled => "Stalled, not recovered",
            Self::Recovered => "Stalled, recovered",
            Self::Healthy => "No stall",
            Self::NoData => "No judgement",
        }
    }

    const fn class(self) -> &'static str {
        match self {
            Self::Stalled => "stalled",
            Self::Recovered => "recovered",
            Self::Healthy => "healthy",
            Self::NoData => "no-data",
        }
    }
}

/// The headline: the cause, or what is said in its place.
pub(super) fn headline(facts: &Facts<'_>) -> &'static str {
    match (facts.outcome, facts.verdict()) {
        (_, Some(verdict)) => names::cause(verdict.cause),
        (Outcome::Healthy, None) => "No stall was seen",
        (Outcome::NoData, None) => "Nothing could be read",
        (Outcome::Stalled | Outcome::Recovered, None) => "Stalled, cause not named",
    }
}

/// The title of the document.
pub(super) fn title(facts: &Facts<'_>) -> String {
    let target = &facts.incident.target;
    format!("{}: {} (pid {})", headline(facts), shown(&target.comm), target.pid)
}

/// The status band.
pub(super) fn band(facts: &Facts<'_>) -> Markup {
    let target = &facts.incident.target;
    html! {
        header.band.(facts.outcome.class()) {
            p.eyebrow {
                span.pill { (facts.outcome.label()) }
                span { (shown(&target.comm)) ", pid " (target.pid) }
            }
            h1 { (headline(facts)) }
            p.lead { (lead(facts)) }
            @if let Some(partial) = chain::partial(facts) {
                p.partial { b { "Still works: " } (partial) }
            }
            @let figures = figures(facts);
            @if !figures.is_empty() {
                dl.facts {
                    @for (name, value, more) in &figures {
                        div { dt { (name) } dd { (value) @if !more.is_empty() { small { (more) } } } }
                    }
                }
            }
        }
    }
}

fn lead(facts: &Facts<'_>) -> String {
    if let Some(verdict) = facts.verdict() {
        return sentence(&verdict.summary);
    }
    let watched = duration_ns(facts.end_ns.saturating_sub(facts.begin_ns));
    let reason = facts.incident.models.iter().find_map(|model| model.process.absence());
    match (facts.outcome, reason) {
        (Outcome::Healthy, _) => format!("Nothing stalled in {watched} of watching."),
        (Outcome::NoData, Some(absence)) => {
            format!("The process could not be read: {}", sentence(&absence.detail))
        }
        (Outcome::NoData, None) => {
            String::from("There is no sample in this run, so nothing can be said of the process.")
        }
        (Outcome::Stalled | Outcome::Recovered, _) => {
            String::from("A stall was seen, and watching ended before its cause was named.")
        }
    }
}

type Figure = (&'static str, String, String);

fn figures(facts: &Facts<'_>) -> Vec<Figure> {
    let mut figures = Vec::new();
    if let Some(verdict) = facts.verdict() {
        figures.push(("Cause", verdict.cause.id().to_owned(), String::new()));
        figures.push(("Confidence", verdict.confidence.id().to_owned(), String::new()));
    }
    if facts.episode().is_some() {
        figures.extend(stall_figures(facts));
    } else if facts.outcome == Outcome::Healthy {
        let watched = duration_ns(facts.end_ns.saturating_sub(facts.begin_ns));
        let ticks = plural(facts.incident.models.len() as u64, "tick", "ticks");
        figures.push(("Watched", watched, ticks));
        figures.push(("From", facts.clock(facts.begin_ns), date(facts, facts.begin_ns)));
    }
    figures
}

fn stall_figures(facts: &Facts<'_>) -> Vec<Figure> {
    let mut figures = Vec::new();
    let Some(episode) = facts.episode() else { return figures };
    if let Some(onset_ns) = episode.onset_ns() {
        let mut more = date(facts, onset_ns);
        if episode.began_before_watch() && onset_ns < facts.begin_ns {
            more.push_str(", before watching began");
        } else if episode.began_before_watch() {
            more.push_str(", at or before the first look");
        } else {
            let since = offset(onset_ns, facts.begin_ns);
            more = format!("{more}, {since} after watching began");
        }
        figures.push(("Onset", facts.clock(onset_ns), more));
    } else {
        figures.push(("Onset", String::from("unknown"), String::from("before watching began")));
    }
    if let (Some(begin_ns), Some(detected_ns)) = (episode.onset_ns(), episode.detected_ns()) {
        let latency = duration_ns(detected_ns.saturating_sub(begin_ns));
        let within = episode.onset.filter(|onset| onset.within_ns > 0);
        let more = within.map_or_else(String::new, |onset| {
            format!("onset known to ± {}", duration_ns(onset.within_ns))
        });
        figures.push(("Detected after", latency, more));
    }
    if let Some(stalled_ms) = facts.stalled_ms() {
        let more = match facts.recovered_ns() {
            Some(at_ns) => format!("recovered at {}", facts.clock(at_ns)),
            None => String::from("and still so at the end"),
        };
        figures.push(("Duration", duration_ms(stalled_ms), more));
    }
    if facts.episodes.len() > 1 {
        let number = facts.episodes.len().to_string();
        figures.push((
            "Stalls in this run",
            number,
            String::from("shown: the one that lasts, else the longest"),
        ));
    }
    figures
}

fn date(facts: &Facts<'_>, at_ns: u64) -> String {
    let wall = facts.wall(at_ns);
    wall.split_once('T').map_or(wall.clone(), |(date, _)| format!("{date} UTC"))
}
