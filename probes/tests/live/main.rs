//! The probes against this very kernel, each with a witness that does not use the probe.
#![expect(clippy::disallowed_methods, reason = "the witnesses read /proc themselves")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod answers;
mod child;
mod epolls;
mod fds;
mod foreign;
mod limits;
mod peers;
mod rights;
mod ring_life;
mod ring_memory;
mod rings;
mod sockets;
mod ss;
mod stacks;
mod threads;
mod watch;

use std::path::Path;
use std::time::Duration;

use stallscope_probes::Reading;

fn proc_root() -> &'static Path {
    Path::new("/proc")
}

fn own_pid() -> i32 {
    std::process::id() as i32
}

/// Looks until `look` finds what it wants, for ten seconds at most.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..10_000 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("never seen: {what}");
}

#[track_caller]
fn got<T: std::fmt::Debug>(reading: Reading<T>) -> T {
    match reading {
        Reading::Got(value) => value,
        Reading::Absent(absence) => panic!("absent: {absence:?}"),
    }
}
