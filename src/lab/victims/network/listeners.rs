//! Servers whose listening sockets come and go, or of which one is forgotten.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::net::TcpListener;

use super::super::{Ground, Options, say_ready};
use super::server::{BACKLOG, idle, listen, on_tokio, serve};

/// Attempts to find two ports side by side.
const PAIRS_MAX: u32 = 100;
/// How long nobody listens while the server takes a new listening socket.
const GAP: Duration = Duration::from_millis(50);
/// Between two of those.
const RENEW_EVERY: Duration = Duration::from_secs(4);

/// Two listeners, the second at the next port; the accept loop of the first ends.
pub(super) fn one_of_two(options: &Options) -> anyhow::Result<()> {
    let ground = Ground::open(options)?;
    on_tokio(async {
        let (first, second) = pair(options.listen)?;
        say_ready(Some(first.local_addr()?))?;
        let first_served = async {
            tokio::select! {
                () = serve(&first, idle, |_| {}) => {}
                () = tokio::time::sleep(options.after) => ground.fault_begins("accept-not-armed"),
            }
        };
        tokio::join!(first_served, serve(&second, idle, |_| {}));
        Ok(())
    })
}

fn pair(address: SocketAddr) -> anyhow::Result<(TcpListener, TcpListener)> {
    for _ in 0..PAIRS_MAX {
        let first = listen(address, BACKLOG)?;
        let mut next = first.local_addr()?;
        let Some(port) = next.port().checked_add(1) else { continue };
        next.set_port(port);
        if let Ok(second) = listen(next, BACKLOG) {
            return Ok((TcpListener::from_std(first)?, TcpListener::from_std(second)?));
        }
    }
    bail!("there are no two ports side by side")
}

/// Healthy: closes its listening socket now and then, and opens a new one at the same address, as
/// a new version that is put in place does.
pub(super) fn renewed(options: &Options) -> anyhow::Result<()> {
    on_tokio(async {
        let mut listener = TcpListener::from_std(listen(options.listen, BACKLOG)?)?;
        let address = listener.local_addr()?;
        say_ready(Some(address))?;
        let mut next = options.after;
        loop {
            tokio::select! {
                () = serve(&listener, idle, |_| {}) => {}
                () = tokio::time::sleep(next) => {}
            }
            drop(listener);
            tokio::time::sleep(GAP).await;
            listener = TcpListener::from_std(
                listen(address, BACKLOG).context("the address is not to be had again")?,
            )?;
            next = RENEW_EVERY;
        }
    })
}
