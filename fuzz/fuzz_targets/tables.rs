//! The texts of the shared tables, of an epoll instance and of cgroups never panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stallscope_probes::{cgroup, epolls, tables};

fuzz_target!(|bytes: &[u8]| {
    tables::parse_file_nr(bytes);
    tables::parse_conntrack(bytes, 50);
    tables::parse_conntrack_max(bytes);
    tables::parse_has_capability(bytes, 21);
    cgroup::parse_memberships(bytes);
    cgroup::parse_mounts(bytes);
    epolls::parse(3, bytes, &[1, 2, 3]);
});
