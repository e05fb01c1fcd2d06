//! A datagram from sock_diag, a `tcp_info` in it, or lines of `/proc/net/tcp` never panic, and
//! reading them ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stallscope_probes::sockets::{procnet, wire};

fuzz_target!(|bytes: &[u8]| {
    assert!(wire::messages(bytes).count() <= bytes.len());
    wire::tcp_info(bytes);
    wire::traffic(bytes);
    if let Some(sockets) = procnet::parse_lines(bytes) {
        assert!(sockets.len() <= bytes.len());
    }
});
