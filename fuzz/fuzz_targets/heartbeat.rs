//! A heartbeat page is accepted or refused, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stallscope_probes::heartbeat::{self, MAGIC, PAGE_BYTES, VERSION};

fuzz_target!(|bytes: &[u8]| {
    if heartbeat::parse(bytes).is_ok() {
        assert!(bytes.len() >= PAGE_BYTES);
    }
    // The words of a page that passes for one, which chance would not find.
    let mut page = [0; PAGE_BYTES];
    page[..8].copy_from_slice(&MAGIC.to_le_bytes());
    page[8..16].copy_from_slice(&VERSION.to_le_bytes());
    let used = bytes.len().min(PAGE_BYTES - 16);
    page[16..16 + used].copy_from_slice(&bytes[..used]);
    assert!(heartbeat::parse(&page).is_ok());
});
