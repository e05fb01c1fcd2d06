//! Servers whose runtime, ring or accept loop is the trouble.

mod acts;
mod current_thread;
mod multi_thread;
mod other_ring;
mod requests;
mod reuseport;
mod ring;
mod ring_stalls;
mod storm;

use std::time::Duration;

use super::{Ground, Options, Run};
use crate::kit::now_ns;
use acts::Act;

/// By name.
pub(super) const VICTIMS: &[(&str, Run)] = &[
    ("uring-yields", ring_stalls::yields),
    ("uring-wakes-itself", ring_stalls::wakes_itself),
    ("uring-full-channel", ring_stalls::drains_a_full_channel),
    ("uring-submit-error", ring_stalls::loses_submissions),
    ("uring-dead-reaper", ring_stalls::kills_the_reaper),
    ("uring-deferred", ring_stalls::defers_completions),
    ("uring-accept-ends", |options| ring::ends_accepting(options, false)),
    ("uring-listener-gone", |options| ring::ends_accepting(options, true)),
    ("uring-accept-leaked", ring::cancels_accepts),
    ("uring-storm", storm::accepts_without_waiting),
    ("uring-sleeps", |options| ring::acts(options, Act::Sleep)),
    ("uring-locks", |options| ring::acts(options, Act::Lock)),
    ("uring-stderr-full", |options| ring::acts(options, Act::WriteStderr)),
    ("uring-reads-pipe", |options| ring::acts(options, Act::ReadPipe)),
    ("uring-reads-socket", |options| ring::acts(options, Act::ReadSocket)),
    ("uring-computes", |options| ring::acts(options, Act::Compute)),
    ("tokio-sleeps", |options| current_thread::acts(options, Act::Sleep)),
    ("tokio-locks", |options| current_thread::acts(options, Act::Lock)),
    ("tokio-computes", |options| current_thread::acts(options, Act::Compute)),
    ("tokio-stops", |options| current_thread::acts(options, Act::Stop)),
    ("tokio-accept-ends", |options| current_thread::ends_accepting(options, false)),
    ("tokio-listener-gone", |options| current_thread::ends_accepting(options, true)),
    ("tokio-accept-waits", current_thread::waits_for_a_permit),
    ("mt2-sleep", |options| multi_thread::acts(options, 2, 2, Act::Sleep)),
    ("mt2-lock", |options| multi_thread::acts(options, 2, 2, Act::Lock)),
    ("mt2-compute", |options| multi_thread::acts(options, 2, 2, Act::Compute)),
    ("mt4-sleep", |options| multi_thread::acts(options, 4, 4, Act::Sleep)),
    ("mt4-lock", |options| multi_thread::acts(options, 4, 4, Act::Lock)),
    ("mt4-compute", |options| multi_thread::acts(options, 4, 4, Act::Compute)),
    ("mt-one-blocked", |options| multi_thread::acts(options, 4, 1, Act::Sleep)),
    ("monoio-healthy", other_ring::serves),
    ("monoio-sleeps", |options| other_ring::acts(options, Act::Sleep)),
    ("monoio-computes", |options| other_ring::acts(options, Act::Compute)),
    ("monoio-accept-ends", other_ring::ends_accepting),
    ("reuseport-sibling", reuseport::beside_a_sibling),
    ("reuseport-idle", reuseport::idle_sibling),
    ("reuseport-own", reuseport::beside_its_own),
];

/// What a victim needs once it listens.
struct Stage {
    ground: Ground,
    /// How long after readiness the fault begins.
    after: Duration,
}

impl Stage {
    fn new(options: &Options) -> anyhow::Result<Self> {
        Ok(Self { ground: Ground::open(options)?, after: options.after })
    }

    /// When the fault is due, for a server that gets ready now, `CLOCK_MONOTONIC` ns.
    fn due_ns(&self) -> u64 {
        now_ns() + u64::try_from(self.after.as_nanos()).unwrap_or(u64::MAX / 2)
    }
}
