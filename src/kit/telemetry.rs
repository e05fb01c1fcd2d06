//! Spans and events: to stderr, and to tokio-console on request.

use std::io::IsTerminal as _;
use std::net::SocketAddr;

use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// Why there is no telemetry.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` is malformed.
    #[error("RUST_LOG is not a list of filters like info or stallscope=debug: {0}")]
    Filter(#[from] tracing_subscriber::filter::FromEnvError),
    /// The address for tokio-console cannot be had.
    #[error("cannot serve tokio-console on {address}")]
    Console {
        /// The address.
        address: SocketAddr,
        /// The answer of the operating system.
        source: std::io::Error,
    },
    /// Somebody else was first.
    #[error("telemetry is set up already: {0}")]
    Taken(#[from] TryInitError),
}

/// Sets telemetry up for the whole process: to stderr from level `warn` on, unless `RUST_LOG` says
/// otherwise, and to tokio-console at `console`. The console's server has a thread and a runtime of
/// its own, so that it can be asked while the server's runtime is stuck.
pub fn set_up(console: Option<SocketAddr>) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::WARN.into())
        .from_env()?;
    let stderr = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_filter(filter);
    if let Some(address) = console {
        // The console's own thread could only panic about it.
        std::net::TcpListener::bind(address)
            .map_err(|source| TelemetryError::Console { address, source })?;
    }
    let console = console
        .map(|address| console_subscriber::ConsoleLayer::builder().server_addr(address).spawn());
    tracing_subscriber::registry().with(console).with(stderr).try_init()?;
    Ok(())
}
