//! What the events so far say about the target, as the banner needs it.

use crate::detect::Onset;
use crate::diagnose::verdict::Verdict;
use crate::watch::event::Event;

/// The state of the target, folded from the events.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Health {
    /// No verdict and no onset yet.
    #[default]
    Unknown,
    /// The last verdict is no stall.
    Healthy(Verdict),
    /// A stall has begun and no cause is named yet.
    Suspect(Onset),
    /// A stall with a cause.
    Stalled {
        /// Its beginning, when one was reported.
        onset: Option<Onset>,
        /// Its cause.
        verdict: Verdict,
    },
    /// The last stall is over.
    Recovered {
        /// When progress resumed, ns.
        at_ns: u64,
        /// How long it lasted, ms.
        stalled_ms: f64,
        /// What it had been; `None` when it ended before a cause was named.
        verdict: Option<Verdict>,
    },
}

impl Health {
    /// Takes one event in.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Onset(onset) => *self = Self::Suspect(onset.clone()),
            Event::Verdict(verdict) => self.judge(verdict),
            Event::Recovered { at_ns, stalled_ms } => {
                let verdict = match std::mem::take(self) {
                    Self::Stalled { verdict, .. } => Some(verdict),
                    _ => None,
                };
                *self = Self::Recovered { at_ns: *at_ns, stalled_ms: *stalled_ms, verdict };
            }
            Event::Forecast(_) | Event::Note { .. } => {}
        }
    }

    fn judge(&mut self, verdict: &Verdict) {
        if !verdict.cause.is_stall() {
            // "Recovered" says more than the healthy verdict that follows it.
            if !matches!(self, Self::Recovered { .. }) {
                *self = Self::Healthy(verdict.clone());
            }
            return;
        }
        let onset = match std::mem::take(self) {
            Self::Suspect(onset) => Some(onset),
            Self::Stalled { onset, .. } => onset,
            _ => None,
        };
        *self = Self::Stalled { onset, verdict: verdict.clone() };
    }

    /// The verdict that the detail page shows.
    pub const fn verdict(&self) -> Option<&Verdict> {
        match self {
            Self::Healthy(verdict) | Self::Stalled { verdict, .. } => Some(verdict),
            Self::Recovered { verdict, .. } => verdict.as_ref(),
            Self::Unknown | Self::Suspect(_) => None,
        }
    }

    /// The onset of the stall that goes on now.
    pub const fn onset(&self) -> Option<&Onset> {
        match self {
            Self::Suspect(onset) => Some(onset),
            Self::Stalled { onset, .. } => onset.as_ref(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::verdict::Cause;
    use crate::tui::fixtures;

    fn after(events: &[Event]) -> Health {
        let mut health = Health::default();
        for event in events {
            health.apply(event);
        }
        health
    }

    #[test]
    fn onset_then_cause_then_recovery() {
        let onset = Event::Onset(fixtures::onset());
        let verdict = Event::Verdict(fixtures::sq_verdict());
        let healthy = Event::Verdict(fixtures::healthy_verdict());
        let over = Event::Recovered { at_ns: 9, stalled_ms: 4.0 };

        assert!(matches!(after(&[]), Health::Unknown));
        assert!(matches!(after(std::slice::from_ref(&healthy)), Health::Healthy(_)));
        let suspect = after(&[healthy.clone(), onset.clone()]);
        assert!(matches!(suspect, Health::Suspect(_)));
        assert_eq!(suspect.verdict(), None);
        let stalled = after(&[onset.clone(), verdict.clone(), verdict.clone()]);
        assert_eq!(stalled.onset(), Some(&fixtures::onset()), "kept when the verdict is revised");
        let recovered = after(&[onset.clone(), verdict.clone(), over.clone(), healthy.clone()]);
        assert!(matches!(recovered, Health::Recovered { .. }), "healthy does not hide recovered");
        assert_eq!(recovered.verdict().map(|verdict| verdict.cause), Some(Cause::SqNotFlushed));
        assert_eq!(recovered.onset(), None);
        assert!(after(&[onset.clone(), over]).verdict().is_none());
        assert!(matches!(after(&[verdict.clone(), onset]), Health::Suspect(_)), "the next stall");
        assert!(matches!(after(&[verdict, healthy]), Health::Healthy(_)));
    }
}
