//! A datagram from sock_diag never panics, and reading it ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stallscope_probes::sockets::wire;

fuzz_target!(|bytes: &[u8]| {
    assert!(wire::messages(bytes).count() <= bytes.len());
});
