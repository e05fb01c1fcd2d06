//! The open loop: hands each request that is due to a connection that is free.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::pace::Pace;
use super::run::Clock;
use super::slot::Slot;

/// Where connections wait for the next request that is due.
#[derive(Debug)]
pub struct Gate {
    pace: RefCell<Pace>,
    /// Free connections, longest free first: at most one entry per connection.
    waiting: RefCell<VecDeque<Rc<Slot>>>,
    someone_waits: Notify,
    clock: Clock,
}

impl Gate {
    pub fn new(pace: Pace, clock: Clock) -> Self {
        Self {
            pace: RefCell::new(pace),
            waiting: RefCell::new(VecDeque::new()),
            someone_waits: Notify::new(),
            clock,
        }
    }

    /// Waits for a request to send; returns when it was due.
    pub async fn next_due(&self, slot: &Rc<Slot>) -> u64 {
        // Whoever waits already comes first.
        if self.waiting.borrow().is_empty()
            && let Some(due_ns) = self.pace.borrow_mut().take(self.clock.now_ns())
        {
            return due_ns;
        }
        self.waiting.borrow_mut().push_back(slot.clone());
        self.someone_waits.notify_one();
        poll_fn(|_| slot.take_ticket().map_or(Poll::Pending, Poll::Ready)).await
    }

    /// Requests that were due by then and that no connection was free to send.
    pub fn overdue(&self, at_ns: u64) -> u64 {
        self.pace.borrow().overdue(at_ns)
    }

    /// Hands out requests as they fall due, for ever.
    pub async fn serve(self: Rc<Self>, timer: Timer) -> io::Result<()> {
        loop {
            while self.hand_out() {}
            if self.waiting.borrow().is_empty() {
                self.someone_waits.notified().await;
            } else {
                let due_ns = self.pace.borrow().next_due_ns();
                let wait_ns = due_ns.saturating_sub(self.clock.now_ns());
                timer.sleep(Duration::from_nanos(wait_ns)).await?;
            }
        }
    }

    /// Gives one request to one connection, if there are both.
    fn hand_out(&self) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            return false;
        }
        let Some(due_ns) = self.pace.borrow_mut().take(self.clock.now_ns()) else { return false };
        if let Some(slot) = waiting.pop_front() {
            slot.give(due_ns);
        }
        true
    }
}

/// A timer finer than tokio's, which counts whole milliseconds: at 10 000 requests a second that
/// would send ten at once and call the wait latency.
#[derive(Debug)]
pub struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// Needs a runtime.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "unsound for types whose fd changes; an OwnedFd keeps its own"
        )]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
        Ok(Self(fd))
    }

    async fn sleep(&self, duration: Duration) -> io::Result<()> {
        // Zero would disarm the timer (timerfd_create(2)).
        let duration = duration.max(Duration::from_nanos(1));
        let value = Timespec {
            tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(duration.subsec_nanos()),
        };
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Itimerspec { it_interval: zero, it_value: value };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        // The count of expirations need not be read: setting the timer clears it, and epoll
        // reports the next expiration as a new edge.
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}
