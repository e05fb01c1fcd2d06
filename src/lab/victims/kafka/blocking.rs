//! Servers that use the producer's own polling, wrongly: not at all, or on the runtime's thread.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use tokio::sync::oneshot;

use super::broker::{Broker, TOPIC};
use super::http::{self, Answer};
use super::{Ground, On, Options, SMALL_RECORD_BYTES, Setup, serve};
use crate::kit::now_ns;
use crate::lab::victims::say_ready;

/// Pause of the polling task between two looks.
const POLL_PAUSE: Duration = Duration::from_millis(5);
/// For how long a handler flushes.
const FLUSH_MAX: Duration = Duration::from_mins(1);
/// A wait that ends well does so within this time: twice the 100 ms in which `flush` polls.
const GOOD_WAIT_MAX: Duration = Duration::from_millis(200);
/// What these servers suffer.
const CAUSE: &str = "runtime-blocked";
/// How often a handler that waits for its report looks whether the brokers are down.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// For how long it polls when they are.
const POLL_LONG: Duration = Duration::from_secs(10);

/// Says to whoever waits that the delivery has ended, or that the brokers are down.
#[derive(Default)]
struct Reports {
    brokers_down: AtomicBool,
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, _: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.brokers_down.store(true, Ordering::Relaxed);
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<oneshot::Sender<()>>;

    fn delivery(&self, _: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        waiting.send(()).ok();
    }
}

fn producer(broker: &Broker) -> anyhow::Result<BaseProducer<Reports>> {
    let setup = Setup::to(broker.bootstrap());
    setup.config().create_with_context(Reports::default()).context("no producer")
}

/// Hands a record over; the receiver gets its delivery report. `None` when it was refused.
fn send(producer: &BaseProducer<Reports>) -> Option<oneshot::Receiver<()>> {
    let (sender, receiver) = oneshot::channel();
    let payload = [b'x'; SMALL_RECORD_BYTES];
    let record = BaseRecord::<(), [u8], _>::with_opaque_to(TOPIC, Box::new(sender));
    producer.send(record.payload(&payload)).is_ok().then_some(receiver)
}

/// The task that polls the producer ends: the broker answers, and nobody hears of it.
pub(super) fn not_polled(options: &Options) -> anyhow::Result<()> {
    let ground = Ground::open(options)?;
    // It lives as long as the server.
    let broker = Broker::start()?;
    let producer = Rc::new(producer(&broker)?);
    let listener = http::listen(options.listen)?;
    let address = listener.local_addr()?;
    let after = options.after;
    let polled = Rc::clone(&producer);
    let begin = move || {
        say_ready(Some(address))?;
        tokio::task::spawn_local(async move {
            let ends = tokio::time::Instant::now() + after;
            while tokio::time::Instant::now() < ends {
                polled.poll(Duration::ZERO);
                tokio::time::sleep(POLL_PAUSE).await;
            }
            ground.fault_begins("kafka-not-polled");
        });
        Ok(())
    };
    http::serve_tokio(listener, begin, async move |_| {
        if let Some(delivered) = send(&producer) {
            delivered.await.ok();
        }
        Answer::Ok
    })
}

/// When the runtime's thread got stuck: with the first handler that waits for a broker that is
/// gone, or when the broker went while one waited for it.
struct Stuck {
    ground: Ground,
    is_gone: AtomicBool,
    /// Waits begun and ended: odd while a handler waits.
    waits: AtomicU64,
}

impl Stuck {
    fn open(options: &Options) -> anyhow::Result<Arc<Self>> {
        let ground = Ground::open(options)?;
        Ok(Arc::new(Self { ground, is_gone: AtomicBool::new(false), waits: AtomicU64::new(0) }))
    }

    /// Runs what waits for the broker, on the runtime's thread.
    fn wait(&self, wait: impl FnOnce()) {
        // Either this thread sees that the broker is gone, or the other that this one waits:
        // sequentially consistent, since each stores to one and then loads the other.
        self.waits.fetch_add(1, Ordering::SeqCst);
        if self.is_gone.load(Ordering::SeqCst) {
            self.ground.fault_begins(CAUSE);
        }
        wait();
        self.waits.fetch_add(1, Ordering::SeqCst);
    }

    /// The broker goes. A wait that was under way may still end well, when its answer had come
    /// before; if it does not, the stall began with the end of the broker.
    fn broker_goes(&self, broker: &mut Broker) -> anyhow::Result<()> {
        broker.kill()?;
        let gone_ns = now_ns();
        self.is_gone.store(true, Ordering::SeqCst);
        let waits = self.waits.load(Ordering::SeqCst);
        std::thread::sleep(GOOD_WAIT_MAX);
        if waits % 2 == 1 && self.waits.load(Ordering::SeqCst) == waits {
            self.ground.fault_began(CAUSE, gone_ns);
        }
        Ok(())
    }
}

/// `flush` in a handler: it takes 100 ms while all is well (rust-rdkafka polls in steps of that
/// length, `base_producer.rs`), and a minute when the broker is gone.
pub(super) fn flush(options: &Options) -> anyhow::Result<()> {
    let stuck = Stuck::open(options)?;
    let mut broker = Broker::start()?;
    let producer = producer(&broker)?;
    let seen = Arc::clone(&stuck);
    let service = async move |_| {
        if send(&producer).is_some() {
            seen.wait(|| {
                producer.flush(FLUSH_MAX).ok();
            });
        }
        Answer::Ok
    };
    serve(options, On::Tokio, service, move || stuck.broker_goes(&mut broker))
}

/// A handler waits for its report as it should; but once the brokers are said to be down it helps
/// itself with a long `poll`.
pub(super) fn poll_uring(options: &Options) -> anyhow::Result<()> {
    let stuck = Stuck::open(options)?;
    let mut broker = Broker::start()?;
    let producer = Rc::new(producer(&broker)?);
    let seen = Arc::clone(&stuck);
    let polled = Rc::clone(&producer);
    let is_polled = Cell::new(false);
    let service = async move |_| {
        if !is_polled.replace(true) {
            tokio::task::spawn_local(poll_often(Rc::clone(&polled)));
        }
        let Some(mut delivered) = send(&producer) else { return Answer::Ok };
        while tokio::time::timeout(LOOK_EVERY, &mut delivered).await.is_err() {
            if producer.context().brokers_down.load(Ordering::Relaxed) {
                seen.wait(|| producer.poll(POLL_LONG));
            }
        }
        Answer::Ok
    };
    serve(options, On::Uring, service, move || stuck.broker_goes(&mut broker))
}

async fn poll_often(producer: Rc<BaseProducer<Reports>>) {
    loop {
        producer.poll(Duration::ZERO);
        tokio::time::sleep(POLL_PAUSE).await;
    }
}
