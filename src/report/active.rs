//! The watcher's own connections to the process: how many, and what they met with.

use stallscope_probes::sample::{ActiveOutcome, ActivePlan};

use super::facts::Facts;
use super::names;
use super::text::{count, duration_ms, plural, shown};

/// What was seen of them in the ticks.
#[derive(Debug, Default)]
struct Seen {
    /// By the last attempt's own count.
    attempts: u64,
    answered: u64,
    refused: u64,
    no_connection: u64,
    no_answer: u64,
    /// Not made, and with which errno last.
    not_made: (u64, i32),
    plan: Option<ActivePlan>,
    target: Option<std::net::SocketAddr>,
    /// Sum and greatest of the times to connection or answer, ms.
    took_ms: (f64, f64),
}

impl Seen {
    fn of(facts: &Facts<'_>) -> Self {
        let mut seen = Self::default();
        let mut told = 0;
        for raw in facts.incident.models.iter().filter_map(|model| model.active.got()) {
            seen.attempts = seen.attempts.max(raw.attempts);
            (seen.plan, seen.target) = (Some(raw.plan), Some(raw.target));
            // An outcome is carried along from tick to tick: once is enough.
            if raw.attempts <= told || raw.outcome == ActiveOutcome::Pending {
                continue;
            }
            told = raw.attempts;
            seen.count(raw.outcome);
        }
        seen
    }

    fn count(&mut self, outcome: ActiveOutcome) {
        match outcome {
            ActiveOutcome::Pending => {}
            ActiveOutcome::Answered { connect_us, answer_us } => {
                self.answered += 1;
                let ms = f64::from(answer_us.unwrap_or(connect_us)) / 1e3;
                self.took_ms = (self.took_ms.0 + ms, self.took_ms.1.max(ms));
            }
            ActiveOutcome::Refused => self.refused += 1,
            ActiveOutcome::ConnectTimeout => self.no_connection += 1,
            ActiveOutcome::NoAnswer { .. } => self.no_answer += 1,
            ActiveOutcome::NotMade { errno } => self.not_made = (self.not_made.0 + 1, errno),
        }
    }

    /// `31 were answered (0.4 ms on average, 0.9 ms at most), 3 got no answer`.
    fn outcomes(&self) -> String {
        let mut said = Vec::new();
        let mut say = |number: u64, words: &str| {
            if number > 0 {
                let were = if number == 1 { "was" } else { "were" };
                said.push(format!("{} {}", count(number), words.replace("WERE", were)));
            }
        };
        let (sum, most) = self.took_ms;
        let times = format!(
            "WERE answered ({} on average, {} at most)",
            duration_ms(sum / self.answered.max(1) as f64),
            duration_ms(most)
        );
        say(self.answered, &times);
        say(self.refused, "WERE refused");
        say(self.no_connection, "came to no connection in time");
        say(self.no_answer, "got no answer in time");
        let (not_made, errno) = self.not_made;
        say(not_made, &format!("could not be made ({})", names::errno(errno)));
        said.join(", ")
    }
}

/// One or two sentences; `None` when no connection of its own was asked for.
pub(super) fn sentences(facts: &Facts<'_>) -> Option<String> {
    let seen = Seen::of(facts);
    let (plan, target) = (seen.plan?, seen.target?);
    let made = seen.attempts.saturating_sub(seen.not_made.0);
    let outcomes = seen.outcomes();
    let outcomes =
        if outcomes.is_empty() { String::new() } else { format!(" Of those seen, {outcomes}.") };
    Some(format!(
        "The watcher made {} of its own (--probe {}, every {}) to {}; all else it only read.{outcomes}",
        plural(made, "connection", "connections"),
        plan.how.id(),
        duration_ms(f64::from(plan.every_ms)),
        shown(&target.to_string()),
    ))
}
