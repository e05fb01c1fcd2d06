//! Threads with their stacks, rings, and what the process holds and depends on.

use std::fmt::Write as _;

use stallscope_probes::{Absence, Reading};

use super::text::{escaped, fenced, heading, table_head, table_row};
use crate::model::answers::waiting;
use crate::model::{Model, StallShare, ThreadModel};
use crate::profile::shorten::{Part, parts, whereabouts};
use crate::profile::stacks::{Space, StackFrame, ThreadStack};
use crate::report::facts::{Episode, Facts};
use crate::report::figures::stacks;
use crate::report::text::{count, duration_ms, number, offset, plural, sentence, shown, why};
use crate::report::{rings, threads};

/// Different stacks shown of one look.
const STACKS_MAX: usize = 16;
/// Lines shown per stack, the innermost first: a frame, or a run of the runtime's.
const FRAMES_MAX: usize = 40;
/// Threads named above one stack.
const NAMES_MAX: usize = 8;

/// The threads at the onset and at the end.
pub(super) fn threads(out: &mut String, facts: &Facts<'_>) {
    let onset = facts.episode().and_then(Episode::begin_ns).and_then(|ns| facts.model_from(ns));
    let last = facts.incident.models.last().map(AsRef::as_ref);
    let last = last.filter(|last| onset.is_none_or(|onset| onset.seq != last.seq));
    let looks = [(onset, "at the onset"), (last, "at the end")];
    for (model, when) in looks.into_iter().filter_map(|(model, when)| Some((model?, when))) {
        heading(out, &format!("Threads {when}"));
        thread_table(out, model);
    }
}

fn thread_table(out: &mut String, model: &Model) {
    let mut threads: Vec<&ThreadModel> = match &model.threads {
        Reading::Got(threads) => threads.iter().map(AsRef::as_ref).collect(),
        Reading::Absent(absence) => {
            let _ = writeln!(out, "The threads were not read: {}", reason(absence));
            return;
        }
    };
    threads.sort_by_key(|thread| (threads::rank(thread.role), thread.tid));
    table_head(out, &["TID:", "Name", "Role", "State", "CPU:", "System call", "Sleeps in"]);
    for thread in threads {
        let cell = |reading: Reading<String>| match reading {
            Reading::Got(text) => escaped(&text),
            Reading::Absent(absence) => why(absence.why).to_owned(),
        };
        let wchan = thread.wchan.as_ref().map(|wchan| match wchan.as_str() {
            "" => String::from("–"),
            wchan => shown(wchan),
        });
        table_row(
            out,
            &[
                thread.tid.to_string(),
                escaped(&shown(&thread.comm)),
                threads::role(thread.role).to_owned(),
                escaped(&threads::state(thread.state)),
                cell(thread.cpu_ratio.as_ref().map(|ratio| format!("{:.0} %", ratio * 100.0))),
                cell(thread.syscall.as_ref().map(threads::syscall)),
                cell(wchan),
            ],
        );
    }
}

/// `permission denied (not permitted)`, as Markdown.
fn reason(absence: &Absence) -> String {
    let detail = sentence(&absence.detail);
    if detail.is_empty() {
        return format!("{}.", why(absence.why));
    }
    escaped(&format!("{} ({}).", detail.trim_end_matches('.'), why(absence.why)))
}

/// Stacks of the threads, equal ones once.
pub(super) fn stacks(out: &mut String, facts: &Facts<'_>) {
    if facts.incident.models.is_empty() && facts.incident.stacks.is_empty() {
        return;
    }
    heading(out, "Stacks");
    let looks = stacks::looks(facts);
    for look in &looks {
        let at = offset(look.stacks.at_ns, facts.zero_ns());
        let _ = writeln!(out, "### {}, {at}\n", look.title);
        let stacks = look.stacks.threads.iter().map(|thread| {
            let line = |part: &Part<'_>| match part {
                Part::Frame(of) => frame(of),
                Part::Run { title, .. } => title.clone(),
            };
            (who(thread), parts(&thread.frames).iter().map(line).collect())
        });
        grouped(out, stacks.collect());
        for note in &look.stacks.notes {
            let _ = writeln!(out, "- Not seen: {}", escaped(&sentence(note)));
        }
        if !look.stacks.notes.is_empty() {
            out.push('\n');
        }
    }
    match threads::fullest(facts) {
        Some(model) => {
            let at = offset(model.at_ns, facts.zero_ns());
            let _ = writeln!(out, "### In the kernel, {at}\n");
            let stacks = model.all_threads().filter_map(|thread| {
                let frames = thread.kernel_stack.got()?.iter().map(|frame| shown(frame)).collect();
                Some((format!("{} {}", thread.tid, shown(&thread.comm)), frames))
            });
            grouped(out, stacks.collect());
        }
        None if looks.is_empty() => {
            let _ = writeln!(out, "{}", escaped(&threads::no_stack(facts)));
        }
        None => {}
    }
}

/// `4242 tokio-uring: S sleeping in futex(…) for 2.5 s`, printable.
fn who(thread: &ThreadStack) -> String {
    let state = shown(&thread.state.to_string());
    let mut text = format!("{} {} ({state}", thread.tid, shown(&thread.name));
    if let Some(syscall) = &thread.syscall {
        let _ = write!(text, ", in {}", shown(syscall));
    }
    if let Some(ms) = thread.waited_ms {
        let _ = write!(text, ", for {}", duration_ms(ms as f64));
    }
    text.push(')');
    text
}

fn frame(frame: &StackFrame) -> String {
    let mut text = shown(&frame.function);
    if let Some(place) = whereabouts(frame) {
        let _ = write!(text, "  {}", shown(&place));
    }
    let marks = [
        (frame.space == Space::Kernel, "  [kernel]"),
        (frame.inlined, "  [inlined]"),
        (frame.guessed, "  [guessed]"),
    ];
    marks.into_iter().filter(|(is, _)| *is).for_each(|(_, mark)| text.push_str(mark));
    text
}

/// Each stack once, above it the threads that have it.
fn grouped(out: &mut String, stacks: Vec<(String, Vec<String>)>) {
    let mut groups: Vec<(Vec<String>, Vec<String>)> = Vec::new();
    for (who, frames) in stacks {
        match groups.iter_mut().find(|(_, others)| *others == frames) {
            Some((threads, _)) => threads.push(who),
            None => groups.push((vec![who], frames)),
        }
    }
    for (threads, frames) in groups.iter().take(STACKS_MAX) {
        let named = threads.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>().join(", ");
        let more = match threads.len().saturating_sub(NAMES_MAX) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let _ = writeln!(out, "{}{more}:\n", escaped(&named));
        let mut shown: Vec<String> = frames.iter().take(FRAMES_MAX).cloned().collect();
        if frames.len() > FRAMES_MAX {
            shown.push(format!("… {} more", frames.len() - FRAMES_MAX));
        }
        if shown.is_empty() {
            shown.push(String::from("(no frame: on a CPU in the program, or none could be had)"));
        }
        let _ = writeln!(out, "{}\n", fenced(&shown));
    }
    if groups.len() > STACKS_MAX {
        let _ = writeln!(out, "{} more stacks are not shown.\n", groups.len() - STACKS_MAX);
    }
}

/// The rings as they stood last in the stall.
pub(super) fn rings(out: &mut String, facts: &Facts<'_>) {
    heading(out, "io_uring");
    let seen = rings::seen(facts);
    if seen.is_empty() {
        let _ = writeln!(out, "{}", escaped(&rings::none(facts)));
        return;
    }
    table_head(
        out,
        &["Ring:", "Not submitted:", "Not reaped:", "Taken:", "Filled:", "Reaped:", "Posted:"],
    );
    for ring in seen.values() {
        let (now, then) = (ring.state, ring.first);
        let moved = |now: u32, then: u32| count(now.wrapping_sub(then).into());
        let of = |pending: u32, entries: u32| {
            format!("{} of {}", count(pending.into()), count(entries.into()))
        };
        table_row(
            out,
            &[
                ring.ring.fd.to_string(),
                of(now.sq_pending(), now.sq_entries),
                of(now.cq_pending(), now.cq_entries),
                moved(now.sq_head, then.sq_head),
                moved(now.sq_tail, then.sq_tail),
                moved(now.cq_head, then.cq_head),
                moved(now.cq_tail, then.cq_tail),
            ],
        );
    }
    let since = if facts.episode().is_some() { "since the onset" } else { "in this run" };
    let _ = writeln!(
        out,
        "\nTaken by the kernel, filled by the application (submission queue), reaped by the \
         application, posted by the kernel (completion queue): entries {since}."
    );
}

/// What the process holds and depends on, as read last in the stall.
pub(super) fn resources(out: &mut String, facts: &Facts<'_>) {
    let Some(model) = facts.stall_models().next_back() else { return };
    heading(out, "Resources");
    let _ =
        writeln!(out, "As read last, at {} UTC or a little before.\n", facts.clock(model.at_ns));
    let mut item = |name: &str, reading: Reading<String>| {
        let text = match reading {
            Reading::Got(text) => escaped(&text),
            Reading::Absent(absence) => format!("absent: {}", reason(&absence)),
        };
        let _ = writeln!(out, "- {name}: {text}");
    };
    item(
        "Open fds",
        model.fds.as_ref().map(|fds| {
            let limit = fds.soft_limit().map_or_else(|| String::from("no known limit"), count);
            format!("{} of {limit}", count(fds.open))
        }),
    );
    item(
        "What they are",
        model.fd_kinds.as_ref().map(|kinds| {
            format!(
                "{} sockets, {} io_uring, {} epoll, {} eventfd and their kin, {} pipes, {} files",
                kinds.sockets, kinds.rings, kinds.epolls, kinds.anonymous, kinds.pipes, kinds.files
            )
        }),
    );
    item("Clients", model.served.as_ref().map(|_| clients(model)));
    item("Connections to others", model.peers.as_ref().map(|_| peers(model)));
    item(
        "Ephemeral ports",
        model.ports.as_ref().map(|ports| {
            format!("{} of {} in use", count(ports.in_use.into()), count(ports.size.into()))
        }),
    );
    item(
        "Throttled by the CPU quota",
        model.cgroup.as_ref().map(|cgroup| match cgroup.throttled_ratio {
            Some(ratio) => format!("in {} % of the periods", number(ratio * 100.0)),
            None => String::from("no period went by, or not told"),
        }),
    );
    item(
        "Time lost waiting",
        model.pressure.as_ref().map(|pressure| {
            let share = |share: Option<StallShare>| {
                let percent = |share: StallShare| format!("{} %", number(share.some * 100.0));
                share.map_or_else(|| String::from("not told"), percent)
            };
            format!(
                "for a CPU {}, for memory {}, for a disk {}",
                share(pressure.cpu),
                share(pressure.memory),
                share(pressure.io)
            )
        }),
    );
}

fn clients(model: &Model) -> String {
    let served = model.all_served();
    if served.is_empty() {
        return String::from("no connection to it was counted");
    }
    let one = |port: &crate::model::ServedModel| {
        let waits = match port.raw.answers.as_ref().map(waiting) {
            Some((clients, Some(ms))) => format!(
                "{} for an answer, the oldest for {}",
                plural(clients.into(), "waits", "wait"),
                duration_ms(ms.into())
            ),
            Some((clients, None)) => {
                format!("{} for an answer", plural(clients.into(), "waits", "wait"))
            }
            None => String::from("who waits was not asked"),
        };
        format!("port {}: {} accepted, {waits}", port.raw.port, port.raw.accepted_open)
    };
    served.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn peers(model: &Model) -> String {
    let peers = model.all_peers();
    if peers.is_empty() {
        return String::from("the process has made none");
    }
    let one = |peer: &crate::model::PeerModel| {
        let kafka = if peer.kafka { " (Kafka, by a guess)" } else { "" };
        format!(
            "{}{kafka} {}, {} bytes not acknowledged",
            peer.raw.remote,
            peer.state_name(),
            count(peer.raw.unsent_bytes.into())
        )
    };
    peers.iter().map(one).collect::<Vec<_>>().join("; ")
}
