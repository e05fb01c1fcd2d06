//! HTTP servers that do the same work (they put events into Kafka) and share everything but what
//! they are compared by: three that differ in their I/O, tokio, tokio-uring or glommio, and the first
//! two with hyper instead of their own HTTP. `docs/servers.md` describes them.
//!
//! ```text
//! {tokio,uring,glommio}_tcp (I/O) -> connection (time) -> session (order) -> http (bytes)
//!                    \                                           \-> handler -> sink (Kafka)
//!                     hyper_io -> hyper_conn (time) -> hyper ------/
//! ```
//!
//! `run` starts and ends them, `rt` is what they ask of their runtime.
#![expect(
    clippy::disallowed_methods,
    reason = "the servers are the patient, not the watcher: they have clocks of their own"
)]

mod accept;
mod broker;
mod connection;
mod context;
mod cure;
mod echo;
mod fault;
mod glommio_tcp;
mod handler;
pub mod http;
mod hyper_conn;
mod hyper_io;
mod rt;
mod run;
mod session;
mod shutdown;
mod sink;
mod tokio_tcp;
mod uring_pump;
mod uring_tcp;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use cure::{Cure, Cures};
pub use fault::FaultPlan;
pub use run::run;
pub use sink::{Ack, ProducerKind, SinkError, Tally, Tuning};

use crate::kit::profile::ProfileError;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Stack {
    /// Readiness through epoll
    Tokio,
    /// Operations through rings shared with the kernel
    TokioUring,
    /// hyper on tokio
    TokioHyper,
    /// hyper on tokio-uring, by an adapter
    TokioUringHyper,
    /// Readiness through rings, on glommio
    Glommio,
}

impl Stack {
    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tokio => "tokio",
            Self::TokioUring => "tokio-uring",
            Self::TokioHyper => "tokio-hyper",
            Self::TokioUringHyper => "tokio-uring-hyper",
            Self::Glommio => "glommio",
        }
    }

    /// As on the heartbeat page, which has room for 16 bytes.
    const fn page_name(self) -> &'static str {
        match self {
            Self::TokioUringHyper => "uring-hyper",
            _ => self.name(),
        }
    }

    /// Whether its I/O goes through the ring of a tokio-uring.
    pub const fn is_on_tokio_uring(self) -> bool {
        matches!(self, Self::TokioUring | Self::TokioUringHyper)
    }

    /// Whether hyper speaks HTTP.
    pub const fn has_hyper(self) -> bool {
        matches!(self, Self::TokioHyper | Self::TokioUringHyper)
    }
}

/// Where the events go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kafka {
    /// To a broker inside this process.
    Embedded,
    /// To these: `HOST:PORT[,HOST:PORT…]`.
    Bootstrap(String),
    /// Nowhere: all the same work but that.
    None,
}

/// What is done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// HTTP, and a record for Kafka
    Events,
    /// Each read is answered with the bytes of a 202: no HTTP, no Kafka
    Echo,
}

impl Work {
    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Echo => "echo",
        }
    }
}

/// How a server is to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which server.
    pub stack: Stack,
    /// Address to listen on; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// Length of the accept queue.
    pub backlog: i32,
    /// Runtimes, each on a thread of its own.
    pub threads: usize,
    /// What is done with a request.
    pub work: Work,
    /// Where the events go.
    pub kafka: Kafka,
    /// How long the broker in this process takes to answer, if not as long as it takes.
    pub kafka_rtt: Option<Duration>,
    /// Which producer.
    pub producer: ProducerKind,
    /// The topic.
    pub topic: String,
    /// When an event counts as taken.
    pub ack: Ack,
    /// Settings of librdkafka.
    pub tuning: Tuning,
    /// How long delivery is tried.
    pub message_timeout: Duration,
    /// Longest body.
    pub body_bytes_max: u64,
    /// For receiving one request, and for writing the responses.
    pub request_timeout: Duration,
    /// For a connection without a request.
    pub idle_timeout: Duration,
    /// For what is in flight when the server goes down, and again for what is not delivered.
    pub shutdown_timeout: Duration,
    /// What is done against tokio-uring's faults.
    pub cures: Cures,
    /// Whether to keep a heartbeat page.
    pub heartbeat: bool,
    /// Whether to profile.
    pub profile: bool,
    /// A stall to make on purpose.
    pub fault: Option<FaultPlan>,
}

/// Where a server that is ready can be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Its address.
    pub address: SocketAddr,
    /// The brokers it sends to.
    pub kafka: String,
    /// Its heartbeat page, if it keeps one.
    pub heartbeat: Option<PathBuf>,
}

/// Why a server did not start or ended too early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No heartbeat page.
    #[error("{0}; --no-heartbeat does without")]
    Heartbeat(#[from] stallscope_probes::heartbeat::PageError),
    /// No profiler.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// No producer.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// No signals.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    /// No listening socket.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The answer of the operating system.
        source: io::Error,
    },
    /// No tokio runtime.
    #[error("the tokio runtime failed: {0}")]
    Tokio(io::Error),
    /// No tokio-uring runtime.
    #[error(
        "the tokio-uring runtime failed: {0}; containers often forbid io_uring (seccomp, or the \
         sysctl kernel.io_uring_disabled)"
    )]
    TokioUring(io::Error),
    /// No glommio executor.
    #[error(
        "the glommio runtime failed: {0}; it needs io_uring and 512 KiB of locked memory \
         (ulimit -l), which containers often forbid"
    )]
    Glommio(io::Error),
    /// No thread for one of several runtimes.
    #[error("cannot start a thread for a runtime: {0}")]
    Thread(io::Error),
}
