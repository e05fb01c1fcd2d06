//! Wires probes to model, detection and diagnosis, live or from a recording. Owns the only clock.

pub mod active;
pub mod budget;
mod clock;
pub mod config;
pub mod engine;
pub mod event;
pub mod json;
pub mod keep;
mod notes;
mod pace;
mod profiles;
pub mod recorder;
pub mod recording;
pub mod replay;
pub mod sampler;
pub mod session;
pub mod stacks;
pub mod target;
pub mod words;

#[cfg(test)]
mod causes_tests;
#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod onset_tests;
#[cfg(test)]
mod twins_tests;
#[cfg(test)]
mod world;
#[cfg(test)]
mod worse_tests;

pub use clock::{anchor, now_ns};
