//! `io_uring` instances.

use serde::{Deserialize, Serialize};

use crate::reading::{Absence, Reading};

/// One `io_uring`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingRaw {
    /// The fd of the ring in the target.
    pub fd: i32,
    /// Where `state` comes from.
    pub source: RingSource,
    /// The counters; absent when they could not be read, with the reason.
    pub state: Reading<RingState>,
    /// What only fdinfo tells; absent until it was read, which is seldom.
    pub armed: Reading<ArmedRaw>,
}

/// Where the counters of a ring come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RingSource {
    /// The ring's own memory, mapped read-only.
    Memory {
        /// Whether fdinfo has confirmed the layout; until then only its own masks and entries do.
        confirmed: bool,
    },
    /// `/proc/PID/fdinfo/FD`, and why not its memory.
    Fdinfo(Absence),
}

/// Operations in flight, from `/proc/PID/fdinfo/FD`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmedRaw {
    /// When that read had ended, `CLOCK_MONOTONIC` ns.
    pub at_ns: u64,
    /// By opcode number (13 accept, 22 read, 26 send, 27 recv).
    pub operations: Vec<(u8, u32)>,
    /// Completions that did not fit the queue and wait in the overflow list.
    pub overflow: u32,
}

impl ArmedRaw {
    /// Operations of one opcode.
    pub fn of(&self, opcode: u8) -> u32 {
        self.operations
            .iter()
            .filter(|(op, _)| *op == opcode)
            .fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
}

/// The counters of one ring. Heads and tails are u32 and wrap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingState {
    /// Submission queue entries.
    pub sq_entries: u32,
    /// Next entry the kernel will take.
    pub sq_head: u32,
    /// Next entry the application will fill.
    pub sq_tail: u32,
    /// Completion queue entries.
    pub cq_entries: u32,
    /// Next completion the application will reap.
    pub cq_head: u32,
    /// Next completion the kernel will post.
    pub cq_tail: u32,
    /// Whether the kernel polls the submission queue itself (SQPOLL); the ring's memory does not
    /// tell, fdinfo does.
    pub sqpoll: Option<bool>,
    /// Whether completions wait in the overflow list (`IORING_SQ_CQ_OVERFLOW`).
    pub overflowing: bool,
    /// Entries the kernel refused as malformed, since the ring was made; fdinfo does not tell.
    pub sq_dropped: Option<u32>,
    /// Completions lost for want of memory, since the ring was made; fdinfo does not tell.
    pub cq_lost: Option<u32>,
    /// Entries prepared and not submitted: opcode and fd (at most [`PENDING_OPS_MAX`](super::PENDING_OPS_MAX)); absent
    /// where the size of an entry cannot be told.
    pub pending: Reading<Vec<(String, i32)>>,
    /// Results below zero among completions not reaped: errno (positive) and how many.
    pub failed: Reading<Vec<(i32, u32)>>,
    /// Results below zero among the last completions posted, reaped or not (at most
    /// [`RECENT_COMPLETIONS_MAX`](super::RECENT_COMPLETIONS_MAX) are looked at): errno and how many. fdinfo does not tell.
    pub recent: Reading<Vec<(i32, u32)>>,
}

impl Default for RingState {
    /// A ring of no entries in which nothing happened.
    fn default() -> Self {
        Self {
            sq_entries: 0,
            sq_head: 0,
            sq_tail: 0,
            cq_entries: 0,
            cq_head: 0,
            cq_tail: 0,
            sqpoll: None,
            overflowing: false,
            sq_dropped: None,
            cq_lost: None,
            pending: Reading::Got(Vec::new()),
            failed: Reading::Got(Vec::new()),
            recent: Reading::Got(Vec::new()),
        }
    }
}

impl RingState {
    /// Entries prepared and not yet submitted.
    pub const fn sq_pending(&self) -> u32 {
        self.sq_tail.wrapping_sub(self.sq_head)
    }

    /// Completions posted and not yet reaped.
    pub const fn cq_pending(&self) -> u32 {
        self.cq_tail.wrapping_sub(self.cq_head)
    }
}
