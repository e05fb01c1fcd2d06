//! Stalls made on purpose, so that the watcher can be tried on the real thing. Each fault writes
//! the instant at which it takes hold onto the heartbeat page: the ground truth.

use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::str::FromStr;
use std::task::Poll;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, Signal};
use stallscope_probes::sample::Fault;

use super::broker::EmbeddedBroker;
use super::context::{Connection, Context};
use super::rt;
use super::{Ack, Kafka, Stack};

/// When a fault begins unless `@SECONDS` says otherwise.
const DEFAULT_START: Duration = Duration::from_secs(5);
/// What stands for "for ever": librdkafka counts milliseconds in an `int`.
const PRACTICALLY_FOR_EVER: Duration = Duration::from_hours(20 * 24);
/// fds left to the server by `fd-exhausted`.
const FDS_LEFT: u64 = 8;
/// Records in the queue of a producer that `kafka-queue-full` is to fill: a small load fills it in
/// seconds.
pub(super) const QUEUE_MAX: u64 = 100;
/// How late the broker of `kafka-slow` answers: later than anyone waits, sooner than librdkafka
/// gives a request up (`request.timeout.ms`, 30 s).
const SLOW_ANSWER: Duration = Duration::from_secs(20);

/// `<id>[@SECONDS][+SECONDS]`: which fault, when it begins, how long it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultPlan {
    /// Which.
    pub fault: Fault,
    /// When it begins, counted from readiness.
    pub start: Duration,
    /// How long it lasts; `None`: until the server goes down.
    pub lasts: Option<Duration>,
}

impl FromStr for FaultPlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (text, lasts) = split_seconds(text, '+')?;
        let (id, start) = split_seconds(text, '@')?;
        let fault = Fault::ALL.into_iter().find(|fault| fault.id() == id).ok_or_else(|| {
            let known = Fault::ALL.map(Fault::id).join(", ");
            format!("'{id}' is not a fault this server can make: they are {known}")
        })?;
        Ok(Self { fault, start: start.unwrap_or(DEFAULT_START), lasts })
    }
}

fn split_seconds(text: &str, mark: char) -> Result<(&str, Option<Duration>), String> {
    let Some((rest, seconds)) = text.split_once(mark) else { return Ok((text, None)) };
    let duration = seconds
        .parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| *duration <= PRACTICALLY_FOR_EVER);
    match duration {
        Some(duration) => Ok((rest, Some(duration))),
        None => {
            Err(format!("'{seconds}' after '{mark}' is not a number of seconds, like 5 or 2.5"))
        }
    }
}

impl FaultPlan {
    /// Whether this fault can be made in this server; a sentence if not.
    pub fn check(&self, stack: Stack, kafka: &Kafka, ack: Ack) -> Result<(), String> {
        match self.fault {
            Fault::SqNotFlushed if !stack.is_on_tokio_uring() => Err(format!(
                "the fault sq-not-flushed is one of tokio-uring's: the {} server has no such \
                 ring, use tokio-uring",
                stack.name()
            )),
            Fault::ProcessStopped if self.lasts.is_some() => {
                Err("the fault process-stopped takes no duration: a stopped process cannot resume \
                 itself, send it SIGCONT"
                    .to_owned())
            }
            Fault::KafkaQueueFull | Fault::KafkaUnreachable | Fault::KafkaSlow
                if *kafka != Kafka::Embedded =>
            {
                Err(format!("the fault {} needs --kafka embedded", self.fault.id()))
            }
            Fault::KafkaQueueFull if ack != Ack::Queue => {
                Err("the fault kafka-queue-full needs --ack queue: with --ack delivery the server \
                     stalls as soon as its broker does, and not for want of room"
                    .to_owned())
            }
            Fault::KafkaUnreachable | Fault::KafkaSlow | Fault::KafkaNotPolled
                if ack != Ack::Delivery =>
            {
                Err(format!(
                    "the fault {} needs --ack delivery: with --ack queue no request waits for the \
                     broker",
                    self.fault.id()
                ))
            }
            Fault::KafkaNotPolled if *kafka == Kafka::None => {
                Err("the fault kafka-not-polled needs a broker: --kafka none has none".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Makes the fault at its time, and undoes it at its time or when the server goes down.
    pub(super) async fn carry_out(self, context: Rc<Context>) {
        tokio::select! {
            () = context.stop.requested() => return,
            () = rt::sleep(self.start) => {}
        }
        tracing::warn!("the fault {} begins", self.fault.id());
        match self.fault {
            Fault::SqNotFlushed => self.sq_not_flushed(&context).await,
            Fault::FdExhausted => self.fd_exhausted(&context).await,
            Fault::RuntimeBlocked => self.block_runtime(&context),
            Fault::ProcessStopped => stop_process(&context),
            Fault::KafkaQueueFull => self.kafka_queue_full(&context).await,
            Fault::KafkaUnreachable => {
                let (down, up) = (EmbeddedBroker::goes_down, EmbeddedBroker::comes_up);
                self.upset_broker(&context, down, up).await;
            }
            Fault::KafkaSlow => {
                let slow = |broker: &EmbeddedBroker| broker.answers_after(SLOW_ANSWER);
                let fast = |broker: &EmbeddedBroker| broker.answers_after(Duration::ZERO);
                self.upset_broker(&context, slow, fast).await;
            }
            Fault::KafkaNotPolled => {
                context.sink.pause_polling().await;
                context.heartbeat.fault_begins(self.fault);
                self.last(&context).await;
                context.sink.resume_polling();
                context.heartbeat.fault_ends();
            }
        }
    }

    /// With the broker down the queue fills up. The stall begins with the first event that finds
    /// it full (see `Outlet::send`), not before: until then every request is answered.
    async fn kafka_queue_full(self, context: &Context) {
        context.sink.take_full_for_fault(true);
        let broker = context.broker.as_ref();
        if let Some(error) = broker.and_then(|broker| broker.goes_down().err()) {
            tracing::error!("the fault kafka-queue-full failed: {error}");
            return;
        }
        self.last(context).await;
        if let Some(error) = broker.and_then(|broker| broker.comes_up().err()) {
            tracing::error!("cannot undo the fault kafka-queue-full: {error}");
        }
        let never_came = context.sink.take_full_for_fault(false);
        if !never_came {
            context.heartbeat.fault_ends();
        }
    }

    /// Does something to the broker inside the process, and undoes it.
    async fn upset_broker(
        self,
        context: &Context,
        upset: impl Fn(&EmbeddedBroker) -> Result<(), KafkaError>,
        calm: impl Fn(&EmbeddedBroker) -> Result<(), KafkaError>,
    ) {
        // `check` has made sure that there is one.
        let Some(broker) = &context.broker else { return };
        if let Err(error) = upset(broker) {
            tracing::error!("the fault {} failed: {error}", self.fault.id());
            return;
        }
        // After it, not before: whoever reads that it has begun may rely on it.
        context.heartbeat.fault_begins(self.fault);
        self.last(context).await;
        if let Err(error) = calm(broker) {
            tracing::error!("cannot undo the fault {}: {error}", self.fault.id());
        }
        context.heartbeat.fault_ends();
    }

    async fn last(self, context: &Context) {
        tokio::select! {
            () = context.stop.requested() => {}
            () = rt::sleep(self.lasts.unwrap_or(PRACTICALLY_FOR_EVER)) => {}
        }
    }

    async fn sq_not_flushed(self, context: &Context) {
        let ends = Rc::new(Cell::new(false));
        context.heartbeat.fault_begins(self.fault);
        rt::spawn({
            let ends = Rc::clone(&ends);
            std::future::poll_fn(move |cx| always_ready_task(&ends, cx))
        });
        self.last(context).await;
        ends.set(true);
        context.heartbeat.fault_ends();
    }

    async fn fd_exhausted(self, context: &Context) {
        let before = rustix::process::getrlimit(Resource::Nofile);
        if let Err(error) = lower_fd_limit(before) {
            tracing::error!("the fault fd-exhausted failed: {error}");
            return;
        }
        context.exhaustion.begins();
        self.last(context).await;
        if let Err(error) = rustix::process::setrlimit(Resource::Nofile, before) {
            tracing::error!("cannot restore the fd limit: {error}");
        }
        if context.exhaustion.ends() {
            context.heartbeat.fault_ends();
        }
    }

    /// Calls, on the runtime's thread, a function that blocks: `flush` of a producer whose broker
    /// does not answer.
    fn block_runtime(self, context: &Context) {
        let duration = self.lasts.unwrap_or(PRACTICALLY_FOR_EVER);
        let (producer, port) = match unflushable_producer() {
            Ok(made) => made,
            Err(error) => {
                tracing::error!("the fault runtime-blocked failed: {error}");
                return;
            }
        };
        context.heartbeat.fault_begins(self.fault);
        producer.flush(duration).ok();
        context.heartbeat.fault_ends();
        // Dropping a producer blocks too: that would be more of the fault than was asked for.
        std::thread::spawn(move || drop((producer, port)));
    }
}

/// The body of a task that is always ready, as the consumer of a queue that is never empty is: a
/// little work for each message, and `yield_now` in between.
///
/// tokio-uring 0.5.0 hands entries to the kernel when the runtime parks
/// (`runtime/mod.rs Runtime::new`, `on_thread_park`), and a current-thread runtime with a ready
/// task never parks (tokio `current_thread/mod.rs`: `park_yield` runs no hook).
#[inline(never)]
fn always_ready_task(ends: &Cell<bool>, cx: &mut std::task::Context<'_>) -> Poll<()> {
    if ends.get() {
        return Poll::Ready(());
    }
    std::hint::black_box(handle_one_message());
    // A new one is never ready at its first poll, and wakes the task at once.
    pin!(rt::yield_now()).poll(cx)
}

/// A few microseconds of work. A function of its own, since the profiler's stacks end at the caller
/// of the function that was interrupted.
#[inline(never)]
fn handle_one_message() -> u64 {
    (0..2000_u64).fold(0, |sum, step| std::hint::black_box(sum.wrapping_mul(31) ^ step))
}

fn stop_process(context: &Context) {
    context.heartbeat.fault_begins(Fault::ProcessStopped);
    if let Err(error) = rustix::process::kill_process(rustix::process::getpid(), Signal::STOP) {
        tracing::error!("the fault process-stopped failed: {error}");
    }
    // kill(2): a signal to oneself is delivered before the call returns, so this runs after the
    // SIGCONT.
    context.heartbeat.fault_ends();
}

/// The state of `fd-exhausted`: sockets that a server with a leak would not have closed.
#[derive(Default)]
pub(super) struct Exhaustion {
    is_active: Cell<bool>,
    was_met: Cell<bool>,
    held: RefCell<Vec<Rc<Connection>>>,
}

impl Exhaustion {
    fn begins(&self) {
        self.is_active.set(true);
    }

    /// Closes what was held; says whether the limit was ever met.
    fn ends(&self) -> bool {
        self.is_active.set(false);
        self.held.borrow_mut().clear();
        self.was_met.replace(false)
    }

    /// Keeps the socket of a connection that was served, while the fault lasts.
    pub(super) fn hold(&self, connection: Rc<Connection>) {
        if self.is_active.get() {
            self.held.borrow_mut().push(connection);
        }
    }

    /// Whether this failed accept is the first that the fault has caused: the stall begins here,
    /// not when the limit was lowered.
    pub(super) fn is_first_met_by(&self, errno: Option<i32>) -> bool {
        self.is_active.get()
            && errno == Some(Errno::MFILE.raw_os_error())
            && !self.was_met.replace(true)
    }
}

fn lower_fd_limit(before: Rlimit) -> std::io::Result<()> {
    // One of the entries is the directory being read.
    let open = std::fs::read_dir("/proc/self/fd")?.count().saturating_sub(1) as u64;
    let limit = Rlimit { current: Some(open + FDS_LEFT), maximum: before.maximum };
    rustix::process::setrlimit(Resource::Nofile, limit)?;
    Ok(())
}

/// A local TCP port on which connections are refused for as long as the socket is held: it is
/// bound, and does not listen.
pub(super) fn closed_port() -> std::io::Result<(socket2::Socket, SocketAddr)> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let address = socket.local_addr()?.as_socket().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    Ok((socket, address))
}

/// The fault's producer says nothing: that its broker is down is the point.
struct Silent;

impl ClientContext for Silent {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Silent {
    type DeliveryOpaque = ();
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

#[derive(Debug, thiserror::Error)]
enum ProducerError {
    #[error("no closed port: {0}")]
    Port(#[from] std::io::Error),
    #[error("no producer: {0}")]
    Producer(#[from] KafkaError),
}

fn unflushable_producer() -> Result<(BaseProducer<Silent>, socket2::Socket), ProducerError> {
    let (port, address) = closed_port()?;
    let producer: BaseProducer<Silent> = ClientConfig::new()
        .set("bootstrap.servers", address.to_string())
        .set("message.timeout.ms", PRACTICALLY_FOR_EVER.as_millis().to_string())
        .create_with_context(Silent)?;
    let record = BaseRecord::<(), str, ()>::to("never").payload("never");
    producer.send(record).map_err(|(error, _)| error)?;
    Ok((producer, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read() {
        let seconds = Duration::from_secs_f64;
        let cases = [
            ("sq-not-flushed", Some((Fault::SqNotFlushed, 5.0, None))),
            ("fd-exhausted@0", Some((Fault::FdExhausted, 0.0, None))),
            ("runtime-blocked@2.5+10", Some((Fault::RuntimeBlocked, 2.5, Some(10.0)))),
            ("runtime-blocked+10", Some((Fault::RuntimeBlocked, 5.0, Some(10.0)))),
            ("process-stopped@1", Some((Fault::ProcessStopped, 1.0, None))),
            ("kafka-slow@2+3", Some((Fault::KafkaSlow, 2.0, Some(3.0)))),
            ("unknown", None),
            ("sq-not-flushed@", None),
            ("sq-not-flushed@-1", None),
            ("sq-not-flushed@nan", None),
            ("sq-not-flushed@5+inf", None),
            ("sq-not-flushed+5@5", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(fault, start, lasts)| FaultPlan {
                fault,
                start: seconds(start),
                lasts: lasts.map(seconds),
            });
            assert_eq!(text.parse::<FaultPlan>().ok(), expected, "{text}");
        }
    }

    #[test]
    fn plans_that_make_no_sense_are_refused() {
        let refused = |text: &str, stack| {
            let plan = text.parse::<FaultPlan>().unwrap();
            plan.check(stack, &Kafka::Embedded, Ack::Queue).is_err()
        };
        assert!(refused("sq-not-flushed", Stack::Tokio));
        assert!(!refused("sq-not-flushed", Stack::TokioUring));
        assert!(refused("process-stopped+5", Stack::TokioUring));
        assert!(!refused("process-stopped", Stack::TokioUring));
    }

    #[test]
    fn faults_of_kafka_need_their_broker_and_someone_who_waits_for_it() {
        let elsewhere = Kafka::Bootstrap("k:9092".to_owned());
        for fault in Fault::ALL.into_iter().filter(|fault| fault.is_of_kafka()) {
            let plan = fault.id().parse::<FaultPlan>().unwrap();
            let is_taken = |kafka: &Kafka, ack| plan.check(Stack::Tokio, kafka, ack).is_ok();
            let waits_for_room = fault == Fault::KafkaQueueFull;
            assert_eq!(is_taken(&Kafka::Embedded, Ack::Queue), waits_for_room, "{fault:?}");
            assert_eq!(is_taken(&Kafka::Embedded, Ack::Delivery), !waits_for_room, "{fault:?}");
            let needs_no_broker = fault == Fault::KafkaNotPolled;
            assert_eq!(is_taken(&elsewhere, Ack::Delivery), needs_no_broker, "{fault:?}");
        }
    }

    #[test]
    fn the_first_emfile_counts_and_only_while_the_fault_lasts() {
        let exhaustion = Exhaustion::default();
        let emfile = Some(Errno::MFILE.raw_os_error());
        assert!(!exhaustion.is_first_met_by(emfile));
        exhaustion.begins();
        assert!(!exhaustion.is_first_met_by(Some(Errno::CONNABORTED.raw_os_error())));
        assert!(exhaustion.is_first_met_by(emfile));
        assert!(!exhaustion.is_first_met_by(emfile));
        assert!(exhaustion.ends());
        assert!(!exhaustion.ends());
    }
}
