//! The JSON lines of `watch --headless` and `diagnose --json`. Schema: `docs/json.md`.
//!
//! Text from the observed process is escaped by `serde_json`, control characters included.

use serde_json::{Value as Json, json};

use super::event::{Anchor, EndReason, Environment, Event, Target};
use crate::detect::Onset;
use crate::diagnose::verdict::{Evidence, Value, Verdict};
use crate::model::Model;

/// `{"type":"target",…}`.
pub fn target(target: &Target, environment: &Environment, anchor: Anchor) -> Json {
    json!({
        "type": "target",
        "pid": target.pid,
        "comm": target.comm,
        "cmdline": target.cmdline,
        "exe": target.exe,
        "siblings": target.siblings,
        "foreign_netns": target.foreign_netns,
        "began": anchor.rfc3339(anchor.mono_ns),
        "interval_ms": environment.interval_ms,
        "kernel": environment.kernel,
        "version": environment.version,
        "limits": environment.limits,
    })
}

/// `{"type":"onset"|"verdict"|"recovered"|"note",…}`.
pub fn event(event: &Event, anchor: Anchor) -> Json {
    match event {
        Event::Onset(found) => onset(found, anchor),
        Event::Verdict(found) => verdict(found, anchor),
        Event::Recovered { at_ns, stalled_ms } => json!({
            "type": "recovered",
            "at": anchor.rfc3339(*at_ns),
            "stalled_ms": stalled_ms.round(),
        }),
        Event::Note { at_ns, text } => {
            json!({ "type": "note", "at": anchor.rfc3339(*at_ns), "text": text })
        }
    }
}

fn onset(onset: &Onset, anchor: Anchor) -> Json {
    json!({
        "type": "onset",
        "onset": anchor.rfc3339(onset.at_ns),
        "onset_ns": onset.at_ns,
        "within_ms": onset.within_ns as f64 / 1e6,
        "before_watch": onset.before_watch,
        "detected": anchor.rfc3339(onset.detected_ns),
        "kind": onset.kind,
        "demand": onset.demand,
        "last_progress": onset.last_progress,
    })
}

/// `{"type":"verdict",…}`.
pub fn verdict(verdict: &Verdict, anchor: Anchor) -> Json {
    let ruled_out: Vec<Json> = verdict
        .ruled_out
        .iter()
        .map(|out| json!({ "cause": out.cause.id(), "because": out.because }))
        .collect();
    let evidence: Vec<Json> = verdict.evidence.iter().map(|one| evidence(one, anchor)).collect();
    json!({
        "type": "verdict",
        "onset": verdict.onset_ns.map(|onset_ns| anchor.rfc3339(onset_ns)),
        "onset_ns": verdict.onset_ns,
        "before_watch": verdict.before_watch,
        "detected": anchor.rfc3339(verdict.detected_ns),
        "cause": verdict.cause.id(),
        "confidence": verdict.confidence.id(),
        "summary": verdict.summary,
        "evidence": evidence,
        "ruled_out": ruled_out,
        "next": verdict.next,
    })
}

fn evidence(evidence: &Evidence, anchor: Anchor) -> Json {
    let value = match &evidence.value {
        // Three decimals are more than any of these is good for.
        Value::Number(number) => json!((number * 1e3).round() / 1e3),
        Value::Text(text) => json!(text),
    };
    json!({
        "signal": evidence.signal,
        "value": value,
        "unit": evidence.unit,
        "since": evidence.since_ns.map(|since_ns| anchor.rfc3339(since_ns)),
    })
}

/// `{"type":"sample",…}`: the model of one tick.
pub fn sample(model: &Model, anchor: Anchor) -> Json {
    json!({ "type": "sample", "at": anchor.rfc3339(model.at_ns), "model": model })
}

/// `{"type":"end",…}`.
pub fn end(reason: EndReason, at_ns: u64, stalls: u64, ticks: u64, anchor: Anchor) -> Json {
    json!({
        "type": "end",
        "at": anchor.rfc3339(at_ns),
        "reason": reason,
        "stalls": stalls,
        "samples": ticks,
    })
}
