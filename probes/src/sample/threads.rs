//! Threads.

use serde::{Deserialize, Serialize};

use super::TaskState;
use crate::reading::Reading;

/// From `/proc/PID/task/TID/{stat,schedstat,syscall,wchan,stack}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadRaw {
    /// Thread id.
    pub tid: i32,
    /// Thread name, as the process chose it: hostile text.
    pub comm: String,
    /// Scheduler state.
    pub state: TaskState,
    /// User CPU time, clock ticks.
    pub utime_ticks: u64,
    /// Kernel CPU time, clock ticks.
    pub stime_ticks: u64,
    /// Time on a CPU, ns, and time waiting for one (`schedstat`).
    pub sched: Reading<SchedRaw>,
    /// The system call the thread is in.
    pub syscall: Reading<SyscallRaw>,
    /// The kernel function it sleeps in; empty when it does not sleep.
    pub wchan: Reading<String>,
    /// Its kernel stack, innermost first; read only on suspicion.
    pub kernel_stack: Reading<Vec<String>>,
    /// How often it gave up its CPU, and how often it was made to (`status`); read seldom.
    pub switches: Reading<SwitchesRaw>,
}

/// From `/proc/PID/task/TID/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchesRaw {
    /// `voluntary_ctxt_switches`: it went to sleep.
    pub voluntary: u64,
    /// `nonvoluntary_ctxt_switches`: it was preempted.
    pub involuntary: u64,
}

/// From `/proc/PID/task/TID/schedstat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedRaw {
    /// Time spent on a CPU, ns.
    pub run_ns: u64,
    /// Time spent runnable but waiting for a CPU, ns.
    pub delay_ns: u64,
    /// Times the thread was put on a CPU.
    pub timeslices: u64,
}

/// From `/proc/PID/task/TID/syscall`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyscallRaw {
    /// Runnable: not inside a system call as far as the kernel says.
    Running,
    /// Blocked, but not in a system call (page fault, signal stop).
    NotInSyscall,
    /// In this system call (number of the machine's own table), with its first argument.
    In {
        /// System call number.
        nr: i64,
        /// First argument (the fd, for most waits).
        arg0: u64,
    },
}
