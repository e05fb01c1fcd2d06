//! A tokio-uring server, and what goes wrong on its thread or in its accept loop.

use std::time::Duration;

use anyhow::Context;
use tokio_uring::buf::BoundedBuf as _;
use tokio_uring::net::{TcpListener, TcpStream};

use super::super::{Options, say_ready};
use super::Stage;
use super::acts::Act;
use super::requests::{Answers, answers, parser};
use crate::diagnose::verdict::Cause;
use crate::kit::now_ns;

/// Pause after an accept that failed.
const BACK_OFF: Duration = Duration::from_millis(10);
/// How long the leaking accept loop waits before it starts anew.
const ACCEPT_MAX: Duration = Duration::from_millis(5);

/// Serves one connection to its end.
async fn serve(stream: TcpStream) {
    let mut parser = parser();
    loop {
        let buffer = parser.take_buffer();
        let filled = buffer.len();
        let (outcome, slice) = stream.read(buffer.slice(filled..)).await;
        let Ok(1..) = outcome else { return };
        parser.put_buffer(slice.into_inner());
        let Answers { bytes, is_last } = answers(&mut parser);
        if !bytes.is_empty() && stream.write_all(bytes).await.0.is_err() {
            return;
        }
        if is_last {
            return;
        }
    }
}

/// The next connection, whatever fails before.
async fn accept(listener: &TcpListener) -> TcpStream {
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
        tokio_uring::spawn(serve(accept(&listener).await));
    }
}

/// Runs `main` on a tokio-uring runtime made by `builder`, once it listens and has said so.
pub(super) fn run(
    options: &Options,
    builder: &tokio_uring::Builder,
    main: impl AsyncFnOnce(TcpListener, Stage),
) -> anyhow::Result<()> {
    let stage = Stage::new(options)?;
    let runtime =
        tokio_uring::Runtime::new(builder).context("cannot start a tokio-uring runtime")?;
    runtime.block_on(async {
        let listener = TcpListener::bind(options.listen).context("cannot listen")?;
        say_ready(Some(listener.local_addr()?))?;
        main(listener, stage).await;
        Ok(())
    })
}

/// The runtime's thread does `act` instead of turning.
pub(super) fn acts(options: &Options, act: Act) -> anyhow::Result<()> {
    let prepared = act.prepare()?;
    run(options, &tokio_uring::builder(), async move |listener, stage| {
        tokio_uring::spawn(async move {
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
    run(options, &tokio_uring::builder(), async move |listener, stage| {
        let due_ns = stage.due_ns();
        while now_ns() < due_ns {
            tokio_uring::spawn(serve(accept(&listener).await));
        }
        // No accept is in flight: its operation would keep the socket open (`io/accept.rs`).
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

/// From the fault's time on the accept loop gives each accept 5 ms, and starts another.
///
/// tokio-uring 0.5.0 cancels no operation: the accept stays armed, takes a connection, and its
/// completion is thrown away (`driver/mod.rs remove_op`, `Lifecycle::complete`).
pub(super) fn cancels_accepts(options: &Options) -> anyhow::Result<()> {
    run(options, &tokio_uring::builder(), async |listener, stage| {
        let due_ns = stage.due_ns();
        while now_ns() < due_ns {
            tokio_uring::spawn(serve(accept(&listener).await));
        }
        loop {
            match tokio::time::timeout(ACCEPT_MAX, listener.accept()).await {
                Ok(Ok((stream, _))) => {
                    tokio_uring::spawn(serve(stream));
                }
                Ok(Err(_)) => tokio::time::sleep(BACK_OFF).await,
                Err(_) => stage.ground.fault_begins(Cause::AcceptLeaked.id()),
            }
        }
    })
}
