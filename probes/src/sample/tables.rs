//! Tables of the host or the namespace that every process shares, and that can be full.

use serde::{Deserialize, Serialize};

use crate::reading::Reading;

/// How full they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablesRaw {
    /// Open files of the whole system.
    pub files: Reading<FileTableRaw>,
    /// Connections tracked in the target's network namespace.
    pub conntrack: Reading<ConntrackRaw>,
}

/// From `/proc/sys/fs/file-nr` (`proc_sys_fs(5)`). When it is full, open(2) and accept(2) fail with
/// ENFILE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileTableRaw {
    /// Open files.
    pub open: u64,
    /// `fs.file-max`.
    pub max: u64,
    /// Whether the target may go beyond (`CAP_SYS_ADMIN`, `fs/file_table.c: alloc_empty_file`);
    /// `None` when its rights could not be read.
    pub exempt: Option<bool>,
}

/// Connection tracking of netfilter (`Documentation/networking/nf_conntrack-sysctl.rst`). When the
/// table is full, the first packet of a new connection is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackRaw {
    /// Connections tracked in the namespace.
    pub entries: u32,
    /// `nf_conntrack_max`.
    pub max: u32,
    /// Packets dropped for want of room, since the namespace was made.
    pub drops: u64,
    /// Entries thrown out early to make room.
    pub early_drops: u64,
    /// Entries that could not be inserted.
    pub insert_failed: u64,
}
