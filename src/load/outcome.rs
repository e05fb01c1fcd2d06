//! The result of a run, as a table and as JSON. Pure. `docs/load.md` documents the JSON.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::plan::Plan;
use super::tally::{Failure, FailureKind, Tally};

/// Statuses and failures shown in the table.
const LINES_MAX: usize = 40;

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was asked for.
    pub plan: Plan,
    /// The address that was loaded.
    pub address: SocketAddr,
    /// What was counted.
    pub tally: Tally,
    /// How long it took.
    pub elapsed: Duration,
    /// Open loop: requests that were due and never sent, because no connection was free.
    pub overdue: Option<u64>,
}

impl Outcome {
    /// Whole responses per second.
    pub fn rate(&self) -> f64 {
        let elapsed_s = self.elapsed.as_secs_f64();
        if elapsed_s > 0.0 { self.tally.responses as f64 / elapsed_s } else { 0.0 }
    }

    /// Every error with its count, most frequent first: failures, and statuses outside 2xx.
    fn errors(&self) -> Vec<(String, String, Option<i32>, u64)> {
        let failures = self.tally.failures().map(|(failure, count)| {
            (failure.kind.id().to_owned(), label_of(failure), failure.errno, count)
        });
        let statuses = self.tally.by_status().filter(|(status, _)| !(200..300).contains(status));
        let statuses = statuses.map(|(status, count)| {
            (format!("http_{status}"), format!("HTTP status {status}"), None, count)
        });
        let mut errors: Vec<_> = failures.chain(statuses).collect();
        errors.sort_by(|a, b| b.3.cmp(&a.3).then_with(|| a.0.cmp(&b.0)));
        errors
    }

    /// One JSON object.
    pub fn to_json(&self) -> Value {
        let tally = &self.tally;
        let by_status: serde_json::Map<_, _> = tally
            .by_status()
            .map(|(status, count)| (status.to_string(), Value::from(count)))
            .collect();
        let errors: Vec<_> = self
            .errors()
            .into_iter()
            .map(|(kind, _, errno, count)| json!({"kind": kind, "errno": errno, "count": count}))
            .collect();
        json!({
            "url": format!("http://{}{}", self.plan.target.authority(), self.plan.path()),
            "address": self.address.to_string(),
            "method": self.plan.method_name(),
            "connections": self.plan.connections,
            "close": self.plan.close,
            "rate_asked": self.plan.rate,
            "duration_s": self.elapsed.as_secs_f64(),
            "requests": tally.requests,
            "responses": tally.responses,
            "accepted_2xx": tally.accepted_2xx(),
            "unfinished": tally.in_flight(),
            "overdue": self.overdue,
            "rate": self.rate(),
            "connections_opened": tally.connections_opened,
            "responses_by_status": by_status,
            "errors": errors,
            "latency_us": self.latency_json(),
        })
    }

    /// `null` without a response: no latency is not a latency of zero.
    fn latency_json(&self) -> Value {
        let latency = self.tally.latency_us();
        if latency.is_empty() {
            return Value::Null;
        }
        json!({
            "p50": latency.value_at_quantile(0.5),
            "p90": latency.value_at_quantile(0.9),
            "p99": latency.value_at_quantile(0.99),
            "p999": latency.value_at_quantile(0.999),
            "max": latency.max(),
            "mean": latency.mean(),
        })
    }

    /// Lines for people.
    pub fn to_table(&self) -> String {
        let plan = &self.plan;
        let tally = &self.tally;
        let mut table = String::new();
        let kept = if plan.close { "a connection per request" } else { "keep-alive" };
        let plural = if plan.connections == 1 { "" } else { "s" };
        let pace = match plan.rate {
            None => String::from("closed loop"),
            Some(rate) => format!("open loop at {}/s", grouped(rate)),
        };
        let mut line = |label: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(table, "{}", format!("  {label:<13}{value}").trim_end());
        };
        let url = format!("http://{}{}", plan.target.authority(), plan.path());
        line(plan.method_name(), &url);
        line(
            "",
            &format!("{} connection{plural}, {kept}, {pace}", grouped(plan.connections as u64)),
        );
        line("duration", &format!("{:.2} s", self.elapsed.as_secs_f64()));
        let rate = grouped(self.rate().round() as u64);
        line("responses", &format!("{} ({rate}/s)", grouped(tally.responses)));
        for (status, count) in tally.by_status().take(LINES_MAX) {
            line("", &format!("{:>12}  HTTP status {status}", grouped(count)));
        }
        line("connections", &format!("{} opened", grouped(tally.connections_opened)));
        if tally.in_flight() > 0 {
            line("unfinished", &format!("{} under way at the end", grouped(tally.in_flight())));
        }
        if let Some(overdue) = self.overdue.filter(|overdue| *overdue > 0) {
            line(
                "overdue",
                &format!("{} due, never sent: no connection was free", grouped(overdue)),
            );
        }
        line("latency", &self.latency_line());
        let errors = self.errors();
        if errors.is_empty() {
            line("errors", "none");
        }
        for (index, (_, label, _, count)) in errors.iter().take(LINES_MAX).enumerate() {
            let heading = if index == 0 { "errors" } else { "" };
            line(heading, &format!("{:>12}  {label}", grouped(*count)));
        }
        table
    }

    fn latency_line(&self) -> String {
        let latency = self.tally.latency_us();
        if latency.is_empty() {
            return String::from("no response, so none");
        }
        let at = |quantile| human_us(latency.value_at_quantile(quantile));
        format!(
            "p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            human_us(latency.max())
        )
    }

    /// When no request succeeded: one sentence that says what stood in the way, and what to do.
    pub fn failure(&self) -> Option<String> {
        if self.tally.accepted_2xx() > 0 {
            return None;
        }
        let address = self.address;
        let Some((kind, label, _, count)) = self.errors().into_iter().next() else {
            let waited = self.elapsed.as_secs_f64();
            return Some(format!(
                "no request succeeded: {address} neither answered nor failed in {waited:.1} s; it \
                 may be stalled, so see what it is waiting for with: stallscope diagnose PID"
            ));
        };
        let advice = advice_for(&kind);
        Some(format!(
            "no request succeeded: mostly {label} ({} times) at {address}; {advice}",
            grouped(count)
        ))
    }
}

/// In words, with the errno's name or number.
fn label_of(failure: Failure) -> String {
    let label = failure.kind.label();
    match failure.errno {
        None => label.to_owned(),
        Some(errno) => match errno_name(errno) {
            Some(name) => format!("{label} ({name})"),
            None => format!("{label} (errno {errno})"),
        },
    }
}

/// Names of the errnos a client meets; numbers differ between architectures, so rustix knows them.
fn errno_name(errno: i32) -> Option<&'static str> {
    use rustix::io::Errno;
    let names = [
        (Errno::CONNREFUSED, "ECONNREFUSED"),
        (Errno::ADDRNOTAVAIL, "EADDRNOTAVAIL"),
        (Errno::TIMEDOUT, "ETIMEDOUT"),
        (Errno::CONNRESET, "ECONNRESET"),
        (Errno::CONNABORTED, "ECONNABORTED"),
        (Errno::PIPE, "EPIPE"),
        (Errno::MFILE, "EMFILE"),
        (Errno::NFILE, "ENFILE"),
        (Errno::HOSTUNREACH, "EHOSTUNREACH"),
        (Errno::NETUNREACH, "ENETUNREACH"),
        (Errno::ACCESS, "EACCES"),
        (Errno::PERM, "EPERM"),
        (Errno::NOBUFS, "ENOBUFS"),
        (Errno::NOMEM, "ENOMEM"),
        (Errno::INVAL, "EINVAL"),
    ];
    names.iter().find(|(known, _)| known.raw_os_error() == errno).map(|(_, name)| *name)
}

fn advice_for(kind: &str) -> &'static str {
    let is = |other: FailureKind| kind == other.id();
    if is(FailureKind::ConnectRefused) {
        "nothing listens there, so start the server or correct the URL"
    } else if is(FailureKind::AddrNotAvailable) {
        "wait for TIME_WAIT to pass, use fewer connections, or drop --close"
    } else if is(FailureKind::ConnectTimeout) {
        "its accept queue may be full, so see why with: stallscope diagnose PID"
    } else if is(FailureKind::RequestTimeout) {
        "it accepts and does not answer, so see why with: stallscope diagnose PID"
    } else if is(FailureKind::NoFd) {
        "raise the limit with ulimit -n, or use fewer --connections"
    } else if is(FailureKind::Malformed) {
        "what listens there does not speak HTTP/1.1"
    } else if is(FailureKind::Reset) || is(FailureKind::UnexpectedEof) {
        "the server ends connections without an answer, so look into its log"
    } else if kind.starts_with("http_") {
        "the server is up and refuses the request, so check the path and the method"
    } else {
        "check the address and the network in between"
    }
}

/// 1234567 as `1 234 567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// With three digits, in the unit that fits.
fn human_us(us: u64) -> String {
    let (value, unit) = match us {
        0..1_000 => return format!("{us} µs"),
        1_000..1_000_000 => (us as f64 / 1e3, "ms"),
        _ => (us as f64 / 1e6, "s"),
    };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
mod tests;
