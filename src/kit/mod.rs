//! The in-process side: what a server does so that it can be watched. It publishes a heartbeat
//! page, spools CPU profiles and serves tokio-console. None of it may stop the server, and none
//! of it needs the server's runtime to be alive.

pub mod heartbeat;
pub mod profile;
pub mod rate;
pub mod telemetry;

/// `CLOCK_MONOTONIC` in nanoseconds, the time of every record (read through the vDSO: no system
/// call).
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
