//! Who polls the producer: librdkafka reports a delivery only to whoever asks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseProducer, Producer as _};
use tokio::sync::Notify;

use super::outlet::{Outlet, Reports};
use crate::kit::heartbeat::{BEAT_EVERY, Heartbeat};
use crate::servers::rt;

/// How long one call of `poll` collects delivery reports: the rate of the Kafka thread's beats.
pub(super) const POLL_EVERY: Duration = Duration::from_millis(50);
/// How often a task on the runtime polls.
const POLL_ON_RUNTIME_EVERY: Duration = Duration::from_millis(100);
/// Most batches whose reports are collected at once, there: the runtime has other things to do.
const BATCHES_MAX: usize = 4096;

/// Who it is.
pub(super) enum Poller {
    /// There is no producer.
    Nobody,
    /// A thread of the sink's.
    Thread(Thread),
    /// A task on the runtime.
    Runtime(Arc<Polling>),
    /// A thread of the producer's own.
    Itself,
}

impl Poller {
    /// How it is told to pause.
    pub(super) fn polling(&self) -> Option<&Polling> {
        match self {
            Self::Thread(thread) => Some(&thread.polling),
            Self::Runtime(polling) => Some(polling),
            Self::Nobody | Self::Itself => None,
        }
    }
}

/// How whoever polls is told to pause, and to come to an end.
#[derive(Default)]
pub(super) struct Polling {
    pauses: AtomicBool,
    /// Told each time it has come to a pause.
    has_paused: Notify,
    ends: AtomicBool,
    flush_until: RwLock<Option<Instant>>,
}

impl Polling {
    pub(super) async fn pause(&self) {
        self.pauses.store(true, Ordering::Release);
        self.has_paused.notified().await;
    }

    pub(super) fn resume(&self) {
        self.pauses.store(false, Ordering::Release);
    }

    /// Whether to poll now. `was_paused`: it was asked for already.
    fn is_paused(&self, was_paused: &mut bool) -> bool {
        let is_paused = self.pauses.load(Ordering::Acquire);
        if is_paused && !*was_paused {
            self.has_paused.notify_one();
        }
        *was_paused = is_paused;
        is_paused
    }
}

/// The thread `kafka-poll`: the delivery reports need neither the runtime nor its thread.
pub(super) struct Thread {
    polling: Arc<Polling>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl Thread {
    pub(super) fn start(
        producer: &Arc<BaseProducer<Reports>>,
        heartbeat: &Arc<Heartbeat>,
    ) -> std::io::Result<Self> {
        let polling = Arc::new(Polling::default());
        let handle = std::thread::Builder::new().name("kafka-poll".to_owned()).spawn({
            let (producer, polling) = (Arc::clone(producer), Arc::clone(&polling));
            let heartbeat = Arc::clone(heartbeat);
            move || poll_until_ended(&producer, &polling, &heartbeat)
        })?;
        Ok(Self { polling, handle: Mutex::new(Some(handle)) })
    }

    /// Waits for the delivery of what is in the queue, at most `timeout`.
    pub(super) fn finish(&self, timeout: Duration) {
        let mut until = self.polling.flush_until.write().unwrap_or_else(PoisonError::into_inner);
        *until = Some(Instant::now() + timeout);
        drop(until);
        self.polling.ends.store(true, Ordering::Release);
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(handle) = handle {
            // A panic of that thread shows in the tally.
            handle.join().ok();
        }
    }
}

/// Body of the thread `kafka-poll`.
fn poll_until_ended(producer: &BaseProducer<Reports>, polling: &Polling, heartbeat: &Heartbeat) {
    heartbeat.kafka_begins();
    let mut was_paused = false;
    while !polling.ends.load(Ordering::Acquire) {
        if polling.is_paused(&mut was_paused) {
            // No beat: nobody polls the producer.
            std::thread::sleep(POLL_EVERY);
        } else {
            beat_and_poll(producer, heartbeat, POLL_EVERY);
        }
    }
    // Whoever waits for a pause that will not come any more.
    polling.has_paused.notify_one();
    let until = *polling.flush_until.read().unwrap_or_else(PoisonError::into_inner);
    poll_until_delivered(producer, until, heartbeat);
}

/// Polls until the queue is empty, or it is `until`.
pub(super) fn poll_until_delivered(
    producer: &BaseProducer<Reports>,
    until: Option<Instant>,
    heartbeat: &Heartbeat,
) {
    while queue(producer) > 0 && until.is_some_and(|until| Instant::now() < until) {
        // What lingers to fill a batch is sent at once: flush says so to librdkafka, poll collects.
        producer.flush(Duration::ZERO).ok();
        beat_and_poll(producer, heartbeat, POLL_EVERY);
    }
    heartbeat.kafka_beat(queue(producer));
}

fn queue(producer: &BaseProducer<Reports>) -> u64 {
    u64::try_from(producer.in_flight_count()).unwrap_or(u64::MAX)
}

fn beat_and_poll(producer: &BaseProducer<Reports>, heartbeat: &Heartbeat, collects: Duration) {
    heartbeat.kafka_beat(queue(producer));
    producer.poll(collects);
}

/// Body of the task that polls on the runtime. It does not wait in `poll`: that would block the
/// runtime's thread.
pub(super) async fn poll_on_runtime(
    producer: &BaseProducer<Reports>,
    polling: &Polling,
    heartbeat: &Heartbeat,
) {
    let mut was_paused = false;
    loop {
        if !polling.is_paused(&mut was_paused) {
            heartbeat.kafka_beat(queue(producer));
            collect_reports(producer);
        }
        rt::sleep(POLL_ON_RUNTIME_EVERY).await;
    }
}

/// Collects the reports that are there, without waiting for others. One poll without a wait collects
/// those of one batch only (rust-rdkafka since 0.36, `base_producer.rs`): ten a second would be fewer
/// than a busy server has, and its queue would be full for ever.
fn collect_reports(producer: &BaseProducer<Reports>) {
    for _ in 0..BATCHES_MAX {
        let before = queue(producer);
        producer.poll(Duration::ZERO);
        if before == 0 || queue(producer) >= before {
            return;
        }
    }
}

/// Body of the task that says how long the queue is of a producer that polls itself.
pub(super) async fn tell_queue(outlet: &Outlet) {
    loop {
        outlet.heartbeat.kafka_queue(outlet.queue());
        rt::sleep(BEAT_EVERY).await;
    }
}
