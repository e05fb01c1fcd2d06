//! Servers whose queue of connections, or of handshakes, is too short for what comes.

use std::path::Path;
use std::time::Duration;

use rustix::net::listen as set_backlog;
use rustix::process::getpid;
use stallscope_probes::sample::ListenerRaw;
use stallscope_probes::sockets::Diag;
use tokio::net::TcpListener;

use super::super::{Ground, Options, say_ready};
use super::server::{BACKLOG, converse, idle, listen, on_tokio, told};

/// The short backlog.
const BACKLOG_SHORT: i32 = 8;
/// The backlog of a server whose handshakes are to pile up.
const BACKLOG_HANDSHAKES: i32 = 16;
/// What an accept costs in the slow loop: a look-up of the client's name, say.
const ACCEPT_COST: Duration = Duration::from_millis(20);
/// How often the slow server looks at its own queue, until it has overflowed.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// What an accept costs in the loop of limited rate: 200 accepts/s.
const ACCEPT_PACE: Duration = Duration::from_millis(5);

/// Accepts go on, 50 a second; from the time of the fault on with a backlog of 8.
pub(super) fn slow_accepts(options: &Options) -> anyhow::Result<()> {
    let ground = Ground::open(options)?;
    on_tokio(async {
        let listener = TcpListener::from_std(listen(options.listen, BACKLOG)?)?;
        say_ready(Some(listener.local_addr()?))?;
        let begin = tokio::time::Instant::now() + options.after;
        let served = async {
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(converse(stream, idle));
                }
                if tokio::time::Instant::now() >= begin {
                    tokio::time::sleep(ACCEPT_COST).await;
                }
            }
        };
        let watched = async {
            tokio::time::sleep_until(begin).await;
            set_backlog(&listener, BACKLOG_SHORT)?;
            first_drop(&listener).await?;
            ground.fault_begins("accept-queue-overflow");
            Ok(())
        };
        let ((), watched) = tokio::join!(served, watched);
        watched
    })
}

/// Returns when the kernel has turned the first connection away from `listener`.
async fn first_drop(listener: &TcpListener) -> anyhow::Result<()> {
    let local = listener.local_addr()?;
    let opened = Diag::open(Path::new("/proc"), getpid().as_raw_nonzero().get());
    let Some(diag) = opened.got() else { anyhow::bail!("sock_diag does not answer: {opened:?}") };
    let drops = || {
        let listeners = diag.listeners();
        let own = |one: &&ListenerRaw| one.local == local;
        listeners.got().and_then(|all| all.iter().find(own)?.drops)
    };
    let before = drops();
    while drops() <= before {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Healthy: an accept loop that takes 200 connections a second and no more, on purpose.
pub(super) fn paced_accepts(options: &Options) -> anyhow::Result<()> {
    on_tokio(async {
        let listener = TcpListener::from_std(listen(options.listen, BACKLOG)?)?;
        say_ready(Some(listener.local_addr()?))?;
        let mut pace = tokio::time::interval(ACCEPT_PACE);
        loop {
            pace.tick().await;
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, idle));
            }
        }
    })
}

/// A server with nothing wrong with it, and the usual backlog.
pub(super) fn usual(options: &Options) -> anyhow::Result<()> {
    told(options, BACKLOG)
}

/// A server with nothing wrong with it, and room for few handshakes.
pub(super) fn few_handshakes(options: &Options) -> anyhow::Result<()> {
    told(options, BACKLOG_HANDSHAKES)
}
