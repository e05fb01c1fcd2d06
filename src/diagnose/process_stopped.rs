//! `process-stopped`: SIGSTOP, a tracer, or a frozen cgroup holds the whole process.
//!
//! Looks at the state letter of `/proc/PID/stat` (proc(5): T stopped, t tracing stop) and at
//! `cgroup.events: frozen` (cgroup-v2, "Core Interface Files").

use stallscope_probes::sample::TaskState;

use super::case::{Case, word};
use super::verdict::Confidence;
use super::{Account, Finding};
use crate::model::Model;
use crate::model::tiers::Tier;

pub(super) const NEXT: &[&str] = &[
    "Find out who stopped it: a shell job (Ctrl-Z), a debugger, a checkpoint tool, a container runtime's pause.",
    "Let it go on with `kill -CONT PID`, or thaw its cgroup by writing 0 to cgroup.freeze.",
    "This is no fault of the server: do not restart it before you know who stopped it.",
];

/// Ticks that must agree.
const TICKS_MIN: usize = 3;

pub(super) fn held(model: &Model) -> Option<bool> {
    let state = model.process.got()?.state;
    let frozen = model.frozen.got().copied() == Some(true);
    Some(matches!(state, TaskState::Stopped | TaskState::Tracing) || frozen)
}

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let Some(last) = case.last() else {
        return Finding::Missing(String::from("no sample was taken."));
    };
    let Some(process) = last.process.got() else {
        return Finding::Missing(String::from("the state of the process could not be read."));
    };
    let judged = case.judged();
    let agreeing = judged.iter().rev().take_while(|model| held(model) == Some(true)).count();
    if agreeing < TICKS_MIN.min(judged.len().max(1)) {
        return Finding::Excluded(format!(
            "The process is not stopped: its state is {} and its cgroup is not frozen.",
            process.state.letter()
        ));
    }
    let since_ns = case.since(held);
    let by = match process.state {
        TaskState::Stopped => "by a signal (SIGSTOP, SIGTSTP, SIGTTIN or SIGTTOU)",
        TaskState::Tracing => "by a tracer (a debugger, strace)",
        _ => "by its cgroup's freezer",
    };
    let mut evidence =
        vec![word(Tier::Process, "process state", process.state.letter().to_string(), since_ns)];
    if last.frozen.got().copied() == Some(true) {
        evidence.push(word(Tier::Cgroup, "cgroup frozen", "yes", since_ns));
    }
    evidence.extend(case.queue_evidence());
    Finding::Fits(Account {
        confidence: Confidence::Certain,
        summary: format!(
            "The whole process is stopped {by}; it runs no code at all until it is continued."
        ),
        evidence,
    })
}

#[cfg(test)]
mod tests {
    use stallscope_probes::Reading::Got;

    use super::super::fixtures::{Expect, ONSET, Story, absent, block, hold, queue};
    use super::*;
    use crate::detect::StallKind;
    use Confidence::Certain;
    use Expect::{Excluded, Fits, Missing};

    fn in_state(from: usize, state: TaskState) -> Story {
        Story::new(StallKind::Stopped).after(from, move |_, model| {
            let Got(process) = &mut model.process else { return };
            process.state = state;
            queue(model, 20);
        })
    }

    #[test]
    fn stopped_by_a_signal_a_tracer_or_the_freezer() {
        let sleeping = || in_state(ONSET, TaskState::Sleeping);
        hold(
            examine,
            vec![
                ("stopped", in_state(ONSET, TaskState::Stopped), Fits(Certain, "by a signal")),
                ("traced", in_state(ONSET, TaskState::Tracing), Fits(Certain, "by a tracer")),
                ("queue", in_state(ONSET, TaskState::Stopped), Fits(Certain, "20 connections")),
                (
                    "frozen",
                    sleeping().stalled(|_, model| model.frozen = Got(true)),
                    Fits(Certain, "cgroup's freezer"),
                ),
                (
                    "came late",
                    in_state(ONSET, TaskState::Stopped).attached_late(),
                    Fits(Certain, "by a signal"),
                ),
                ("blocked", sleeping().stalled(|_, model| block(model)), Excluded("state is S")),
                ("for a moment", in_state(58, TaskState::Stopped), Excluded("not stopped")),
                (
                    "unreadable",
                    sleeping().stalled(|_, model| model.process = absent()),
                    Missing("could not be read"),
                ),
            ],
        );
    }
}
