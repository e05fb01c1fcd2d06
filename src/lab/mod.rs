//! Scenarios: real servers, made to stall for real, with the ground truth written down by the
//! server itself at the instant the fault takes hold.

pub mod catalogue;
pub mod scenario;
pub mod truth;
pub mod victims;
