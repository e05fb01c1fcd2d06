//! A monoio server: another runtime on a ring of its own, that waits in `io_uring_enter` where
//! tokio-uring waits in epoll.

use std::time::Duration;

use anyhow::Context;
use monoio::buf::SliceMut;
use monoio::io::{AsyncReadRent as _, AsyncWriteRentExt as _};
use monoio::net::{TcpListener, TcpStream};

use super::super::{Options, say_ready};
use super::Stage;
use super::acts::Act;
use super::requests::{Answers, answers, parser};
use crate::diagnose::verdict::Cause;
use crate::kit::now_ns;

/// Pause after an accept that failed.
const BACK_OFF: Duration = Duration::from_millis(10);

async fn serve(mut stream: TcpStream) {
    let mut parser = parser();
    loop {
        let buffer = parser.take_buffer();
        let (filled, room) = (buffer.len(), buffer.capacity());
        let (outcome, slice) = stream.read(SliceMut::new(buffer, filled, room)).await;
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

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(_) => monoio::time::sleep(BACK_OFF).await,
        }
    }
}

async fn serve_all(listener: TcpListener) {
    loop {
        monoio::spawn(serve(accept(&listener).await));
    }
}

fn run(options: &Options, main: impl AsyncFnOnce(TcpListener, Stage)) -> anyhow::Result<()> {
    let stage = Stage::new(options)?;
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
        .enable_timer()
        .build()
        .context("cannot start a monoio runtime")?;
    runtime.block_on(async {
        let listener = TcpListener::bind(options.listen).context("cannot listen")?;
        say_ready(Some(listener.local_addr()?))?;
        main(listener, stage).await;
        Ok(())
    })
}

/// Serves, and nothing goes wrong.
pub(super) fn serves(options: &Options) -> anyhow::Result<()> {
    run(options, async |listener, _| serve_all(listener).await)
}

/// The runtime's thread does `act` instead of turning.
pub(super) fn acts(options: &Options, act: Act) -> anyhow::Result<()> {
    let prepared = act.prepare()?;
    run(options, async move |listener, stage| {
        monoio::spawn(async move {
            monoio::time::sleep(stage.after).await;
            stage.ground.fault_begins(act.cause().id());
            prepared();
        });
        serve_all(listener).await;
    })
}

/// The accept loop ends with the first connection after the fault's time; the listener lives on.
pub(super) fn ends_accepting(options: &Options) -> anyhow::Result<()> {
    run(options, async |listener, stage| {
        let due_ns = stage.due_ns();
        while now_ns() < due_ns {
            monoio::spawn(serve(accept(&listener).await));
        }
        stage.ground.fault_begins(Cause::AcceptNotArmed.id());
        let _alive = listener;
        std::future::pending::<()>().await;
    })
}
