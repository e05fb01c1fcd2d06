//! Places and stacks as they were caught, and what is left to see of them.

use proptest::prelude::*;

use super::*;

const REGISTRY: &str = "/home/me/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f";
const STD: &str = "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library";

#[test]
fn a_place_begins_with_its_crate() {
    let cases = [
        (
            format!("{REGISTRY}/tokio-1.54.1/src/runtime/task/core.rs:380"),
            "tokio-1.54.1/src/runtime/task/core.rs:380",
        ),
        (format!("{STD}/std/src/panicking.rs:581"), "std/src/panicking.rs:581"),
        (String::from("library/std/src/rt.rs:206"), "std/src/rt.rs:206"),
        (
            String::from(
                "/home/me/.rustup/toolchains/x/lib/rustlib/src/rust/library/core/src/a.rs:1",
            ),
            "core/src/a.rs:1",
        ),
        (String::from("/rust/deps/hashbrown-0.15.2/src/map.rs:9"), "hashbrown-0.15.2/src/map.rs:9"),
        (String::from("/c/git/checkouts/tokio-0f1e/4d3c/tokio/src/lib.rs:5"), "tokio/src/lib.rs:5"),
        (
            String::from("./misc/../sysdeps/unix/sysv/linux/x86_64/syscall.S:38"),
            "linux/x86_64/syscall.S:38",
        ),
        (String::from("./nptl/pthread_create.c:442"), "nptl/pthread_create.c:442"),
        (String::from("/home/me/server/src/main.rs:6"), "server/src/main.rs:6"),
        (String::from("src/main.rs:6"), "src/main.rs:6"),
        // Cut off where a crate should stand, and no path at all.
        (String::from("/a/b/registry/src/index"), "registry/src/index"),
        (String::from("/a/rustc/"), "a/rustc"),
        (String::from("??"), "??"),
        (String::new(), ""),
    ];
    for (given, expected) in cases {
        assert_eq!(place(&given), expected, "{given}");
    }
}

#[test]
fn a_module_is_named_where_there_is_no_place_and_never_in_the_kernel() {
    let frame = |place: Option<&str>, space| StackFrame {
        module: Some(String::from("/usr/lib/libc.so.6")),
        place: place.map(str::to_owned),
        space,
        ..user("f")
    };
    let cases = [
        (frame(Some("/a/b/c/d.rs:1"), Space::User), Some("b/c/d.rs:1")),
        (frame(None, Space::User), Some("libc.so.6")),
        (frame(None, Space::Kernel), None),
        (user("f"), None),
    ];
    for (frame, expected) in cases {
        assert_eq!(whereabouts(&frame).as_deref(), expected, "{frame:?}");
    }
    assert_eq!(module("[vdso]"), "[vdso]");
    assert_eq!(module("/"), "/");
}

fn user(function: &str) -> StackFrame {
    StackFrame {
        function: function.to_owned(),
        module: None,
        place: None,
        space: Space::User,
        inlined: false,
        guessed: false,
    }
}

/// Names as they stand in a stack, innermost first; `k:` marks the kernel's.
fn stack(names: &str) -> Vec<StackFrame> {
    let frame = |name: &str| match name.strip_prefix("k:") {
        Some(name) => StackFrame { space: Space::Kernel, ..user(name) },
        None => user(name),
    };
    names.split_whitespace().map(frame).collect()
}

/// One line a part.
fn seen(frames: &[StackFrame]) -> Vec<String> {
    let line = |part: &Part<'_>| match part {
        Part::Frame(frame) => frame.function.clone(),
        Part::Run { title, .. } => title.clone(),
    };
    parts(frames).iter().map(line).collect()
}

#[test]
fn what_the_thread_does_stays_and_the_runtime_is_one_line() {
    let cases: [(&str, &[&str]); 6] = [
        // A worker held by a lock of the program's.
        (
            "k:futex_wait syscall std::sys::sync::mutex::futex::lock app::lock::{{closure}} \
             tracing::instrument::poll tokio::runtime::task::core::poll std::panicking::do_call \
             __rust_try tokio::runtime::task::raw::poll std::sys::backtrace::__rust_begin_short_backtrace \
             std::thread::lifecycle::{closure#1} start_thread clone3",
            &[
                "futex_wait",
                "syscall",
                "std::sys::sync::mutex::futex::lock",
                "app::lock::{{closure}}",
                "… 9 frames of tokio and the thread's start",
            ],
        ),
        // One that waits for events: what it is doing is to be seen.
        (
            "k:ep_poll epoll_wait mio::sys::unix::selector::select mio::poll::poll \
             tokio::runtime::io::driver::Driver::turn tokio::runtime::driver::Driver::park \
             tokio::runtime::scheduler::worker::run std::thread::lifecycle::x start_thread",
            &[
                "ep_poll",
                "epoll_wait",
                "… 2 frames of mio",
                "tokio::runtime::io::driver::Driver::turn",
                "… 4 frames of tokio and the thread's start",
            ],
        ),
        // The innermost frame stays though it is the runtime's.
        (
            "tokio::runtime::context::defer tokio::runtime::x tokio_uring::runtime::block_on app::main \
             main _start",
            &[
                "tokio::runtime::context::defer",
                "… 2 frames of tokio and tokio-uring",
                "app::main",
                "… 2 frames of the thread's start",
            ],
        ),
        // One frame is no run, and the kernel's names are not the runtime's.
        (
            "k:tokio::runtime::x k:mio f tokio::runtime::x g",
            &["tokio::runtime::x", "mio", "f", "tokio::runtime::x", "g"],
        ),
        (
            "f std::panicking::do_call __rust_try g",
            &["f", "std::panicking::do_call", "__rust_try", "g"],
        ),
        ("", &[]),
    ];
    for (names, expected) in cases {
        assert_eq!(seen(&stack(names)), expected, "{names}");
    }
}

/// Frames of all sorts, and text that is none.
fn name() -> impl Strategy<Value = String> {
    const NAMES: [&str; 10] = [
        "k:schedule",
        "syscall",
        "epoll_wait",
        "mio::x",
        "tokio::runtime::park::park",
        "tokio::runtime::x",
        "core::task::x",
        "main",
        "app::main",
        "start_thread",
    ];
    prop_oneof![9 => proptest::sample::select(&NAMES[..]).prop_map(str::to_owned), 1 => "[<>:a_k\\]\\[]{1,9}"]
}

proptest! {
    #[test]
    fn no_frame_is_lost_and_runs_are_the_programs(names in proptest::collection::vec(name(), 0..24)) {
        let frames = stack(&names.join(" "));
        let mut again = Vec::new();
        for part in parts(&frames) {
            match part {
                Part::Frame(frame) => again.push(frame.clone()),
                Part::Run { frames: run, .. } => {
                    prop_assert!(run.len() >= RUN_MIN);
                    prop_assert!(run.iter().all(|frame| frame.space == Space::User));
                    again.extend_from_slice(run);
                }
            }
        }
        prop_assert_eq!(again, frames);
    }

    #[test]
    fn a_place_is_never_longer_and_once_is_enough(text in "[a-c./:]{0,30}|.{0,40}") {
        let once = place(&text);
        prop_assert!(once.len() <= text.len());
        prop_assert_eq!(place(&once), once.clone());
    }
}
