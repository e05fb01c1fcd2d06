//! Every threshold of detection, each with its reason.

/// A frozen ring, a stopped process and a missing beat speak for themselves: entries that nobody
/// moves for half a second are not a batch any more. Healthy pauses (a garbage collector, a slow
/// poll) stay well below.
pub const FROZEN_HOLD_NS: u64 = 500_000_000;

/// SIGSTOP has no healthy look-alike but a debugger's moment.
pub const STOPPED_HOLD_NS: u64 = 300_000_000;

/// An accept queue may legitimately wait for a pause of the acceptor (accept back-off on EMFILE is
/// 10 to 100 ms, a rate-limited acceptor some hundred), but not for a second.
pub const ACCEPT_HOLD_NS: u64 = 1_000_000_000;

/// Unread bytes while the loop does not turn: without the server's own word (a heartbeat page) a
/// second, since a long poll of half a second is slow but not a stall.
pub const UNREAD_HOLD_NS: u64 = 1_000_000_000;

/// Looks without progress that a stall needs, however long they are apart.
pub const BARREN_LOOKS_MIN: u32 = 3;

/// At most this much of the time between two looks counts towards a hold: a watcher that was
/// paused itself (a late sample) must not invent a stall.
pub const GAP_COUNTED_MAX_NS: u64 = 250_000_000;

/// Progress must go on for this long before a stall is called over: a single accept when one fd
/// came free is not recovery.
pub const RECOVERY_HOLD_NS: u64 = 500_000_000;

/// While recovering, progress may pause this long.
pub const RECOVERY_PAUSE_MAX_NS: u64 = 300_000_000;

/// A beat older than this, while beats are due every 50 ms, is missing.
pub const BEAT_MISSING_MS: f64 = 250.0;

/// The server's own record of its last progress replaces the onset seen from outside when it lies
/// no further before it than this (a few sampling intervals): otherwise it was idle in between,
/// and the onset is when demand began.
pub const REFINE_MAX_NS: u64 = 300_000_000;
