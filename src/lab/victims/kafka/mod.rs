//! Servers whose Kafka is the trouble: HTTP in, a record out, and the answer once the broker has
//! it. The broker is a process of its own.
#![expect(
    clippy::disallowed_methods,
    reason = "a victim has files and clocks of its own: it is not the watcher"
)]

mod blocking;
pub(super) mod broker;
pub(super) mod http;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::{AsyncRuntime, Timeout};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Ground, Options, Run, say_ready};
use broker::{Broker, TOPIC};
use http::{Answer, Request};

/// By name.
pub(super) const VICTIMS: &[(&str, Run)] = &[
    ("kafka-broker", broker::run),
    ("kafka-killed", killed),
    ("kafka-vanished", vanished),
    ("kafka-never-there", never_there),
    ("kafka-late", late),
    ("kafka-broker-stopped", broker_stopped),
    ("kafka-small-queue", small_queue),
    ("kafka-not-polled", blocking::not_polled),
    ("kafka-flush", blocking::flush),
    ("kafka-poll-uring", blocking::poll_uring),
    ("kafka-chain", chain),
];

/// How late the broker answers when it is slow: later than anyone waits, sooner than librdkafka
/// gives a request up (`request.timeout.ms`, 30 s).
const SLOW_ANSWER: Duration = Duration::from_secs(20);
/// A record of which a connection to a broker that no longer reads takes few: a receive buffer that
/// has grown in good times holds 16 MiB (`tcp_rmem` of 32 MiB, half of it window).
const LARGE_RECORD_BYTES: usize = 512 * 1024;
const SMALL_RECORD_BYTES: usize = 64;
/// Room in a small queue of a producer, records.
const SMALL_QUEUE_MAX: u32 = 100;
/// fds of a server that is to run out of them soon after its broker is gone.
const FEW_FDS: u64 = 128;

/// How a server publishes.
struct Setup {
    bootstrap: String,
    record_bytes: usize,
    /// `queue.buffering.max.messages`; `None`: librdkafka's default.
    queue_max: Option<u32>,
}

impl Setup {
    fn to(bootstrap: &str) -> Self {
        Self { bootstrap: bootstrap.to_owned(), record_bytes: SMALL_RECORD_BYTES, queue_max: None }
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        if let Some(queue_max) = self.queue_max {
            config.set("queue.buffering.max.messages", queue_max.to_string());
        }
        config
    }
}

/// Lets `FutureProducer` wait on whatever tokio runtime it is used on.
struct OnTokio;

impl AsyncRuntime for OnTokio {
    type Delay = tokio::time::Sleep;

    fn spawn<T>(task: T)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(task);
    }

    fn delay_for(duration: Duration) -> Self::Delay {
        tokio::time::sleep(duration)
    }
}

/// The handler of a server: a record to Kafka, and the answer when it was delivered.
fn publish(setup: &Setup) -> anyhow::Result<impl AsyncFn(Request) -> Answer + use<>> {
    let producer: FutureProducer<DefaultClientContext, OnTokio> =
        setup.config().create_with_context(DefaultClientContext).context("no producer")?;
    let payload = vec![b'x'; setup.record_bytes];
    Ok(async move |_| {
        let record = FutureRecord::<(), [u8]>::to(TOPIC).payload(&payload);
        // It waits for room without end, as many do who mean never to lose a record.
        producer.send(record, Timeout::Never).await.ok();
        Answer::Ok
    })
}

/// Which runtime a server runs on.
#[derive(Clone, Copy)]
enum On {
    Tokio,
    Uring,
}

/// Listens, says so, and serves for ever; `fault` runs on a thread of its own at its time.
fn serve<S>(
    options: &Options,
    on: On,
    service: S,
    fault: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()>
where
    S: AsyncFn(Request) -> Answer + 'static,
{
    let listener = http::listen(options.listen)?;
    let address = listener.local_addr()?;
    let after = options.after;
    let begin = move || {
        say_ready(Some(address))?;
        let wait_and_fail = move || {
            std::thread::sleep(after);
            if let Err(error) = fault() {
                eprintln!("the fault failed: {error:#}");
            }
        };
        std::thread::Builder::new().name("fault".to_owned()).spawn(wait_and_fail)?;
        Ok(())
    };
    match on {
        On::Tokio => http::serve_tokio(listener, begin, service),
        On::Uring => http::serve_uring(listener, begin, service),
    }
}

/// A server whose broker suffers `harm`; the truth, `cause`, is written just before.
fn broker_suffers(
    options: &Options,
    on: On,
    cause: &'static str,
    alter: impl FnOnce(&mut Setup),
    harm: fn(&mut Broker) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let ground = Ground::open(options)?;
    let mut broker = Broker::start()?;
    let mut setup = Setup::to(broker.bootstrap());
    alter(&mut setup);
    let service = publish(&setup)?;
    serve(options, on, service, move || {
        ground.fault_begins(cause);
        harm(&mut broker)?;
        // A broker that was not killed lives as long as the server.
        std::mem::forget(broker);
        Ok(())
    })
}

fn killed(options: &Options) -> anyhow::Result<()> {
    broker_suffers(options, On::Tokio, "kafka-unreachable", |_| {}, Broker::kill)
}

fn vanished(options: &Options) -> anyhow::Result<()> {
    broker_suffers(options, On::Uring, "kafka-unreachable", |_| {}, Broker::vanish)
}

/// There is no broker from the start. The stall begins with the first request: until then nothing
/// is left undone.
fn never_there(options: &Options) -> anyhow::Result<()> {
    let ground = Ground::open(options)?;
    let (closed, address) = broker::closed_port()?;
    let publish = publish(&Setup::to(&address.to_string()))?;
    let service = async move |request| {
        ground.fault_begins("kafka-unreachable");
        publish(request).await
    };
    serve(options, On::Tokio, service, move || {
        // It stays closed as long as the server lives.
        std::mem::forget(closed);
        Ok(())
    })
}

fn late(options: &Options) -> anyhow::Result<()> {
    let slow = |broker: &mut Broker| broker.answers_after(SLOW_ANSWER);
    broker_suffers(options, On::Uring, "kafka-slow", |_| {}, slow)
}

fn broker_stopped(options: &Options) -> anyhow::Result<()> {
    let large = |setup: &mut Setup| setup.record_bytes = LARGE_RECORD_BYTES;
    broker_suffers(options, On::Tokio, "kafka-slow", large, Broker::stop)
}

/// Without a page nothing tells the full queue from outside; the broker that is gone does.
fn small_queue(options: &Options) -> anyhow::Result<()> {
    let small = |setup: &mut Setup| setup.queue_max = Some(SMALL_QUEUE_MAX);
    broker_suffers(options, On::Tokio, "kafka-unreachable", small, Broker::kill)
}

/// The broker goes, handlers wait and hold their connections, and soon no fd is left for another:
/// the first link is the cause.
fn chain(options: &Options) -> anyhow::Result<()> {
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(FEW_FDS), maximum: before.maximum })?;
    broker_suffers(options, On::Tokio, "kafka-unreachable", |_| {}, Broker::kill)
}

/// A healthy server whose broker answers each request after `delay`.
pub(super) fn coping(options: &Options, delay: Duration) -> anyhow::Result<()> {
    let mut broker = Broker::start()?;
    broker.answers_after(delay)?;
    let service = publish(&Setup::to(broker.bootstrap()))?;
    // Half a dozen slow round trips come before the first record: as long as that takes it does not
    // cope yet.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(service(Request::default()));
    let broker = Arc::new(broker);
    serve(options, On::Tokio, service, move || {
        std::mem::forget(broker);
        Ok(())
    })
}
