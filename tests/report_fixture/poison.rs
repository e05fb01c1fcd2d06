//! Hostile text in every place that a process can fill.

use std::sync::Arc;

use stallscope::diagnose::verdict::{Link, Part};
use stallscope::watch::event::{Event, Incident};

use super::{accept_not_armed, sq_not_flushed};

/// Puts a text into every place that the process, its profile or a damaged recording can fill.
fn poison(incident: &mut Incident, text: &str) {
    let put = |slot: &mut String| text.clone_into(slot);
    put(&mut incident.target.comm);
    put(&mut incident.target.cmdline);
    incident.target.exe = Some(text.into());
    put(&mut incident.environment.kernel);
    put(&mut incident.environment.version);
    incident.environment.limits = vec![text.to_owned()];
    incident.losses = vec![text.to_owned()];
    for event in &mut incident.events {
        match event {
            Event::Onset(onset) => {
                put(&mut onset.demand);
                put(&mut onset.last_progress);
                onset.partial = Some(text.to_owned());
            }
            Event::Verdict(verdict) => {
                put(&mut verdict.summary);
                verdict.next = vec![text.to_owned()];
                verdict.unknowable = vec![text.to_owned()];
                let link = |part| Link { at_ns: 1, what: text.to_owned(), part };
                verdict.chain = vec![link(Part::Cause), link(Part::Consequence)];
                for item in &mut verdict.evidence {
                    put(&mut item.signal);
                    put(&mut item.unit);
                    item.value = stallscope::diagnose::verdict::Value::Text(text.to_owned());
                }
                verdict.ruled_out.iter_mut().for_each(|item| text.clone_into(&mut item.because));
                verdict.missing.iter_mut().for_each(|item| text.clone_into(&mut item.why));
            }
            Event::Forecast(forecast) => put(&mut forecast.text),
            Event::Note { text: note, .. } => put(note),
            Event::Recovered { .. } => {}
        }
    }
    for model in incident.models.iter_mut().map(Arc::make_mut) {
        poison_model(model, text);
    }
    for profile in &mut incident.profiles {
        profile.folded = format!("{text};inner;{text} 3\nouter;{text};leaf 5\n");
        profile.notes = vec![text.to_owned()];
    }
    for taken in &mut incident.stacks {
        taken.notes = vec![text.to_owned()];
        for thread in &mut taken.threads {
            put(&mut thread.name);
            put(&mut thread.how);
            thread.syscall = Some(text.to_owned());
            thread.state = text.chars().next().unwrap_or('?');
            for frame in &mut thread.frames {
                put(&mut frame.function);
                frame.place = frame.place.as_ref().map(|_| text.to_owned());
                frame.module = frame.module.as_ref().map(|_| text.to_owned());
            }
        }
    }
}

fn poison_model(model: &mut stallscope::model::Model, text: &str) {
    use stallscope::model::tiers::TierStatus;
    use stallscope_probes::sample::RingSource;
    use stallscope_probes::{Absence, Reading, Why};
    if let Reading::Got(threads) = &mut model.threads {
        for thread in Arc::make_mut(threads).iter_mut().map(Arc::make_mut) {
            text.clone_into(&mut thread.comm);
            thread.wchan = Reading::Got(text.to_owned());
            thread.syscall = Reading::absent(Why::Failed, text);
            if let Reading::Got(stack) = &mut thread.kernel_stack {
                *stack = vec![text.to_owned()];
            }
        }
    }
    if let Reading::Got(rings) = &mut model.rings {
        for ring in Arc::make_mut(rings) {
            let detail = text.to_owned();
            ring.source = RingSource::Fdinfo(Absence { why: Why::NotPermitted, detail });
            if let Reading::Got(state) = &mut ring.state
                && let Reading::Got(pending) = &mut state.pending
            {
                for (opcode, _) in pending {
                    text.clone_into(opcode);
                }
            }
        }
    }
    model.fds = Reading::absent(Why::Malformed, text);
    model.fd_kinds = Reading::absent(Why::Malformed, text);
    model.pressure = Reading::absent(Why::Malformed, text);
    for tier in Arc::make_mut(&mut model.tiers) {
        if !tier.status.is_active() {
            let absence = Absence { why: Why::NotPermitted, detail: text.to_owned() };
            tier.status = TierStatus::without(tier.tier, &absence);
        }
    }
    model.served = Reading::absent(Why::Malformed, text);
    model.tables = Reading::absent(Why::Malformed, text);
    model.epolls = Reading::absent(Why::Malformed, text);
    model.active = Reading::absent(Why::Malformed, text);
}

/// A short run with everything in it.
fn small() -> Incident {
    let mut incident = sq_not_flushed();
    incident.models = incident.models.iter().step_by(20).cloned().collect();
    incident.profiles = [2, 10, 14, 18].map(|n| incident.profiles[n].clone()).to_vec();
    let foreseen = accept_not_armed().events.swap_remove(0);
    assert!(matches!(foreseen, Event::Forecast(_)));
    incident.events.push(foreseen);
    incident
}

/// That run with `text` everywhere.
pub fn poisoned(text: &str) -> Incident {
    let mut incident = small();
    poison(&mut incident, text);
    incident
}
