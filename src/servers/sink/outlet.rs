//! One event into the producer's queue, and its report back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, FutureProducer, FutureRecord, Producer as _,
    ProducerContext,
};
use stallscope_probes::sample::Fault;
use tokio::sync::oneshot;

use super::{Delivery, Settled};
use crate::kit::heartbeat::Heartbeat;
use crate::kit::now_ns;
use crate::kit::rate::RateLimit;
use crate::servers::rt;

/// How long an event that found the queue full waits before it is tried again: as long as
/// rust-rdkafka's `FutureProducer::send` does (`future_producer.rs`).
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// Rides along with each record and comes back with its delivery report.
#[derive(Default)]
pub(super) struct Ticket {
    waiting: Option<oneshot::Sender<Delivery>>,
}

impl Ticket {
    /// The report is awaited by the receiver of this.
    pub(super) const fn awaited_by(sender: oneshot::Sender<Delivery>) -> Self {
        Self { waiting: Some(sender) }
    }

    /// Hands the report on.
    fn settle(self: Arc<Self>, delivery: Delivery) {
        // In queue mode all records share one ticket, which nobody waits for.
        if let Some(ticket) = Arc::into_inner(self) {
            answer(ticket.waiting, delivery);
        }
    }

    fn is_abandoned(&self) -> bool {
        self.waiting.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

fn answer(waiting: Option<oneshot::Sender<Delivery>>, delivery: Delivery) {
    if let Some(sender) = waiting {
        // Nobody receives when the client has left meanwhile.
        sender.send(delivery).ok();
    }
}

/// Events, counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    accepted: AtomicU64,
    delivered: AtomicU64,
    failed: AtomicU64,
    /// Deliveries that tasks on the runtimes await.
    awaited: AtomicU64,
}

impl Counts {
    /// Accepted, delivered, failed.
    pub(super) fn read(&self) -> (u64, u64, u64) {
        let [accepted, delivered, failed] =
            [&self.accepted, &self.delivered, &self.failed].map(|one| one.load(Ordering::Relaxed));
        (accepted, delivered, failed)
    }

    /// Deliveries that are still awaited by a task on a runtime.
    pub(super) fn awaited(&self) -> u64 {
        self.awaited.load(Ordering::Relaxed)
    }
}

/// Receives what the producer reports, on the thread that polls it.
pub(super) struct Reports {
    counts: Arc<Counts>,
    heartbeat: Arc<Heartbeat>,
    warnings: RateLimit,
}

impl Reports {
    pub(super) const fn new(counts: Arc<Counts>, heartbeat: Arc<Heartbeat>) -> Self {
        Self { counts, heartbeat, warnings: RateLimit::every_ns(5_000_000_000) }
    }

    fn warn(&self, what: std::fmt::Arguments<'_>) {
        if let Some(held_back) = self.warnings.admit(now_ns()) {
            tracing::warn!(held_back, "{what}");
        }
    }
}

static LOST: RateLimit = RateLimit::every_ns(5_000_000_000);

fn warn_lost(topic: &str, error: &KafkaError) {
    if let Some(held_back) = LOST.admit(now_ns()) {
        tracing::warn!(held_back, "an event for topic {topic} is lost: {error}");
    }
}

/// Counts what came of one event, and tells whoever waits for it.
fn settle(
    outcome: Result<(), (&KafkaError, &str)>,
    ticket: Arc<Ticket>,
    counts: &Counts,
    heartbeat: &Heartbeat,
) {
    ticket.settle(match outcome {
        Ok(()) => {
            counts.delivered.fetch_add(1, Ordering::Relaxed);
            heartbeat.delivered();
            Ok(Settled::Delivered)
        }
        Err((error, topic)) => {
            counts.failed.fetch_add(1, Ordering::Relaxed);
            heartbeat.failed();
            warn_lost(topic, error);
            Err(error.to_string())
        }
    });
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
            Ok(_) => Ok(()),
            Err((error, record)) => Err((error, record.topic())),
        };
        settle(outcome, ticket, &self.counts, &self.heartbeat);
    }
}

/// librdkafka, as rust-rdkafka offers it.
pub(super) enum Producer {
    /// There is none.
    None,
    /// Somebody calls `poll`, which calls [`Reports`].
    Base(Arc<BaseProducer<Reports>>),
    /// It has a thread that polls, and a future for each delivery.
    Future(FutureProducer<Reports>),
}

/// Where events leave: what sending one takes. Its methods are called on the runtimes' threads.
pub(super) struct Outlet {
    pub(super) producer: Producer,
    topic: String,
    pub(super) counts: Arc<Counts>,
    pub(super) heartbeat: Arc<Heartbeat>,
    /// The next event that finds the queue full is the beginning of the fault `kafka-queue-full`.
    full_is_fault: AtomicBool,
}

/// Why an event was not sent.
pub(super) enum Unsent {
    /// No room; the ticket comes back.
    Full(Arc<Ticket>),
    /// Larger than a Kafka record may be.
    TooLarge,
    /// Anything else.
    Refused(String),
}

impl Outlet {
    pub(super) fn new(
        producer: Producer,
        topic: String,
        counts: Arc<Counts>,
        heartbeat: Arc<Heartbeat>,
    ) -> Self {
        Self { producer, topic, counts, heartbeat, full_is_fault: AtomicBool::new(false) }
    }

    pub(super) fn take_full_for_fault(&self, is_fault: bool) -> bool {
        self.full_is_fault.swap(is_fault, Ordering::Relaxed)
    }

    /// Records in the producer's queue, and those whose reports nobody has asked for yet.
    pub(super) fn queue(&self) -> u64 {
        let count = match &self.producer {
            Producer::None => 0,
            Producer::Base(producer) => producer.in_flight_count(),
            Producer::Future(producer) => producer.in_flight_count(),
        };
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// Puts one event into the queue.
    pub(super) fn send(&self, text: &str, ticket: Arc<Ticket>) -> Result<(), Unsent> {
        match &self.producer {
            Producer::None => Ok(()),
            Producer::Base(producer) => {
                let record =
                    BaseRecord::<(), str, _>::with_opaque_to(&self.topic, ticket).payload(text);
                producer
                    .send(record)
                    .map_err(|(error, record)| self.unsent(error, record.delivery_opaque))?;
                self.has_taken_one();
                Ok(())
            }
            Producer::Future(producer) => {
                let record = FutureRecord::<(), str>::to(&self.topic).payload(text);
                match producer.send_result(record) {
                    Ok(delivery) => {
                        self.has_taken_one();
                        self.await_delivery(delivery, ticket);
                        Ok(())
                    }
                    Err((error, _)) => Err(self.unsent(error, ticket)),
                }
            }
        }
    }

    fn has_taken_one(&self) {
        self.counts.accepted.fetch_add(1, Ordering::Relaxed);
        self.heartbeat.queued();
    }

    fn unsent(&self, error: KafkaError, ticket: Arc<Ticket>) -> Unsent {
        match error {
            KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => {
                self.heartbeat.queue_was_full();
                if self.full_is_fault.swap(false, Ordering::Relaxed) {
                    self.heartbeat.fault_begins(Fault::KafkaQueueFull);
                }
                Unsent::Full(ticket)
            }
            KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge) => {
                Unsent::TooLarge
            }
            error => Unsent::Refused(error.to_string()),
        }
    }

    /// A task for each event, as in a server that spawns `producer.send(…).await`: their number is
    /// bounded by the producer's queue.
    fn await_delivery(&self, delivery: DeliveryFuture, ticket: Arc<Ticket>) {
        let (counts, heartbeat) = (Arc::clone(&self.counts), Arc::clone(&self.heartbeat));
        counts.awaited.fetch_add(1, Ordering::Relaxed);
        rt::spawn(async move {
            match delivery.await {
                Ok(Ok(_)) => settle(Ok(()), ticket, &counts, &heartbeat),
                Ok(Err((error, record))) => {
                    settle(Err((&error, record.topic())), ticket, &counts, &heartbeat);
                }
                // The producer is gone: what becomes of the event is not known.
                Err(_) => drop(ticket),
            }
            counts.awaited.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Sends once there is room. The number of these is bounded by the connections, and by the
    /// unanswered requests of each; one whose client's connection is gone gives up.
    pub(super) async fn send_when_room(
        &self,
        text: &str,
        mut ticket: Arc<Ticket>,
        mut queued: Option<oneshot::Sender<Delivery>>,
    ) {
        while !queued.as_ref().is_some_and(oneshot::Sender::is_closed) && !ticket.is_abandoned() {
            rt::sleep(RETRY_EVERY).await;
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
