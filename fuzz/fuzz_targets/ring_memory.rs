//! The memory of a ring, which the observed process may write as it likes, never makes the reader
//! panic or go beyond its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stallscope_probes::ring;
use stallscope_probes::sample::{PENDING_OPS_MAX, RECENT_COMPLETIONS_MAX};

fuzz_target!(|memory: (&[u8], &[u8])| {
    let (ring, sqes) = memory;
    if let Some(state) = ring::parse_memory(ring, sqes).got() {
        assert!(state.sq_pending() <= state.sq_entries && state.cq_pending() <= state.cq_entries);
        assert!(state.pending.got().is_none_or(|pending| pending.len() <= PENDING_OPS_MAX));
        let recent: u32 = state.recent.got().into_iter().flatten().map(|(_, count)| count).sum();
        assert!(recent <= RECENT_COMPLETIONS_MAX);
    }
});
