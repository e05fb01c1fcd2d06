//! A value that was read, or the reason why it could not be.

use serde::{Deserialize, Serialize};

/// What came of trying to read something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading<T> {
    /// The value, as the kernel gave it.
    Got(T),
    /// No value, and why.
    Absent(Absence),
}

/// Why there is no value: a class to act on, and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absence {
    /// The class of the reason.
    pub why: Why,
    /// One sentence with what was tried and what would permit it.
    pub detail: String,
}

/// Classes of reasons for an absent value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// EACCES or EPERM: more rights would permit it.
    NotPermitted,
    /// ENOENT or ESRCH: the thing is no longer there.
    Gone,
    /// This kernel, or this process, does not have it.
    Unsupported,
    /// Not read in this tick (too dear, or not due yet).
    NotSampled,
    /// The kernel holds a lock and left the section out (ring fdinfo on 6.18 under load).
    Locked,
    /// The text or message was not of the expected shape.
    Malformed,
    /// A rate needs two readings and there is only one yet.
    NoPrevious,
    /// A counter went back: the process, ring or namespace is another one.
    Restarted,
    /// Any other error of the operating system.
    Failed,
}

impl<T> Reading<T> {
    /// An absent reading.
    pub fn absent(why: Why, detail: impl Into<String>) -> Self {
        Self::Absent(Absence { why, detail: detail.into() })
    }

    /// The value, if there is one.
    pub const fn got(&self) -> Option<&T> {
        match self {
            Self::Got(value) => Some(value),
            Self::Absent(_) => None,
        }
    }

    /// The reason, if there is no value.
    pub const fn absence(&self) -> Option<&Absence> {
        match self {
            Self::Got(_) => None,
            Self::Absent(absence) => Some(absence),
        }
    }

    /// Applies `f` to the value; an absence passes through.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Reading<U> {
        match self {
            Self::Got(value) => Reading::Got(f(value)),
            Self::Absent(absence) => Reading::Absent(absence),
        }
    }

    /// Applies `f`, which may itself come up absent, to the value.
    pub fn and_then<U>(self, f: impl FnOnce(T) -> Reading<U>) -> Reading<U> {
        match self {
            Self::Got(value) => f(value),
            Self::Absent(absence) => Reading::Absent(absence),
        }
    }

    /// A reading of a reference to the value.
    pub fn as_ref(&self) -> Reading<&T> {
        match self {
            Self::Got(value) => Reading::Got(value),
            Self::Absent(absence) => Reading::Absent(absence.clone()),
        }
    }
}

impl<T> From<std::io::Result<T>> for Reading<T> {
    fn from(result: std::io::Result<T>) -> Self {
        match result {
            Ok(value) => Self::Got(value),
            Err(error) => Self::Absent(Absence::from(&error)),
        }
    }
}

/// The one place that says which errno means "gone", "not allowed" or "failed"
/// (proc(5): another process's `fd/`, `fdinfo/`, `syscall` and `stack` need ptrace read rights).
impl From<&std::io::Error> for Absence {
    fn from(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let why = match error.kind() {
            ErrorKind::PermissionDenied => Why::NotPermitted,
            ErrorKind::NotFound => Why::Gone,
            ErrorKind::Unsupported => Why::Unsupported,
            ErrorKind::InvalidData => Why::Malformed,
            // ESRCH: a /proc file of a process that died between open and read.
            _ if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Why::Gone,
            _ => Why::Failed,
        };
        Self { why, detail: error.to_string() }
    }
}

/// A reading with the monotonic instants between which it was made.
///
/// A slow probe is not read at every tick; its last result is then carried along unchanged, and
/// `begin_ns` says how old it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe<T> {
    /// `CLOCK_MONOTONIC` when the read began, ns.
    pub begin_ns: u64,
    /// `CLOCK_MONOTONIC` when the read had ended, ns.
    pub end_ns: u64,
    /// What came of it.
    pub reading: Reading<T>,
}

impl<T> Probe<T> {
    /// A probe that has not been read yet.
    pub fn not_sampled(detail: impl Into<String>) -> Self {
        Self { begin_ns: 0, end_ns: 0, reading: Reading::absent(Why::NotSampled, detail) }
    }

    /// The value, if there is one.
    pub const fn got(&self) -> Option<&T> {
        self.reading.got()
    }

    /// How long the read took, ns.
    pub const fn cost_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.begin_ns)
    }
}
