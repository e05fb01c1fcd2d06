//! Reads, from outside and without touching it, what a Linux process is doing.
//!
//! One module per probe. In each, *parsing* (bytes in, types out, pure, fuzzed) stands apart from
//! *reading* (the only code that opens files or sockets). No probe stops, signals or ptraces the
//! process it looks at. A value that could not be had is [`Reading::Absent`] with the reason;
//! it never becomes zero.
//!
//! This crate holds no clock: whoever calls a probe stamps the begin and end of the read
//! ([`Probe`]). It holds no rights either: each absence says which would permit the read.
//!
//!
//! `proc_root` is `/proc` but for tests; the other names in a sample are in [`sample`].

pub mod cgroup;
#[cfg(test)]
mod fake;
pub mod fds;
mod files;
pub mod heartbeat;
pub mod netstat;
pub mod process;
pub mod reading;
pub mod ring;
pub mod sample;
pub mod threads;

pub use reading::{Absence, Probe, Reading, Why};
