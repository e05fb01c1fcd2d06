//! A record of the kernel's, with bytes of the target's stack in it, is read or refused, never a
//! panic, and makes no more of itself than it holds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stallscope_probes::stacks::record::{self, HEADER_BYTES, Record};

/// Types of records (`linux/perf_event.h`).
const KINDS: u32 = 22;

fn check(bytes: &[u8]) {
    let words = bytes.len() / 8;
    match record::parse(bytes) {
        Some(Record::Sample(sample)) => {
            assert!(sample.kernel.len() + sample.user.len() <= words);
            assert!(sample.stack.len() <= bytes.len());
        }
        Some(Record::Renamed { name, .. }) => assert!(name.chars().count() <= 15),
        Some(_) => assert!(bytes.len() >= HEADER_BYTES),
        None => {}
    }
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    // With a header that passes for one, which chance would seldom find.
    let [kind, misc, body @ ..] = bytes else { return };
    let mut record = (u32::from(*kind) % KINDS).to_ne_bytes().to_vec();
    record.extend((u16::from(*misc) << 8).to_ne_bytes());
    record.extend(((HEADER_BYTES + body.len()) as u16).to_ne_bytes());
    record.extend(body);
    check(&record);
});
