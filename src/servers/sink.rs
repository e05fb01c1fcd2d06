//! Where the events go: Kafka, through librdkafka.
//!
//! The producer is polled on a thread of its own, `kafka-poll`: its delivery reports need neither
//! the runtime nor its thread. `send` copies the record into librdkafka's queue and never blocks;
//! that queue has a bound, and what does not fit is refused.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use stallscope_probes::sample::Fault;
use tokio::sync::{Notify, oneshot};

use crate::kit::heartbeat::Heartbeat;
use crate::kit::now_ns;
use crate::kit::rate::RateLimit;

/// How long one call of `poll` collects delivery reports: the rate of the Kafka thread's beats.
const POLL_EVERY: Duration = Duration::from_millis(50);
/// How long an event that found the queue full waits before it is tried again: as long as
/// rust-rdkafka's `FutureProducer::send` does (`future_producer.rs`).
const RETRY_EVERY: Duration = Duration::from_millis(100);
/// Largest record: Kafka's default for topics (`message.max.bytes`, 1 048 588) less the header of a
/// batch, for which librdkafka leaves no room: what the broker refuses would be acknowledged.
const RECORD_BYTES_MAX: &str = "1048527";
/// Longest pause between attempts to reach a broker, ms. librdkafka looks in such a pause for no
/// events whose time is up: with its default, 10 s, they would fail that much too late.
const RECONNECT_AFTER_MAX: &str = "1000";

/// When an event counts as taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Ack {
    /// 202 once it is in the producer's queue
    Queue,
    /// 200 once the broker has acknowledged it
    Delivery,
}

/// What becomes of an event that finds the producer's queue full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It is refused, and its client is told.
    Refuse,
    /// It is tried again until there is room, as with a `FutureProducer` and `Timeout::Never`.
    Retry,
}

/// Settings of librdkafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Tuning {
    /// librdkafka's defaults; queue of 100 000 records or 64 MiB
    Default,
    /// Batches up to 1 MB after 25 ms, lz4; queue of 1 000 000 records or 256 MiB
    Tuned,
}

/// What the producer is to do.
#[derive(Debug, Clone)]
pub struct SinkOptions {
    /// `HOST:PORT[,HOST:PORT…]`.
    pub bootstrap: String,
    /// The topic.
    pub topic: String,
    /// When an event counts as taken.
    pub ack: Ack,
    /// Settings.
    pub tuning: Tuning,
    /// How long delivery is tried before an event is given up.
    pub message_timeout: Duration,
    /// Most records in the producer's queue, instead of what `tuning` says.
    pub queue_max: Option<u64>,
    /// What becomes of the others.
    pub when_full: WhenFull,
}

/// Why there is no producer.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The broker inside the process did not start.
    #[error("cannot start the embedded Kafka broker: {0}")]
    Embedded(KafkaError),
    /// The producer could not be made.
    #[error("cannot make a Kafka producer for {bootstrap}: {source}")]
    Producer {
        /// The brokers.
        bootstrap: String,
        /// librdkafka's answer.
        source: KafkaError,
    },
    /// No thread.
    #[error("cannot start the thread kafka-poll: {0}")]
    Thread(std::io::Error),
}

/// What one event has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is in the producer's queue.
    Queued,
    /// The broker has it.
    Delivered,
}

/// How the delivery of one event, or the wait for room in the queue, ended.
pub type Delivery = Result<Settled, String>;

/// What came of handing an event over.
#[derive(Debug)]
pub enum Published {
    /// It is in the queue, and that is enough.
    Queued,
    /// It is in the queue; the receiver says what becomes of it.
    Pending(oneshot::Receiver<Delivery>),
    /// The queue is full.
    Full,
    /// It is larger than a Kafka record may be.
    TooLarge,
    /// librdkafka refused it.
    Refused(String),
}

/// Takes events. The handler knows no more of Kafka than this.
pub trait Events {
    /// Hands one event over. Never blocks.
    fn publish(&self, text: &str) -> Published;
}

/// Rides through librdkafka with each record and comes back with its delivery report.
struct Ticket {
    waiting: Option<oneshot::Sender<Delivery>>,
}

/// Receives what the producer reports, on the thread that polls it.
struct Reports {
    heartbeat: Arc<Heartbeat>,
    delivered: AtomicU64,
    failed: AtomicU64,
    warnings: RateLimit,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if (level as i32) <= RDKafkaLogLevel::Warning as i32 {
            self.warn(format_args!("librdkafka {facility}: {message}"));
        } else {
            tracing::debug!("librdkafka {facility}: {message}");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.warn(format_args!("Kafka: {error}: {reason}"));
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Arc<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Arc<Ticket>) {
        let outcome = match result {
            Ok(_) => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
                self.heartbeat.delivered();
                Ok(Settled::Delivered)
            }
            Err((error, record)) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                self.heartbeat.failed();
                self.warn(format_args!("an event for topic {} is lost: {error}", record.topic()));
                Err(error.to_string())
            }
        };
        // In queue mode all records share one ticket, which nobody waits for.
        if let Some(sender) = Arc::into_inner(ticket).and_then(|ticket| ticket.waiting) {
            // Nobody receives when the client has left meanwhile.
            sender.send(outcome).ok();
        }
    }
}

impl Reports {
    fn warn(&self, what: std::fmt::Arguments<'_>) {
        if let Some(held_back) = self.warnings.admit(now_ns()) {
            tracing::warn!(held_back, "{what}");
        }
    }
}

/// What became of the events, at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Taken into the producer's queue.
    pub accepted: u64,
    /// Acknowledged by the broker.
    pub delivered: u64,
    /// Given up. With `--ack delivery` their clients were told so.
    pub failed: u64,
    /// Events that a client was promised and that did not reach the broker.
    pub lost: u64,
}

/// The producer and the thread that polls it.
pub struct Sink {
    outlet: Arc<Outlet>,
    ack: Ack,
    when_full: WhenFull,
    /// Shared by all events nobody waits for: one counter instead of one allocation each.
    no_one_waits: Arc<Ticket>,
    polling: Arc<Polling>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Where events leave: what sending one takes. Its methods are called on the runtime's thread.
struct Outlet {
    producer: Arc<BaseProducer<Reports>>,
    topic: String,
    accepted: AtomicU64,
    heartbeat: Arc<Heartbeat>,
    /// The next event that finds the queue full is the beginning of the fault `kafka-queue-full`.
    full_is_fault: AtomicBool,
}

/// Why an event was not sent.
enum Unsent {
    /// No room; the ticket comes back.
    Full(Arc<Ticket>),
    /// Larger than a Kafka record may be.
    TooLarge,
    /// Anything else.
    Refused(String),
}

impl Outlet {
    fn send(&self, text: &str, ticket: Arc<Ticket>) -> Result<(), Unsent> {
        let record = BaseRecord::<(), str, _>::with_opaque_to(&self.topic, ticket).payload(text);
        match self.producer.send(record) {
            Ok(()) => {
                self.accepted.fetch_add(1, Ordering::Relaxed);
                self.heartbeat.queued();
                Ok(())
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => {
                self.heartbeat.queue_was_full();
                if self.full_is_fault.swap(false, Ordering::Relaxed) {
                    self.heartbeat.fault_begins(Fault::KafkaQueueFull);
                }
                Err(Unsent::Full(record.delivery_opaque))
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                Err(Unsent::TooLarge)
            }
            Err((error, _)) => Err(Unsent::Refused(error.to_string())),
        }
    }

    /// Sends once there is room. The number of these is bounded by the connections, and by the
    /// unanswered requests of each; one whose client's connection is gone gives up.
    async fn send_when_room(
        &self,
        text: &str,
        mut ticket: Arc<Ticket>,
        mut queued: Option<oneshot::Sender<Delivery>>,
    ) {
        let left = |waiting: Option<&oneshot::Sender<Delivery>>| {
            waiting.is_some_and(oneshot::Sender::is_closed)
        };
        while !left(queued.as_ref()) && !left(ticket.waiting.as_ref()) {
            tokio::time::sleep(RETRY_EVERY).await;
            match self.send(text, ticket) {
                Err(Unsent::Full(back)) => ticket = back,
                Ok(()) => return answer(queued.take(), Ok(Settled::Queued)),
                // A ticket that was refused is gone, and whoever waits for it is told so.
                Err(Unsent::Refused(error)) => return answer(queued.take(), Err(error)),
                // It was found to be small enough when it was tried first.
                Err(Unsent::TooLarge) => return,
            }
        }
    }
}

fn answer(waiting: Option<oneshot::Sender<Delivery>>, delivery: Delivery) {
    if let Some(sender) = waiting {
        // Nobody receives when the client has left meanwhile.
        sender.send(delivery).ok();
    }
}

/// How the polling thread is told to pause, and to come to an end.
#[derive(Default)]
struct Polling {
    pauses: AtomicBool,
    /// Told each time the thread has come to a pause.
    has_paused: Notify,
    ends: AtomicBool,
    flush_until: RwLock<Option<Instant>>,
}

impl Sink {
    /// Makes the producer and starts its thread. Does not wait for a broker: events queue up until
    /// there is one.
    pub fn start(options: &SinkOptions, heartbeat: Arc<Heartbeat>) -> Result<Self, SinkError> {
        let reports = Reports {
            heartbeat: Arc::clone(&heartbeat),
            delivered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            warnings: RateLimit::every_ns(5_000_000_000),
        };
        let producer: BaseProducer<Reports> =
            configuration(options).create_with_context(reports).map_err(|source| {
                SinkError::Producer { bootstrap: options.bootstrap.clone(), source }
            })?;
        let producer = Arc::new(producer);
        heartbeat.kafka_queue_holds(queue_max(options));
        let polling = Arc::new(Polling::default());
        let thread = std::thread::Builder::new()
            .name("kafka-poll".to_owned())
            .spawn({
                let (producer, polling) = (Arc::clone(&producer), Arc::clone(&polling));
                let heartbeat = Arc::clone(&heartbeat);
                move || poll_until_ended(&producer, &polling, &heartbeat)
            })
            .map_err(SinkError::Thread)?;
        let outlet = Outlet {
            producer,
            topic: options.topic.clone(),
            accepted: AtomicU64::new(0),
            heartbeat,
            full_is_fault: AtomicBool::new(false),
        };
        Ok(Self {
            outlet: Arc::new(outlet),
            ack: options.ack,
            when_full: options.when_full,
            no_one_waits: Arc::new(Ticket { waiting: None }),
            polling,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Stops polling the producer, and returns once the call of `poll` under way has ended: no
    /// delivery is reported after that.
    pub async fn pause_polling(&self) {
        self.polling.pauses.store(true, Ordering::Release);
        self.polling.has_paused.notified().await;
    }

    /// Polls the producer again.
    pub fn resume_polling(&self) {
        self.polling.pauses.store(false, Ordering::Release);
    }

    /// Says whether the next event that finds the queue full is the beginning of the fault
    /// `kafka-queue-full`; returns whether that was still to come.
    pub fn take_full_for_fault(&self, is_fault: bool) -> bool {
        self.outlet.full_is_fault.swap(is_fault, Ordering::Relaxed)
    }

    /// Waits for the delivery of everything taken, at most `timeout`, and says what came of it.
    pub fn finish(&self, timeout: Duration) -> Tally {
        let mut until = self.polling.flush_until.write().unwrap_or_else(PoisonError::into_inner);
        *until = Some(Instant::now() + timeout);
        drop(until);
        self.polling.ends.store(true, Ordering::Release);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of that thread shows in the tally.
            thread.join().ok();
        }
        let reports = self.outlet.producer.context();
        let accepted = self.outlet.accepted.load(Ordering::Relaxed);
        let delivered = reports.delivered.load(Ordering::Relaxed);
        let failed = reports.failed.load(Ordering::Relaxed);
        let told = if self.ack == Ack::Delivery { failed } else { 0 };
        Tally { accepted, delivered, failed, lost: accepted.saturating_sub(delivered + told) }
    }
}

impl Events for Sink {
    fn publish(&self, text: &str) -> Published {
        let (ticket, outcome) = match self.ack {
            Ack::Queue => (Arc::clone(&self.no_one_waits), Published::Queued),
            Ack::Delivery => {
                let (sender, receiver) = oneshot::channel();
                (Arc::new(Ticket { waiting: Some(sender) }), Published::Pending(receiver))
            }
        };
        match self.outlet.send(text, ticket) {
            Ok(()) => outcome,
            Err(Unsent::Full(ticket)) if self.when_full == WhenFull::Retry => {
                // With `Ack::Delivery` the ticket's own receiver waits already.
                let (queued, outcome) = if matches!(outcome, Published::Pending(_)) {
                    (None, outcome)
                } else {
                    let (sender, receiver) = oneshot::channel();
                    (Some(sender), Published::Pending(receiver))
                };
                let (outlet, text) = (Arc::clone(&self.outlet), text.to_owned());
                tokio::task::spawn_local(async move {
                    outlet.send_when_room(&text, ticket, queued).await;
                });
                outcome
            }
            Err(Unsent::Full(_)) => Published::Full,
            Err(Unsent::TooLarge) => Published::TooLarge,
            Err(Unsent::Refused(error)) => Published::Refused(error),
        }
    }
}

/// Body of the thread `kafka-poll`.
fn poll_until_ended(producer: &BaseProducer<Reports>, polling: &Polling, heartbeat: &Heartbeat) {
    let queue = || u64::try_from(producer.in_flight_count()).unwrap_or(u64::MAX);
    let beat_and_poll = || {
        heartbeat.kafka_beat(queue());
        producer.poll(POLL_EVERY);
    };
    heartbeat.kafka_begins();
    let mut was_paused = false;
    while !polling.ends.load(Ordering::Acquire) {
        let is_paused = polling.pauses.load(Ordering::Acquire);
        if is_paused {
            if !was_paused {
                polling.has_paused.notify_one();
            }
            // No beat: nobody polls the producer.
            std::thread::sleep(POLL_EVERY);
        } else {
            beat_and_poll();
        }
        was_paused = is_paused;
    }
    // Whoever waits for a pause that will not come any more.
    polling.has_paused.notify_one();
    // What lingers to fill a batch is sent at once: flush says so to librdkafka, poll collects.
    let until = *polling.flush_until.read().unwrap_or_else(PoisonError::into_inner);
    while queue() > 0 && until.is_some_and(|until| Instant::now() < until) {
        producer.flush(Duration::ZERO).ok();
        beat_and_poll();
    }
    heartbeat.kafka_beat(queue());
}

/// Most records in the producer's queue.
fn queue_max(options: &SinkOptions) -> u64 {
    options.queue_max.unwrap_or(match options.tuning {
        Tuning::Default => 100_000,
        Tuning::Tuned => 1_000_000,
    })
}

fn configuration(options: &SinkOptions) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &options.bootstrap)
        .set("client.id", "stallscope")
        .set("message.max.bytes", RECORD_BYTES_MAX)
        .set("reconnect.backoff.max.ms", RECONNECT_AFTER_MAX)
        .set("message.timeout.ms", options.message_timeout.as_millis().to_string());
    config.set("queue.buffering.max.messages", queue_max(options).to_string());
    match options.tuning {
        Tuning::Default => config.set("queue.buffering.max.kbytes", "65536"),
        Tuning::Tuned => config
            .set("queue.buffering.max.kbytes", "262144")
            .set("linger.ms", "25")
            .set("batch.num.messages", "100000")
            .set("batch.size", "1000000")
            .set("compression.type", "lz4"),
    };
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::broker::EmbeddedBroker;

    fn options(bootstrap: String, ack: Ack) -> SinkOptions {
        SinkOptions {
            bootstrap,
            topic: "events".to_owned(),
            ack,
            tuning: Tuning::Default,
            message_timeout: Duration::from_millis(300),
            queue_max: None,
            when_full: WhenFull::Refuse,
        }
    }

    /// An address nobody listens on, for as long as the socket is held.
    fn dead_broker() -> (socket2::Socket, String) {
        let (socket, address) = crate::servers::fault::closed_port().unwrap();
        (socket, address.to_string())
    }

    #[test]
    fn events_reach_the_broker_and_are_counted() {
        for tuning in [Tuning::Default, Tuning::Tuned] {
            let broker = EmbeddedBroker::start("events").unwrap();
            let options = SinkOptions {
                tuning,
                message_timeout: Duration::from_secs(20),
                ..options(broker.bootstrap(), Ack::Delivery)
            };
            let sink = Sink::start(&options, Arc::new(Heartbeat::off())).unwrap();
            let Published::Pending(receiver) = sink.publish("one") else { panic!("not pending") };
            assert_eq!(receiver.blocking_recv().unwrap(), Ok(Settled::Delivered));
            let expected = Tally { accepted: 1, delivered: 1, failed: 0, lost: 0 };
            assert_eq!(sink.finish(Duration::from_secs(20)), expected);
        }
    }

    #[test]
    fn what_is_not_delivered_is_lost_only_if_it_was_promised() {
        for (ack, lost) in [(Ack::Queue, 1), (Ack::Delivery, 0)] {
            let (_held, bootstrap) = dead_broker();
            let options = options(bootstrap, ack);
            let sink = Sink::start(&options, Arc::new(Heartbeat::off())).unwrap();
            let published = sink.publish("one");
            let expected = Tally { accepted: 1, delivered: 0, failed: 1, lost };
            assert_eq!(sink.finish(Duration::from_secs(20)), expected, "{ack:?}");
            if let Published::Pending(receiver) = published {
                assert!(receiver.blocking_recv().unwrap().is_err());
            }
        }
    }

    #[test]
    fn the_queue_has_a_bound_and_so_has_a_record() {
        let (_held, bootstrap) = dead_broker();
        let options = SinkOptions {
            message_timeout: Duration::from_mins(1),
            ..options(bootstrap, Ack::Queue)
        };
        let sink = Sink::start(&options, Arc::new(Heartbeat::off())).unwrap();
        assert!(matches!(sink.publish(&"x".repeat(1_100_000)), Published::TooLarge));
        let text = "x".repeat(1_000_000);
        let taken = std::iter::repeat_with(|| sink.publish(&text))
            .take(200)
            .take_while(|published| matches!(published, Published::Queued))
            .count();
        assert!((60..=68).contains(&taken), "64 MiB hold {taken} records of 1 MB");
        assert!(matches!(sink.publish(&text), Published::Full));
        assert_eq!(sink.finish(Duration::ZERO).lost, taken as u64);
    }

    #[test]
    fn what_finds_the_queue_full_waits_for_room() {
        for ack in [Ack::Queue, Ack::Delivery] {
            let broker = EmbeddedBroker::start("events").unwrap();
            broker.goes_down().unwrap();
            let options = SinkOptions {
                message_timeout: Duration::from_mins(1),
                queue_max: Some(1),
                when_full: WhenFull::Retry,
                ..options(broker.bootstrap(), ack)
            };
            let sink = Sink::start(&options, Arc::new(Heartbeat::off())).unwrap();
            let runtime = tokio::runtime::LocalRuntime::new().unwrap();
            runtime.block_on(async {
                let first = sink.publish("one");
                sink.take_full_for_fault(true);
                let Published::Pending(mut second) = sink.publish("two") else { panic!("no wait") };
                assert!(!sink.take_full_for_fault(false), "the fault has begun");
                assert!(second.try_recv().is_err(), "there is no room");
                broker.comes_up().unwrap();
                let (expected, first) = match first {
                    Published::Pending(first) => (Settled::Delivered, first.await.unwrap()),
                    _ => (Settled::Queued, Ok(Settled::Queued)),
                };
                assert_eq!((second.await.unwrap(), first), (Ok(expected), Ok(expected)));
            });
            let tally = sink.finish(Duration::from_secs(20));
            assert_eq!((tally.accepted, tally.delivered), (2, 2), "{ack:?}");
        }
    }

    #[test]
    fn without_polling_no_delivery_is_reported() {
        let broker = EmbeddedBroker::start("events").unwrap();
        let options = SinkOptions {
            message_timeout: Duration::from_mins(1),
            ..options(broker.bootstrap(), Ack::Delivery)
        };
        let sink = Sink::start(&options, Arc::new(Heartbeat::off())).unwrap();
        let Published::Pending(first) = sink.publish("one") else { panic!("not pending") };
        assert_eq!(first.blocking_recv().unwrap(), Ok(Settled::Delivered));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(sink.pause_polling());
        let Published::Pending(mut second) = sink.publish("two") else { panic!("not pending") };
        std::thread::sleep(POLL_EVERY * 4);
        assert!(second.try_recv().is_err());
        sink.resume_polling();
        assert_eq!(second.blocking_recv().unwrap(), Ok(Settled::Delivered));
    }
}
