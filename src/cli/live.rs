//! Watching with the TUI in front: sampling runs on a thread of its own, so that drawing never
//! delays a tick.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::{Context, anyhow};

use crate::tui::{LiveUpdate, SessionInfo, run_live};
use crate::watch::event::EndReason;
use crate::watch::session::{Session, Tick, Until};

/// Ticks that may wait for the screen: past that the oldest wait is the sampler's, and the tick is
/// left out of the view (not of the recording).
const WAITING_MAX: usize = 256;

/// Watches with the TUI until it ends or the user quits.
///
/// `listen` sees every tick on the sampling thread. Returns the session and why it ended.
///
/// # Errors
/// When the terminal fails, or `listen` does.
pub fn run(
    mut session: Session,
    until: Until,
    stop: &Arc<AtomicBool>,
    close_after_end: Option<Duration>,
    mut listen: impl FnMut(&Tick<'_>) -> anyhow::Result<()> + Send,
) -> anyhow::Result<(Session, EndReason)> {
    let info = SessionInfo {
        target: session.target.clone(),
        environment: session.environment.clone(),
        anchor: session.anchor,
        close_after_end,
    };
    let (steps, receiver) = sync_channel(WAITING_MAX);
    std::thread::scope(|scope| {
        let sampling = scope.spawn(|| {
            let outcome = session.run(until, stop, |tick| {
                // A screen that does not keep up, or is closed, must not hold up the sampling.
                steps.try_send(LiveUpdate::Step(tick.step.clone())).ok();
                listen(tick)
            });
            if let Ok(reason) = &outcome {
                steps.try_send(LiveUpdate::Ended(*reason)).ok();
            }
            drop(steps);
            outcome
        });
        let shown = run_live(info, receiver);
        stop.store(true, Ordering::Relaxed);
        let outcome = sampling.join().map_err(|_| anyhow!("the sampling thread failed"))?;
        shown.context("the terminal failed")?;
        outcome
    })
    .map(|reason| (session, reason))
}
