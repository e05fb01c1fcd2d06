//! What changed about a target between two ticks and is worth a line in the log, stall or not.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use stallscope_probes::sample::FdLimitRaw;

use super::event::Event;
use crate::model::Model;

/// Lines a single tick may add.
const NOTES_MAX: usize = 8;

/// Listeners and rings that came or went, and a changed fd limit. What could not be read in either
/// tick is not compared.
pub(super) fn between(before: &Model, now: &Model) -> Vec<Event> {
    let mut texts = Vec::new();
    if let (Some(then), Some(now)) = (listening(before), listening(now)) {
        texts.extend(now.difference(&then).map(|at| format!("listens on {at}")));
        texts.extend(then.difference(&now).map(|at| format!("no longer listens on {at}")));
    }
    if let (Some(then), Some(now)) = (rings(before), rings(now)) {
        texts.extend(now.difference(&then).map(|fd| format!("has a new io_uring, fd {fd}")));
        texts.extend(then.difference(&now).map(|fd| format!("has closed its io_uring, fd {fd}")));
    }
    if let (Some(then), Some(now)) = (fd_limit(before), fd_limit(now))
        && then.soft != now.soft
    {
        let words = |limit: Option<u64>| limit.map_or(String::from("none"), |max| max.to_string());
        texts.push(format!("fd limit changed from {} to {}", words(then.soft), words(now.soft)));
    }
    let note = |text| Event::Note { at_ns: now.at_ns, text };
    texts.into_iter().take(NOTES_MAX).map(note).collect()
}

/// Ticks in a row that must be slow, or no longer be, before it is said: one dear tick is no news.
const SLOW_TICKS_MIN: u32 = 20;

/// Whether the watcher has slowed down to keep its budget.
#[derive(Debug, Default)]
pub(super) struct Slowness {
    said: bool,
    ticks: u32,
}

impl Slowness {
    /// Takes the next tick; what is to be said of it.
    pub(super) fn push(&mut self, now: &Model) -> Option<Event> {
        let watcher = &now.watcher;
        if watcher.slowed() == self.said {
            self.ticks = 0;
            return None;
        }
        self.ticks += 1;
        if self.ticks < SLOW_TICKS_MIN {
            return None;
        }
        self.ticks = 0;
        self.said = !self.said;
        let text = if self.said {
            format!(
                "the watcher looks every {:.0} ms instead of every {:.0} ms, to stay within its budget of {} % of a core (--budget)",
                watcher.interval_ms,
                watcher.interval_asked_ms,
                (watcher.budget_ratio * 1e4).round() / 1e2
            )
        } else {
            format!("the watcher looks every {:.0} ms again", watcher.interval_asked_ms)
        };
        Some(Event::Note { at_ns: now.at_ns, text })
    }
}

fn fd_limit(model: &Model) -> Option<&FdLimitRaw> {
    model.fds.got()?.limit.got()
}

fn listening(model: &Model) -> Option<BTreeSet<SocketAddr>> {
    model.listeners.got()?;
    Some(model.own_listeners().map(|listener| listener.local).collect())
}

fn rings(model: &Model) -> Option<BTreeSet<i32>> {
    Some(model.rings.got()?.iter().map(|ring| ring.fd).collect())
}
