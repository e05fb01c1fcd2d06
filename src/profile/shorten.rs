//! One thread's stack, short enough to be read.
//!
//! A thread of a server has some seventy frames, most of them the runtime's own, and places in source
//! begin with where the compiling machine kept its files. What is shown are the frames that say what
//! the thread does; the others are runs to be opened, and places begin with the crate.

use super::runtime;
use super::stacks::{Space, StackFrame};

/// Frames in a row from which on they are worth a run: one alone is no longer than its run.
const RUN_MIN: usize = 2;
/// Components kept of a path that says nothing about whose it is.
const COMPONENTS: usize = 3;

/// What is shown as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<'a> {
    /// A frame.
    Frame(&'a StackFrame),
    /// Frames of the runtime in a row.
    Run {
        /// `… 21 frames of tokio and the thread's start`: no text of the process's.
        title: String,
        /// Innermost first.
        frames: &'a [StackFrame],
    },
}

/// A stack, innermost first, in parts: each run of the runtime's own frames is one. Frames of the
/// kernel and the program stay, and so do the innermost one and the one that tells what the runtime
/// does there.
pub fn parts(frames: &[StackFrame]) -> Vec<Part<'_>> {
    let runs = runs(frames);
    let mut parts = Vec::new();
    let mut at = 0;
    while at < frames.len() {
        let labels: Vec<&str> = runs[at..].iter().map_while(|run| *run).collect();
        if labels.len() < RUN_MIN {
            parts.push(Part::Frame(&frames[at]));
            at += 1;
        } else {
            let end = at + labels.len();
            parts.push(Part::Run { title: title(&labels), frames: &frames[at..end] });
            at = end;
        }
    }
    parts
}

/// What stands for a run whose frames have these labels.
fn title(labels: &[&str]) -> String {
    let mut of: Vec<&str> = Vec::new();
    for label in labels {
        let label = if *label == "thread start" { "the thread's start" } else { label };
        if !of.contains(&label) {
            of.push(label);
        }
    }
    let of = match of.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => of.concat(),
    };
    format!("… {} frames of {of}", labels.len())
}

/// To what run each frame belongs, innermost first.
fn runs(frames: &[StackFrame]) -> Vec<Option<&'static str>> {
    let name = |frame: &StackFrame| match frame.space {
        Space::User => frame.function.clone(),
        Space::Kernel => format!("{}_[k]", frame.function),
    };
    let outermost_first: Vec<String> = frames.iter().rev().map(name).collect();
    let mut runs = runtime::runs(&outermost_first);
    runs.reverse();
    runs
}

/// Where a frame is, for view: the place in source, else the file of the code; of the kernel nothing.
pub fn whereabouts(frame: &StackFrame) -> Option<String> {
    match (&frame.place, &frame.module, frame.space) {
        (Some(at), ..) => Some(place(at)),
        (None, Some(path), Space::User) => Some(module(path).to_owned()),
        (None, ..) => None,
    }
}

/// A place in source (`path:line`) from the crate on; of a path that does not tell its crate the last
/// components.
pub fn place(place: &str) -> String {
    let rest = after(place, "/registry/src/", 1)
        .or_else(|| after(place, "/git/checkouts/", 2))
        .or_else(|| after(place, "/rust/deps/", 0))
        .or_else(|| of_std(place));
    if let Some(rest) = rest {
        return rest.to_owned();
    }
    let kept: Vec<&str> =
        place.rsplit('/').filter(|part| !matches!(*part, "" | ".")).take(COMPONENTS).collect();
    kept.into_iter().rev().collect::<Vec<_>>().join("/")
}

/// The file name of a module's path.
pub fn module(path: &str) -> &str {
    path.rsplit('/').find(|part| !part.is_empty()).unwrap_or(path)
}

/// What follows `mark` and so many folders whose names are the machine's.
fn after<'a>(place: &'a str, mark: &str, folders: usize) -> Option<&'a str> {
    let (_, mut rest) = place.split_once(mark)?;
    for _ in 0..folders {
        (_, rest) = rest.split_once('/')?;
    }
    Some(rest).filter(|rest| !rest.is_empty())
}

/// `std/src/panicking.rs:581`: the compiler's own crates lie in `library`, below its hash or where
/// rustup put it.
fn of_std(place: &str) -> Option<&str> {
    if let Some(rest) = place.strip_prefix("library/") {
        return Some(rest);
    }
    if let Some(rest) = after(place, "/rustlib/src/rust/library/", 0) {
        return Some(rest);
    }
    let rest = after(place, "/rustc/", 1)?;
    Some(rest.strip_prefix("library/").unwrap_or(rest)).filter(|rest| !rest.is_empty())
}

#[cfg(test)]
#[path = "shorten_tests.rs"]
mod tests;
