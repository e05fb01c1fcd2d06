//! The threads at the onset and at the end, and their stacks.

use maud::{Markup, html};
use stallscope_probes::Reading;
use stallscope_probes::sample::{SyscallRaw, TaskState};

use super::facts::{Episode, Facts};
use super::tables::scrolling;
use super::text::{offset, plural, sentence, shown, why};
use super::{names, stacks};
use crate::model::{Model, ThreadModel, ThreadRole};

/// Stacks shown.
const STACKS_MAX: usize = 32;
/// Frames shown per stack.
const FRAMES_MAX: usize = 40;

/// The section's body.
pub(super) fn draw(facts: &Facts<'_>) -> Markup {
    let onset = facts.episode().and_then(Episode::begin_ns).and_then(|ns| facts.model_from(ns));
    let last = facts.incident.models.last().map(AsRef::as_ref);
    let last = last.filter(|last| onset.is_none_or(|onset| onset.seq != last.seq));
    html! {
        @if onset.is_none() && last.is_none() { p { "There is no tick in this run." } }
        @if let Some(model) = onset { (table(facts, model, "At the onset")) }
        @if let Some(model) = last { (table(facts, model, "At the end")) }
        @if let Some(taken) = stacks::of(facts) { (stacks::draw(facts, taken)) }
        @else if !facts.incident.models.is_empty() { (kernel_stacks(facts)) }
    }
}

fn table(facts: &Facts<'_>, model: &Model, caption: &str) -> Markup {
    let threads = match &model.threads {
        Reading::Got(threads) => threads,
        Reading::Absent(absence) => {
            return html! {
                h3 { (caption) }
                p { "The threads were not read (" (why(absence.why)) "): " (shown(&absence.detail)) }
            };
        }
    };
    let mut threads: Vec<&ThreadModel> = threads.iter().map(AsRef::as_ref).collect();
    let cpu = |thread: &ThreadModel| thread.cpu_ratio.got().copied().unwrap_or(-1.0);
    threads.sort_by(|a, b| {
        rank(a.role).cmp(&rank(b.role)).then(cpu(b).total_cmp(&cpu(a))).then(a.tid.cmp(&b.tid))
    });
    let body = html! {
        table.threads {
            thead {
                tr {
                    th.num scope="col" { "TID" }
                    th scope="col" { "Name" }
                    th scope="col" { "Role" }
                    th scope="col" { "State" }
                    th.num scope="col" { "CPU" }
                    th scope="col" { "System call" }
                    th scope="col" { "Sleeps in" }
                }
            }
            tbody { @for thread in &threads { (row(thread)) } }
        }
    };
    html! {
        h3 {
            (caption)
            span.unit { (facts.clock(model.at_ns)) " UTC, " (offset(model.at_ns, facts.zero_ns())) ", "
                (plural(threads.len() as u64, "thread", "threads")) }
        }
        (scrolling(&format!("Threads {}", caption.to_lowercase()), &body))
    }
}

fn row(thread: &ThreadModel) -> Markup {
    html! {
        tr.runtime[thread.role == ThreadRole::Runtime] {
            td.num { (thread.tid) }
            th scope="row" { (shown(&thread.comm)) }
            td { (role(thread.role)) }
            td { (state(thread.state)) }
            (cell(&thread.cpu_ratio, true, |ratio| format!("{:.0} %", ratio * 100.0)))
            (cell(&thread.syscall, false, syscall))
            (cell(&thread.wchan, false, |wchan| {
                if wchan.is_empty() { String::from("–") } else { shown(wchan) }
            }))
        }
    }
}

/// A reading in a table: the value, or the class of the reason with the reason behind it.
pub(super) fn cell<T>(reading: &Reading<T>, num: bool, text: impl Fn(&T) -> String) -> Markup {
    match reading {
        Reading::Got(value) => html! { td.num[num] { (text(value)) } },
        Reading::Absent(absence) => html! {
            td.none.num[num] title=(shown(&absence.detail)) { (why(absence.why)) }
        },
    }
}

/// The tick of the stall with most kernel stacks; of several the first, nearest to the onset.
pub(super) fn fullest<'a>(facts: &Facts<'a>) -> Option<&'a Model> {
    let got = |model: &Model| {
        let threads = model.all_threads();
        threads.filter(|thread| thread.kernel_stack.got().is_some()).count()
    };
    let fullest = facts.stall_models().rev().max_by_key(|model| got(model));
    fullest.filter(|model| got(model) > 0)
}

fn kernel_stacks(facts: &Facts<'_>) -> Markup {
    let Some(model) = fullest(facts) else {
        return html! {
            h3 { "Kernel stacks" }
            p { (no_stack(facts)) }
        };
    };
    let threads = model.all_threads();
    html! {
        h3 {
            "Kernel stacks"
            span.unit { "read at " (offset(model.at_ns, facts.zero_ns())) ", innermost first" }
        }
        div.stacks {
            @for thread in threads.filter(|t| t.kernel_stack.got().is_some()).take(STACKS_MAX) {
                details open[thread.role == ThreadRole::Runtime] {
                    summary { code { (thread.tid) } " " (shown(&thread.comm)) }
                    (stack(thread))
                }
            }
        }
    }
}

fn stack(thread: &ThreadModel) -> Markup {
    let frames = thread.kernel_stack.got().map_or(&[][..], Vec::as_slice);
    html! {
        @if frames.is_empty() { p.hint { "Empty: the thread was on a CPU in user space." } }
        ol.stack {
            @for frame in frames.iter().take(FRAMES_MAX) { li { code { (shown(frame)) } } }
        }
    }
}

pub(super) fn no_stack(facts: &Facts<'_>) -> String {
    let reason = |model: &Model| {
        let mut threads = model.all_threads();
        threads.find_map(|thread| thread.kernel_stack.absence().cloned())
    };
    let absence = facts.stall_models().rev().find_map(reason);
    match absence {
        Some(absence) => {
            format!("None was read ({}): {}", why(absence.why), sentence(&absence.detail))
        }
        None => String::from("None was read."),
    }
}

/// The runtime's threads come first.
pub(super) const fn rank(role: ThreadRole) -> u8 {
    match role {
        ThreadRole::Runtime => 0,
        ThreadRole::Kafka => 1,
        ThreadRole::IoWorker => 2,
        ThreadRole::Other => 3,
    }
}

/// A role in a word.
pub(super) const fn role(role: ThreadRole) -> &'static str {
    match role {
        ThreadRole::Runtime => "runtime",
        ThreadRole::Kafka => "kafka",
        ThreadRole::IoWorker => "io worker",
        ThreadRole::Other => "other",
    }
}

/// As [`state`], of the letter in `stat`.
pub(super) fn state_letter(letter: char) -> String {
    state(TaskState::from_letter(letter))
}

/// The letter and what it means.
pub(super) fn state(state: TaskState) -> String {
    let word = match state {
        TaskState::Running => "running",
        TaskState::Sleeping => "sleeping",
        TaskState::DiskSleep => "uninterruptible",
        TaskState::Stopped => "stopped",
        TaskState::Tracing => "stopped by a tracer",
        TaskState::Zombie => "zombie",
        TaskState::Dead => "dead",
        TaskState::Idle => "idle",
        TaskState::Other(_) => "unknown",
    };
    shown(&format!("{} {word}", state.letter()))
}

pub(super) fn syscall(syscall: &SyscallRaw) -> String {
    match syscall {
        SyscallRaw::Running => String::from("none, running"),
        SyscallRaw::NotInSyscall => String::from("none, blocked outside"),
        // The first argument is the fd of most waits, and an address of the others.
        SyscallRaw::In { nr, arg0 } if *arg0 < 1 << 20 => {
            format!("{}({arg0}, …)", names::syscall(*nr))
        }
        SyscallRaw::In { nr, .. } => format!("{}(…)", names::syscall(*nr)),
    }
}
