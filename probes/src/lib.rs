//! Reads, from outside and without touching it, what a Linux process is doing.
//!
//! One module per probe. In each, *parsing* (bytes in, types out, pure, fuzzed) stands apart from
//! *reading* (the only code that opens files or sockets). No probe stops, signals or ptraces the
//! process it looks at. A value that could not be had is [`Reading::Absent`] with the reason;
//! it never becomes zero.
//!
//! This crate holds no clock: whoever calls a probe stamps the begin and end of the read
//! ([`Probe`]).

pub mod heartbeat;
pub mod reading;
pub mod sample;
pub mod spool;

pub use reading::{Absence, Probe, Reading, Why};
