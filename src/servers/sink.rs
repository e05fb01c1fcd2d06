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
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{
    BaseProducer, BaseRecord, DefaultProducerContext, DeliveryResult, Producer as _,
    ProducerContext,
};
use tokio::sync::oneshot;

use crate::kit::heartbeat::Heartbeat;
use crate::kit::now_ns;
use crate::kit::rate::RateLimit;

/// How long one call of `poll` collects delivery reports: the rate of the Kafka thread's beats.
const POLL_EVERY: Duration = Duration::from_millis(50);
/// Partitions of the topic made in the embedded broker.
const EMBEDDED_PARTITIONS: i32 = 4;
/// Largest record, as Kafka's own default for topics (`message.max.bytes`).
const RECORD_BYTES_MAX: &str = "1048588";

/// When an event counts as taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Ack {
    /// 202 once it is in the producer's queue
    Queue,
    /// 200 once the broker has acknowledged it
    Delivery,
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

/// A Kafka broker inside this process. It lives as long as this handle.
pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    /// One broker, with the topic made. It keeps the last 5 MiB of each partition.
    pub fn start(topic: &str) -> Result<Self, SinkError> {
        let cluster = MockCluster::new(1).map_err(SinkError::Embedded)?;
        cluster.create_topic(topic, EMBEDDED_PARTITIONS, 1).map_err(SinkError::Embedded)?;
        Ok(Self { cluster })
    }

    /// Its address.
    pub fn bootstrap(&self) -> String {
        self.cluster.bootstrap_servers()
    }
}

/// How the delivery of one event ended.
pub type Delivery = Result<(), String>;

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
                Ok(())
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
    producer: Arc<BaseProducer<Reports>>,
    topic: String,
    ack: Ack,
    accepted: AtomicU64,
    heartbeat: Arc<Heartbeat>,
    /// Shared by all events nobody waits for: one counter instead of one allocation each.
    no_one_waits: Arc<Ticket>,
    polling: Arc<Polling>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How the polling thread is told to come to an end.
#[derive(Default)]
struct Polling {
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
        let polling = Arc::new(Polling::default());
        let thread = std::thread::Builder::new()
            .name("kafka-poll".to_owned())
            .spawn({
                let (producer, polling) = (Arc::clone(&producer), Arc::clone(&polling));
                let heartbeat = Arc::clone(&heartbeat);
                move || poll_until_ended(&producer, &polling, &heartbeat)
            })
            .map_err(SinkError::Thread)?;
        Ok(Self {
            producer,
            topic: options.topic.clone(),
            ack: options.ack,
            accepted: AtomicU64::new(0),
            heartbeat,
            no_one_waits: Arc::new(Ticket { waiting: None }),
            polling,
            thread: Mutex::new(Some(thread)),
        })
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
        let accepted = self.accepted.load(Ordering::Relaxed);
        let delivered = self.producer.context().delivered.load(Ordering::Relaxed);
        let failed = self.producer.context().failed.load(Ordering::Relaxed);
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
        let record = BaseRecord::<(), str, _>::with_opaque_to(&self.topic, ticket).payload(text);
        match self.producer.send(record) {
            Ok(()) => {
                self.accepted.fetch_add(1, Ordering::Relaxed);
                self.heartbeat.queued();
                outcome
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Published::Full,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                Published::TooLarge
            }
            Err((error, _)) => Published::Refused(error.to_string()),
        }
    }
}

/// Body of the thread `kafka-poll`.
fn poll_until_ended(producer: &BaseProducer<Reports>, polling: &Polling, heartbeat: &Heartbeat) {
    heartbeat.kafka_begins();
    let queue = || u64::try_from(producer.in_flight_count()).unwrap_or(u64::MAX);
    let beat_and_poll = || {
        heartbeat.kafka_beat(queue());
        producer.poll(POLL_EVERY);
    };
    while !polling.ends.load(Ordering::Acquire) {
        beat_and_poll();
    }
    // What lingers to fill a batch is sent at once: flush says so to librdkafka, poll collects.
    let until = *polling.flush_until.read().unwrap_or_else(PoisonError::into_inner);
    while queue() > 0 && until.is_some_and(|until| Instant::now() < until) {
        producer.flush(Duration::ZERO).ok();
        beat_and_poll();
    }
    heartbeat.kafka_beat(queue());
}

fn configuration(options: &SinkOptions) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &options.bootstrap)
        .set("client.id", "stallscope")
        .set("message.max.bytes", RECORD_BYTES_MAX)
        .set("message.timeout.ms", options.message_timeout.as_millis().to_string());
    match options.tuning {
        Tuning::Default => config
            .set("queue.buffering.max.messages", "100000")
            .set("queue.buffering.max.kbytes", "65536"),
        Tuning::Tuned => config
            .set("queue.buffering.max.messages", "1000000")
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

    fn options(bootstrap: String, ack: Ack) -> SinkOptions {
        SinkOptions {
            bootstrap,
            topic: "events".to_owned(),
            ack,
            tuning: Tuning::Default,
            message_timeout: Duration::from_millis(300),
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
            assert_eq!(receiver.blocking_recv().unwrap(), Ok(()));
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
}
