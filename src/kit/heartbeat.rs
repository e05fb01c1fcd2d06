//! What the server writes down about itself while it runs (`docs/heartbeat.md`).

use std::path::Path;
use std::time::Duration;

use stallscope_probes::heartbeat::{Page, PageError, Word};
use stallscope_probes::sample::Fault;

use super::now_ns;

/// Interval of the runtime thread's beats.
pub const BEAT_EVERY: Duration = Duration::from_millis(50);

/// The heartbeat page, or nothing when it is switched off. Each group of methods belongs to one
/// thread, as the words of the page do.
#[derive(Debug)]
pub struct Heartbeat {
    page: Option<Page>,
}

impl Heartbeat {
    /// Makes the page of this process; `stack` names the server in at most 16 bytes.
    pub fn create(stack: &str) -> Result<Self, PageError> {
        let page = Page::create(stack)?;
        page.set(Word::BeatEveryNs, BEAT_EVERY.as_nanos() as u64);
        Ok(Self { page: Some(page) })
    }

    /// No page: every record goes nowhere.
    pub const fn off() -> Self {
        Self { page: None }
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

    fn add(&self, word: Word, more: u64) {
        if let Some(page) = &self.page {
            page.add(word, more);
        }
    }
}

/// Called on the thread that runs the runtime.
impl Heartbeat {
    /// Says which thread runs the runtime.
    pub fn runtime_begins(&self) {
        self.set(Word::RuntimeTid, own_tid());
        self.beat();
    }

    /// The runtime turns.
    pub fn beat(&self) {
        self.set(Word::BeatNs, now_ns());
    }

    /// A connection was accepted.
    pub fn accepted(&self) {
        let Some(page) = &self.page else { return };
        page.add(Word::Accepted, 1);
        page.add(Word::Open, 1);
        page.set(Word::LastAcceptNs, now_ns());
    }

    /// A connection's socket was closed.
    pub fn closed(&self) {
        if let Some(page) = &self.page {
            page.sub(Word::Open, 1);
        }
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
        let Some(page) = &self.page else { return };
        page.add(Word::Responses, count);
        page.set(Word::LastResponseNs, now_ns());
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
        self.set(Word::ProducerQueue, queue);
        self.set(Word::KafkaBeatNs, now_ns());
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
        let heartbeat = Heartbeat::create("tokio").unwrap();
        heartbeat.runtime_begins();
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

        let off = Heartbeat::off();
        off.accepted();
        assert_eq!(off.path(), None);
    }
}
