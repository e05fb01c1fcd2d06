//! epoll instances.

use serde::{Deserialize, Serialize};

/// One epoll instance, from `/proc/PID/fdinfo/FD` (`proc_pid_fdinfo(5)`, lines `tfd:`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpollRaw {
    /// Its fd in the target.
    pub fd: i32,
    /// Fds it watches (counted up to the bound of the read).
    pub watched: u32,
    /// Of the target's listening sockets, those it watches: inode, and whether it asks for
    /// readiness at all (EPOLLIN; a one-shot interest that has fired asks for nothing).
    pub listeners: Vec<(u32, bool)>,
}
