//! A tokio runtime of several workers, all or some of which do something else.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use super::super::{Options, say_ready};
use super::Stage;
use super::acts::{Act, Prepared};
use super::current_thread::serve_all;
use crate::diagnose::verdict::Cause;

/// `occupied` of `workers` do `act` instead of their work. When that is all of them, the truth is
/// the instant at which the last one begins.
pub(super) fn acts(
    options: &Options,
    workers: usize,
    occupied: usize,
    act: Act,
) -> anyhow::Result<()> {
    let stage = Stage::new(options)?;
    let prepared = act.prepare()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .context("cannot start a tokio runtime")?;
    let handle = runtime.handle().clone();
    // As in `#[tokio::main]`: the accept loop runs on this thread, and the workers turn the I/O
    // driver and serve.
    runtime.block_on(async {
        let listener = TcpListener::bind(options.listen).await.context("cannot listen")?;
        let address = listener.local_addr()?;
        thread::Builder::new()
            .name(String::from("fault"))
            .spawn(move || {
                thread::sleep(stage.after);
                occupy(&handle, stage, (workers, occupied), &prepared);
            })
            .context("cannot start a thread")?;
        say_ready(Some(address))?;
        serve_all(listener).await;
        Ok(())
    })
}

/// Has one worker after the other carry out `prepared`. Each is waited for: a task that lies in
/// the queue of an occupied worker might never be run.
fn occupy(handle: &Handle, stage: Stage, (workers, occupied): (usize, usize), prepared: &Prepared) {
    let ground = Arc::new(stage.ground);
    for nth in 1..=occupied {
        let (began, has_begun) = sync_channel(1);
        let (ground, prepared) = (Arc::clone(&ground), Arc::clone(prepared));
        handle.spawn(async move {
            if nth == workers {
                ground.fault_begins(Cause::WorkersBlocked.id());
            }
            began.send(()).ok();
            prepared();
        });
        if has_begun.recv().is_err() {
            return;
        }
    }
}
