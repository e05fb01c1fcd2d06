//! Groups the threads of folded stacks by what they are for, as far as their names and stacks tell.
//!
//! A name is what the kernel keeps of it: 15 characters (`TASK_COMM_LEN`). tokio gives its workers
//! and its blocking pool the same one, so between them the stack decides; a worker runs *on* a
//! thread of the pool, so the scheduler in a stack outweighs the pool below it.

use std::collections::BTreeMap;
use std::fmt;

use super::folded::Folded;
use super::runtime::path_of;

/// What a thread is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Turns the loop of an async runtime.
    RuntimeWorker,
    /// Runs what was handed to `spawn_blocking`.
    BlockingPool,
    /// tokio's by its name; which of the two its stack does not show.
    Tokio,
    /// librdkafka's own.
    Librdkafka,
    /// A worker that the kernel made for an io_uring.
    IoWq,
    /// Polls the submission queue of an io_uring.
    SqPoll,
    /// An instrument of the process: its profiler, its console.
    Helper,
    /// Another, by its name; `worker-3` and `worker-4` are both `worker-*`.
    Named(String),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RuntimeWorker => f.write_str("runtime workers"),
            Self::BlockingPool => f.write_str("blocking pool"),
            Self::Tokio => f.write_str("tokio threads"),
            Self::Librdkafka => f.write_str("librdkafka"),
            Self::IoWq => f.write_str("io-wq"),
            Self::SqPoll => f.write_str("SQPOLL"),
            Self::Helper => f.write_str("helpers"),
            Self::Named(name) => write!(f, "thread {name}"),
        }
    }
}

/// The names that tokio gives its threads, now and before 1.32, as far as the kernel keeps them.
const TOKIO: [&str; 2] = ["tokio-rt-worker", "tokio-runtime-w"];
/// Threads that look at the process they live in.
const HELPERS: [&str; 5] =
    ["profiler", "console_subscri", "tokio-console", "tracing-append", "signal-hook"];
/// Functions in which a runtime turns its loop: `current_thread`, `multi_thread` and what else there
/// may be.
const SCHEDULERS: [&str; 3] =
    ["tokio::runtime::scheduler::", "tokio_uring::runtime::", "tokio::task::local::LocalSet::"];
/// Functions that only threads of the blocking pool run.
const BLOCKING: [&str; 2] = ["tokio::runtime::blocking::", "tokio::runtime::task::UnownedTask"];

/// The role of a thread called `thread`, caught in `frames` (joined by `;`, outermost first).
pub fn role(thread: &str, frames: &str) -> Role {
    // A generic parameter may name anything: what counts is how a function's own path begins.
    let runs = |functions: &[&str]| {
        frames.split(';').map(path_of).any(|path| functions.iter().any(|f| path.starts_with(f)))
    };
    if thread.starts_with("rdk:") || thread.starts_with("producer pollin") {
        Role::Librdkafka
    } else if thread.starts_with("iou-wrk-") {
        Role::IoWq
    } else if thread.starts_with("iou-sqp-") {
        Role::SqPoll
    } else if HELPERS.iter().any(|helper| thread.starts_with(helper)) {
        Role::Helper
    } else if runs(&SCHEDULERS) {
        Role::RuntimeWorker
    } else if runs(&BLOCKING) {
        Role::BlockingPool
    } else if TOKIO.iter().any(|name| thread.starts_with(name)) {
        Role::Tokio
    } else {
        Role::Named(numberless(thread))
    }
}

/// `gunicorn-3` as `gunicorn-*`. A name of digits alone stays.
fn numberless(name: &str) -> String {
    let stem = name.trim_end_matches(|char: char| char.is_ascii_digit());
    if stem.is_empty() || stem.len() == name.len() { name.to_owned() } else { format!("{stem}*") }
}

/// The same stacks with the role of the thread in place of its name; what becomes equal is summed.
pub fn group(folded: &Folded) -> Folded {
    let mut grouped = Folded { stacks: BTreeMap::new(), ..folded.clone() };
    for (stack, count) in &folded.stacks {
        let (thread, frames) = stack.split_once(';').unwrap_or((stack, ""));
        let role = role(thread, frames);
        let stack = if frames.is_empty() { role.to_string() } else { format!("{role};{frames}") };
        let sum = grouped.stacks.entry(stack).or_default();
        *sum = sum.saturating_add(*count);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::folded::merge;
    use super::*;

    #[test]
    fn names_and_stacks_tell_what_a_thread_is_for() {
        let cases = [
            // A worker lives on a thread of the blocking pool: the scheduler decides.
            (
                "tokio-rt-worker",
                "start_thread;tokio::runtime::blocking::pool::Inner::run;tokio::runtime::task::UnownedTask<S>::run;tokio::runtime::scheduler::multi_thread::worker::run;app::handle",
                "runtime workers",
            ),
            (
                "tokio-rt-worker",
                "start_thread;tokio::runtime::blocking::pool::Inner::run;app::resize",
                "blocking pool",
            ),
            // As an optimised build shows it.
            (
                "tokio-runtime-w",
                "start_thread;tokio::runtime::task::UnownedTask<S>::run;app::resize",
                "blocking pool",
            ),
            ("tokio-rt-worker", "epoll_wait", "tokio threads"),
            ("tokio-rt-worker", "(no frames)", "tokio threads"),
            (
                "server",
                "main;tokio::runtime::scheduler::current_thread::CurrentThread::block_on",
                "runtime workers",
            ),
            ("server", "main;tokio_uring::runtime::Runtime::block_on", "runtime workers"),
            (
                "my-pool",
                "<tokio::runtime::scheduler::multi_thread::worker::Context>::run",
                "runtime workers",
            ),
            // The type of a parameter is no function that runs.
            ("server", "run<tokio::runtime::scheduler::Handle>", "thread server"),
            ("rdk:broker1", "poll", "librdkafka"),
            ("rdk:main", "", "librdkafka"),
            ("producer pollin", "poll", "librdkafka"),
            ("iou-wrk-4711", "", "io-wq"),
            ("iou-sqp-4711", "", "SQPOLL"),
            ("profiler", "read", "helpers"),
            ("console_subscri", "tokio::runtime::scheduler::current_thread::x", "helpers"),
            ("gunicorn-3", "run", "thread gunicorn-*"),
            ("worker 12", "run", "thread worker\u{a0}*"),
            ("nginx worker", "run", "thread nginx worker"),
            ("7", "run", "thread 7"),
            ("", "run", "thread (unnamed)"),
        ];
        for (thread, frames, expected) in cases {
            let line = if frames.is_empty() {
                format!("{thread} 3")
            } else {
                format!("{thread};{frames} 3")
            };
            let grouped = group(&merge([line.as_str()]));
            let first = grouped.by_thread();
            assert_eq!(first, [(expected.to_owned(), 3)], "{thread} {frames}");
        }
    }

    #[test]
    fn threads_of_one_role_are_summed() {
        let grouped = group(&merge(["w-1;run;a 1\nw-2;run;a 2\nw-2;run;b 4\nrdk:main;a 8\n"]));
        let stacks: Vec<(&str, u64)> =
            grouped.stacks.iter().map(|(stack, count)| (stack.as_str(), *count)).collect();
        assert_eq!(stacks, [("librdkafka;a", 8), ("thread w-*;run;a", 3), ("thread w-*;run;b", 4)]);
        assert_eq!((grouped.samples, grouped.bad_lines), (15, 0));
    }

    proptest! {
        #[test]
        fn no_sample_is_lost(lines in vec("(w-[0-9]|tokio-rt-worker|.{0,8});[ab]{1,2} [1-9]", 0..20)) {
            let text = lines.join("\n");
            let folded = merge([text.as_str()]);
            let grouped = group(&folded);
            prop_assert_eq!(grouped.stacks.values().sum::<u64>(), folded.stacks.values().sum::<u64>());
            prop_assert_eq!(grouped.samples, folded.samples);
        }
    }
}
