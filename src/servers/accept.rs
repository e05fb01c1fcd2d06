//! The accept loop. No error ends it, and none makes it spin.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use super::context::{Context, Listener};
use super::cure::Cure;
use super::fault::FaultPlan;
use super::rt;
use crate::kit::heartbeat::BEAT_EVERY;
use crate::kit::now_ns;
use crate::kit::rate::RateLimit;

/// Pause after a failed accept, and its bound: it doubles with each failure in a row.
const BACK_OFF: Duration = Duration::from_millis(10);
const BACK_OFF_MAX: Duration = Duration::from_millis(100);

/// How long an accept may take without the cure `accept`: then it is dropped, and made anew, as by
/// a server that puts a timeout around it to look whether it is to stop.
const UNCURED_TIMEOUT: Duration = Duration::from_millis(100);

static WARNINGS: RateLimit = RateLimit::every_ns(5_000_000_000);

/// Serves until the stop is requested, and then until the last connection has ended.
pub(super) async fn run<L: Listener, F: Future<Output = ()> + 'static>(
    listener: L,
    context: Rc<Context>,
    fault: Option<FaultPlan>,
    shutdown_timeout: Duration,
    serve: fn(L::Stream, Rc<Context>) -> F,
) {
    context.spawn_for_life(beat(Rc::clone(&context)));
    if let Some(plan) = fault {
        rt::spawn(plan.carry_out(Rc::clone(&context)));
    }
    accept(&listener, &context, serve).await;
    drop(listener);
    context.drain(shutdown_timeout).await;
}

/// Says every 50 ms that the runtime turns.
async fn beat(context: Rc<Context>) {
    loop {
        context.heartbeat.beat(context.lane);
        rt::sleep(BEAT_EVERY).await;
    }
}

async fn accept<L: Listener, F: Future<Output = ()> + 'static>(
    listener: &L,
    context: &Rc<Context>,
    serve: fn(L::Stream, Rc<Context>) -> F,
) {
    let mut back_off = BACK_OFF;
    let is_uncured = !context.cures.has(Cure::Accept);
    // One future at a time, never dropped before its end (`Cure::Accept` tells why).
    let mut accepting = pin!(listener.accept());
    let mut stop = pin!(context.stop.requested());
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            () = room_for_one(context) => {}
        }
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = &mut accepting => accepted,
            () = rt::sleep(UNCURED_TIMEOUT), if is_uncured => {
                accepting.set(listener.accept());
                continue;
            }
        };
        match accepted {
            Ok(stream) => {
                back_off = BACK_OFF;
                rt::spawn(serve(stream, Rc::clone(context)));
            }
            Err(error) => {
                note_failure(&error, context);
                // Without a pause EMFILE comes back at once, for as long as no fd is freed.
                tokio::select! {
                    biased;
                    () = &mut stop => return,
                    () = rt::sleep(back_off) => {}
                }
                back_off = (back_off * 2).min(BACK_OFF_MAX);
            }
        }
        accepting.set(listener.accept());
    }
    listener.stop();
    if let Ok(stream) = accepting.await {
        rt::spawn(serve(stream, Rc::clone(context)));
    }
}

/// Waits while the fds that are left are the producer's.
async fn room_for_one(context: &Context) {
    while !context.sink.lets_accept() {
        rt::sleep(BACK_OFF_MAX).await;
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
