//! The text of a ring's fdinfo never panics and stays within its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stallscope_probes::ring;
use stallscope_probes::sample::PENDING_OPS_MAX;

fuzz_target!(|bytes: &[u8]| {
    if let Some(parsed) = ring::parse(bytes).got() {
        assert!(parsed.state.pending.got().is_some_and(|pending| pending.len() <= PENDING_OPS_MAX));
        assert!(parsed.armed.operations.len() <= 256);
    }
});
