//! What the server writes down about itself while it runs (`docs/heartbeat.md`).

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stallscope_probes::heartbeat::{Page, PageError, Word};
use stallscope_probes::sample::Fault;

use super::now_ns;

/// Interval of the runtime thread's beats.
pub const BEAT_EVERY: Duration = Duration::from_millis(50);

/// A runtime that is so late with its beat is the one to look at, among several.
const LATE: Duration = BEAT_EVERY.saturating_mul(4);

/// The heartbeat page, or nothing when it is switched off. Each group of methods belongs to one
/// thread, as the words of the page do; with several runtimes the first group belongs to them all.
#[derive(Debug)]
pub struct Heartbeat {
    page: Option<Page>,
    /// One for each runtime.
    lanes: Box<[Lane]>,
}

/// The beats of one of several runtimes.
#[derive(Debug, Default)]
struct Lane {
    tid: AtomicU64,
    beat_ns: AtomicU64,
}

impl Heartbeat {
    /// Makes the page of this process; `stack` names the server in at most 16 bytes, which has so
    /// many runtimes.
    pub fn create(stack: &str, runtimes: usize) -> Result<Self, PageError> {
        let page = Page::create(stack)?;
        page.set(Word::BeatEveryNs, BEAT_EVERY.as_nanos() as u64);
        let lanes = std::iter::repeat_with(Lane::default).take(runtimes.max(1)).collect();
        Ok(Self { page: Some(page), lanes })
    }

    /// No page: every record goes nowhere.
    pub fn off() -> Self {
        Self { page: None, lanes: Box::default() }
    }

    /// Says on which port the server listens.
    pub fn listens_on(&self, port: u16) {
        self.set(Word::ListenPort, port.into());
    }

    /// Where the page is.
    pub fn path(&self) -> Option<&Path> {
        self.page.as_ref().map(Page::path)
    }

    fn set(&self, word: Word, value: u64) {
        if let Some(page) = &self.page {
            page.set(word, value);
        }
    }

    /// Adds to a word; several runtimes share theirs.
    fn add(&self, word: Word, more: u64) {
        let Some(page) = &self.page else { return };
        if self.lanes.len() > 1 { page.add_shared(word, more) } else { page.add(word, more) }
    }
}

/// Called on the threads that run the runtimes.
impl Heartbeat {
    /// Says which thread runs the runtime of this number; those count from 0.
    pub fn runtime_begins(&self, lane: usize) {
        let tid = own_tid();
        if let Some(lane) = self.lanes.get(lane) {
            lane.beat_ns.store(now_ns(), Ordering::Relaxed);
            lane.tid.store(tid, Ordering::Relaxed);
        }
        if lane == 0 {
            self.set(Word::RuntimeTid, tid);
        }
        self.beat(lane);
    }

    /// The runtime of this number has come to its end, and is not late from now on.
    pub fn runtime_ends(&self, lane: usize) {
        if let Some(lane) = self.lanes.get(lane) {
            lane.beat_ns.store(0, Ordering::Relaxed);
        }
    }

    /// The runtime of this number turns. The page has one beat: that of the runtime which is the
    /// latest, so that one that is stuck is not hidden by the others; and if it is late, its thread.
    pub fn beat(&self, lane: usize) {
        let now_ns = now_ns();
        let [first, _, ..] = &*self.lanes else { return self.set(Word::BeatNs, now_ns) };
        if let Some(lane) = self.lanes.get(lane) {
            lane.beat_ns.store(now_ns, Ordering::Relaxed);
        }
        let beat_ns = |lane: &&Lane| lane.beat_ns.load(Ordering::Relaxed);
        // One that has not begun yet, or has ended, has no beats to be late with.
        let begun = self.lanes.iter().filter(|lane| beat_ns(lane) > 0);
        let latest = begun.min_by_key(beat_ns).unwrap_or(first);
        let is_late = now_ns.saturating_sub(beat_ns(&latest)) > LATE.as_nanos() as u64;
        let shown = if is_late { latest } else { first };
        self.set(Word::RuntimeTid, shown.tid.load(Ordering::Relaxed));
        self.set(Word::BeatNs, beat_ns(&latest));
    }

    /// A connection was accepted.
    pub fn accepted(&self) {
        self.add(Word::Accepted, 1);
        self.add(Word::Open, 1);
        self.set(Word::LastAcceptNs, now_ns());
    }

    /// A connection's socket was closed.
    pub fn closed(&self) {
        let Some(page) = &self.page else { return };
        if self.lanes.len() > 1 { page.sub_shared(Word::Open, 1) } else { page.sub(Word::Open, 1) }
    }

    /// An accept call failed.
    pub fn accept_failed(&self, errno: Option<i32>) {
        self.add(Word::AcceptErrors, 1);
        if let Some(errno) = errno {
            self.set(Word::AcceptErrno, errno.unsigned_abs().into());
        }
    }

    /// `count` requests were parsed.
    pub fn requests(&self, count: u64) {
        self.add(Word::Requests, count);
    }

    /// `count` responses were written to a socket.
    pub fn responses(&self, count: u64) {
        if self.page.is_some() {
            self.add(Word::Responses, count);
            self.set(Word::LastResponseNs, now_ns());
        }
    }

    /// An event was queued to the producer.
    pub fn queued(&self) {
        self.add(Word::Queued, 1);
    }

    /// The producer refused an event: its queue was full.
    pub fn queue_was_full(&self) {
        self.add(Word::QueueFull, 1);
    }

    /// A fault made on purpose takes hold at this moment.
    pub fn fault_begins(&self, fault: Fault) {
        if let Some(page) = &self.page {
            page.fault_begins(fault, now_ns());
        }
    }

    /// It is undone at this moment.
    pub fn fault_ends(&self) {
        if let Some(page) = &self.page {
            page.fault_ends(now_ns());
        }
    }
}

/// Called on the thread that polls the Kafka producer, but for the first.
impl Heartbeat {
    /// There is a producer, whose queue holds at most `queue_max` records.
    pub fn kafka_queue_holds(&self, queue_max: u64) {
        self.set(Word::ProducerQueueMax, queue_max);
    }

    /// Says which thread polls the producer.
    pub fn kafka_begins(&self) {
        self.set(Word::KafkaTid, own_tid());
    }

    /// The producer is being polled; it holds `queue` records and reports.
    pub fn kafka_beat(&self, queue: u64) {
        self.kafka_queue(queue);
        self.set(Word::KafkaBeatNs, now_ns());
    }

    /// The producer holds `queue` records and reports; who polls it, and whether, is not known.
    pub fn kafka_queue(&self, queue: u64) {
        self.set(Word::ProducerQueue, queue);
    }

    /// The broker acknowledged an event.
    pub fn delivered(&self) {
        self.add(Word::Delivered, 1);
    }

    /// An event was given up.
    pub fn failed(&self) {
        self.add(Word::Failed, 1);
    }
}

fn own_tid() -> u64 {
    rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_reach_the_page_and_can_be_switched_off() {
        let heartbeat = Heartbeat::create("tokio", 1).unwrap();
        heartbeat.runtime_begins(0);
        heartbeat.accepted();
        heartbeat.accept_failed(Some(24));
        heartbeat.requests(1);
        heartbeat.responses(2);
        heartbeat.closed();
        heartbeat.queue_was_full();
        heartbeat.kafka_queue_holds(9);
        heartbeat.kafka_begins();
        heartbeat.kafka_beat(7);
        let path = heartbeat.path().unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test reads what was written")]
        let bytes = std::fs::read(path).unwrap();
        let (_, beat) = stallscope_probes::heartbeat::parse(&bytes).unwrap();
        assert_eq!((beat.accepted, beat.open, beat.requests, beat.responses), (1, 0, 1, 2));
        assert_eq!((beat.accept_errors, beat.accept_errno), (1, Some(24)));
        assert_eq!((beat.producer_queue, beat.beat_every_ns), (7, 50_000_000));
        assert_eq!((beat.producer_queue_max, beat.queue_full), (Some(9), 1));
        assert!(beat.last_accept_ns >= beat.beat_ns && beat.last_response_ns.is_some());

        drop(heartbeat);
        // The same process has one page: a second test would replace it.
        let heartbeat = Heartbeat::create("tokio", 2).unwrap();
        heartbeat.runtime_begins(0);
        heartbeat.runtime_begins(1);
        let page = || {
            #[expect(clippy::disallowed_methods, reason = "the test reads what was written")]
            let bytes = std::fs::read(heartbeat.path().unwrap()).unwrap();
            stallscope_probes::heartbeat::parse(&bytes).unwrap().1
        };
        let other = std::thread::spawn({
            let late_ns = now_ns() - LATE.as_nanos() as u64 * 2;
            move || (own_tid(), late_ns)
        });
        let (late_tid, late_ns) = other.join().unwrap();
        heartbeat.lanes[1].tid.store(late_tid, Ordering::Relaxed);
        heartbeat.beat(0);
        assert_eq!(page().runtime_tid.unwrap() as u64, own_tid(), "all are in time");
        heartbeat.lanes[1].beat_ns.store(late_ns, Ordering::Relaxed);
        heartbeat.beat(0);
        assert_eq!(page().runtime_tid.unwrap() as u64, late_tid, "the one that is stuck");
        assert_eq!(page().beat_ns, Some(late_ns));
        heartbeat.runtime_ends(1);
        heartbeat.beat(0);
        assert_eq!(page().runtime_tid.unwrap() as u64, own_tid(), "one that has ended is not late");
        heartbeat.accepted();
        heartbeat.closed();
        assert_eq!((page().accepted, page().open), (1, 0));

        let off = Heartbeat::off();
        off.accepted();
        assert_eq!(off.path(), None);
    }
}
