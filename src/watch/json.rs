//! The JSON lines of `watch --headless` and `diagnose --json`. Schema: `docs/json.md`.
//!
//! Text from the observed process is escaped: the control characters of ASCII by `serde_json`, those
//! that it lets pass by [`line()`].

use std::fmt::Write;

use serde_json::{Value as Json, json};
use stallscope_probes::Reading;
use stallscope_probes::sample::{ActiveOutcome, ActiveRaw};

use super::event::{Anchor, EndReason, Environment, Event, Target};
use super::words;
use crate::detect::Onset;
use crate::diagnose::verdict::{Evidence, Value, Verdict};
use crate::model::Model;
use crate::model::tiers::{TierModel, TierStatus};

/// The text of one line, without its end: what a terminal takes for a command is escaped.
///
/// `serde_json` escapes what JSON demands, the first 32 control characters. DEL, the C1 controls
/// (U+009B begins a control sequence, as ESC [ does) and those that turn the direction of text pass
/// it. They can stand in strings only, where `\u` means the same.
pub fn line(value: &Json) -> String {
    let text = value.to_string();
    if !text.contains(is_command) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_command(letter) {
            // All of them lie below U+10000: one unit of UTF-16.
            let _ = write!(escaped, "\\u{:04x}", u32::from(letter));
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

/// Controls, and U+061C, U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069 (Unicode Annex 9).
fn is_command(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

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

/// `{"type":"onset"|"verdict"|"recovered"|"forecast"|"note",…}`.
pub fn event(event: &Event, anchor: Anchor) -> Json {
    match event {
        Event::Onset(found) => onset(found, anchor),
        Event::Verdict(found) => verdict(found, anchor),
        Event::Recovered { at_ns, stalled_ms } => json!({
            "type": "recovered",
            "at": anchor.rfc3339(*at_ns),
            "stalled_ms": stalled_ms.round(),
        }),
        Event::Forecast(ahead) => json!({
            "type": "forecast",
            "at": anchor.rfc3339(ahead.at_ns),
            "what": ahead.kind,
            "in_s": ahead.in_s.map(f64::round),
            "used_ratio": (ahead.used_ratio * 1e3).round() / 1e3,
            "text": ahead.text,
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
        "partial": onset.partial,
    })
}

/// `{"type":"verdict",…}`.
pub fn verdict(verdict: &Verdict, anchor: Anchor) -> Json {
    let ruled_out: Vec<Json> = verdict
        .ruled_out
        .iter()
        .map(|out| json!({ "cause": out.cause.id(), "because": out.because }))
        .collect();
    let missing: Vec<Json> = verdict
        .missing
        .iter()
        .map(|missing| json!({ "tier": missing.tier.id(), "why": missing.why }))
        .collect();
    let chain: Vec<Json> = verdict
        .chain
        .iter()
        .map(|link| {
            json!({
                "at": anchor.rfc3339(link.at_ns),
                "at_ns": link.at_ns,
                "part": link.part,
                "what": link.what,
            })
        })
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
        "rests_on": verdict.rests_on.iter().map(|tier| tier.id()).collect::<Vec<_>>(),
        "missing": missing,
        "chain": chain,
        "unknowable": words::unknowable(verdict, anchor),
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
        "tier": evidence.tier.id(),
        "signal": evidence.signal,
        "value": value,
        "unit": evidence.unit,
        "since": evidence.since_ns.map(|since_ns| anchor.rfc3339(since_ns)),
    })
}

/// `{"type":"tiers",…}`: which kinds of evidence there are, and why not the others.
pub fn tiers(model: &Model, anchor: Anchor) -> Json {
    json!({
        "type": "tiers",
        "at": anchor.rfc3339(model.at_ns),
        "tiers": model.tiers.iter().map(tier).collect::<Vec<_>>(),
    })
}

fn tier(model: &TierModel) -> Json {
    let permit = match &model.status {
        TierStatus::Absent { permit, .. } => Some(permit),
        TierStatus::Active | TierStatus::Failed { .. } => None,
    };
    json!({
        "tier": model.tier.id(),
        "meaning": model.tier.meaning(),
        "status": model.status.id(),
        "why": model.status.why(),
        "permit": permit,
    })
}

/// Whether a tier stands otherwise at `now` than at `before`, the tick of the last line that was
/// printed. That a slow probe has had its first turn is no news, nor what the kernel's lock left
/// out for a moment.
pub fn tiers_changed(before: &Model, now: &Model) -> bool {
    now.tiers.iter().any(|model| {
        before.tier(model.tier).is_none_or(|before| model.status.is_news_after(before))
    })
}

/// `{"type":"probe",…}`: one attempt of the active probe.
pub fn probe(raw: &ActiveRaw, anchor: Anchor) -> Json {
    let ms = |us: u32| f64::from(us) / 1e3;
    let (outcome, connect_ms, answer_ms, errno) = match raw.outcome {
        ActiveOutcome::Pending => ("pending", None, None, None),
        ActiveOutcome::Answered { connect_us, answer_us } => {
            ("answered", Some(ms(connect_us)), answer_us.map(ms), None)
        }
        ActiveOutcome::Refused => ("refused", None, None, None),
        ActiveOutcome::ConnectTimeout => ("connect_timeout", None, None, None),
        ActiveOutcome::NoAnswer { connect_us } => ("no_answer", Some(ms(connect_us)), None, None),
        ActiveOutcome::NotMade { errno } => ("not_made", None, None, Some(errno)),
    };
    json!({
        "type": "probe",
        "at": anchor.rfc3339(raw.began_ns),
        "to": raw.target.to_string(),
        "how": raw.plan.how,
        "every_ms": raw.plan.every_ms,
        "outcome": outcome,
        "connect_ms": connect_ms,
        "answer_ms": answer_ms,
        "errno": errno,
        "attempts": raw.attempts,
        "failures_in_a_row": raw.failures_in_a_row,
        "last_success": raw.last_success_ns.map(|at_ns| anchor.rfc3339(at_ns)),
    })
}

/// The last attempt for the one line of `diagnose`: null when none was asked for, the reason when
/// none could be made.
pub fn last_probe(reading: &Reading<ActiveRaw>, is_asked_for: bool, anchor: Anchor) -> Json {
    match reading {
        _ if !is_asked_for => Json::Null,
        Reading::Got(raw) => probe(raw, anchor),
        Reading::Absent(absence) => json!({ "absent": absence }),
    }
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

#[cfg(test)]
mod tests {
    use stallscope_probes::sample::{ActiveHow, ActivePlan, Sample};
    use stallscope_probes::{Probe, Why};

    use super::*;
    use crate::diagnose::verdict::{Link, Part};
    use crate::model::ModelBuilder;
    use crate::model::tiers::Tier;
    use crate::watch::world::{Kind, Phase, World, run};

    #[test]
    fn no_line_commands_a_terminal_and_every_line_means_what_it_meant() {
        let hostile = "a\u{1b}[31m\u{9b}31m\u{7f}\u{85}\u{202e}fdp\u{2066}é\"\\\n";
        let value = json!({ "comm": hostile, hostile: 1 });
        let line = line(&value);
        assert!(!line.contains(is_command), "{line}");
        assert!(line.contains("\\u009b31m\\u007f") && line.contains('é'), "{line}");
        assert_eq!(serde_json::from_str::<Json>(&line).unwrap(), value);
    }

    const KIND: Kind = Kind { ring: true, page: true, rights: true };
    const ANCHOR: Anchor = Anchor { mono_ns: 0, real_ns: 0 };

    fn model(change: impl Fn(&mut Sample)) -> Model {
        let mut sample = World::new(KIND).tick(Phase::Busy);
        change(&mut sample);
        ModelBuilder::new(100, 100).push(&sample)
    }

    fn lose_listeners(sample: &mut Sample, why: Why) {
        sample.listeners.reading = Reading::absent(why, "\u{1b}[2J");
    }

    #[test]
    fn every_tier_has_its_line_with_reason_and_remedy() {
        let line = tiers(&model(|sample| lose_listeners(sample, Why::NotPermitted)), ANCHOR);
        assert_eq!((line["type"].as_str(), line["at"].is_string()), (Some("tiers"), true));
        let list = line["tiers"].as_array().unwrap();
        let ids: Vec<&str> = list.iter().map(|tier| tier["tier"].as_str().unwrap()).collect();
        assert_eq!(ids, Tier::ALL.map(Tier::id));
        for tier in list {
            let active = tier["status"] == "active";
            assert_eq!(tier["why"].is_null(), active, "{tier}");
            assert_eq!(tier["permit"].is_null(), active, "{tier}");
        }
        let listeners = &list[Tier::Listeners as usize];
        assert_eq!(listeners["status"], "absent");
        assert!(listeners["permit"].as_str().unwrap().contains("run as root"));
        assert!(line.to_string().contains(r"\u001b[2J"), "escaped: {line}");
        let line = tiers(&model(|sample| lose_listeners(sample, Why::Failed)), ANCHOR);
        let listeners = &line["tiers"][Tier::Listeners as usize];
        assert_eq!(
            (listeners["status"].as_str(), listeners["permit"].is_null()),
            (Some("failed"), true)
        );
    }

    #[test]
    fn a_change_is_what_comes_or_goes_for_good() {
        let whole = model(|_| {});
        let late = model(|sample| sample.sockets = Probe::not_sampled("not read yet"));
        let lost = model(|sample| lose_listeners(sample, Why::NotPermitted));
        assert!(!tiers_changed(&whole, &whole));
        assert!(!tiers_changed(&late, &whole), "its first turn");
        assert!(!tiers_changed(&whole, &late));
        assert!(tiers_changed(&whole, &lost));
        assert!(tiers_changed(&lost, &whole));
        let none = Model { tiers: [].into(), ..whole.clone() };
        assert!(tiers_changed(&none, &whole), "the first line");
    }

    #[test]
    fn an_attempt_has_one_line_with_what_came_of_it() {
        let raw = |outcome| ActiveRaw {
            plan: ActivePlan { how: ActiveHow::Http, every_ms: 1_000 },
            target: ([127, 0, 0, 1], 8080).into(),
            began_ns: 1_500_000_000,
            outcome,
            attempts: 34,
            failures_in_a_row: 0,
            last_success_ns: Some(1_000_000_000),
        };
        let line =
            probe(&raw(ActiveOutcome::Answered { connect_us: 85, answer_us: Some(400) }), ANCHOR);
        assert_eq!((&line["type"], &line["how"]), (&json!("probe"), &json!("http")));
        assert_eq!(
            (&line["to"], &line["at"]),
            (&json!("127.0.0.1:8080"), &json!("1970-01-01T00:00:01.500Z"))
        );
        assert_eq!((&line["connect_ms"], &line["answer_ms"]), (&json!(0.085), &json!(0.4)));
        let line = probe(&raw(ActiveOutcome::NotMade { errno: 99 }), ANCHOR);
        assert_eq!((&line["outcome"], &line["errno"]), (&json!("not_made"), &json!(99)));
        assert!(line["answer_ms"].is_null() && line["connect_ms"].is_null());

        let none = Reading::absent(Why::NotPermitted, "no");
        assert!(last_probe(&none, false, ANCHOR).is_null());
        assert_eq!(last_probe(&none, true, ANCHOR)["absent"]["why"], "not_permitted");
    }

    #[test]
    fn chain_and_what_cannot_be_known_are_in_the_line_of_a_verdict() {
        let outcome = run(KIND, &[(Phase::Busy, 60), (Phase::Yield, 60)]);
        let mut found = outcome.verdicts.last().unwrap().clone();
        let what = String::from("thread \u{9b}2J");
        found.chain = vec![Link { at_ns: 2_000_000_000, what, part: Part::Consequence }];
        (found.unknowable, found.before_watch) = (Vec::new(), true);
        let line = verdict(&found, ANCHOR);
        assert_eq!(line["chain"][0]["at"], "1970-01-01T00:00:02.000Z");
        assert_eq!(line["chain"][0]["part"], "consequence");
        assert_eq!(line["unknowable"][0], "when it began: it was so when watching began");
        assert!(super::line(&line).contains("\\u009b2J"), "escaped");
    }

    #[test]
    fn a_verdict_names_what_it_rests_on_and_what_it_misses() {
        let outcome = run(KIND, &[(Phase::Busy, 60), (Phase::Yield, 60)]);
        let line = verdict(outcome.verdicts.last().unwrap(), ANCHOR);
        assert_eq!(line["rests_on"], json!(["threads", "listeners", "ring-memory"]));
        assert_eq!(line["evidence"][0]["tier"], "ring-memory");
        let missing = line["missing"].as_array().unwrap();
        let of = |tier: &str| missing.iter().find(|one| one["tier"] == tier);
        assert!(of("pressure").unwrap()["why"].as_str().unwrap().contains("no pressure"));
        assert!(of("ring-memory").is_none() && of("threads").is_none());
    }
}
