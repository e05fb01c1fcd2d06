//! A tokio runtime on one thread, and what goes wrong on it or in its accept loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::super::{Options, say_ready};
use super::Stage;
use super::acts::Act;
use super::requests::{answers, parser};
use crate::diagnose::verdict::Cause;
use crate::kit::now_ns;

/// Pause after an accept that failed.
const BACK_OFF: Duration = Duration::from_millis(10);
/// Connections that may be served at once by the server that counts them.
const PERMITS_MAX: usize = 256;

/// Serves one connection to its end.
pub(super) async fn serve(mut stream: TcpStream) {
    let mut parser = parser();
    loop {
        let mut buffer = parser.take_buffer();
        let Ok(1..) = stream.read_buf(&mut buffer).await else { return };
        parser.put_buffer(buffer);
        let answers = answers(&mut parser);
        if stream.write_all(&answers.bytes).await.is_err() || answers.is_last {
            return;
        }
    }
}

/// The next connection, whatever fails before.
pub(super) async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(_) => tokio::time::sleep(BACK_OFF).await,
        }
    }
}

/// Serves everybody, for ever.
pub(super) async fn serve_all(listener: TcpListener) {
    loop {
        tokio::spawn(serve(accept(&listener).await));
    }
}

/// Runs `main` on a runtime of this thread, once it listens and has said so.
pub(super) fn run(
    options: &Options,
    main: impl AsyncFnOnce(TcpListener, Stage),
) -> anyhow::Result<()> {
    let stage = Stage::new(options)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a tokio runtime")?;
    runtime.block_on(async {
        let listener = TcpListener::bind(options.listen).await.context("cannot listen")?;
        say_ready(Some(listener.local_addr()?))?;
        main(listener, stage).await;
        Ok(())
    })
}

/// The runtime's thread does `act` instead of turning.
pub(super) fn acts(options: &Options, act: Act) -> anyhow::Result<()> {
    let prepared = act.prepare()?;
    run(options, async move |listener, stage| {
        tokio::spawn(async move {
            tokio::time::sleep(stage.after).await;
            stage.ground.fault_begins(act.cause().id());
            prepared();
        });
        serve_all(listener).await;
    })
}

/// The accept loop ends with the first connection after the fault's time, as one does that leaves
/// by `?`; the listener is closed with it, or lives on elsewhere.
pub(super) fn ends_accepting(options: &Options, closes: bool) -> anyhow::Result<()> {
    run(options, async move |listener, stage| {
        let due_ns = stage.due_ns();
        while now_ns() < due_ns {
            tokio::spawn(serve(accept(&listener).await));
        }
        if closes {
            drop(listener);
            stage.ground.fault_begins(Cause::ListenerGone.id());
            std::future::pending::<()>().await;
        } else {
            stage.ground.fault_begins(Cause::AcceptNotArmed.id());
            let _alive = listener;
            std::future::pending::<()>().await;
        }
    })
}

/// The accept loop waits for a permit before each accept, and from the fault's time on none comes
/// back.
pub(super) fn waits_for_a_permit(options: &Options) -> anyhow::Result<()> {
    run(options, async |listener, stage| {
        let permits = Arc::new(Semaphore::new(PERMITS_MAX));
        let leaks = Arc::new(AtomicBool::new(false));
        let leak = async {
            tokio::time::sleep(stage.after).await;
            leaks.store(true, Ordering::Relaxed);
            permits.forget_permits(PERMITS_MAX);
            std::future::pending::<()>().await;
        };
        let accept_loop = async {
            loop {
                // From here on a permit that is missing is missing for ever.
                if leaks.load(Ordering::Relaxed) && permits.available_permits() == 0 {
                    stage.ground.fault_begins(Cause::AcceptNotArmed.id());
                }
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
                let stream = accept(&listener).await;
                let leaks = Arc::clone(&leaks);
                tokio::spawn(async move {
                    serve(stream).await;
                    if leaks.load(Ordering::Relaxed) {
                        permit.forget();
                    }
                });
            }
        };
        tokio::join!(leak, accept_loop);
    })
}
