//! The life of one connection: carries out the turns of its [`Session`] on a [`Stream`], within
//! time.

use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use super::context::{Connection, Context, Socket, Stream};
use super::cure::{Cure, Cures};
use super::http::READ_BYTES;
use super::rt::Timer;
use super::session::{Session, Turn};

/// How long a client may go on sending after the response that ends its connection.
pub(super) const LINGER_MAX: Duration = Duration::from_secs(2);
/// How much it may send then.
const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Serves one connection to its end.
pub(super) async fn serve<S: Stream>(stream: S, context: Rc<Context>) {
    let stream = Rc::new(stream);
    let connection = context.enter(Rc::clone(&stream) as Rc<dyn Socket>);
    Conversation {
        stream: &*stream,
        connection: &connection,
        context: &context,
        session: Session::new(context.limits.body_bytes_max),
        deadline: Deadline::after(context.limits.idle_timeout),
        request_began: None,
        idle_since: None,
    }
    .hold()
    .await;
    drop(stream);
    context.leave(connection);
}

struct Conversation<'a, S> {
    stream: &'a S,
    connection: &'a Connection,
    context: &'a Context,
    session: Session,
    deadline: Deadline,
    /// When the first bytes of the request after so many others were seen.
    request_began: Option<(u64, Instant)>,
    /// Since when the client has had all its answers and not begun another request; empty lines are
    /// none.
    idle_since: Option<Instant>,
}

impl<S: Stream> Conversation<'_, S> {
    async fn hold(mut self) {
        loop {
            let requests_before = self.session.requests();
            let is_stopping = self.context.stop.is_requested();
            let turn = self.session.turn(&*self.context.sink, is_stopping);
            let requests = self.session.requests() - requests_before;
            if requests > 0 {
                self.context.heartbeat.requests(requests);
            }
            let goes_on = match turn {
                Turn::Read => self.read().await,
                Turn::Write => self.write().await,
                Turn::Await(receiver) => {
                    self.session.settle(receiver.await.ok());
                    true
                }
                Turn::Close => false,
            };
            if !goes_on {
                break;
            }
        }
        if self.session.client_may_be_sending() {
            self.linger().await;
        }
    }

    async fn read(&mut self) -> bool {
        let is_idle = self.session.is_idle();
        let until = self.read_until(is_idle);
        self.deadline.set(until);
        self.connection.is_idle.set(is_idle);
        let buffer = self.session.take_buffer();
        let mut reading = pin!(self.stream.read(buffer));
        let received = tokio::select! {
            biased;
            received = &mut reading => Some(received),
            () = self.deadline.passed() => None,
        };
        self.connection.is_idle.set(false);
        let Some((outcome, buffer)) = received else {
            // The read stays in flight while the client is told, and is ended then.
            self.session.timed_out(!is_idle);
            if let Turn::Write = self.session.turn(&*self.context.sink, false) {
                let heartbeat = &self.context.heartbeat;
                heartbeat.requests(1);
                let (bytes, responses) = self.session.take_responses();
                self.deadline.set(Instant::now() + self.context.limits.request_timeout);
                if write_within(self.stream, bytes, &mut self.deadline, self.context.cures)
                    .await
                    .is_some()
                {
                    heartbeat.responses(responses);
                    // Closing at once would reset the connection, and destroy the response on its way.
                    self.stream.shut(Shutdown::Write);
                    self.deadline.set(Instant::now() + LINGER_MAX);
                    let received = tokio::select! {
                        biased;
                        received = &mut reading => Some(received),
                        () = self.deadline.passed() => None,
                    };
                    if let Some((_, buffer)) = received {
                        self.session.received(buffer);
                        return false;
                    }
                }
            }
            if let Some((_, buffer)) = give_up(self.stream, self.context.cures, reading).await {
                self.session.received(buffer);
            }
            return false;
        };
        self.session.received(buffer);
        matches!(outcome, Ok(bytes) if bytes > 0)
    }

    /// Until when the next bytes must come: a request has a time as a whole, however it trickles.
    fn read_until(&mut self, is_idle: bool) -> Instant {
        let now = Instant::now();
        if is_idle {
            self.request_began = None;
            return *self.idle_since.get_or_insert(now) + self.context.limits.idle_timeout;
        }
        self.idle_since = None;
        let requests = self.session.requests();
        let began = match self.request_began {
            Some((earlier, began)) if earlier == requests => began,
            _ => now,
        };
        self.request_began = Some((requests, began));
        began + self.context.limits.request_timeout
    }

    async fn write(&mut self) -> bool {
        let (bytes, responses) = self.session.take_responses();
        self.idle_since = None;
        self.deadline.set(Instant::now() + self.context.limits.request_timeout);
        match write_within(self.stream, bytes, &mut self.deadline, self.context.cures).await {
            Some(buffer) => {
                self.context.heartbeat.responses(responses);
                self.session.written(buffer);
                true
            }
            None => false,
        }
    }

    /// Reads on and throws away until the client has seen the response and closed, within bounds.
    async fn linger(&mut self) {
        self.stream.shut(Shutdown::Write);
        self.deadline.set(Instant::now() + LINGER_MAX);
        let buffer = self.session.take_buffer();
        linger(self.stream, buffer, &mut self.deadline, self.context.cures).await;
    }
}

/// Reads and throws away until the client closes, or the deadline has passed, or it was too much.
pub(super) async fn linger<S: Stream>(
    stream: &S,
    mut buffer: Vec<u8>,
    deadline: &mut Deadline,
    cures: Cures,
) {
    let mut left = LINGER_BYTES_MAX;
    while left > 0 {
        buffer.clear();
        buffer.reserve(READ_BYTES);
        let mut reading = pin!(stream.read(buffer));
        let received = tokio::select! {
            biased;
            received = &mut reading => Some(received),
            () = deadline.passed() => None,
        };
        let Some((outcome, back)) = received else {
            give_up(stream, cures, reading).await;
            return;
        };
        match outcome {
            Ok(bytes) if bytes > 0 => left = left.saturating_sub(bytes),
            _ => return,
        }
        buffer = back;
    }
}

/// Writes everything before the deadline; gives the buffer back if that came to pass.
pub(super) async fn write_within<S: Stream>(
    stream: &S,
    bytes: Vec<u8>,
    deadline: &mut Deadline,
    cures: Cures,
) -> Option<Vec<u8>> {
    let mut writing = pin!(stream.write_all(bytes));
    let (outcome, buffer) = tokio::select! {
        biased;
        written = &mut writing => written,
        () = deadline.passed() => give_up(stream, cures, writing).await?,
    };
    outcome.is_ok().then_some(buffer)
}

/// Ends an operation that has taken too long, and with it its connection (`Cure::Close`).
async fn give_up<S: Stream, T>(
    stream: &S,
    cures: Cures,
    operation: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    if !cures.has(Cure::Close) {
        return None;
    }
    stream.shut(Shutdown::Both);
    Some(operation.await)
}

/// A point in time that moves with every operation. Its timer is moved only when the point comes
/// nearer, and otherwise when it fires: once per timeout instead of once per operation.
pub(super) struct Deadline {
    timer: Timer,
    at: Instant,
}

impl Deadline {
    pub(super) fn after(duration: Duration) -> Self {
        let at = Instant::now() + duration;
        Self { timer: Timer::at(at), at }
    }

    pub(super) fn set(&mut self, at: Instant) {
        self.at = at;
        if at < self.timer.fires() {
            self.timer.reset(at);
        }
    }

    pub(super) async fn passed(&mut self) {
        std::future::poll_fn(|cx| self.poll_passed(cx)).await;
    }

    pub(super) fn poll_passed(&mut self, cx: &mut std::task::Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.poll_fired(cx));
            if Instant::now() >= self.at {
                return Poll::Ready(());
            }
            self.timer.reset(self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_can_be_moved_either_way() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let began = Instant::now();
            let mut deadline = Deadline::after(Duration::from_hours(1));
            deadline.set(began + Duration::from_millis(10));
            deadline.set(began + Duration::from_millis(60));
            deadline.passed().await;
            assert!(began.elapsed() >= Duration::from_millis(60));
        });
    }
}
