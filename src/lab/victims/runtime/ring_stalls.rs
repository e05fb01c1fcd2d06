//! What stalls tokio-uring 0.5.0 itself: entries that are not submitted, completions that are not
//! reaped.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rustix::io::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::super::{Ground, Options};
use super::acts::compute_a_little;
use super::ring::{run, serve_all};
use crate::diagnose::verdict::Cause;

/// Messages the producer is ahead of the consumer at most: half a second of work and more.
const BACKLOG_MAX: u64 = 1_000_000;
/// Messages sent before the producer looks how far the consumer is.
const BATCH: u64 = 10_000;
/// `io_uring_enter`: the same on every architecture (`include/uapi/asm-generic/unistd.h`).
const SYS_IO_URING_ENTER: i64 = 426;
/// Its second argument, `to_submit`.
const TO_SUBMIT: u8 = 1;

/// A task that always has something to do, and yields in between.
///
/// tokio-uring submits when its runtime parks (`runtime/mod.rs Runtime::new`, `on_thread_park`),
/// and a current-thread runtime with a ready task never parks (tokio `current_thread/mod.rs`:
/// `park_yield` runs no hook).
pub(super) fn yields(options: &Options) -> anyhow::Result<()> {
    run(options, &tokio_uring::builder(), async |listener, stage| {
        tokio_uring::spawn(async move {
            tokio::time::sleep(stage.after).await;
            stage.ground.fault_begins(Cause::SqNotFlushed.id());
            loop {
                compute_a_little();
                tokio::task::yield_now().await;
            }
        });
        serve_all(listener).await;
    })
}

/// A future that wakes itself at every poll, as a hand-written one does that polls something.
/// Since tokio 1.50 a wake counts as pending work (#7834), and the runtime does not park.
pub(super) fn wakes_itself(options: &Options) -> anyhow::Result<()> {
    run(options, &tokio_uring::builder(), async |listener, stage| {
        tokio_uring::spawn(async move {
            tokio::time::sleep(stage.after).await;
            stage.ground.fault_begins(Cause::SqNotFlushed.id());
            poll_fn(|context| {
                context.waker().wake_by_ref();
                Poll::<()>::Pending
            })
            .await;
        });
        serve_all(listener).await;
    })
}

/// A task that drains a channel which another thread fills faster: it has always a message, and
/// tokio has it yield only by waking itself.
pub(super) fn drains_a_full_channel(options: &Options) -> anyhow::Result<()> {
    run(options, &tokio_uring::builder(), async |listener, stage| {
        tokio_uring::spawn(async move {
            tokio::time::sleep(stage.after).await;
            let (messages, mut inbox) = unbounded_channel();
            let received = Arc::new(AtomicU64::new(0));
            let counter = Arc::clone(&received);
            thread::spawn(move || fill(&messages, &received));
            while inbox.recv().await.is_some() {
                stage.ground.fault_begins(Cause::SqNotFlushed.id());
                compute_a_little();
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        serve_all(listener).await;
    })
}

/// Sends for ever, at most [`BACKLOG_MAX`] messages ahead of what was `received`.
fn fill(messages: &UnboundedSender<u64>, received: &AtomicU64) {
    let mut sent = 0;
    loop {
        while sent - received.load(Ordering::Relaxed) > BACKLOG_MAX - BATCH {
            thread::sleep(Duration::from_millis(1));
        }
        for message in sent..sent + BATCH {
            if messages.send(message).is_err() {
                return;
            }
        }
        sent += BATCH;
    }
}

/// From the fault's time on the kernel refuses what is submitted with EAGAIN, as it does when it
/// cannot allocate a request (`io_uring/io_uring.c`, `io_submit_sqes`).
///
/// tokio-uring ignores the error (`driver/handle.rs Handle::flush`) and goes to sleep. What is
/// armed still wakes it; the answers it then prepares are not submitted either. Nothing else would
/// wake it: no timer is left in this server.
pub(super) fn loses_submissions(options: &Options) -> anyhow::Result<()> {
    let program = refuse_submissions()?;
    run(options, &tokio_uring::builder(), async |listener, stage| {
        tokio_uring::spawn(async move {
            tokio::time::sleep(stage.after).await;
            match seccompiler::apply_filter(&program) {
                Ok(()) => stage.ground.fault_begins(Cause::SubmitErrorDropped.id()),
                Err(error) => eprintln!("cannot install a seccomp filter: {error}"),
            }
        });
        serve_all(listener).await;
    })
}

/// `io_uring_enter` fails when it has something to submit; nothing else is touched.
fn refuse_submissions() -> anyhow::Result<BpfProgram> {
    let submits = SeccompCondition::new(TO_SUBMIT, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)
        .and_then(|submits| SeccompRule::new(vec![submits]))
        .context("cannot make a seccomp rule")?;
    let architecture = TargetArch::try_from(std::env::consts::ARCH)
        .map_err(|error| anyhow!("no seccomp filters for this machine: {error}"))?;
    let eagain = SeccompAction::Errno(Errno::AGAIN.raw_os_error().unsigned_abs());
    let rules = BTreeMap::from([(SYS_IO_URING_ENTER, vec![submits])]);
    SeccompFilter::new(rules, SeccompAction::Allow, eagain, architecture)
        .and_then(BpfProgram::try_from)
        .context("cannot make a seccomp filter")
}

/// A waker that panics, as one does whose executor is gone.
struct Panics(Ground);

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        self.0.fault_begins(Cause::CompletionsNotReaped.id());
        panic!("the executor this waker belongs to is gone");
    }
}

/// An operation is polled once by a foreign executor, whose waker panics when the operation
/// completes. tokio-uring wakes from the task that reaps completions (`runtime/mod.rs
/// drive_uring_wakes`): tokio catches the panic, the process lives on, and nobody reaps.
pub(super) fn kills_the_reaper(options: &Options) -> anyhow::Result<()> {
    run(options, &tokio_uring::builder(), async |listener, stage| {
        tokio_uring::spawn(async move {
            tokio::time::sleep(stage.after).await;
            let waker = Waker::from(Arc::new(Panics(stage.ground)));
            let mut operation = pin!(tokio_uring::no_op());
            // It cannot be ready: it is submitted when the runtime parks.
            let _pending = operation.as_mut().poll(&mut Context::from_waker(&waker)).is_pending();
            std::future::pending::<()>().await;
        });
        serve_all(listener).await;
    })
}

/// A ring whose completions are only made by a call that tokio-uring never makes:
/// `IORING_SETUP_DEFER_TASKRUN` wants `io_uring_enter(IORING_ENTER_GETEVENTS)`
/// (`io_uring_setup(2)`). It stalls from the start.
pub(super) fn defers_completions(options: &Options) -> anyhow::Result<()> {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_single_issuer().setup_defer_taskrun();
    let mut builder = tokio_uring::builder();
    builder.uring_builder(&ring);
    run(options, &builder, async |listener, stage| {
        stage.ground.fault_begins(Cause::TaskrunDeferred.id());
        serve_all(listener).await;
    })
}
