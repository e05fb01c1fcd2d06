//! HTTP servers that do the same work (they put events into Kafka) and share everything but what
//! they are compared by: two that differ in their I/O, tokio or tokio-uring, and the same two with
//! hyper instead of their own HTTP. `docs/servers.md` describes them.
//!
//! ```text
//! {tokio,uring}_tcp (I/O) -> connection (time) -> session (order) -> http (bytes)
//!                    \                                           \-> handler -> sink (Kafka)
//!                     hyper_io -> hyper_conn (time) -> hyper ------/
//! ```
#![expect(
    clippy::disallowed_methods,
    reason = "the servers are the patient, not the watcher: they have clocks of their own"
)]

mod accept;
mod broker;
mod connection;
mod context;
mod fault;
mod handler;
pub mod http;
mod hyper_conn;
mod hyper_io;
mod session;
mod shutdown;
mod sink;
mod tokio_tcp;
mod uring_tcp;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use fault::FaultPlan;
pub use sink::{Ack, SinkError, Tally, Tuning};

use crate::kit::heartbeat::Heartbeat;
use crate::kit::profile::{ProfileError, Profiler};
use broker::EmbeddedBroker;
use context::{Context, Limits};
use shutdown::Stop;
use sink::{Sink, SinkOptions, WhenFull};
use stallscope_probes::sample::Fault;

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
}

impl Stack {
    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tokio => "tokio",
            Self::TokioUring => "tokio-uring",
            Self::TokioHyper => "tokio-hyper",
            Self::TokioUringHyper => "tokio-uring-hyper",
        }
    }

    /// As on the heartbeat page, which has room for 16 bytes.
    const fn page_name(self) -> &'static str {
        match self {
            Self::TokioUringHyper => "uring-hyper",
            _ => self.name(),
        }
    }

    /// Whether its I/O goes through a ring.
    pub const fn has_ring(self) -> bool {
        matches!(self, Self::TokioUring | Self::TokioUringHyper)
    }
}

/// Where the events go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kafka {
    /// To a broker inside this process.
    Embedded,
    /// To these: `HOST:PORT[,HOST:PORT…]`.
    Bootstrap(String),
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
    /// Where the events go.
    pub kafka: Kafka,
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
}

/// Runs a server on this thread until SIGTERM or SIGINT; calls `announce` once it is ready.
pub fn run(options: &Options, announce: impl FnOnce(&Ready)) -> Result<Tally, ServeError> {
    let heartbeat = Arc::new(if options.heartbeat {
        Heartbeat::create(options.stack.page_name())?
    } else {
        Heartbeat::off()
    });
    // Before all other threads and sockets: it is to have an fd in any need.
    let _profiler = options.profile.then(Profiler::start).transpose()?;
    let stop = Arc::new(Stop::default());
    let patience = options.shutdown_timeout * 2 + Duration::from_secs(3);
    shutdown::listen_for_signals(Arc::clone(&stop), patience).map_err(ServeError::Signals)?;

    let listen_failed = |source| ServeError::Listen { address: options.listen, source };
    let listener = bind(options.listen, options.backlog).map_err(listen_failed)?;
    let (broker, bootstrap) = match &options.kafka {
        Kafka::Embedded => {
            let broker = EmbeddedBroker::start(&options.topic)?;
            let bootstrap = broker.bootstrap();
            (Some(broker), bootstrap)
        }
        Kafka::Bootstrap(bootstrap) => (None, bootstrap.clone()),
    };
    let sink = Arc::new(Sink::start(&sink_options(options, &bootstrap), Arc::clone(&heartbeat))?);
    let limits = Limits {
        request_timeout: options.request_timeout,
        idle_timeout: options.idle_timeout,
        body_bytes_max: options.body_bytes_max,
    };
    let ready = Ready {
        address: listener.local_addr().map_err(listen_failed)?,
        kafka: bootstrap,
        heartbeat: heartbeat.path().map(ToOwned::to_owned),
    };
    heartbeat.listens_on(ready.address.port());
    let context = Rc::new(Context::new(Arc::clone(&sink), broker, heartbeat, stop, limits));
    let (fault, timeout) = (options.fault, options.shutdown_timeout);
    // The events are flushed before the runtime is taken down, whatever that may wait for.
    let finish = || sink.finish(timeout);
    let begin = || {
        context.heartbeat.runtime_begins();
        announce(&ready);
    };
    let context = Rc::clone(&context);
    let stack = options.stack;
    let ended = if stack.has_ring() {
        let main = async || {
            let listener = uring_tcp::UringListener::new(listener)?;
            begin();
            serve_on(listener, stack, context, fault, timeout).await;
            Ok(())
        };
        uring_tcp::run(main, finish).map_err(ServeError::TokioUring)
    } else {
        let main = async || {
            let listener = tokio_tcp::TokioListener::new(listener)?;
            begin();
            serve_on(listener, stack, context, fault, timeout).await;
            Ok(())
        };
        tokio_tcp::run(main, finish).map_err(ServeError::Tokio)
    };
    ended.inspect_err(|_| {
        // Its thread would keep the heartbeat page of a server that never was.
        sink.finish(Duration::ZERO);
    })
}

/// Serves on `listener` to the end, with whom the stack has speak HTTP.
async fn serve_on<L>(
    listener: L,
    stack: Stack,
    context: Rc<Context>,
    fault: Option<FaultPlan>,
    timeout: Duration,
) where
    L: context::Listener,
    L::Stream: hyper_io::HyperSocket,
{
    match stack {
        Stack::Tokio | Stack::TokioUring => {
            accept::run(listener, context, fault, timeout, connection::serve).await;
        }
        Stack::TokioHyper | Stack::TokioUringHyper => {
            accept::run(listener, context, fault, timeout, hyper_conn::serve).await;
        }
    }
}

fn sink_options(options: &Options, bootstrap: &str) -> SinkOptions {
    let fills_queue = options.fault.is_some_and(|plan| plan.fault == Fault::KafkaQueueFull);
    SinkOptions {
        bootstrap: bootstrap.to_owned(),
        topic: options.topic.clone(),
        ack: options.ack,
        tuning: options.tuning,
        message_timeout: options.message_timeout,
        queue_max: fills_queue.then_some(fault::QUEUE_MAX),
        when_full: if fills_queue { WhenFull::Retry } else { WhenFull::Refuse },
    }
}

/// Binds the listening socket. `SO_REUSEADDR` lets a restarted server have its port back while old
/// connections are in `TIME_WAIT`. Not `SO_REUSEPORT`, which tokio-uring's own `bind` sets: with it a
/// second server on the port starts without an error and takes half of the connections.
fn bind(address: SocketAddr, backlog: i32) -> io::Result<std::net::TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}
