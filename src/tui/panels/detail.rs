//! The page of the verdict: everything it says.
//!
//! ```text
//!  sq-not-flushed (certain)
//!  onset     12:00:02.000 UTC ±50 ms
//!  noticed   12:00:02.600 UTC
//!  17 entries wait …
//!
//!  In order
//!   12:00:01.900 cause        the task that never waits began
//!   12:00:02.000 consequence  17 entries wait in ring 9
//!  What can no longer be known
//!   · …
//!
//!  Evidence, strongest first
//!   · ring 9 unsubmitted entries: 17 entries, since 12:00:02.000
//!  rests on: ring memory
//!  Could not be seen
//!   · pressure: …
//!  Ruled out
//!   · fd-exhausted: 61 of 1024 fds are open.
//!  What to do
//!   1. …
//! ```

use ratatui::style::Style;
use ratatui::text::Line;

use super::super::app::App;
use super::super::theme::Theme;
use super::super::{text, units};
use super::banner::{evidence_words, rests_on_words};
use crate::detect::{Onset, StallKind};
use crate::diagnose::verdict::{Part, Verdict};
use crate::watch::event::Anchor;
use crate::watch::words;

/// Lines one entry may take.
const ENTRY_LINES_MAX: usize = 12;

/// The lines of the page.
pub fn lines(app: &App, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let anchor = app.info().anchor;
    let health = &app.view().health;
    let mut page = Text { lines: Vec::new(), columns: usize::from(width).saturating_sub(3), theme };
    match health.verdict() {
        Some(verdict) => page.verdict(verdict, health.onset(), anchor),
        None => match health.onset() {
            Some(onset) => {
                page.heading("A stall is suspected; no cause is named yet");
                page.onset(onset, anchor);
            }
            None => page.heading("No verdict yet"),
        },
    }
    page.lines
}

/// Lines under way.
pub(super) struct Text {
    pub lines: Vec<Line<'static>>,
    pub columns: usize,
    pub theme: Theme,
}

impl Text {
    pub fn heading(&mut self, words: &str) {
        if !self.lines.is_empty() {
            self.lines.push(Line::default());
        }
        let words = text::fit(words, self.columns);
        self.lines.push(Line::styled(format!(" {words}"), self.theme.title()));
    }

    /// An entry behind `mark`, as many lines as it needs, the later ones indented.
    pub fn entry(&mut self, mark: &str, words: &str, style: Style) {
        let indent = text::width(mark) + 1;
        let columns = self.columns.saturating_sub(indent);
        for (at, line) in text::wrap(words, columns, ENTRY_LINES_MAX).into_iter().enumerate() {
            let front = if at == 0 { format!(" {mark}") } else { " ".repeat(indent) };
            self.lines.push(Line::styled(format!("{front}{line}"), style));
        }
    }

    fn onset(&mut self, onset: &Onset, anchor: Anchor) {
        let plain = self.theme.plain();
        let at = anchor.clock_time(onset.at_ns);
        let onset_words = if onset.before_watch && onset.at_ns >= anchor.mono_ns {
            format!("before watching began (first look {at} UTC)")
        } else {
            format!("{at} UTC, give or take {}", units::span_ns(onset.within_ns))
        };
        let noticed = anchor.clock_time(onset.detected_ns);
        let after = units::span_ns(onset.detected_ns.saturating_sub(onset.at_ns));
        self.entry("onset          ", &onset_words, plain);
        self.entry("noticed        ", &format!("{noticed} UTC, {after} later"), plain);
        self.entry("what stopped   ", kind_words(onset.kind), plain);
        self.entry("waiting        ", &onset.demand, plain);
        self.entry("last progress  ", &onset.last_progress, plain);
        if let Some(partial) = &onset.partial {
            self.entry("still works    ", partial, self.theme.good());
        }
    }

    fn verdict(&mut self, verdict: &Verdict, onset: Option<&Onset>, anchor: Anchor) {
        let plain = self.theme.plain();
        self.heading(&format!("{} ({})", verdict.cause.id(), verdict.confidence.id()));
        self.entry("", &verdict.summary, plain);
        self.lines.push(Line::default());
        match (onset, verdict.onset_ns) {
            (Some(onset), _) => self.onset(onset, anchor),
            (None, Some(ns)) => {
                self.entry("onset          ", &format!("{} UTC", anchor.clock_time(ns)), plain);
            }
            (None, None) => {}
        }
        let reached = format!("{} UTC", anchor.clock_time(verdict.detected_ns));
        self.entry("verdict        ", &reached, plain);
        self.chain(verdict, anchor);
        let unknowable = words::unknowable(verdict, anchor);
        if !unknowable.is_empty() {
            self.heading("What can no longer be known");
            self.list(unknowable.into_iter().map(str::to_owned));
        }
        self.heading("Evidence, strongest first");
        self.list(verdict.evidence.iter().map(|evidence| evidence_words(evidence, anchor)));
        if !verdict.rests_on.is_empty() {
            self.entry(" ", &rests_on_words(verdict), self.theme.label());
        }
        if !verdict.missing.is_empty() {
            self.heading("Could not be seen");
            let missing = verdict.missing.iter();
            self.list(missing.map(|one| format!("{}: {}", one.tier.name(), one.why)));
        }
        self.heading("Ruled out");
        let out = verdict.ruled_out.iter();
        self.list(out.map(|out| format!("{}: {}", out.cause.id(), out.because)));
        self.heading("What to do");
        self.list(verdict.next.iter().cloned());
    }

    /// What happened, in its order: what led to the stall, and what came of it.
    fn chain(&mut self, verdict: &Verdict, anchor: Anchor) {
        if verdict.chain.is_empty() {
            return;
        }
        self.heading("In order");
        for link in &verdict.chain {
            let mark = format!("{} {:12} ", anchor.clock_time(link.at_ns), words::part(link.part));
            let style = match link.part {
                Part::Cause => self.theme.bad(),
                Part::Consequence => self.theme.plain(),
            };
            self.entry(&mark, &link.what, style);
        }
    }

    pub fn list(&mut self, entries: impl Iterator<Item = String>) {
        let before = self.lines.len();
        for entry in entries {
            self.entry(" · ", &entry, self.theme.plain());
        }
        if self.lines.len() == before {
            self.entry("   ", "nothing", self.theme.dim());
        }
    }
}

const fn kind_words(kind: StallKind) -> &'static str {
    match kind {
        StallKind::Stopped => "the process as a whole",
        StallKind::Ring => "a ring: entries or completions that nobody moves",
        StallKind::Runtime => "the runtime: its thread no longer turns its loop",
        StallKind::Accept => "accepting: connections wait and none is taken",
        StallKind::Answers => "answering: requests are taken and none is answered",
        StallKind::Listener => "listening: connections are refused",
        StallKind::Full => "room: new connections are turned away",
        StallKind::Throttled => "the CPU: the quota of the cgroup is used up",
    }
}
