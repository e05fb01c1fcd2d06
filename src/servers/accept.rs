//! The accept loop. No error ends it, and none makes it spin.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use super::context::{Context, Listener};
use super::fault::FaultPlan;
use crate::kit::heartbeat::BEAT_EVERY;
use crate::kit::now_ns;
use crate::kit::rate::RateLimit;

/// Pause after a failed accept, and its bound: it doubles with each failure in a row.
const BACK_OFF: Duration = Duration::from_millis(10);
const BACK_OFF_MAX: Duration = Duration::from_millis(100);

static WARNINGS: RateLimit = RateLimit::every_ns(5_000_000_000);

/// Serves until the stop is requested, and then until the last connection has ended.
pub(super) async fn run<L: Listener, F: Future<Output = ()> + 'static>(
    listener: L,
    context: Rc<Context>,
    fault: Option<FaultPlan>,
    shutdown_timeout: Duration,
    serve: fn(L::Stream, Rc<Context>) -> F,
) {
    let beats = tokio::task::spawn_local(beat(Rc::clone(&context)));
    if let Some(plan) = fault {
        tokio::task::spawn_local(plan.carry_out(Rc::clone(&context)));
    }
    accept(&listener, &context, serve).await;
    drop(listener);
    context.drain(shutdown_timeout).await;
    beats.abort();
}

/// Says every 50 ms that the runtime turns.
async fn beat(context: Rc<Context>) {
    let mut ticks = tokio::time::interval(BEAT_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        context.heartbeat.beat();
    }
}

async fn accept<L: Listener, F: Future<Output = ()> + 'static>(
    listener: &L,
    context: &Rc<Context>,
    serve: fn(L::Stream, Rc<Context>) -> F,
) {
    let mut back_off = BACK_OFF;
    // One future at a time, never dropped before its end: a tokio-uring accept that is dropped
    // still takes a connection, and nobody would ever close it.
    let mut accepting = pin!(listener.accept());
    let mut stop = pin!(context.stop.requested());
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = &mut accepting => accepted,
        };
        match accepted {
            Ok(stream) => {
                back_off = BACK_OFF;
                tokio::task::spawn_local(serve(stream, Rc::clone(context)));
            }
            Err(error) => {
                note_failure(&error, context);
                // Without a pause EMFILE comes back at once, for as long as no fd is freed.
                tokio::select! {
                    biased;
                    () = &mut stop => return,
                    () = tokio::time::sleep(back_off) => {}
                }
                back_off = (back_off * 2).min(BACK_OFF_MAX);
            }
        }
        accepting.set(listener.accept());
    }
    listener.stop();
    if let Ok(stream) = accepting.await {
        tokio::task::spawn_local(serve(stream, Rc::clone(context)));
    }
}

fn note_failure(error: &std::io::Error, context: &Context) {
    let errno = error.raw_os_error();
    context.heartbeat.accept_failed(errno);
    if context.exhaustion.is_first_met_by(errno) {
        context.heartbeat.fault_begins(stallscope_probes::sample::Fault::FdExhausted);
    }
    if let Some(held_back) = WARNINGS.admit(now_ns()) {
        tracing::warn!(held_back, "cannot accept a connection: {error}");
    }
}
