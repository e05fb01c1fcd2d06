//! What is kept of one soak of one server, and of all. Pure.

use serde::Serialize;

use super::judge::{End, Finding, Memory, Outcome, Seen, Told, judge, memory, per_second};
use super::series::{Point, median};

/// What came of one server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Endured {
    /// Which stack.
    pub stack: String,
    /// Why it could not be soaked, or not to the end.
    pub error: Option<String>,
    /// Rule by rule; empty when it could not be soaked.
    pub findings: Vec<Finding>,
    /// The figures behind that.
    pub figures: Option<Figures>,
}

/// The figures of one soak.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// The command line of the server.
    pub server: String,
    /// How long there was load, and how much of that was warm-up, s.
    pub time_s: f64,
    /// See [`Self::time_s`].
    pub warm_up_s: f64,
    /// What clients were told.
    pub told: Told,
    /// Answers a second.
    pub responses_per_s: f64,
    /// Longest time without an answer, s.
    pub silence_s: Option<f64>,
    /// The server's own last words.
    pub end: Option<End>,
    /// How memory went.
    pub memory: Option<Memory>,
    /// Most resident memory of all, KiB.
    pub rss_max_kib: Option<f64>,
    /// Open fds before the load, most of them under it, and after it.
    pub fds_before: Option<u64>,
    /// See [`Self::fds_before`].
    pub fds_max: Option<f64>,
    /// See [`Self::fds_before`].
    pub fds_after: Option<u64>,
    /// Most threads.
    pub threads_max: Option<f64>,
    /// CPU time of the server, cores, median.
    pub cpu_cores: Option<f64>,
    /// Time its main thread could run and had no CPU, s a second, median and most: what a machine
    /// that is shared does to it.
    pub waited_for_cpu: Option<f64>,
    /// See [`Self::waited_for_cpu`].
    pub waited_for_cpu_max: Option<f64>,
    /// Most records in the producer's queue.
    pub producer_queue_max: Option<f64>,
    /// What was sampled, reduced to medians where it was long.
    pub points: Vec<Point>,
}

impl Endured {
    /// Judges what was seen.
    pub fn of(stack: &str, server: String, seen: Seen) -> Self {
        let findings = judge(&seen);
        let all = |figure: fn(&Point) -> Option<f64>| seen.points.iter().filter_map(figure);
        let most = |figure| all(figure).max_by(f64::total_cmp);
        let figures = Figures {
            server,
            time_s: seen.time_s,
            warm_up_s: seen.warm_up_s,
            responses_per_s: per_second(&seen),
            silence_s: seen.silence_s.as_ref().ok().copied(),
            end: seen.end.as_ref().ok().copied(),
            memory: memory(&seen).ok(),
            rss_max_kib: most(|point| point.rss_kib),
            fds_before: seen.fds_before.as_ref().ok().copied(),
            fds_max: most(|point| point.fds),
            fds_after: seen.fds_after.as_ref().ok().copied(),
            threads_max: most(|point| point.threads),
            cpu_cores: median(&mut all(|point| point.cpu_cores).collect::<Vec<_>>()),
            waited_for_cpu: median(&mut all(|point| point.waited_for_cpu).collect::<Vec<_>>()),
            waited_for_cpu_max: most(|point| point.waited_for_cpu),
            producer_queue_max: most(|point| point.producer_queue),
            told: seen.told,
            points: seen.points,
        };
        Self { stack: stack.to_owned(), error: None, findings, figures: Some(figures) }
    }

    /// One that could not be soaked.
    pub fn failed(stack: &str, error: String) -> Self {
        Self { stack: stack.to_owned(), error: Some(error), findings: Vec::new(), figures: None }
    }

    fn any(&self, outcome: Outcome) -> bool {
        self.findings.iter().any(|finding| finding.outcome == outcome)
    }

    /// Whether a rule did not hold.
    pub fn is_broken(&self) -> bool {
        self.any(Outcome::Broken)
    }

    /// Whether every rule was judged, and held.
    pub fn is_fine(&self) -> bool {
        self.error.is_none()
            && !self.findings.is_empty()
            && !self.any(Outcome::Broken)
            && !self.any(Outcome::NotJudged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_judged_and_held_is_fine() {
        let one = |outcome| Endured {
            findings: vec![Finding { rule: "fds", outcome, why: String::new() }],
            ..Endured::failed("tokio", String::new())
        };
        let judged = |outcome| Endured { error: None, ..one(outcome) };
        assert!(judged(Outcome::Held).is_fine() && !judged(Outcome::Held).is_broken());
        assert!(!judged(Outcome::Broken).is_fine() && judged(Outcome::Broken).is_broken());
        assert!(!judged(Outcome::NotJudged).is_fine() && !judged(Outcome::NotJudged).is_broken());
        assert!(!one(Outcome::Held).is_fine(), "not to the end");
        let nothing = Endured { error: None, ..Endured::failed("tokio", String::new()) };
        assert!(!nothing.is_fine(), "no rule was looked at");
    }
}
