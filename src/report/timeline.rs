//! What happened when.

use super::facts::{Facts, end_reason};
use super::text::{duration_ms, duration_ns, sentence, shown};
use crate::detect::Onset;
use crate::diagnose::verdict::Verdict;
use crate::watch::event::Event;

/// Rows listed; those in the middle go first when there are more.
const ROWS_MAX: usize = 400;

/// What a row is about; the page colours by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Begin,
    Onset,
    Detected,
    Verdict,
    Recovered,
    Fault,
    Forecast,
    Note,
    End,
    Omitted,
}

impl Kind {
    /// The word in the table.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Onset => "onset",
            Self::Detected => "detected",
            Self::Verdict => "verdict",
            Self::Recovered => "recovered",
            Self::Fault => "fault",
            Self::Forecast => "forecast",
            Self::Note => "note",
            Self::End => "end",
            Self::Omitted => "omitted",
        }
    }
}

/// One line of the history.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// When.
    pub at_ns: u64,
    /// What about.
    pub kind: Kind,
    /// One or two sentences, made printable.
    pub text: String,
}

/// The history, oldest first.
pub(super) fn rows(facts: &Facts<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    if !facts.incident.models.is_empty() {
        rows.push(Row { at_ns: facts.begin_ns, kind: Kind::Begin, text: begin(facts) });
    }
    let mut previous: Option<&Verdict> = None;
    for event in &facts.incident.events {
        match event {
            Event::Onset(onset) => {
                previous = None;
                rows.extend(onset_rows(onset, facts.begin_ns));
            }
            Event::Verdict(verdict) => {
                let text = verdict_text(verdict, previous);
                rows.push(Row { at_ns: verdict.detected_ns, kind: Kind::Verdict, text });
                previous = Some(verdict);
            }
            Event::Recovered { at_ns, stalled_ms } => rows.push(Row {
                at_ns: *at_ns,
                kind: Kind::Recovered,
                text: format!("Progress resumed after {}.", duration_ms(*stalled_ms)),
            }),
            Event::Forecast(forecast) => rows.push(Row {
                at_ns: forecast.at_ns,
                kind: Kind::Forecast,
                text: sentence(&forecast.text),
            }),
            Event::Note { at_ns, text } => {
                rows.push(Row { at_ns: *at_ns, kind: Kind::Note, text: sentence(text) });
            }
        }
    }
    rows.extend(fault_rows(facts));
    rows.push(Row {
        at_ns: facts.end_ns,
        kind: Kind::End,
        text: end_reason(facts.incident.end).to_owned(),
    });
    // Stable: events of the same instant stay in the order in which they were told.
    rows.sort_by_key(|row| row.at_ns);
    bounded(rows)
}

fn begin(facts: &Facts<'_>) -> String {
    format!(
        "First tick. Process {} ({}), one look every {} ms.",
        facts.incident.target.pid,
        shown(&facts.incident.target.comm),
        facts.incident.environment.interval_ms,
    )
}

fn onset_rows(onset: &Onset, begin_ns: u64) -> [Row; 2] {
    let what = if onset.before_watch && onset.at_ns < begin_ns {
        String::from("The stall began before watching did, by the record of what waits.")
    } else if onset.before_watch {
        String::from("Already stalled at the first look: the true onset is earlier.")
    } else if onset.within_ns == 0 {
        String::from("The stall began, as the process itself recorded it.")
    } else {
        format!("The stall began (± {}).", duration_ns(onset.within_ns))
    };
    let text = format!(
        "{what} Waiting: {} Last progress: {}{}",
        sentence(&onset.demand),
        sentence(&onset.last_progress),
        partial(onset)
    );
    let latency_ns = onset.detected_ns.saturating_sub(onset.at_ns);
    let first_look = onset.before_watch && onset.at_ns >= begin_ns;
    let seen = if first_look { "the first look" } else { "the onset" };
    [
        Row { at_ns: onset.at_ns, kind: Kind::Onset, text },
        Row {
            at_ns: onset.detected_ns,
            kind: Kind::Detected,
            text: format!("Noticed {} after {seen}.", duration_ns(latency_ns)),
        },
    ]
}

fn partial(onset: &Onset) -> String {
    let goes_on = onset.partial.as_deref();
    goes_on.map_or_else(String::new, |goes_on| format!(" Still works: {}", sentence(goes_on)))
}

fn verdict_text(verdict: &Verdict, previous: Option<&Verdict>) -> String {
    let name = format!("{} ({})", verdict.cause.id(), verdict.confidence.id());
    let lead = match previous {
        None => format!("{name}:"),
        Some(before) if before.cause != verdict.cause => {
            format!("Revised from {} to {name}:", before.cause.id())
        }
        Some(before) if before.confidence != verdict.confidence => {
            format!("{name}, was {}:", before.confidence.id())
        }
        Some(_) => format!("{name}, with more evidence:"),
    };
    if previous.is_some_and(|before| before.summary == verdict.summary) {
        return format!("{}.", lead.trim_end_matches(':'));
    }
    format!("{lead} {}", sentence(&verdict.summary))
}

fn fault_rows(facts: &Facts<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    for fault in &facts.faults {
        rows.push(Row {
            at_ns: fault.begin_ns,
            kind: Kind::Fault,
            text: format!(
                "Ground truth: the process made the fault {} on purpose and recorded this instant.",
                fault.fault.id()
            ),
        });
        if let Some(end_ns) = fault.end_ns {
            rows.push(Row {
                at_ns: end_ns,
                kind: Kind::Fault,
                text: format!("Ground truth: the fault {} was undone.", fault.fault.id()),
            });
        }
    }
    rows
}

fn bounded(mut rows: Vec<Row>) -> Vec<Row> {
    let cut = rows.len().saturating_sub(ROWS_MAX);
    if cut > 0 {
        let middle = ROWS_MAX / 2;
        let at_ns = rows.get(middle).map_or(0, |row| row.at_ns);
        let text = format!("{cut} events are not shown here.");
        rows.splice(middle..middle + cut, [Row { at_ns, kind: Kind::Omitted, text }]);
    }
    rows
}
