//! The texts of a process's mappings and of what a thread waits in never panic; what is found of
//! mappings is in order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stallscope_probes::stacks::asleep;
use stallscope_probes::stacks::code::{Code, MAPPINGS_MAX};

fuzz_target!(|bytes: &[u8]| {
    asleep::parse_call(bytes);
    let code = Code::parse(bytes);
    let mappings = code.mappings();
    assert!(mappings.len() <= MAPPINGS_MAX);
    assert!(mappings.is_sorted_by_key(|mapping| mapping.start));
    for mapping in mappings {
        assert!(mapping.start < mapping.end);
        let found = code.at(mapping.start).expect("its first byte is in it, or in one like it");
        assert_eq!(found.start, mapping.start);
    }
    assert!(code.at(u64::MAX).is_none());
});
