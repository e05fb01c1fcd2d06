//! What a connection of the watcher's own met with.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The last attempt of the active probe (opt-in).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveRaw {
    /// What was asked for.
    pub plan: ActivePlan,
    /// Where it connected to.
    pub target: SocketAddr,
    /// When the attempt began, `CLOCK_MONOTONIC` ns.
    pub began_ns: u64,
    /// What came of it.
    pub outcome: ActiveOutcome,
    /// Attempts so far.
    pub attempts: u64,
    /// Attempts in a row that got no answer (those of `--probe tcp`: no connection).
    pub failures_in_a_row: u32,
    /// When an attempt last succeeded.
    pub last_success_ns: Option<u64>,
}

/// What the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivePlan {
    /// What an attempt does.
    pub how: ActiveHow,
    /// Time between the beginnings of two attempts, ms.
    pub every_ms: u32,
}

/// What an attempt does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActiveHow {
    /// Connect, and close.
    Tcp,
    /// Connect, send one request, wait for the first byte of the answer.
    Http,
}

impl ActiveHow {
    /// As on the command line.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
        }
    }
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActiveOutcome {
    /// It is under way.
    Pending,
    /// The connection was made (`--probe tcp`), or a request answered (`--probe http`).
    Answered {
        /// Until the connection was made, microseconds.
        connect_us: u32,
        /// Until the first byte of the answer, microseconds; `None` for `--probe tcp`.
        answer_us: Option<u32>,
    },
    /// The connection was refused (RST).
    Refused,
    /// No connection came about in time: SYNs got no answer.
    ConnectTimeout,
    /// The connection was made, and the request got no answer in time.
    NoAnswer {
        /// Until the connection was made, microseconds.
        connect_us: u32,
    },
    /// The watcher itself could not make the attempt (errno): it says nothing of the target, but
    /// `EADDRNOTAVAIL` says that ephemeral ports are used up.
    NotMade {
        /// errno.
        errno: i32,
    },
}
