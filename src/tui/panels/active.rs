//! What the watcher's own connections met with, in words.
//!
//! ```text
//! probe http every 1.0 s, 34 attempts, last answered in 0.4 ms
//! probe http every 1.0 s, 34 attempts, 3 failures in a row: no answer, last success 5.2 s ago
//! ```

use ratatui::text::Line;
use stallscope_probes::sample::{ActiveOutcome, ActiveRaw};
use stallscope_probes::{Reading, Why};

use super::super::theme::Theme;
use super::super::units;
use super::{Row, absent};
use crate::model::Model;

/// errno of a connection for which no local port is left (connect(2)).
const EADDRNOTAVAIL: i32 = 99;

/// All that is known of it, in one sentence. The time since the last success needs an instant.
pub fn words(raw: &ActiveRaw, now_ns: Option<u64>) -> String {
    let at = format!("{} to {}", head(raw), raw.target);
    let more = if raw.failures_in_a_row > 0 { last_success(raw, now_ns) } else { String::new() };
    format!("{at}, {}, {}{more}", attempts(raw), outcome(raw))
}

/// `http every 1.0 s`.
fn head(raw: &ActiveRaw) -> String {
    format!("{} every {}", raw.plan.how.id(), units::span_ms(f64::from(raw.plan.every_ms)))
}

fn attempts(raw: &ActiveRaw) -> String {
    match raw.attempts {
        1 => String::from("1 attempt"),
        many => format!("{} attempts", units::count(many)),
    }
}

/// What came of the last attempt, after how many that failed.
fn outcome(raw: &ActiveRaw) -> String {
    let failed = match raw.failures_in_a_row {
        0 => String::new(),
        1 => String::from("1 failure"),
        many => format!("{many} failures in a row"),
    };
    let us = |us: u32| units::span_ns(u64::from(us) * 1_000);
    let last = match raw.outcome {
        ActiveOutcome::Pending => String::from("one is under way"),
        ActiveOutcome::Answered { answer_us: Some(answer_us), .. } => {
            format!("last answered in {}", us(answer_us))
        }
        ActiveOutcome::Answered { connect_us, answer_us: None } => {
            format!("last connected in {}", us(connect_us))
        }
        ActiveOutcome::Refused => String::from("refused"),
        ActiveOutcome::ConnectTimeout => String::from("no connection"),
        ActiveOutcome::NoAnswer { .. } => String::from("no answer"),
        ActiveOutcome::NotMade { errno: EADDRNOTAVAIL } => {
            String::from("last not made: no local port is left (EADDRNOTAVAIL)")
        }
        ActiveOutcome::NotMade { errno } => format!("last not made: errno {errno}"),
    };
    match (failed.is_empty(), raw.outcome) {
        (true, _) => last,
        // The failures are those before it.
        (false, ActiveOutcome::Pending) => format!("{failed}, {last}"),
        (false, _) => format!("{failed}: {last}"),
    }
}

fn last_success(raw: &ActiveRaw, now_ns: Option<u64>) -> String {
    match (raw.last_success_ns, now_ns) {
        (None, _) => String::from(", never a success"),
        (Some(_), None) => String::new(),
        (Some(at_ns), Some(now_ns)) => {
            format!(", last success {} ago", units::span_ns(now_ns.saturating_sub(at_ns)))
        }
    }
}

/// Whether the last attempts failed.
pub(super) fn is_failing(model: &Model) -> bool {
    model.active.got().is_some_and(|raw| raw.failures_in_a_row > 0)
}

/// Its line in a panel; `None` when no probe was asked for.
pub(super) fn line(model: &Model, width: u16, theme: Theme) -> Option<Line<'static>> {
    let row = Row::new(width).text("probe ", theme.label());
    match &model.active {
        Reading::Absent(absence) if absence.why == Why::Unsupported => None,
        Reading::Absent(absence) => {
            let columns = row.left;
            Some(row.text(&absent(absence, columns), theme.dim()).done())
        }
        Reading::Got(raw) => {
            let not_made = matches!(raw.outcome, ActiveOutcome::NotMade { .. });
            let style = if raw.failures_in_a_row > 0 {
                theme.bad()
            } else if not_made {
                theme.warn()
            } else {
                theme.plain()
            };
            let (head, attempts, outcome) = (head(raw), attempts(raw), outcome(raw));
            let ago = if raw.failures_in_a_row > 0 {
                last_success(raw, Some(model.at_ns))
            } else {
                String::new()
            };
            let how = raw.plan.how.id();
            let choices = [
                format!("{head}, {attempts}, {outcome}{ago}"),
                format!("{head}, {attempts}, {outcome}"),
                format!("{how} ({}): {outcome}", raw.attempts),
                format!("{how}: {outcome}"),
                outcome,
            ];
            Some(row.first_that_fits(&choices, style).done())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::fixtures;

    #[test]
    fn the_words_for_what_an_attempt_met_with() {
        let raw =
            fixtures::probed(ActiveOutcome::Answered { connect_us: 90, answer_us: Some(400) });
        assert_eq!(
            words(&raw, None),
            "http every 1.0 s to 127.0.0.1:8080, 34 attempts, last answered in 0.4 ms"
        );
        let mut failing = fixtures::probed(ActiveOutcome::NoAnswer { connect_us: 90 });
        failing.failures_in_a_row = 3;
        let now_ns = failing.last_success_ns.map(|at_ns| at_ns + 5_200_000_000);
        assert_eq!(
            words(&failing, now_ns),
            "http every 1.0 s to 127.0.0.1:8080, 34 attempts, 3 failures in a row: no answer, last success 5.2 s ago"
        );
        failing.outcome = ActiveOutcome::Pending;
        assert_eq!(outcome(&failing), "3 failures in a row, one is under way");
        failing.last_success_ns = None;
        failing.outcome = ActiveOutcome::Refused;
        assert!(words(&failing, now_ns).ends_with("refused, never a success"));
        let port = outcome(&fixtures::probed(ActiveOutcome::NotMade { errno: EADDRNOTAVAIL }));
        assert!(port.contains("no local port is left"), "{port}");
    }
}
