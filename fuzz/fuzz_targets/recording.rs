//! A recording is read and judged, or refused, never a panic.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use stallscope::watch::config::Config;
use stallscope::watch::event::{Anchor, Environment, Target};
use stallscope::watch::recording::{Header, MARK, Writer};
use stallscope::watch::replay;
use stallscope_probes::Reading;
use stallscope_probes::sample::FdLimitRaw;

/// The begin of a recording that passes for one, which chance would not find.
static BEGIN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let target = Target {
        pid: 1,
        comm: String::new(),
        cmdline: String::new(),
        exe: None,
        start_time_ticks: 1,
        foreign_netns: false,
        siblings: Vec::new(),
    };
    let environment = Environment {
        kernel: String::new(),
        cpus: 1,
        version: String::new(),
        interval_ms: 50,
        ticks_per_s: 100,
        fd_limits: Reading::Got(FdLimitRaw { soft: None, hard: None }),
        limits: Vec::new(),
    };
    let mut bytes = Vec::new();
    let anchor = Anchor { mono_ns: 0, real_ns: 0 };
    let header = Header { target, environment, anchor, config: Config::default() };
    Writer::begin(&mut bytes, header).expect("a vector takes everything");
    bytes
});

fuzz_target!(|bytes: &[u8]| {
    // As it comes; then as frames with the right checksum, parted by the first byte, and with a few
    // bytes of damage where the second says.
    replay::read(bytes).ok();
    let [length, damage, rest @ ..] = bytes else { return };
    let mut recording = BEGIN.clone();
    let begin = recording.len();
    for payload in rest.chunks(usize::from(*length).max(1) * 8) {
        let length = u32::try_from(payload.len()).expect("a chunk is short");
        recording.extend_from_slice(&MARK);
        recording.extend_from_slice(&length.to_le_bytes());
        recording.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
        recording.extend_from_slice(payload);
    }
    assert!(replay::read(&recording[..]).is_ok());
    let at = begin + usize::from(*damage) * 8;
    if let Some(bytes) = recording.get_mut(at..at + 4) {
        bytes.fill(*damage);
        assert!(replay::read(&recording[..]).is_ok());
    }
});
