//! A server from its start to its end: one runtime on the process's main thread, or several, each on
//! a thread and with a listening socket of its own.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::broker::EmbeddedBroker;
use super::context::{Context, Limits, Listener};
use super::cure::Cure;
use super::fault::{self, FaultPlan};
use super::shutdown::{self, Stop};
use super::sink::{Sink, SinkOptions, WhenFull};
use super::{
    Kafka, Options, Ready, ServeError, Stack, Tally, Work, accept, connection, echo, glommio_tcp,
    hyper_conn, tokio_tcp, uring_tcp,
};
use crate::kit::heartbeat::Heartbeat;
use crate::kit::profile::Profiler;
use stallscope_probes::sample::Fault;

/// The backlog that tokio-uring's own `bind` sets.
const BACKLOG_OF_TOKIO_URING: i32 = 1024;
/// How long the other runtimes may take beyond the time that each has for its end.
const OTHERS_SLACK: Duration = Duration::from_secs(1);

/// Runs a server, one runtime on this thread, until SIGTERM or SIGINT; calls `announce` once it is
/// ready.
pub fn run(options: &Options, announce: impl FnOnce(&Ready)) -> Result<Tally, ServeError> {
    let heartbeat = Arc::new(if options.heartbeat {
        Heartbeat::create(options.stack.page_name(), options.threads)?
    } else {
        Heartbeat::off()
    });
    // Before all other threads and sockets: it is to have an fd in any need.
    let _profiler = options.profile.then(Profiler::start).transpose()?;
    let stop = Arc::new(Stop::default());
    let patience = options.shutdown_timeout * 2 + Duration::from_secs(3);
    shutdown::listen_for_signals(Arc::clone(&stop), patience).map_err(ServeError::Signals)?;

    let listen_failed = |source| ServeError::Listen { address: options.listen, source };
    let mut listeners = bind(options).map_err(listen_failed)?.into_iter();
    let Some(listener) = listeners.next() else {
        return Err(listen_failed(io::ErrorKind::InvalidInput.into()));
    };
    let (broker, bootstrap) = kafka(options)?;
    let sink =
        Arc::new(Sink::start(&sink_options(options, bootstrap.clone()), Arc::clone(&heartbeat))?);
    let ready = Ready {
        address: listener.local_addr().map_err(listen_failed)?,
        kafka: bootstrap.unwrap_or_else(|| "none".to_owned()),
        heartbeat: heartbeat.path().map(ToOwned::to_owned),
    };
    heartbeat.listens_on(ready.address.port());
    let common = Common {
        stack: options.stack,
        work: options.work,
        timeout: options.shutdown_timeout,
        sink: Arc::clone(&sink),
        heartbeat,
        stop,
        limits: limits(options),
        cures: options.cures,
    };
    let others = Others::start(&common, listeners)?;
    let fault = options.fault;
    let lane = Lane { common: common.clone(), number: 0, listener, broker, fault };
    let begin = || {
        others.await_ready()?;
        announce(&ready);
        Ok(())
    };
    // The events are flushed before the runtime is taken down, whatever that may wait for.
    let finish = || sink.finish(options.shutdown_timeout);
    let ended = lane.run(begin, finish);
    common.stop.request();
    let ended = others.join().and(ended);
    ended.inspect_err(|_| {
        // Its thread would keep the heartbeat page of a server that never was.
        sink.finish(Duration::ZERO);
    })
}

fn limits(options: &Options) -> Limits {
    Limits {
        request_timeout: options.request_timeout,
        idle_timeout: options.idle_timeout,
        body_bytes_max: options.body_bytes_max,
    }
}

/// The broker in this process, if there is to be one, and where the events go.
fn kafka(options: &Options) -> Result<(Option<EmbeddedBroker>, Option<String>), ServeError> {
    Ok(match &options.kafka {
        Kafka::None => (None, None),
        Kafka::Bootstrap(bootstrap) => (None, Some(bootstrap.clone())),
        Kafka::Embedded => {
            let broker = EmbeddedBroker::start(&options.topic)?;
            if let Some(rtt) = options.kafka_rtt {
                broker.answers_after(rtt).map_err(super::SinkError::Embedded)?;
            }
            let bootstrap = broker.bootstrap();
            (Some(broker), Some(bootstrap))
        }
    })
}

fn sink_options(options: &Options, bootstrap: Option<String>) -> SinkOptions {
    let fills_queue = options.fault.is_some_and(|plan| plan.fault == Fault::KafkaQueueFull);
    SinkOptions {
        bootstrap,
        producer: options.producer,
        topic: options.topic.clone(),
        ack: options.ack,
        tuning: options.tuning,
        message_timeout: options.message_timeout,
        queue_max: fills_queue.then_some(fault::QUEUE_MAX),
        when_full: if fills_queue { WhenFull::Retry } else { WhenFull::Refuse },
        runtimes: options.threads,
    }
}

/// Binds the listening sockets, one for each runtime. `SO_REUSEADDR` lets a restarted server have
/// its port back while old connections are in `TIME_WAIT`. `SO_REUSEPORT`, by which the kernel deals
/// the connections out to several sockets, is set only where there are several: with it a second
/// server on the port starts without an error and takes a part of the connections.
fn bind(options: &Options) -> io::Result<Vec<TcpListener>> {
    let as_tokio_uring = options.stack.is_on_tokio_uring() && !options.cures.has(Cure::Listen);
    let backlog = if as_tokio_uring { BACKLOG_OF_TOKIO_URING } else { options.backlog };
    let shares_port = as_tokio_uring || options.threads > 1;
    let first = bind_one(options.listen, backlog, shares_port)?;
    // With port 0 the kernel has chosen one: the others take the same.
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..options.threads {
        listeners.push(bind_one(address, backlog, shares_port)?);
    }
    Ok(listeners)
}

fn bind_one(address: SocketAddr, backlog: i32, shares_port: bool) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shares_port)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// What all runtimes of a server have in common.
#[derive(Clone)]
struct Common {
    stack: Stack,
    work: Work,
    timeout: Duration,
    sink: Arc<Sink>,
    heartbeat: Arc<Heartbeat>,
    stop: Arc<Stop>,
    limits: Limits,
    cures: super::Cures,
}

/// One runtime.
struct Lane {
    common: Common,
    /// They count from 0.
    number: usize,
    listener: TcpListener,
    broker: Option<EmbeddedBroker>,
    fault: Option<FaultPlan>,
}

impl Lane {
    /// Serves on this thread to the end. `begin` is called when the runtime turns, `finish` before
    /// it is taken down.
    fn run<T>(
        self,
        begin: impl FnOnce() -> io::Result<()>,
        finish: impl FnOnce() -> T,
    ) -> Result<T, ServeError> {
        let Self { common, number, listener, broker, fault } = self;
        let Common { stack, work, timeout, sink, heartbeat, stop, limits, cures } = common;
        let context = Context::new(number, sink, broker, heartbeat, stop, limits, cures);
        let context = Rc::new(context);
        let begin = || {
            context.heartbeat.runtime_begins(number);
            begin()
        };
        let context = Rc::clone(&context);
        match stack {
            Stack::Tokio | Stack::TokioHyper => {
                let main = async || {
                    let listener = tokio_tcp::TokioListener::new(listener)?;
                    begin()?;
                    with_http(listener, stack, work, context, fault, timeout).await;
                    Ok(())
                };
                tokio_tcp::run(main, finish).map_err(ServeError::Tokio)
            }
            Stack::TokioUring | Stack::TokioUringHyper => {
                let main = async || {
                    let listener = uring_tcp::UringListener::new(listener)?;
                    begin()?;
                    with_http(listener, stack, work, context, fault, timeout).await;
                    Ok(())
                };
                uring_tcp::run(cures.has(Cure::Submit), main, finish)
                    .map_err(ServeError::TokioUring)
            }
            Stack::Glommio => {
                let main = async || {
                    let listener = glommio_tcp::GlommioListener::new(listener)?;
                    begin()?;
                    without_hyper(listener, work, context, fault, timeout).await;
                    Ok(())
                };
                glommio_tcp::run(main, finish).map_err(ServeError::Glommio)
            }
        }
    }
}

/// Serves to the end, with whom the stack has speak HTTP.
async fn with_http<L>(
    listener: L,
    stack: Stack,
    work: Work,
    context: Rc<Context>,
    fault: Option<FaultPlan>,
    timeout: Duration,
) where
    L: Listener,
    L::Stream: super::hyper_io::HyperSocket,
{
    if stack.has_hyper() && work == Work::Events {
        serve(listener, context, fault, timeout, hyper_conn::serve).await;
    } else {
        without_hyper(listener, work, context, fault, timeout).await;
    }
}

async fn without_hyper<L: Listener>(
    listener: L,
    work: Work,
    context: Rc<Context>,
    fault: Option<FaultPlan>,
    timeout: Duration,
) {
    match work {
        Work::Events => serve(listener, context, fault, timeout, connection::serve).await,
        Work::Echo => serve(listener, context, fault, timeout, echo::serve).await,
    }
}

async fn serve<L: Listener, F: Future<Output = ()> + 'static>(
    listener: L,
    context: Rc<Context>,
    fault: Option<FaultPlan>,
    timeout: Duration,
    serve: fn(L::Stream, Rc<Context>) -> F,
) {
    if context.lane == 0 {
        let sink = Arc::clone(&context.sink);
        context.spawn_for_life(async move { sink.poll_on_runtime().await });
        let sink = Arc::clone(&context.sink);
        context.spawn_for_life(async move { sink.keep_fds().await });
    }
    accept::run(listener, Rc::clone(&context), fault, timeout, serve).await;
    context.sink.settle(timeout).await;
    if context.lane == 0 {
        // What they await may be for this runtime to see to: it polls the producer, or keeps its fds.
        context.stop.others_ended(timeout + OTHERS_SLACK).await;
    }
    context.end().await;
    context.heartbeat.runtime_ends(context.lane);
}

/// The runtimes beside the first one, each on a thread of its own.
struct Others {
    threads: Vec<JoinHandle<Result<(), ServeError>>>,
    ready: Receiver<()>,
}

impl Others {
    fn start(
        common: &Common,
        listeners: impl Iterator<Item = TcpListener>,
    ) -> Result<Self, ServeError> {
        let (is_ready, ready) = channel();
        let mut threads = Vec::new();
        for (index, listener) in listeners.enumerate() {
            let number = index + 1;
            let is_ready = is_ready.clone();
            let (common, itself) = (common.clone(), common.stop.one_more());
            let thread = std::thread::Builder::new().name(format!("runtime-{number}"));
            let spawned = thread.spawn(move || {
                let lane = Lane { common, number, listener, broker: None, fault: None };
                let begin = || {
                    // Nobody listens any more when the server has failed meanwhile.
                    is_ready.send(()).ok();
                    Ok(())
                };
                lane.run(begin, || drop(itself))
            });
            threads.push(spawned.map_err(ServeError::Thread)?);
        }
        Ok(Self { threads, ready })
    }

    /// Waits until all of them turn.
    fn await_ready(&self) -> io::Result<()> {
        // The senders are dropped one by one: the last of them to fail ends the wait.
        for _ in &self.threads {
            if self.ready.recv().is_err() {
                return Err(io::Error::other("another runtime of this server did not start"));
            }
        }
        Ok(())
    }

    /// Waits for their threads.
    fn join(self) -> Result<(), ServeError> {
        let mut outcome = Ok(());
        for thread in self.threads {
            let ended = thread.join().unwrap_or_else(|_| {
                Err(ServeError::Thread(io::Error::other("a thread of the server panicked")))
            });
            outcome = outcome.and(ended);
        }
        outcome
    }
}
