//! Stacks of the target: caught while watching, kept for a while, named when they are wanted.
//!
//! ```text
//! run       a profile of some seconds, on its own (`profile`)
//! rolling   the last seconds of what was caught                                       (pure)
//! plan      which stretches are wanted once a stall has been found                    (pure)
//! keeper    the thread that catches while the target is watched
//! naming    symbols, and from what was caught to a profile
//! dump      the stacks of all threads now
//! ```

pub mod dump;
pub mod keeper;
pub mod naming;
pub mod plan;
pub mod rolling;
pub mod run;
