//! From a signal to an orderly end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::Notify;

use super::rt;

/// How often the first runtime looks whether the others have come to their end.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The wish that the server stop. Any thread may make it; tasks wait for it.
#[derive(Debug, Default)]
pub struct Stop {
    is_requested: AtomicBool,
    wake: Notify,
    /// Runtimes beside the first one that have work left.
    others: AtomicUsize,
}

/// A runtime beside the first one, until it has no work left.
#[derive(Debug)]
pub struct Other(Arc<Stop>);

impl Drop for Other {
    fn drop(&mut self) {
        self.0.others.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Stop {
    /// Makes the wish and wakes everybody who waits for it.
    pub fn request(&self) {
        self.is_requested.store(true, Ordering::Release);
        self.wake.notify_waiters();
    }

    /// Whether it was made.
    pub fn is_requested(&self) -> bool {
        self.is_requested.load(Ordering::Acquire)
    }

    /// Another runtime begins.
    pub fn one_more(self: &Arc<Self>) -> Other {
        self.others.fetch_add(1, Ordering::AcqRel);
        Other(Arc::clone(self))
    }

    /// Waits, at most `timeout`, until the other runtimes have no work left.
    pub async fn others_ended(&self, timeout: Duration) {
        let until = Instant::now() + timeout;
        while self.others.load(Ordering::Acquire) > 0 && Instant::now() < until {
            rt::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits for it.
    pub async fn requested(&self) {
        let mut wake = std::pin::pin!(self.wake.notified());
        // Enlisted before the look at the flag: a request in between is not missed.
        wake.as_mut().enable();
        if !self.is_requested() {
            wake.await;
        }
    }
}

/// Listens for SIGTERM and SIGINT on a thread of its own, `signals`.
///
/// The first one makes `stop`; a second one ends the process at once. `patience` after the first,
/// the process is ended in any case: a runtime whose thread is stuck cannot stop itself.
pub fn listen_for_signals(stop: Arc<Stop>, patience: Duration) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut arrivals = signals.forever();
        if arrivals.next().is_none() {
            return;
        }
        stop.request();
        let watchdog = std::thread::Builder::new().name("watchdog".to_owned());
        let watching = watchdog.spawn(move || {
            std::thread::sleep(patience);
            let waited_s = patience.as_secs();
            eprintln!("stallscope: still not down {waited_s} s after the signal; giving up");
            signal_hook::low_level::exit(1);
        });
        if let Err(error) = watching {
            eprintln!("stallscope: no watchdog for the shutdown: {error}");
        }
        if let Some(signal) = arrivals.next() {
            // The shell's convention for a process that a signal ended.
            signal_hook::low_level::exit(128 + signal);
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_waiter_learns_of_a_request_early_or_late() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let stop = Arc::new(Stop::default());
        runtime.block_on(async {
            let early = tokio::spawn({
                let stop = Arc::clone(&stop);
                async move { stop.requested().await }
            });
            tokio::task::yield_now().await;
            std::thread::spawn({
                let stop = Arc::clone(&stop);
                move || stop.request()
            });
            early.await.unwrap();
            stop.requested().await;
        });
        assert!(stop.is_requested());
    }
}
