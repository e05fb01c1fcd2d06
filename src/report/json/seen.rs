//! What was seen at the instants that matter, what could not be, and what looking cost.

use serde_json::{Value as Json, json};
use stallscope_probes::{Reading, Why, ring};

use super::measured;
use super::{instant, spread};
use crate::model::{Model, WatcherModel};
use crate::profile::stacks::ThreadStack;
use crate::report::absences::of_run;
use crate::report::facts::{Episode, Facts};
use crate::report::figures::{Spread, stacks};
use crate::report::{threads, tiers};
use crate::watch;

/// Threads listed of one look at the stacks of all.
const THREADS_MAX: usize = 64;
/// Frames listed per stack, the innermost first.
const FRAMES_MAX: usize = 128;

/// The ticks of the onset, of most kernel stacks, of the end of the stall and of the run; one that
/// is several of these is listed once.
pub(super) fn ticks(facts: &Facts<'_>) -> Json {
    let onset = facts.episode().and_then(Episode::begin_ns).and_then(|ns| facts.model_from(ns));
    let stall_end = facts.episode().and_then(|_| facts.stall_models().next_back());
    let last = facts.incident.models.last().map(AsRef::as_ref);
    let mut ticks: Vec<(Vec<&str>, &Model)> = Vec::new();
    let named = [
        ("onset", onset),
        ("kernel-stacks", threads::fullest(facts)),
        ("stall-end", stall_end),
        ("end", last),
    ];
    for (name, model) in named {
        let Some(model) = model else { continue };
        match ticks.iter_mut().find(|(_, other)| other.seq == model.seq) {
            Some((names, _)) => names.push(name),
            None => ticks.push((vec![name], model)),
        }
    }
    let tick = |(names, model): &(Vec<&str>, &Model)| json!({ "of": names, "at": facts.wall(model.at_ns), "model": model });
    ticks.iter().map(tick).collect()
}

/// Each ring: how far its positions moved from the first to the last good reading of the stall (of
/// the run without one). They wrap, and so does the difference.
pub(super) fn rings(facts: &Facts<'_>) -> Json {
    let one = |seen: &crate::report::rings::Seen<'_>| {
        let (now, then) = (seen.state, seen.first);
        let moved = if seen.ring.at_ns == seen.first_ns {
            Reading::absent(Why::NoPrevious, "there is one good reading only")
        } else {
            Reading::Got(json!({
                "sq_head": now.sq_head.wrapping_sub(then.sq_head),
                "sq_tail": now.sq_tail.wrapping_sub(then.sq_tail),
                "cq_head": now.cq_head.wrapping_sub(then.cq_head),
                "cq_tail": now.cq_tail.wrapping_sub(then.cq_tail),
            }))
        };
        let armed = seen.ring.armed.as_ref().map(|armed| -> Vec<Json> {
            let operation = |(opcode, count): &(u8, u32)| {
                json!({ "opcode": opcode, "name": ring::opcode_name(*opcode), "count": count })
            };
            armed.operations.iter().map(operation).collect()
        });
        json!({
            "fd": seen.ring.fd,
            "first": instant(facts, seen.first_ns),
            "last": instant(facts, seen.ring.at_ns),
            "moved": moved,
            "unsubmitted": now.sq_pending(),
            "unreaped": now.cq_pending(),
            "armed": armed,
        })
    };
    crate::report::rings::seen(facts).values().map(one).collect()
}

/// Whole stacks of the threads.
pub(super) fn stacks(facts: &Facts<'_>) -> Json {
    let look = |look: &stacks::Look<'_>| {
        let threads: Vec<Json> =
            look.stacks.threads.iter().take(THREADS_MAX).map(one_stack).collect();
        json!({
            "of": look.id,
            "at": facts.wall(look.stacks.at_ns),
            "at_ns": look.stacks.at_ns,
            "threads": threads,
            "threads_left_out": look.stacks.threads.len().saturating_sub(THREADS_MAX),
            "notes": look.stacks.notes,
        })
    };
    stacks::looks(facts).iter().map(look).collect()
}

fn one_stack(thread: &ThreadStack) -> Json {
    json!({
        "tid": thread.tid,
        "name": thread.name,
        "state": thread.state,
        "syscall": thread.syscall,
        "waited_ms": thread.waited_ms,
        "frames": thread.frames.iter().take(FRAMES_MAX).collect::<Vec<_>>(),
        "frames_left_out": thread.frames.len().saturating_sub(FRAMES_MAX),
        "how": thread.how,
    })
}

/// The kinds of evidence as they stood at the verdict.
pub(super) fn tiers(facts: &Facts<'_>) -> Json {
    let reading = match tiers::at_verdict(facts) {
        Some(model) => Reading::Got(watch::json::tiers(model, facts.incident.anchor)),
        None => Reading::absent(Why::NotSampled, "no tick was taken"),
    };
    json!(reading)
}

/// Everything that was absent, counted by reason.
pub(super) fn absences(facts: &Facts<'_>) -> Json {
    measured::absences(&of_run(&facts.incident.models))
}

/// What watching cost.
pub(super) fn watcher(facts: &Facts<'_>) -> Json {
    let models = &facts.incident.models;
    let watchers = || models.iter().map(|model| &model.watcher);
    let shares = |read: fn(&WatcherModel) -> &Reading<f64>| {
        let values = watchers().filter_map(|watcher| read(watcher).got().copied()).collect();
        match Spread::of(values) {
            Some(shares) => Reading::Got(spread(&shares)),
            None => Reading::absent(Why::NoPrevious, "a share needs two readings, a second apart"),
        }
    };
    let most = |read: fn(&WatcherModel) -> Option<u64>| match watchers().filter_map(read).max() {
        Some(most) => Reading::Got(most),
        None => Reading::absent(Why::NotSampled, "it was not read"),
    };
    let last = match models.last() {
        Some(last) => Reading::Got(json!(last.watcher)),
        None => Reading::absent(Why::NotSampled, "no tick was taken"),
    };
    json!({
        "cpu_ratio": shares(|watcher| &watcher.cpu_ratio),
        "sampling_cpu_ratio": shares(|watcher| &watcher.sampling_cpu_ratio),
        "rss_bytes_max": most(|watcher| watcher.rss_bytes),
        "open_fds_max": most(|watcher| watcher.open_fds),
        "ticks_slowed": watchers().filter(|watcher| watcher.slowed()).count(),
        "last": last,
    })
}
