//! The two files of TCP counters, parted by a zero byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stallscope_probes::netstat;

fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (netstat, snmp) = bytes.split_at(end);
    netstat::parse(netstat, snmp);
});
