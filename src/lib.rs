//! Says when a network service stalled, and why.
//!
//! The data flows one way; `docs/architecture.md` has the picture:
//!
//! ```text
//! probes -> model -> detect -> diagnose -> { tui, report }
//! ```
//!
//! [`watch`] wires these layers, live or from a recording, and owns the only clock.

pub mod cli;
pub mod detect;
pub mod diagnose;
pub mod model;
pub mod profile;
pub mod report;
pub mod tui;
pub mod watch;

#[cfg(feature = "servers")]
pub mod kit;
#[cfg(feature = "servers")]
pub mod lab;
#[cfg(feature = "servers")]
pub mod load;
#[cfg(feature = "servers")]
pub mod servers;
