//! Two listening sockets on one port (`SO_REUSEPORT`, `socket(7)`), one of which nobody serves.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};

use super::super::{Ground, Options, say_ready};
use super::current_thread::serve_all;
use super::ring;
use crate::diagnose::verdict::Cause;

/// The limit of either accept queue.
const BACKLOG: i32 = 1024;

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_port(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves, and has a sibling: a second process that listens on the same port at the fault's time,
/// and serves nobody. The sibling writes the truth.
pub(super) fn beside_a_sibling(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a tokio runtime")?;
    runtime.block_on(async {
        let listener = listen(options.listen).context("cannot listen")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        say_ready(Some(address))?;
        // Its stdin is a pipe that closes when this process ends, however it ends.
        let _sibling = start_sibling(address, options.after, options.truth.as_deref())?;
        serve_all(tokio::net::TcpListener::from_std(listener)?).await;
        Ok(())
    })
}

fn start_sibling(
    address: SocketAddr,
    after: Duration,
    truth: Option<&Path>,
) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(program);
    command.args(["lab-victim", "reuseport-idle", "--listen", &address.to_string()]);
    command.args(["--after", &format!("{}ms", after.as_millis().max(1))]);
    if let Some(truth) = truth {
        command.arg("--truth").arg(truth);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    command.spawn().context("cannot start the sibling")
}

/// The sibling: listens on the port after a while, and never accepts. It ends with its stdin.
pub(super) fn idle_sibling(options: &Options) -> anyhow::Result<()> {
    let ground = Ground::open(options)?;
    std::thread::sleep(options.after);
    let listener = listen(options.listen).context("cannot listen")?;
    ground.fault_begins(Cause::ReuseportSibling.id());
    say_ready(Some(listener.local_addr()?))?;
    io::copy(&mut io::stdin().lock(), &mut io::sink()).context("cannot read stdin")?;
    Ok(())
}

/// A tokio-uring server that listens on its own port once more, and serves only the first socket.
/// tokio-uring sets `SO_REUSEPORT` on every listener (`io/socket.rs bind_internal`), so the second
/// one does not fail.
pub(super) fn beside_its_own(options: &Options) -> anyhow::Result<()> {
    ring::run(options, &tokio_uring::builder(), async |listener, stage| {
        let Ok(address) = listener.local_addr() else { return };
        tokio_uring::spawn(async move {
            tokio::time::sleep(stage.after).await;
            match tokio_uring::net::TcpListener::bind(address) {
                Ok(second) => {
                    stage.ground.fault_begins(Cause::ReuseportSibling.id());
                    let _alive = second;
                    std::future::pending::<()>().await;
                }
                Err(error) => eprintln!("cannot listen a second time: {error}"),
            }
        });
        ring::serve_all(listener).await;
    })
}
