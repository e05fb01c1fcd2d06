//! Where the events go: Kafka, through librdkafka.
//!
//! `send` copies the record into librdkafka's queue and never blocks; that queue has a bound, and
//! what does not fit is refused. Who polls the producer, so that the deliveries are reported, is
//! the choice of [`ProducerKind`].
//!
//! ```text
//! Sink -> outlet (one event into the queue) -> producer, by polling (who asks for the reports)
//!                                              settings (of librdkafka)
//!                                              reserve (of fds, for its connections)
//! ```

mod outlet;
mod polling;
mod reserve;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::rt;
use crate::kit::heartbeat::Heartbeat;
use outlet::{Counts, Outlet, Producer, Reports, Ticket, Unsent};
use polling::{Poller, poll_until_delivered};
use reserve::{Progress, Reserve};

/// How often it is looked whether everything has been delivered.
const SETTLED_LOOK_EVERY: Duration = Duration::from_millis(10);
/// How often it is looked whether the producer needs fds.
const NEED_LOOK_EVERY: Duration = Duration::from_millis(100);

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

/// Which producer, and so who asks for the reports of delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ProducerKind {
    /// rust-rdkafka's `BaseProducer`, polled by a task on the runtime every 100 ms
    Base,
    /// The same, polled by a thread of its own
    Threaded,
    /// rust-rdkafka's `FutureProducer`: a task on the runtime awaits each delivery
    Future,
}

impl ProducerKind {
    /// Unless something else is asked for.
    pub const DEFAULT: Self = Self::Threaded;

    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Threaded => "threaded",
            Self::Future => "future",
        }
    }
}

/// What the producer is to do.
#[derive(Debug, Clone)]
pub struct SinkOptions {
    /// `HOST:PORT[,HOST:PORT…]`; `None`: there is no producer, and events go nowhere.
    pub bootstrap: Option<String>,
    /// Which producer.
    pub producer: ProducerKind,
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
    /// Runtimes that accept connections.
    pub runtimes: usize,
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

/// The producer, and who polls it.
pub struct Sink {
    outlet: Arc<Outlet>,
    ack: Ack,
    when_full: WhenFull,
    /// Shared by all events nobody waits for: one counter instead of one allocation each.
    no_one_waits: Arc<Ticket>,
    poller: Poller,
    reserve: Reserve,
}

impl Sink {
    /// Makes the producer and starts what polls it, if that is a thread. Does not wait for a
    /// broker: events queue up until there is one.
    pub fn start(options: &SinkOptions, heartbeat: Arc<Heartbeat>) -> Result<Self, SinkError> {
        let counts = Arc::new(Counts::default());
        let ((producer, poller), reserve) = match &options.bootstrap {
            None => ((Producer::None, Poller::Nobody), Reserve::none()),
            Some(bootstrap) => {
                heartbeat.kafka_queue_holds(settings::queue_max(options));
                (make(options, bootstrap, &counts, &heartbeat)?, Reserve::new(options.runtimes))
            }
        };
        Ok(Self {
            outlet: Arc::new(Outlet::new(producer, options.topic.clone(), counts, heartbeat)),
            ack: options.ack,
            when_full: options.when_full,
            no_one_waits: Arc::default(),
            poller,
            reserve,
        })
    }

    /// Polls the producer on this thread's runtime, for as long as that turns, if nobody else does.
    pub async fn poll_on_runtime(&self) {
        if let (Poller::Runtime(polling), Producer::Base(producer)) =
            (&self.poller, &self.outlet.producer)
        {
            polling::poll_on_runtime(producer, polling, &self.outlet.heartbeat).await;
        }
        if let Poller::Itself = self.poller {
            polling::tell_queue(&self.outlet).await;
        }
    }

    /// Sees to it that the producer has fds for its connections, for as long as this thread's runtime
    /// turns.
    pub async fn keep_fds(&self) {
        if let Producer::None = self.outlet.producer {
            return;
        }
        loop {
            let (accepted, delivered, failed) = self.outlet.counts.read();
            let waiting = accepted.saturating_sub(delivered + failed);
            self.reserve.look(Instant::now(), Progress { waiting, delivered });
            rt::sleep(NEED_LOOK_EVERY).await;
        }
    }

    /// Whether a connection may be accepted, or the fd that it would take is the producer's.
    pub fn lets_accept(&self) -> bool {
        self.reserve.lets_accept()
    }

    /// Stops polling the producer, and returns once the call of `poll` under way has ended: no
    /// delivery is reported after that. A producer that polls itself goes on.
    pub async fn pause_polling(&self) {
        if let Some(polling) = self.poller.polling() {
            polling.pause().await;
        }
    }

    /// Polls the producer again.
    pub fn resume_polling(&self) {
        if let Some(polling) = self.poller.polling() {
            polling.resume();
        }
    }

    /// Says whether the next event that finds the queue full is the beginning of the fault
    /// `kafka-queue-full`; returns whether that was still to come.
    pub fn take_full_for_fault(&self, is_fault: bool) -> bool {
        self.outlet.take_full_for_fault(is_fault)
    }

    /// Waits, at most `timeout`, until every delivery is settled that a task on the runtime awaits:
    /// to be called while that still turns.
    pub async fn settle(&self, timeout: Duration) {
        let until = Instant::now() + timeout;
        while self.outlet.counts.awaited() > 0 && Instant::now() < until {
            rt::sleep(SETTLED_LOOK_EVERY).await;
        }
    }

    /// Waits for the delivery of everything taken, at most `timeout`, and says what came of it.
    pub fn finish(&self, timeout: Duration) -> Tally {
        // What is left to be delivered may need a connection.
        self.reserve.end();
        match (&self.poller, &self.outlet.producer) {
            (Poller::Thread(thread), _) => thread.finish(timeout),
            (Poller::Runtime(_), Producer::Base(producer)) => {
                let until = Instant::now() + timeout;
                poll_until_delivered(producer, Some(until), &self.outlet.heartbeat);
            }
            // Nothing is left to wait for, or nobody who could be told.
            _ => {}
        }
        let counts = &self.outlet.counts;
        let (accepted, delivered, failed) = counts.read();
        let told = if self.ack == Ack::Delivery { failed } else { 0 };
        Tally { accepted, delivered, failed, lost: accepted.saturating_sub(delivered + told) }
    }
}

fn make(
    options: &SinkOptions,
    bootstrap: &str,
    counts: &Arc<Counts>,
    heartbeat: &Arc<Heartbeat>,
) -> Result<(Producer, Poller), SinkError> {
    let config: ClientConfig = settings::configuration(options, bootstrap);
    let reports = Reports::new(Arc::clone(counts), Arc::clone(heartbeat));
    let failed = |source| SinkError::Producer { bootstrap: bootstrap.to_owned(), source };
    if options.producer == ProducerKind::Future {
        let producer = config.create_with_context(reports).map_err(failed)?;
        return Ok((Producer::Future(producer), Poller::Itself));
    }
    let producer: BaseProducer<Reports> = config.create_with_context(reports).map_err(failed)?;
    let producer = Arc::new(producer);
    let poller = if options.producer == ProducerKind::Base {
        Poller::Runtime(Arc::default())
    } else {
        Poller::Thread(polling::Thread::start(&producer, heartbeat).map_err(SinkError::Thread)?)
    };
    Ok((Producer::Base(producer), poller))
}

impl Events for Sink {
    fn publish(&self, text: &str) -> Published {
        let (ticket, outcome) = match self.ack {
            Ack::Queue => (Arc::clone(&self.no_one_waits), Published::Queued),
            Ack::Delivery => {
                let (sender, receiver) = oneshot::channel();
                (Arc::new(Ticket::awaited_by(sender)), Published::Pending(receiver))
            }
        };
        match self.outlet.send(text, ticket) {
            Ok(()) => outcome,
            Err(Unsent::Full(ticket)) if self.when_full == WhenFull::Retry => {
                self.publish_when_room(text, ticket, outcome)
            }
            Err(Unsent::Full(_)) => Published::Full,
            Err(Unsent::TooLarge) => Published::TooLarge,
            Err(Unsent::Refused(error)) => Published::Refused(error),
        }
    }
}

impl Sink {
    fn publish_when_room(&self, text: &str, ticket: Arc<Ticket>, outcome: Published) -> Published {
        // With `Ack::Delivery` the ticket's own receiver waits already.
        let (queued, outcome) = if matches!(outcome, Published::Pending(_)) {
            (None, outcome)
        } else {
            let (sender, receiver) = oneshot::channel();
            (Some(sender), Published::Pending(receiver))
        };
        let (outlet, text) = (Arc::clone(&self.outlet), text.to_owned());
        rt::spawn(async move { outlet.send_when_room(&text, ticket, queued).await });
        outcome
    }
}
