//! Hands tokio-uring's entries to the kernel when tokio-uring does not ([`Cure::Submit`]).
//!
//! A timer on the same runtime fires although that never parks: a current-thread runtime looks at
//! its timers after every 61 polls (tokio, `LocalSet` and `park_yield`). It is set by the first
//! operation after it has fired last: a server with nothing to do sleeps. Submitting entries that
//! tokio-uring has submitted meanwhile does nothing: the kernel takes them off the queue by its head.
//!
//! [`Cure::Submit`]: super::cure::Cure::Submit

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::rt;
use crate::kit::now_ns;
use crate::kit::rate::RateLimit;
use stallscope_probes::submit::{own_rings, submit};

/// How long an entry may wait. A runtime that parks submits long before.
const WAIT_MAX: Duration = Duration::from_millis(2);

static WARNINGS: RateLimit = RateLimit::every_ns(5_000_000_000);

thread_local! {
    static PUMP: RefCell<Option<Rc<Pump>>> = const { RefCell::new(None) };
}

struct Pump {
    ring: RawFd,
    entries_max: u32,
    is_set: Cell<bool>,
    wake: Notify,
}

/// Makes a runtime with `build`, and says which ring is the one of it: tokio-uring lends it to nobody.
pub(super) fn with_its_ring<T>(
    build: impl FnOnce() -> io::Result<T>,
) -> io::Result<(T, Option<RawFd>)> {
    // With several runtimes the rings come one at a time.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let before = own_rings()?;
    let built = build()?;
    let ring = own_rings()?.into_iter().find(|ring| !before.contains(ring));
    Ok((built, ring))
}

/// Starts it, on the runtime that has this ring.
pub(super) fn start(ring: RawFd, entries_max: u32) {
    let pump = Pump { ring, entries_max, is_set: Cell::new(false), wake: Notify::new() };
    let pump = Rc::new(pump);
    PUMP.set(Some(Rc::clone(&pump)));
    rt::spawn(pump.run());
}

/// Says that an operation is about to be put into the queue.
pub(super) fn has_work() {
    PUMP.with_borrow(|pump| {
        if let Some(pump) = pump
            && !pump.is_set.replace(true)
        {
            pump.wake.notify_one();
        }
    });
}

impl Pump {
    async fn run(self: Rc<Self>) {
        loop {
            self.wake.notified().await;
            rt::sleep(WAIT_MAX).await;
            self.is_set.set(false);
            while let Err(error) = submit(self.ring, self.entries_max) {
                // EAGAIN and EBUSY pass; whatever else it is, nothing else would help.
                if let Some(held_back) = WARNINGS.admit(now_ns()) {
                    tracing::warn!(held_back, "io_uring_enter: {error}; it is tried again");
                }
                rt::sleep(WAIT_MAX).await;
            }
        }
    }
}
