use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use stallscope_probes::sample::{SyscallRaw, TaskState, ThreadRaw};
use stallscope_probes::{Why, process, threads};

use crate::{got, own_pid, proc_root, until};

#[cfg(target_arch = "x86_64")]
const FUTEX_AND_SLEEP: (i64, i64) = (202, 230);
#[cfg(target_arch = "aarch64")]
const FUTEX_AND_SLEEP: (i64, i64) = (98, 115);

fn in_syscall(name: &str, nr: i64) -> ThreadRaw {
    until(name, || {
        let threads = got(threads::read(proc_root(), own_pid(), true));
        threads.into_iter().find(|thread| {
            let here = thread.syscall.got().copied();
            thread.comm == name && matches!(here, Some(SyscallRaw::In { nr: n, .. }) if n == nr)
        })
    })
}

#[test]
fn a_thread_that_waits_for_a_lock_and_one_that_sleeps() {
    let lock = Arc::new(Mutex::new(()));
    let held = lock.lock().unwrap();
    let waiter = Arc::clone(&lock);
    // Awkward on purpose, and 15 bytes, which is all the kernel keeps.
    let name = "a) R 1 (b\n\\\u{1b}[0m";
    let waiting = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || drop(waiter.lock().unwrap()))
        .unwrap();
    // Sleeps until the test process exits.
    let sleeping = || thread::sleep(Duration::from_hours(1));
    thread::Builder::new().name("sleeper".to_owned()).spawn(sleeping).unwrap();

    let at_lock = in_syscall(name, FUTEX_AND_SLEEP.0);
    assert_eq!(at_lock.state, TaskState::Sleeping);
    assert!(at_lock.wchan.got().unwrap().contains("futex"), "{at_lock:?}");
    assert!(at_lock.sched.got().unwrap().timeslices > 0);
    match (at_lock.kernel_stack.got(), at_lock.kernel_stack.absence()) {
        (Some(frames), _) => assert!(frames.iter().any(|frame| frame.contains("futex"))),
        // Stacks need CAP_SYS_ADMIN.
        (_, absence) => assert_eq!(absence.unwrap().why, Why::NotPermitted),
    }
    let asleep = in_syscall("sleeper", FUTEX_AND_SLEEP.1);
    assert!(asleep.wchan.got().unwrap().contains("nanosleep"), "{asleep:?}");

    drop(held);
    waiting.join().unwrap();
}

#[test]
fn the_process_is_who_it_says_it_is() {
    let identity = got(process::identity(proc_root(), own_pid()));
    assert_eq!(identity.exe, std::env::current_exe().ok());
    assert_eq!(identity.cmdline, std::env::args().collect::<Vec<_>>().join(" "));
    assert_eq!(identity.ppid, rustix::process::getppid().unwrap().as_raw_nonzero().get());
    let raw = got(process::read(proc_root(), own_pid()));
    assert_eq!(raw.start_time_ticks, identity.start_time_ticks);
    assert!(raw.rss_bytes > 0 && raw.threads >= 1);
}

#[test]
fn a_process_that_was_reaped_is_gone() {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let pid = child.id() as i32;
    assert_eq!(process::read(proc_root(), pid).absence().unwrap().why, Why::Gone);
    assert_eq!(threads::read(proc_root(), pid, false).absence().unwrap().why, Why::Gone);
}
