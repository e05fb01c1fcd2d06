//! The whole stacks of the threads at one instant of the stall: what each was in, from the kernel out
//! to its first function.

use maud::{Markup, html};

use super::facts::{Episode, Facts};
use super::text::{count, duration_ms, offset, plural, sentence, shown};
use super::threads::{rank, role, state_letter};
use crate::diagnose::verdict::Value;
use crate::model::ThreadRole;
use crate::profile::shorten::{Part, parts, whereabouts};
use crate::profile::stacks::{Space, StackFrame, ThreadStack, ThreadStacks};

/// Threads whose stacks are shown.
const THREADS_MAX: usize = 64;
/// Frames shown per stack.
const FRAMES_MAX: usize = 128;
/// Notes shown of one look at the stacks.
const NOTES_MAX: usize = 16;

/// The stacks nearest to what the report is about: the first look after the onset that lies in the
/// stall, else the last one before; of a run without a stall the last.
pub(super) fn of<'a>(facts: &Facts<'a>) -> Option<&'a ThreadStacks> {
    let taken = &facts.incident.stacks;
    let Some(onset_ns) = facts.episode().and_then(Episode::begin_ns) else { return taken.last() };
    let end_ns = facts.recovered_ns().unwrap_or(u64::MAX);
    let in_stall = |stacks: &&ThreadStacks| stacks.at_ns >= onset_ns && stacks.at_ns < end_ns;
    let before = |stacks: &&ThreadStacks| stacks.at_ns < onset_ns;
    taken.iter().find(in_stall).or_else(|| taken.iter().rev().find(before)).or(taken.first())
}

/// The stacks of all threads, those of the runtime first.
pub(super) fn draw(facts: &Facts<'_>, taken: &ThreadStacks) -> Markup {
    let mut threads: Vec<(ThreadRole, &ThreadStack)> = taken
        .threads
        .iter()
        .map(|thread| (role_of(facts, taken.at_ns, thread.tid), thread))
        .collect();
    threads.sort_by_key(|(role, thread)| (rank(*role), thread.tid));
    let undrawn = threads.len().saturating_sub(THREADS_MAX);
    html! {
        h3 {
            "Stacks "
            span.unit { (facts.clock(taken.at_ns)) " UTC, " (offset(taken.at_ns, facts.zero_ns())) ", "
                (plural(taken.threads.len() as u64, "thread", "threads")) ", innermost first" }
        }
        @for (role, thread) in threads.iter().take(THREADS_MAX) { (one(facts, *role, thread)) }
        @if undrawn > 0 { p.hint { (plural(undrawn as u64, "more thread is", "more threads are")) " not shown." } }
        @if !taken.notes.is_empty() {
            ul.plain.notes { @for note in taken.notes.iter().take(NOTES_MAX) { li { (sentence(note)) } } }
        }
    }
}

/// What the thread is for, by the tick nearest to the look.
fn role_of(facts: &Facts<'_>, at_ns: u64, tid: i32) -> ThreadRole {
    let model = facts.model_from(at_ns).or(facts.incident.models.last().map(AsRef::as_ref));
    model
        .and_then(|model| model.all_threads().find(|thread| thread.tid == tid))
        .map_or(ThreadRole::Other, |thread| thread.role)
}

/// Whether the verdict speaks of this thread: only what is open at first depends on it.
fn is_blamed(facts: &Facts<'_>, tid: i32) -> bool {
    let Some(verdict) = facts.verdict() else { return false };
    let tid = tid.to_string();
    let names = |text: &str| {
        let words: Vec<&str> = text.split(|letter: char| !letter.is_alphanumeric()).collect();
        words.windows(2).any(|pair| pair == ["thread", tid.as_str()])
    };
    let texts = verdict.evidence.iter().flat_map(|item| match &item.value {
        Value::Text(text) => [item.signal.as_str(), text],
        Value::Number(_) => [item.signal.as_str(), ""],
    });
    std::iter::once(verdict.summary.as_str()).chain(texts).any(names)
}

fn one(facts: &Facts<'_>, role_is: ThreadRole, thread: &ThreadStack) -> Markup {
    let open = is_blamed(facts, thread.tid);
    html! {
        details.thread.blamed[open] open[open || role_is == ThreadRole::Runtime] {
            summary {
                code.tid { (thread.tid) } " " b { (shown(&thread.name)) } " "
                span.tag { (role(role_is)) } " "
                span.doing { (doing(thread)) }
            }
            @if thread.frames.is_empty() { p.hint { "No frame could be had." } } @else { (frames(thread)) }
            @if !thread.how.is_empty() { p.hint { (sentence(&thread.how)) } }
        }
    }
}

/// `S sleeping, in futex(0x7f…, …) for 3.25 s`.
fn doing(thread: &ThreadStack) -> String {
    let mut text = state_letter(thread.state);
    if let Some(syscall) = &thread.syscall {
        text = format!("{text}, in {}", shown(syscall));
    }
    if let Some(ms) = thread.waited_ms {
        text = format!("{text} for {}", duration_ms(ms as f64));
    }
    text
}

fn frames(thread: &ThreadStack) -> Markup {
    let undrawn = thread.frames.len().saturating_sub(FRAMES_MAX);
    let drawn = &thread.frames[..thread.frames.len() - undrawn];
    let mut number = 0;
    let rows = parts(drawn).into_iter().map(|part| {
        let first = number + 1;
        match part {
            Part::Frame(frame) => {
                number += 1;
                frame_row(first, frame)
            }
            Part::Run { title, frames } => {
                number += frames.len();
                run_row(first, &title, frames)
            }
        }
    });
    html! {
        ol.frames {
            @for row in rows { (row) }
            @if undrawn > 0 { li.none { (count(undrawn as u64)) " more frames" } }
        }
    }
}

/// The runtime's frames in a row, behind one line.
fn run_row(first: usize, title: &str, run: &[StackFrame]) -> Markup {
    html! {
        li.run {
            details {
                summary { (title) }
                ol.frames { @for (at, frame) in run.iter().enumerate() { (frame_row(first + at, frame)) } }
            }
        }
    }
}

/// Numbered by hand: a counter of the style sheet does not count what is folded.
fn frame_row(number: usize, frame: &StackFrame) -> Markup {
    html! {
        li.kernel[frame.space == Space::Kernel].guessed[frame.guessed].inlined[frame.inlined] value=(number) {
            span {
                code { (shown(&frame.function)) }
                @if frame.space == Space::Kernel { " " span.mark { "kernel" } }
                @if frame.inlined { " " span.mark { "inlined" } }
                @if frame.guessed { " " span.mark { "guessed" } }
                @if let Some(place) = whereabouts(frame) { " " span.place { (shown(&place)) } }
            }
        }
    }
}
