//! Stacks as `perf` and pprof showed them of servers of the lab, and what is left of them.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::folded::merge;
use super::*;

/// From `main` to the loop of a runtime on one thread.
const MAIN: &str = "_start;__libc_start_main@@GLIBC_2.34;__libc_start_call_main;main;std::rt::lang_start;std::rt::lang_start_internal;std::rt::lang_start::{{closure}};std::sys::backtrace::__rust_begin_short_backtrace;core::ops::function::FnOnce::call_once;server::main";
/// From the begin of a thread to a worker's loop.
const WORKER: &str = "clone3;start_thread;<std::sys::thread::unix::Thread>::new::thread_start;core::ops::function::FnOnce::call_once{{vtable.shim}};std::sys::backtrace::__rust_begin_short_backtrace;tokio::runtime::blocking::pool::Inner::run;tokio::runtime::task::UnownedTask<S>::run;tokio::runtime::task::harness::Harness<T,S>::poll;<tracing::instrument::Instrumented<T> as core::future::future::Future>::poll;tokio::runtime::scheduler::multi_thread::worker::run;tokio::runtime::context::runtime::enter_runtime::{{closure}};std::thread::local::LocalKey<T>::with;tokio::runtime::context::scoped::Scoped<T>::set;tokio::runtime::scheduler::multi_thread::worker::Context::run";
/// From there to the poll of a task.
const POLL: &str = "tokio::runtime::scheduler::multi_thread::worker::Context::run_task;tokio::runtime::task::raw::poll;tokio::runtime::task::harness::Harness<T,S>::poll;__rust_try;std::panicking::catch_unwind::do_call;<core::panic::unwind_safe::AssertUnwindSafe<F> as core::ops::function::FnOnce<()>>::call_once;<tokio::runtime::task::core::Core<T,S> as tokio::runtime::task::Poll>::poll::{{closure}};<core::pin::Pin<P> as core::future::future::Future>::poll";
/// From `block_on` of tokio-uring to where it parks.
const URING: &str = "tokio_uring::runtime::Runtime::block_on;tokio::runtime::runtime::Runtime::block_on;tokio::runtime::scheduler::current_thread::CoreGuard::enter;std::thread::local::LocalKey<T>::try_with;tokio::runtime::context::scoped::Scoped<T>::set";

#[test]
#[expect(clippy::too_many_lines, reason = "a table of stacks")]
fn what_is_left_is_what_the_thread_does() {
    let cases = [
        // A task that holds the thread.
        (
            format!("{WORKER};{POLL};app::handle::{{{{closure}}}};app::parse;memchr"),
            "[thread start];[tokio];app::handle::{{closure}};app::parse;memchr",
        ),
        (
            format!(
                "{MAIN};{URING};app::handle;std::thread::sleep;clock_nanosleep;hrtimer_nanosleep_[k];schedule_[k]"
            ),
            "[thread start];server::main;[tokio-uring];[tokio];app::handle;std::thread::sleep;clock_nanosleep;hrtimer_nanosleep_[k];schedule_[k]",
        ),
        // A program in C, and a libc with debug information, which has a name of its own for it.
        (
            String::from("_start;__libc_start_main_impl;__libc_start_call_main;main;perl_run"),
            "[thread start];main;perl_run",
        ),
        // The loop waits for events.
        (
            format!(
                "{WORKER};tokio::runtime::scheduler::multi_thread::worker::Context::park_timeout;tokio::runtime::scheduler::multi_thread::park::Parker::park;tokio::runtime::io::driver::Driver::turn;mio::poll::Poll::poll;mio::sys::unix::selector::Selector::select;epoll_wait;ep_poll_[k]"
            ),
            "[thread start];[tokio: parked];ep_poll_[k]",
        ),
        (
            format!(
                "{WORKER};tokio::runtime::scheduler::multi_thread::park::Inner::park_condvar;parking_lot::condvar::Condvar::wait_until_internal;parking_lot_core::parking_lot::park;syscall;futex_wait_[k]"
            ),
            "[thread start];[tokio: parked];futex_wait_[k]",
        ),
        // It submits operations while it parks.
        (
            format!(
                "{MAIN};{URING};tokio::runtime::scheduler::current_thread::Context::park;std::thread::local::LocalKey<T>::with;syscall;__do_sys_io_uring_enter_[k];io_submit_sqes_[k];io_write_[k]"
            ),
            "[thread start];server::main;[tokio-uring];[tokio: submit];__do_sys_io_uring_enter_[k];io_submit_sqes_[k];io_write_[k]",
        ),
        // A waker, called by a task and by the driver.
        (
            format!(
                "{WORKER};{POLL};app::handle;tokio::sync::mpsc::Sender<T>::send;core::task::wake::Waker::wake_by_ref;tokio::runtime::task::waker::wake_by_ref"
            ),
            "[thread start];[tokio];app::handle;tokio::sync::mpsc::Sender<T>::send;[tokio: wake]",
        ),
        (
            format!(
                "{WORKER};tokio::runtime::io::driver::Driver::turn;tokio::runtime::io::scheduled_io::ScheduledIo::wake"
            ),
            "[thread start];[tokio: wake]",
        ),
        (
            format!(
                "{WORKER};{POLL};app::handle;tokio::task::yield_now::yield_now::{{{{closure}}}};tokio::runtime::context::defer"
            ),
            "[thread start];[tokio];app::handle;[tokio: yield]",
        ),
        (
            format!("{WORKER};{POLL};app::handle;tokio::task::spawn::spawn_inner"),
            "[thread start];[tokio];app::handle;[tokio: spawn]",
        ),
        // The runtime at work on itself, and mangled in the other way.
        (
            String::from(
                "start_thread;<tokio[1f2e3d4c]::runtime::task::core::Core<app[0a]::park::{closure#0}, alloc::sync::Arc<x>>>::poll",
            ),
            "[thread start];[tokio]",
        ),
        (String::from("<T as tokio::runtime::task::Schedule>::release"), "[tokio]"),
        (
            String::from(
                "start_thread;tokio::runtime::scheduler::multi_thread::worker::Context::run_[i];app::f_[i]",
            ),
            "[thread start];[tokio];app::f_[i]",
        ),
        // As names come from line tables, of a program whose `main` is known.
        (
            String::from(
                "_start;__libc_start_main_impl;__libc_start_call_main;main;lang_start<()>;std::rt::lang_start_internal;std::panic::catch_unwind;core::ops::function::call_once;app::main;tokio::runtime::runtime::block_on;std::thread::local::try_with;std::thread::local::with;tokio::task::local::poll;tracing::instrument::poll;app::serve",
            ),
            "[thread start];app::main;[tokio];app::serve",
        ),
        (
            String::from("__libc_start_main_impl;main;__rust_begin_short_backtrace;app::main;f"),
            "[thread start];app::main;f",
        ),
        // What stands between frames of the program is the program's.
        (
            String::from("app::f;std::thread::local::with;app::g;tracing::instrument::poll;app::h"),
            "app::f;std::thread::local::with;app::g;tracing::instrument::poll;app::h",
        ),
        // No runtime, and names that only look like one.
        (
            String::from("__libc_start_call_main;main;run;epoll_wait;ep_poll_[k]"),
            "[thread start];main;run;epoll_wait;ep_poll_[k]",
        ),
        (
            String::from(
                "app::tokio::runtime::x;core::ops::function::FnOnce::call_once;tokio_runtime;mios::x",
            ),
            "app::tokio::runtime::x;core::ops::function::FnOnce::call_once;tokio_runtime;mios::x",
        ),
        (
            String::from("run<tokio::runtime::Handle>;<app::X as tokio::runtime::Y>::z"),
            "run<tokio::runtime::Handle>;<app::X as tokio::runtime::Y>::z",
        ),
        (String::from("(no frames)"), "(no frames)"),
    ];
    for (frames, expected) in cases {
        // As a reader of folded text hands it over.
        let folded = merge([format!("worker;{frames} 1").as_str()]);
        let stack = folded.stacks.keys().next().expect("one stack");
        assert_eq!(collapse_stack(stack), format!("worker;{expected}"), "{frames}");
    }
    assert_eq!(collapse_stack("tokio::runtime::x"), "tokio::runtime::x", "a thread alone");
}

#[test]
fn what_is_generic_is_no_part_of_a_path() {
    let cases = [
        ("<a::B<C> as d::E<F>>::g<H>", "a::B::g"),
        ("<T as d::E>::f", "d::E::f"),
        ("<&mut F as core::future::future::Future>::poll", "core::future::future::Future::poll"),
        ("a::b::<C, D>::{closure#0}", "a::b::{closure#0}"),
        ("<fn(u8) -> a::B as c::D>::e", "fn(u8) -> a::B::e"),
        ("<dyn a::B>::c", "a::B::c"),
        ("_<a::B as c::D>::e", "a::B::e"),
        ("a[0f]::b[zz]", "a::b[zz]"),
        ("<a::B<c::D as", "a::B"),
        ("f_[i]", "f"),
        ("f_[k]", ""),
    ];
    for (frame, expected) in cases {
        assert_eq!(path_of(frame), expected, "{frame}");
    }
}

/// Frames of all sorts, those that are already folded among them.
fn frame() -> impl Strategy<Value = String> {
    const FRAMES: [&str; 24] = [
        "start_thread",
        "main",
        "std::rt::lang_start",
        "app::main",
        "std::thread::local::with",
        "core::ops::function::FnOnce::call_once",
        "tokio::runtime::x",
        "tokio::runtime::park::Parker::park",
        "tokio::runtime::task::waker::wake",
        "tokio_uring::runtime::x",
        "tokio::sync::x",
        "mio::poll::Poll::poll",
        "epoll_wait",
        "syscall",
        "app::x",
        "app::x_[i]",
        "schedule_[k]",
        "io_submit_sqes_[k]",
        "[tokio]",
        "[tokio: parked]",
        "[mio]",
        "[thread start]",
        "<T as tokio::runtime::X>::y",
        "(no frames)",
    ];
    prop_oneof![9 => proptest::sample::select(&FRAMES[..]).prop_map(str::to_owned), 1 => "[<>:a \\[\\]k_-]{0,12}"]
}

proptest! {
    #[test]
    fn no_sample_is_lost_and_once_is_enough(stacks in vec((vec(frame(), 0..9), 1..99_u64), 0..12)) {
        let lines: Vec<String> = stacks
            .iter()
            .map(|(frames, count)| format!("w;{} {count}", frames.join(";")))
            .collect();
        let text = lines.join("\n");
        let folded = merge([text.as_str()]);
        let once = collapse(&folded);
        prop_assert_eq!(once.stacks.values().sum::<u64>(), folded.stacks.values().sum::<u64>());
        prop_assert_eq!(once.samples, folded.samples);
        prop_assert_eq!(&collapse(&once), &once);
    }

    #[test]
    fn any_text_is_a_stack(stack in ".{0,60}") {
        let once = collapse_stack(&stack);
        prop_assert_eq!(collapse_stack(&once), once);
    }
}
