//! Wires probes to model, detection and diagnosis, live or from a recording. Owns the only clock.

pub mod event;
