//! What the tasks of a server share, all on one thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::broker::EmbeddedBroker;
use super::cure::Cures;
use super::fault::Exhaustion;
use super::rt;
use super::shutdown::Stop;
use super::sink::Sink;
use crate::kit::heartbeat::Heartbeat;

/// A connected socket, as far as the shutdown is concerned.
pub(super) trait Socket {
    /// Ends one or both directions; an operation in flight on it then completes.
    fn shut(&self, how: Shutdown);
}

/// A connected socket to read from and write to. Buffers are passed by value, since `io_uring` needs
/// them to stay in place until the operation has ended.
///
/// The futures must be driven to their end, or else a tokio-uring operation keeps its socket open:
/// to give one up, [`Socket::shut`] first and await it then.
pub(super) trait Stream: Socket + 'static {
    /// Appends what arrives to `buffer`, which has room. 0: the client will send no more.
    async fn read(&self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>);
    /// Writes all of `buffer`.
    async fn write_all(&self, buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>);
}

/// A listening socket.
pub(super) trait Listener {
    /// What it accepts.
    type Stream: Stream;
    /// Accepts one connection. The future must be driven to its end, as those of [`Stream`].
    async fn accept(&self) -> io::Result<Self::Stream>;
    /// Takes no more connections; an accept in flight ends with an error.
    fn stop(&self);
}

/// Bounds of one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For receiving one request, and for writing the responses.
    pub(super) request_timeout: Duration,
    /// For a connection without a request.
    pub(super) idle_timeout: Duration,
    /// Longest body.
    pub(super) body_bytes_max: u64,
}

/// Everything the tasks share.
pub(super) struct Context {
    /// Which of the server's runtimes this is, from 0.
    pub(super) lane: usize,
    pub(super) sink: Arc<Sink>,
    /// The broker in this process, if there is one.
    pub(super) broker: Option<EmbeddedBroker>,
    pub(super) heartbeat: Arc<Heartbeat>,
    pub(super) stop: Arc<Stop>,
    pub(super) limits: Limits,
    pub(super) cures: Cures,
    pub(super) exhaustion: Exhaustion,
    connections: RefCell<HashMap<u64, Rc<Connection>>>,
    last_id: Cell<u64>,
    emptied: Notify,
    over: Notify,
}

/// A connection, listed as long as it is served.
pub(super) struct Connection {
    id: u64,
    socket: Rc<dyn Socket>,
    /// Waits for a request, and may be closed without loss.
    pub(super) is_idle: Cell<bool>,
    heartbeat: Arc<Heartbeat>,
}

impl Connection {
    /// No more is read than what the client has sent by now.
    pub(super) fn end_reading(&self) {
        self.socket.shut(Shutdown::Read);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.heartbeat.closed();
    }
}

impl Context {
    pub(super) fn new(
        lane: usize,
        sink: Arc<Sink>,
        broker: Option<EmbeddedBroker>,
        heartbeat: Arc<Heartbeat>,
        stop: Arc<Stop>,
        limits: Limits,
        cures: Cures,
    ) -> Self {
        Self {
            lane,
            sink,
            broker,
            heartbeat,
            stop,
            limits,
            cures,
            exhaustion: Exhaustion::default(),
            connections: RefCell::default(),
            last_id: Cell::new(0),
            emptied: Notify::new(),
            over: Notify::new(),
        }
    }

    /// Starts a task that goes on for as long as the server does. Not every runtime drops its tasks
    /// when it ends (glommio's does not).
    #[track_caller]
    pub(super) fn spawn_for_life(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let context = Rc::clone(self);
        rt::spawn(async move {
            tokio::select! {
                biased;
                () = context.over.notified() => {}
                () = task => {}
            }
        });
    }

    /// Ends those tasks.
    pub(super) async fn end(&self) {
        self.over.notify_waiters();
        // They were woken first, and so have their turn first.
        rt::yield_now().await;
        rt::yield_now().await;
    }

    /// Lists a new connection.
    pub(super) fn enter(&self, socket: Rc<dyn Socket>) -> Rc<Connection> {
        self.heartbeat.accepted();
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        let heartbeat = Arc::clone(&self.heartbeat);
        let connection = Rc::new(Connection { id, socket, is_idle: Cell::new(false), heartbeat });
        self.connections.borrow_mut().insert(id, Rc::clone(&connection));
        connection
    }

    /// Strikes a connection off that has been served.
    pub(super) fn leave(&self, connection: Rc<Connection>) {
        self.connections.borrow_mut().remove(&connection.id);
        self.exhaustion.hold(connection);
        if self.connections.borrow().is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Lets the connections come to their end: those that wait for a request end at once, the
    /// others after their response. What is left after `timeout` is cut.
    pub(super) async fn drain(&self, timeout: Duration) {
        for connection in self.connections.borrow().values().filter(|one| one.is_idle.get()) {
            // What the client has sent by now is still read, and answered.
            connection.end_reading();
        }
        if rt::within(timeout, self.until_empty()).await.is_some() {
            return;
        }
        let left = self.connections.borrow().len();
        tracing::warn!("{left} connections are cut: they did not end within {timeout:?}");
        for connection in self.connections.borrow().values() {
            connection.socket.shut(Shutdown::Both);
        }
        // Their operations complete now, and their sockets are closed in order.
        rt::within(CUT_TAKES_MAX, self.until_empty()).await;
    }

    async fn until_empty(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if self.connections.borrow().is_empty() {
                return;
            }
            emptied.await;
        }
    }
}

/// Time for the operations on sockets that were cut to complete.
const CUT_TAKES_MAX: Duration = Duration::from_millis(500);
