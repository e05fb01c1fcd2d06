//! The only clock.

use rustix::time::{ClockId, clock_gettime};

use super::event::Anchor;

/// `CLOCK_MONOTONIC`, ns: the same clock the heartbeat page is dated by.
pub fn now_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// CPU time that the calling thread has used, ns.
pub fn thread_cpu_ns() -> u64 {
    nanoseconds(ClockId::ThreadCPUTime)
}

/// CPU time that the whole process has used, ns.
pub fn process_cpu_ns() -> u64 {
    nanoseconds(ClockId::ProcessCPUTime)
}

/// Both clocks at once.
pub fn anchor() -> Anchor {
    let mono_ns = now_ns();
    Anchor { mono_ns, real_ns: nanoseconds(ClockId::Realtime) }
}

fn nanoseconds(clock: ClockId) -> u64 {
    let at = clock_gettime(clock);
    // Neither clock is ever negative: one counts from boot, the other from 1970.
    at.tv_sec.unsigned_abs().saturating_mul(1_000_000_000).saturating_add(at.tv_nsec.unsigned_abs())
}
