//! Fds kept for the producer.
//!
//! librdkafka connects to a broker for the first event, and again after each loss. Where clients
//! hold all fds by then it cannot (`socket(2)`: EMFILE), no event is delivered, and clients that
//! wait for the delivery of theirs hold their fds until `--message-timeout`: the server and its
//! clients wait for each other. So a few fds are kept from the beginning. While events wait, none
//! is delivered and no fd is free, they are given up, and nobody is accepted meanwhile.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use crate::kit::now_ns;
use crate::kit::rate::RateLimit;

/// Most fds that are kept with one runtime: for a bootstrap connection, a broker or two and the resolver; the broker
/// inside this process takes one more for each connection.
const KEPT_MAX: usize = 8;
/// At most this part of the limit is kept.
const KEPT_PART: u64 = 64;
/// Events wait this long without one being delivered before fds are given up.
const STUCK_AFTER: Duration = Duration::from_millis(500);
/// How long they are left to the producer: it tries again within `reconnect.backoff.max.ms`, 1 s, and
/// needs a second connection then.
const LEFT_FOR: Duration = Duration::from_millis(2500);
/// How long after an attempt in vain, with a broker that is down, there is none.
const REST: Duration = Duration::from_secs(5);

static WARNINGS: RateLimit = RateLimit::every_ns(5_000_000_000);

/// How far the producer has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    /// Events that it has been given and that have not come to an end.
    pub(super) waiting: u64,
    /// Events delivered, ever.
    pub(super) delivered: u64,
}

/// The fds that are kept, for all runtimes of a server.
pub(super) struct Reserve {
    state: Mutex<State>,
    /// They are given up: nobody else is to take one.
    is_given: AtomicBool,
    /// Some are not there: the next that come free are kept.
    is_short: AtomicBool,
}

struct State {
    kept: Vec<File>,
    kept_max: usize,
    need: Need,
}

impl State {
    /// Keeps as many as there are to be; says whether there were as many.
    fn fill(&mut self) -> bool {
        while self.kept.len() < self.kept_max {
            match any_fd() {
                Ok(fd) => self.kept.push(fd),
                Err(_) => return false,
            }
        }
        true
    }
}

/// An fd that costs nothing but its place.
fn any_fd() -> io::Result<File> {
    File::open("/dev/null")
}

/// Whether so many fds are free.
fn are_free(count: usize) -> bool {
    let fds: io::Result<Vec<File>> = (0..count).map(|_| any_fd()).collect();
    fds.is_ok()
}

impl Reserve {
    /// Keeps fds, in proportion to the limit. Of so many runtimes each but one may have an accept under
    /// way when they are given up, which takes one.
    pub(super) fn new(runtimes: usize) -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let part = usize::try_from(limit / KEPT_PART).unwrap_or(usize::MAX);
        Self::of(part.min(KEPT_MAX + runtimes.saturating_sub(1)))
    }

    /// Keeps none: there is no producer.
    pub(super) fn none() -> Self {
        Self::of(0)
    }

    fn of(kept_max: usize) -> Self {
        let mut state =
            State { kept: Vec::with_capacity(kept_max), kept_max, need: Need::default() };
        let is_short = !state.fill();
        Self {
            state: Mutex::new(state),
            is_given: AtomicBool::new(false),
            is_short: AtomicBool::new(is_short),
        }
    }

    /// Whether a connection may be accepted. What has come free is kept first.
    pub(super) fn lets_accept(&self) -> bool {
        if self.is_given.load(Ordering::Relaxed) {
            return false;
        }
        if self.is_short.load(Ordering::Relaxed) {
            self.is_short.store(!self.state().fill(), Ordering::Relaxed);
        }
        true
    }

    /// Gives the fds up, or keeps them again, as the producer needs.
    pub(super) fn look(&self, now: Instant, progress: Progress) {
        let mut state = self.state();
        if state.kept_max == 0 {
            return;
        }
        let room = state.kept_max + 1;
        if !state.need.look(now, progress, || !are_free(1), || are_free(room)) {
            self.is_short.store(!state.fill(), Ordering::Relaxed);
            self.is_given.store(false, Ordering::Relaxed);
        } else if !self.is_given.swap(true, Ordering::Relaxed) {
            if let Some(held_back) = WARNINGS.admit(now_ns()) {
                let kept = state.kept.len();
                tracing::warn!(
                    held_back,
                    "events wait for Kafka, and no fd is free: {kept} that were kept are left to \
                     the producer, and nobody is accepted meanwhile"
                );
            }
            state.kept.clear();
        }
    }

    /// Gives them up for good: nobody is accepted any more.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.kept_max = 0;
        state.kept.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the producer needs the fds. Pure.
#[derive(Debug, Default)]
struct Need {
    delivered: u64,
    /// Since when events wait and none is delivered.
    stuck_since: Option<Instant>,
    given_at: Option<Instant>,
    /// Not given up before.
    rests_until: Option<Instant>,
}

impl Need {
    fn look(
        &mut self,
        now: Instant,
        progress: Progress,
        is_none_free: impl FnOnce() -> bool,
        is_room: impl FnOnce() -> bool,
    ) -> bool {
        let goes_on = progress.waiting == 0 || progress.delivered != self.delivered;
        self.delivered = progress.delivered;
        if goes_on {
            self.stuck_since = None;
            self.given_at = None;
            return false;
        }
        let stuck_since = *self.stuck_since.get_or_insert(now);
        if let Some(given_at) = self.given_at {
            let is_in_vain = now >= given_at + LEFT_FOR;
            if is_in_vain {
                self.rests_until = Some(now + REST);
            }
            if is_in_vain || is_room() {
                self.given_at = None;
            }
        } else if now >= stuck_since + STUCK_AFTER
            && self.rests_until.is_none_or(|until| now >= until)
            && is_none_free()
        {
            self.given_at = Some(now);
        }
        self.given_at.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at `seconds` after the beginning.
    fn look(
        need: &mut Need,
        begun: Instant,
        seconds: f64,
        (waiting, delivered): (u64, u64),
    ) -> bool {
        let now = begun + Duration::from_secs_f64(seconds);
        need.look(now, Progress { waiting, delivered }, || true, || false)
    }

    #[test]
    fn a_producer_that_does_not_get_on_is_given_fds_until_it_does() {
        let (mut need, begun) = (Need::default(), Instant::now());
        assert!(!look(&mut need, begun, 0.0, (0, 0)), "nothing to deliver");
        assert!(!look(&mut need, begun, 9.0, (5, 0)), "the first look");
        assert!(!look(&mut need, begun, 9.4, (6, 0)), "not for long");
        assert!(look(&mut need, begun, 9.5, (6, 0)));
        assert!(look(&mut need, begun, 10.0, (9, 0)));
        assert!(!look(&mut need, begun, 10.1, (7, 2)), "it gets on");
        assert!(!look(&mut need, begun, 10.5, (7, 2)));
        assert!(look(&mut need, begun, 11.0, (7, 2)), "and is stuck anew");
    }

    #[test]
    fn what_is_given_in_vain_is_kept_again_for_a_while() {
        let (mut need, begun) = (Need::default(), Instant::now());
        assert!(!look(&mut need, begun, 0.0, (1, 0)));
        for (seconds, expected) in
            [(1.0, true), (3.4, true), (3.5, false), (8.4, false), (8.5, true), (10.9, true)]
        {
            assert_eq!(look(&mut need, begun, seconds, (1, 0)), expected, "after {seconds} s");
        }
    }

    #[test]
    fn where_fds_are_free_none_is_given() {
        let (mut need, begun) = (Need::default(), Instant::now());
        let progress = Progress { waiting: 1, delivered: 0 };
        for seconds in 0..20 {
            let now = begun + Duration::from_secs(seconds);
            assert!(!need.look(now, progress, || false, || true));
        }
        assert!(need.look(begun + Duration::from_secs(20), progress, || true, || true));
        assert!(!need.look(begun + Duration::from_secs(21), progress, || true, || true));
    }

    #[test]
    fn fds_are_kept_in_proportion_and_let_go_of_in_the_end() {
        let reserve = Reserve::of(3);
        assert_eq!(reserve.state().kept.len(), 3);
        reserve.state().kept.pop();
        reserve.is_short.store(true, Ordering::Relaxed);
        assert!(reserve.lets_accept());
        assert_eq!(reserve.state().kept.len(), 3, "what came free is kept");
        reserve.end();
        reserve.look(Instant::now(), Progress { waiting: 0, delivered: 0 });
        assert_eq!(reserve.state().kept.len(), 0);
    }
}
