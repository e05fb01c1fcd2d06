//! Open file descriptors.

use serde::{Deserialize, Serialize};

use crate::reading::Reading;

/// Open fds and their limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdsRaw {
    /// Open now.
    pub open: u64,
    /// `RLIMIT_NOFILE`.
    pub limit: Reading<FdLimitRaw>,
    /// Whether `open` came from `st_size` of `/proc/PID/fd` (6.2+) rather than from a listing.
    pub from_st_size: bool,
}

/// `RLIMIT_NOFILE`; `None` is "unlimited".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdLimitRaw {
    /// Soft limit: what counts.
    pub soft: Option<u64>,
    /// Hard limit.
    pub hard: Option<u64>,
}

/// What the open fds are, by their links in `/proc/PID/fd`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdKindsRaw {
    /// Sockets of any family.
    pub sockets: u32,
    /// `io_uring` instances.
    pub rings: u32,
    /// epoll instances.
    pub epolls: u32,
    /// eventfds, timerfds, signalfds, pidfds and other anonymous inodes.
    pub anonymous: u32,
    /// Pipes.
    pub pipes: u32,
    /// Files, folders and devices.
    pub files: u32,
    /// Fds looked at.
    pub looked_at: u32,
    /// Whether there were more fds than the census looks at.
    pub truncated: bool,
}
