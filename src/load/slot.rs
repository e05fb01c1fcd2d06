//! Deadlines without a timer per request.
//!
//! A connection writes its deadline into its slot, which costs a store; one sweep looks at all
//! slots several times per timeout and wakes those that are late. A deadline is thus met late by
//! up to [`sweep_interval`], never early.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const NO_DEADLINE: u64 = u64::MAX;

/// What the sweep and the gate know of one connection.
#[derive(Debug)]
pub struct Slot {
    deadline_ns: Cell<u64>,
    expired: Cell<bool>,
    ticket: Cell<Option<u64>>,
    waker: RefCell<Option<Waker>>,
}

/// The time was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired;

impl Slot {
    pub const fn new() -> Self {
        Self {
            deadline_ns: Cell::new(NO_DEADLINE),
            expired: Cell::new(false),
            ticket: Cell::new(None),
            waker: RefCell::new(None),
        }
    }

    /// Remembers how to wake the task that owns this slot. To be called by that task, once: the
    /// waker of a spawned task stays good for its whole life.
    pub async fn adopt(&self) {
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        self.waker.replace(Some(waker));
    }

    /// Polls until there is a result, or the sweep finds the deadline passed.
    pub async fn within<T>(
        &self,
        deadline_ns: u64,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T, Expired> {
        self.deadline_ns.set(deadline_ns);
        let result = poll_fn(|cx| match poll(cx) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending if self.expired.get() => Poll::Ready(Err(Expired)),
            Poll::Pending => Poll::Pending,
        })
        .await;
        self.deadline_ns.set(NO_DEADLINE);
        self.expired.set(false);
        result
    }

    /// Wakes the task if its deadline has passed.
    pub fn sweep(&self, now_ns: u64) {
        if now_ns >= self.deadline_ns.get() {
            self.expired.set(true);
            self.wake();
        }
    }

    /// Hands over the instant at which a request is due.
    pub fn give(&self, due_ns: u64) {
        self.ticket.set(Some(due_ns));
        self.wake();
    }

    /// What was handed over.
    pub fn take_ticket(&self) -> Option<u64> {
        self.ticket.take()
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// How often to sweep: fine against the timeout, coarse against the work of a sweep.
pub fn sweep_interval(timeout: Duration) -> Duration {
    (timeout / 20).clamp(Duration::from_millis(1), Duration::from_millis(50))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_deadline_ends_the_wait_and_leaves_nothing_behind() {
        let runtime = tokio::runtime::LocalRuntime::new().unwrap();
        let slot = Rc::new(Slot::new());
        let swept = slot.clone();
        let task = runtime.spawn_local(async move {
            slot.adopt().await;
            let late = slot.within(100, |_| Poll::<()>::Pending).await;
            let next = slot.within(100, |_| Poll::Ready(7)).await;
            (late, next)
        });
        let result = runtime.block_on(async move {
            tokio::task::yield_now().await;
            swept.sweep(99);
            tokio::task::yield_now().await;
            assert!(!task.is_finished(), "not before the deadline");
            swept.sweep(100);
            task.await.unwrap()
        });
        assert_eq!(result, (Err(Expired), Ok(7)));
    }

    #[test]
    fn sweeps_are_neither_too_rare_nor_too_frequent() {
        let of = |ms| sweep_interval(Duration::from_millis(ms)).as_millis();
        assert_eq!((of(1), of(200), of(10_000)), (1, 10, 50));
    }
}
