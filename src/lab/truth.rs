//! Compares a verdict with what the faulty server itself wrote down.

use stallscope_probes::sample::FaultRaw;

use crate::diagnose::verdict::Confidence;
use crate::watch::event::Incident;

/// An onset further from the truth than this is wrong.
pub const ONSET_ERROR_MS_MAX: f64 = 250.0;

/// What is wrong with a run; empty when everything is right.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// The fault, as its maker recorded it.
    pub truth: Option<FaultRaw>,
    /// Onset found minus onset true, ms.
    pub onset_error_ms: Option<f64>,
    /// From the fault to the verdict, ms.
    pub named_after_ms: Option<f64>,
    /// Every failure, one sentence each.
    pub failures: Vec<String>,
}

/// Judges a run: the fault must be named, surely enough, and dated.
pub fn judge(incident: &Incident) -> Judgement {
    let page = incident.models.iter().rev().find_map(|model| model.app.got()?.raw.fault);
    let mut failures = Vec::new();
    let (Some(truth), Some(verdict)) = (page, incident.verdict()) else {
        if page.is_none() {
            failures.push(String::from("the server recorded no fault"));
        }
        if incident.verdict().is_none() {
            failures.push(String::from("no verdict was given"));
        }
        return Judgement { truth: page, onset_error_ms: None, named_after_ms: None, failures };
    };
    if verdict.cause.id() != truth.fault.id() {
        failures.push(format!(
            "the fault was {}, the verdict {}",
            truth.fault.id(),
            verdict.cause.id()
        ));
    }
    if verdict.confidence == Confidence::Possible {
        failures.push(String::from("the verdict is no surer than possible"));
    }
    let difference_ms = |at_ns: u64| (at_ns as f64 - truth.begin_ns as f64) / 1e6;
    let onset_error_ms = verdict.onset_ns.map(difference_ms);
    match onset_error_ms {
        Some(error_ms) if error_ms.abs() <= ONSET_ERROR_MS_MAX => {}
        Some(error_ms) => failures.push(format!("the onset is off by {error_ms:.0} ms")),
        None => failures.push(String::from("the onset was not found")),
    }
    Judgement {
        truth: Some(truth),
        onset_error_ms,
        named_after_ms: Some(difference_ms(verdict.detected_ns)),
        failures,
    }
}
