//! A load generator for HTTP/1.1, in a closed or an open loop.
//!
//! One thread drives all connections. What is pure stands apart from what does I/O: [`plan`] (what
//! to do), [`response`] (bytes in, end of response out), [`pace`] (when a request is due),
//! [`tally`] (counts and latencies) and [`outcome`] (table and JSON) know neither sockets nor
//! clocks; [`run`] and the connections it starts do the rest.
//!
//! A server that stalls is the ordinary case here: nothing in this module waits without a bound.
#![expect(clippy::disallowed_methods, reason = "the load generator has its own clock")]

mod client;
mod gate;
pub mod outcome;
pub mod pace;
pub mod plan;
pub mod response;
mod run;
mod slot;
pub mod tally;

pub use outcome::Outcome;
pub use plan::{Plan, Target};
pub use run::{Error, run};
pub use tally::Tally;
