//! Folds the runtime's own frames, so that what stands out is the task that holds the thread.
//!
//! Between the begin of a thread and the function that blocks it lie dozens of frames of tokio, mio
//! and the standard library. A run of them becomes one: `[thread start]`, `[tokio]`,
//! `[tokio-uring]`, `[mio]`. Where nothing of the program follows, the runtime itself is at work, and
//! the frame says at what: `[tokio: parked]`. The kernel's frames stay.
//!
//! What a task *calls* of the runtime's crates stays too (`tokio::sync`, `tokio::net`, …): it says what
//! the task does.

use std::collections::BTreeMap;

use super::folded::Folded;

/// Functions by how their paths begin.
const TOKIO: [&str; 8] = [
    "tokio::runtime",
    "tokio::task",
    "tokio::macros",
    "tokio::util",
    "tokio::loom",
    "tokio::future",
    "tokio::coop",
    "tokio::park",
];
const TOKIO_URING: [&str; 4] =
    ["tokio_uring::runtime", "tokio_uring::driver", "tokio_uring::start", "tokio_uring::Builder"];
const MIO: [&str; 1] = ["mio"];
const START: [&str; 12] = [
    "clone",
    "clone3",
    "__clone3",
    "start_thread",
    "_start",
    "__libc_start_main",
    "__libc_start_main_impl",
    "__libc_start_call_main",
    "lang_start",
    "std::rt",
    "std::thread::Builder",
    "std::thread::lifecycle",
];
/// The system's part of `std::thread`, wherever it lies: `std::sys::…::Thread::new::thread_start`.
const START_WITHIN: (&str, &str) = ("std::sys", "thread_start");
/// Plumbing that is called by all and says nothing: it belongs to whatever it stands beside.
const GLUE: [&str; 17] = [
    "__rust_begin_short_backtrace",
    "std::sys::backtrace::__rust_begin_short_backtrace",
    "std::sys_common::backtrace::__rust_begin_short_backtrace",
    "std::thread::local",
    "std::thread::LocalKey",
    "std::panicking",
    "std::panic",
    "core::panic::unwind_safe",
    "__rust_try",
    "core::ops::function",
    "core::future",
    "core::pin",
    "core::task",
    "alloc::boxed",
    "scoped_tls",
    "futures_util::future::poll_fn",
    "tracing::instrument",
];
/// Functions in which a thread waits.
const WAITS: [&str; 14] = [
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "__epoll_wait",
    "io_uring_enter",
    "io_uring::submit",
    "__futex_abstimed_wait_common",
    "__futex_abstimed_wait_common64",
    "pthread_cond_wait",
    "pthread_cond_timedwait",
    "__syscall_cancel",
    "parking_lot",
    "parking_lot_core",
    "std::sys::sync::condvar",
];
/// With which a thread may wait, or do anything else.
const ANY_CALL: &str = "syscall";
/// The kernel's part of `io_uring_enter` that starts operations: the thread does not wait there.
const SUBMITS: &str = "io_submit_sqes_[k]";

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Part of a run with this label.
    Run(&'static str),
    /// Part of any run it stands beside.
    Glue,
    /// Of the program, of the kernel, or unknown.
    Own,
}

/// The same stacks with the runtime's frames folded; what becomes equal is summed. Once more changes
/// nothing.
pub fn collapse(folded: &Folded) -> Folded {
    let mut collapsed = Folded { stacks: BTreeMap::new(), ..folded.clone() };
    for (stack, count) in &folded.stacks {
        let sum = collapsed.stacks.entry(collapse_stack(stack)).or_default();
        *sum = sum.saturating_add(*count);
    }
    collapsed
}

/// One stack: the thread or its role, then frames, the outermost first, joined by `;`.
pub fn collapse_stack(stack: &str) -> String {
    let (thread, frames) = stack.split_once(';').unwrap_or((stack, ""));
    if frames.is_empty() {
        return stack.to_owned();
    }
    let frames: Vec<&str> = frames.split(';').collect();
    let paths: Vec<String> = frames.iter().map(|frame| path_of(frame)).collect();
    let classes = classes(&paths);
    let kernel = frames.iter().position(|frame| frame.ends_with("_[k]")).unwrap_or(frames.len());
    let leaf = leaf(&paths, &classes, kernel);
    let mut out: Vec<String> = vec![thread.to_owned()];
    let mut run = None;
    let mut at = 0;
    while at < frames.len() {
        if let Some(leaf) = leaf.filter(|leaf| leaf.begin == at) {
            let submits = frames[kernel..].contains(&SUBMITS);
            out.push(leaf.shown(submits));
            run = None;
            at = leaf.end;
            continue;
        }
        match classes[at] {
            Class::Run(label) if run == Some(label) => {}
            Class::Run(label) => {
                out.push(format!("[{label}]"));
                run = Some(label);
            }
            Class::Glue | Class::Own => {
                out.push(frames[at].to_owned());
                run = None;
            }
        }
        at += 1;
    }
    out.join(";")
}

/// To what run each frame of a stack belongs, outermost first; `None` where it has to be seen: frames
/// of the program and the kernel, the program's innermost one, and the one that tells what the runtime
/// does there.
pub(super) fn runs(frames: &[String]) -> Vec<Option<&'static str>> {
    let paths: Vec<String> = frames.iter().map(|frame| path_of(frame)).collect();
    let classes = classes(&paths);
    let kernel = frames.iter().position(|frame| frame.ends_with("_[k]")).unwrap_or(frames.len());
    let told_by = leaf(&paths, &classes, kernel).and_then(|leaf| leaf.told_by);
    let seen = [kernel.checked_sub(1), told_by];
    let run = |(at, class): (usize, &Class)| match class {
        Class::Run(label) if !seen.contains(&Some(at)) => Some(*label),
        _ => None,
    };
    classes.iter().enumerate().map(run).collect()
}

/// The class of each frame, glue settled.
fn classes(paths: &[String]) -> Vec<Class> {
    let mut classes: Vec<Class> = Vec::with_capacity(paths.len());
    for (at, path) in paths.iter().enumerate() {
        let next = paths[at + 1..].iter().find(|next| !is_any(next, &GLUE));
        classes.push(class_of(path, next.map_or("", String::as_str)));
    }
    // Glue belongs to the run before it, or else to the one after.
    for at in 1..classes.len() {
        if classes[at] == Class::Glue && matches!(classes[at - 1], Class::Run(_)) {
            classes[at] = classes[at - 1];
        }
    }
    for at in (1..classes.len()).rev() {
        if classes[at - 1] == Class::Glue && matches!(classes[at], Class::Run(_)) {
            classes[at - 1] = classes[at];
        }
    }
    classes
}

fn class_of(path: &str, next: &str) -> Class {
    let folded = ["thread start", "tokio", "tokio-uring", "mio"];
    if let Some(label) = folded.into_iter().find(|label| *path == format!("[{label}]")) {
        return Class::Run(label);
    }
    let any = |begins: &[&str]| is_any(path, begins);
    // Of C's `main` only the one around a Rust program's is plumbing.
    let around_main = is_any(next, &["std::rt", "lang_start"]) || next.ends_with("::main");
    if any(&GLUE) {
        Class::Glue
    } else if any(&TOKIO) {
        Class::Run("tokio")
    } else if any(&TOKIO_URING) {
        Class::Run("tokio-uring")
    } else if any(&MIO) {
        Class::Run("mio")
    } else if any(&START) || (path == "main" && around_main) || is_start_within(path) {
        Class::Run("thread start")
    } else {
        Class::Own
    }
}

fn is_any(path: &str, begins: &[&str]) -> bool {
    begins.iter().any(|begin| begins_with(path, begin))
}

fn is_start_within(path: &str) -> bool {
    let (begin, within) = START_WITHIN;
    begins_with(path, begin) && path.split("::").any(|part| part == within)
}

/// Whether `path` is `begin` or lies within it.
fn begins_with(path: &str, begin: &str) -> bool {
    path.strip_prefix(begin).is_some_and(|rest| {
        // Symbols have versions and variants: `epoll_wait@@GLIBC_2.3.2`, `start_thread.isra.0`.
        rest.is_empty() || rest.starts_with(['@', '.', '{']) || rest.starts_with("::")
    })
}

/// The innermost run of a runtime, where nothing of the program follows.
#[derive(Debug, Clone, Copy)]
struct Leaf {
    begin: usize,
    /// One past its last frame.
    end: usize,
    label: &'static str,
    does: Option<&'static str>,
    /// The frame that tells what it does, of those of `label` if one of them does.
    told_by: Option<usize>,
}

impl Leaf {
    fn shown(self, submits: bool) -> String {
        match if submits { Some("submit") } else { self.does } {
            Some(does) => format!("[{}: {does}]", self.label),
            None => format!("[{}]", self.label),
        }
    }
}

fn leaf(paths: &[String], classes: &[Class], kernel: usize) -> Option<Leaf> {
    let waits = |at: usize| WAITS.iter().any(|wait| begins_with(&paths[at], wait));
    let works = |class: Class| matches!(class, Class::Run(label) if label != "thread start");
    // From the inside out: waits of the C library, and mio where it was called by a runtime.
    let mut end = kernel;
    while end > 0 && (waits(end - 1) || paths[end - 1] == ANY_CALL) {
        end -= 1;
    }
    let bare_wait = (end..kernel).any(waits);
    let mut begin = end;
    while begin > 0 && classes[begin - 1] == Class::Run("mio") {
        begin -= 1;
    }
    let label = match begin.checked_sub(1).map(|at| classes[at]) {
        Some(Class::Run(label)) if works(Class::Run(label)) => label,
        _ if begin < end => "mio",
        _ => return None,
    };
    while begin > 0 && classes[begin - 1] == Class::Run(label) {
        begin -= 1;
    }
    let tells = |at: &usize| activity(&paths[*at]).is_some();
    let said = (begin..end).rev().find_map(|at| activity(&paths[at]));
    let of_label = |at: &usize| classes[*at] == Class::Run(label) && tells(at);
    let told_by = (begin..end).rev().find(of_label).or_else(|| (begin..end).rev().find(tells));
    let does = if bare_wait { said.or(Some("parked")) } else { said };
    // What is not waiting keeps the frame of the C library: it says more.
    let end = if does == Some("parked") { kernel } else { end };
    Some(Leaf { begin, end, label, does, told_by })
}

/// What a function of the runtime is there for, where that can be told.
fn activity(path: &str) -> Option<&'static str> {
    let parts = || path.split("::");
    let has = |words: &[&str]| parts().any(|part| words.contains(&part));
    let begins = |words: &[&str]| parts().any(|part| words.iter().any(|w| part.starts_with(w)));
    if begins(&["wake", "unpark", "notify_parked", "notify_one", "Waker"]) {
        Some("wake")
    } else if begins(&["yield_now"]) || has(&["defer", "Defer"]) {
        Some("yield")
    } else if begins(&["submit"]) {
        Some("submit")
    } else if begins(&["spawn"]) {
        Some("spawn")
    } else if begins(&["steal"]) {
        Some("steal")
    } else if begins(&["park"]) || has(&["turn", "epoll_wait", "select", "wait"]) {
        Some("parked")
    } else if begins(&["process_at_time", "process_at_sharded_time", "wheel"]) {
        Some("timers")
    } else {
        None
    }
}

/// The path of a function without what is generic about it: `<a::B<C> as d::E>::f<G>` is `a::B::f`;
/// where the type is but a parameter, `<T as d::E>::f`, it is `d::E::f`.
pub(super) fn path_of(frame: &str) -> String {
    if frame.ends_with("_[k]") {
        return String::new();
    }
    let name = ["_[i]", "_[?]"].iter().find_map(|end| frame.strip_suffix(end)).unwrap_or(frame);
    let name = name.strip_prefix('_').filter(|rest| rest.starts_with('<')).unwrap_or(name);
    let Some(inner) = name.strip_prefix('<') else { return without_generics(name) };
    let (head, rest) = inner.split_at(closing(inner));
    let (of, by) = match split_as(head) {
        Some((of, by)) => (of, by),
        None => (head, head),
    };
    let of = bare_type(of);
    let head = if of.contains("::") { of } else { bare_type(by) };
    let rest = rest.strip_prefix('>').unwrap_or(rest);
    without_generics(head) + &without_generics(rest)
}

/// Where the `>` stands that ends what `text` begins in the midst of, or its length.
fn closing(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut before = ' ';
    for (at, letter) in text.char_indices() {
        match letter {
            '<' => depth += 1,
            '>' if before == '-' => {}
            '>' if depth == 0 => return at,
            '>' => depth -= 1,
            _ => {}
        }
        before = letter;
    }
    text.len()
}

/// `A as B` in two, where the ` as ` is not within another type.
fn split_as(text: &str) -> Option<(&str, &str)> {
    let mut from = 0;
    while let Some(at) = text.get(from..)?.find(" as ").map(|at| from + at) {
        let before = &text[..at];
        if before.matches('<').count() <= before.replace("->", "").matches('>').count() {
            return Some((before, &text[at + " as ".len()..]));
        }
        from = at + 1;
    }
    None
}

fn bare_type(text: &str) -> &str {
    let mut text = text;
    loop {
        let bare = ["&", "mut ", "*const ", "*mut ", "dyn ", "impl ", "("]
            .iter()
            .find_map(|begin| text.strip_prefix(begin));
        match bare {
            Some(bare) => text = bare,
            None => return text,
        }
    }
}

/// Without `<…>`, and without the hash of a crate: `tokio[1f2e3d4c]::runtime`.
fn without_generics(text: &str) -> String {
    let mut bare = String::with_capacity(text.len());
    let mut depth = 0_usize;
    let mut before = ' ';
    for letter in text.chars() {
        match letter {
            '<' => {
                // `Foo::<T>::bar` and `Foo<T>::bar` are the same.
                if depth == 0 && bare.ends_with("::") {
                    bare.truncate(bare.len() - 2);
                }
                depth += 1;
            }
            '>' if before != '-' => depth = depth.saturating_sub(1),
            _ if depth == 0 => bare.push(letter),
            _ => {}
        }
        before = letter;
    }
    without_hashes(&bare)
}

fn without_hashes(path: &str) -> String {
    let mut bare = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('[') {
        bare.push_str(before);
        match after.split_once(']') {
            Some((hash, after))
                if !before.is_empty() && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
            {
                rest = after;
            }
            _ => {
                bare.push('[');
                rest = after;
            }
        }
    }
    bare + rest
}

#[cfg(test)]
#[path = "runtime_tests.rs"]
mod tests;
