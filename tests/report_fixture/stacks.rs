//! Whole stacks of threads of the made-up incidents.

use stallscope::profile::stacks::{Space, StackFrame, ThreadStack, ThreadStacks};

fn user(function: &str, place: Option<&str>) -> StackFrame {
    StackFrame {
        function: function.to_owned(),
        module: Some(String::from("/usr/local/bin/stallscope")),
        place: place.map(str::to_owned),
        space: Space::User,
        inlined: false,
        guessed: false,
    }
}

fn kernel(function: &str) -> StackFrame {
    StackFrame { module: None, space: Space::Kernel, ..user(function, None) }
}

fn inlined(frame: StackFrame) -> StackFrame {
    StackFrame { inlined: true, ..frame }
}

fn guessed(frame: StackFrame) -> StackFrame {
    StackFrame { guessed: true, ..frame }
}

fn runtime_below() -> Vec<StackFrame> {
    vec![
        user("tokio::task::local::LocalSet::tick", Some("src/task/local.rs:688")),
        inlined(user("tokio::runtime::coop::budget", Some("src/runtime/coop.rs:107"))),
        user("tokio_uring::runtime::Runtime::block_on", Some("src/runtime/mod.rs:148")),
        user("tokio_uring::start", None),
        user("main", Some("src/main.rs:21")),
    ]
}

fn others() -> [ThreadStack; 2] {
    [
        ThreadStack {
            tid: 4244,
            name: String::from("rdk:main"),
            state: 'S',
            syscall: Some(String::from("futex(0x7f3a1c000910, FUTEX_WAIT_BITSET_PRIVATE, …)")),
            waited_ms: Some(3_254),
            frames: vec![
                kernel("futex_wait_queue"),
                kernel("__x64_sys_futex"),
                guessed(user("__futex_abstimed_wait_common", None)),
                guessed(user("cnd_timedwait", None)),
            ],
            how: String::from("found by searching the stack: its library has no unwind table"),
        },
        ThreadStack {
            tid: 4249,
            name: String::from("profiler"),
            state: 'S',
            syscall: None,
            waited_ms: None,
            frames: Vec::new(),
            how: String::from("the thread ended while it was read"),
        },
    ]
}

/// The runtime's thread in a task that is always ready.
pub fn spinning(at_ns: u64) -> ThreadStacks {
    let mut frames = vec![
        inlined(user("core::task::wake::Waker::wake_by_ref", Some("src/task/wake.rs:478"))),
        user("stallscope::servers::uring::always_ready", Some("src/servers/uring.rs:212")),
    ];
    frames.extend(runtime_below());
    let runtime = ThreadStack {
        tid: 4242,
        name: String::from("tokio-uring"),
        state: 'R',
        syscall: None,
        waited_ms: None,
        frames,
        how: String::from("followed by frame pointers to the first function of the thread"),
    };
    taken(at_ns, runtime)
}

/// The runtime's thread in a call that sleeps.
pub fn sleeping(at_ns: u64) -> ThreadStacks {
    let mut frames = vec![
        kernel("hrtimer_nanosleep"),
        kernel("__x64_sys_clock_nanosleep"),
        user("clock_nanosleep", None),
        user("std::thread::sleep", Some("library/std/src/thread/mod.rs:883")),
        inlined(user("orders::price::lookup", Some("src/orders/price.rs:41"))),
        user("stallscope::servers::http::serve", Some("src/servers/http/mod.rs:96")),
    ];
    frames.extend(runtime_below());
    let runtime = ThreadStack {
        tid: 4242,
        name: String::from("tokio-uring"),
        state: 'S',
        syscall: Some(String::from("clock_nanosleep(CLOCK_MONOTONIC, 0, 600 s, …)")),
        waited_ms: Some(610),
        frames,
        how: String::from("followed by frame pointers to the first function of the thread"),
    };
    taken(at_ns, runtime)
}

fn taken(at_ns: u64, runtime: ThreadStack) -> ThreadStacks {
    let mut threads = vec![runtime];
    threads.extend(others());
    ThreadStacks {
        at_ns,
        threads,
        notes: vec![String::from("thread 4245 was not read: permission denied")],
    }
}
