//! The text of a ring's fdinfo never panics and stays within its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stallscope_probes::ring;
use stallscope_probes::sample::PENDING_OPS_MAX;

fuzz_target!(|bytes: &[u8]| {
    if let Some(state) = ring::parse(bytes).got() {
        assert!(state.pending.len() <= PENDING_OPS_MAX);
        assert!(state.armed.len() <= 256);
    }
});
