//! The small files of a process and its threads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stallscope_probes::{cgroup, fds, pressure, process, threads};

fuzz_target!(|bytes: &[u8]| {
    process::parse_stat(bytes);
    threads::parse_schedstat(bytes);
    threads::parse_syscall(bytes);
    threads::parse_stack(bytes);
    threads::parse_switches(bytes);
    fds::parse_limit(bytes);
    fds::parse_link(bytes);
    cgroup::parse_membership(bytes);
    cgroup::parse(bytes, bytes, bytes);
    pressure::parse(bytes);
});
