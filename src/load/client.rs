//! One connection: connect, send, receive, and again; after a failure, back off and reconnect.
//!
//! The path of one request is one write, one read and one look at the clock; it allocates nothing.

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use super::gate::Gate;
use super::response::{Finished, Scanner};
use super::run::Clock;
use super::slot::{Expired, Slot};
use super::tally::{Failure, FailureKind, Tally};

/// Bytes taken from a socket at once. More than most responses, so that one read empties the
/// socket: tokio then knows without another read that nothing is left.
const READ_BYTES: usize = 16 << 10;
/// First wait after a failure.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
/// Longest wait after failures in a row: a server that recovers is noticed this fast.
const BACKOFF_MAX: Duration = Duration::from_millis(250);

/// What all connections of a run share.
#[derive(Debug)]
pub struct Shared {
    pub address: SocketAddr,
    pub request: Vec<u8>,
    pub close: bool,
    pub timeout_ns: u64,
    pub clock: Clock,
    pub gate: Option<Rc<Gate>>,
    pub tally: RefCell<Tally>,
}

/// Why a connection was given up.
#[derive(Debug)]
enum GivenUp {
    /// It could not be had.
    Connect(Failure),
    /// A request on it failed.
    Request(Failure),
}

/// Wait before the next attempt: doubles with each failure in a row, up to a bound.
#[derive(Debug)]
struct Backoff(Duration);

impl Backoff {
    fn next(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (self.0 * 2).min(BACKOFF_MAX);
        wait
    }
}

/// Keeps one connection busy, for ever: the run ends by dropping it.
pub async fn keep_busy(shared: Rc<Shared>, slot: Rc<Slot>) {
    slot.adopt().await;
    let mut client =
        Client { shared, slot, scanner: Scanner::new(), backoff: Backoff(BACKOFF_MIN) };
    loop {
        let given_up = if client.shared.close {
            client.request_per_connection().await
        } else {
            client.requests_on_one_connection().await
        };
        let Err(given_up) = given_up else { continue };
        {
            let mut tally = client.shared.tally.borrow_mut();
            match given_up {
                GivenUp::Connect(failure) => tally.on_connect_failure(failure),
                GivenUp::Request(failure) => tally.on_request_failure(failure),
            }
        }
        tokio::time::sleep(client.backoff.next()).await;
    }
}

struct Client {
    shared: Rc<Shared>,
    slot: Rc<Slot>,
    scanner: Scanner,
    backoff: Backoff,
}

impl Client {
    /// One request; its connect is part of its latency.
    async fn request_per_connection(&mut self) -> Result<(), GivenUp> {
        let due_ns = self.next_due().await;
        let mut stream = self.connect().await.map_err(GivenUp::Connect)?;
        self.request(&mut stream, due_ns, self.shared.clock.now_ns()).await?;
        Ok(())
    }

    /// Requests until the server ends the connection after a response.
    async fn requests_on_one_connection(&mut self) -> Result<(), GivenUp> {
        let mut stream = self.connect().await.map_err(GivenUp::Connect)?;
        let mut now_ns = self.shared.clock.now_ns();
        loop {
            // A closed loop is due when the response before has come: no second look at the clock.
            let due_ns = match &self.shared.gate {
                None => now_ns,
                Some(gate) => {
                    let due_ns = gate.next_due(&self.slot).await;
                    now_ns = self.shared.clock.now_ns();
                    due_ns
                }
            };
            if ended_while_idle(&stream) {
                stream = self.connect().await.map_err(GivenUp::Connect)?;
                now_ns = self.shared.clock.now_ns();
            }
            let (finished, end_ns) = self.request(&mut stream, due_ns, now_ns).await?;
            if !finished.keep_alive {
                return Ok(());
            }
            now_ns = end_ns;
        }
    }

    async fn next_due(&self) -> u64 {
        match &self.shared.gate {
            None => self.shared.clock.now_ns(),
            Some(gate) => gate.next_due(&self.slot).await,
        }
    }

    async fn connect(&mut self) -> Result<TcpStream, Failure> {
        self.scanner.reset();
        let address = self.shared.address;
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(|error| Failure::of_connect(&error))?;
        let mut connecting = pin!(socket.connect(address));
        let deadline_ns = self.shared.clock.now_ns().saturating_add(self.shared.timeout_ns);
        let stream = self
            .slot
            .within(deadline_ns, |cx| connecting.as_mut().poll(cx))
            .await
            .map_err(|Expired| Failure::of(FailureKind::ConnectTimeout))?
            .map_err(|error| Failure::of_connect(&error))?;
        // A request larger than a segment must not wait for an acknowledgement (Nagle).
        stream.set_nodelay(true).map_err(|error| Failure::of_connect(&error))?;
        self.shared.tally.borrow_mut().connections_opened += 1;
        Ok(stream)
    }

    /// Sends one request and takes its response; returns also when that was.
    async fn request(
        &mut self,
        stream: &mut TcpStream,
        due_ns: u64,
        now_ns: u64,
    ) -> Result<(Finished, u64), GivenUp> {
        let shared = &*self.shared;
        shared.tally.borrow_mut().requests += 1;
        let mut unsent = shared.request.as_slice();
        let scanner = &mut self.scanner;
        let finished = self
            .slot
            .within(now_ns.saturating_add(shared.timeout_ns), |cx| {
                poll_exchange(cx, Pin::new(&mut *stream), &mut unsent, scanner)
            })
            .await
            .unwrap_or(Err(Failure::of(FailureKind::RequestTimeout)))
            .map_err(GivenUp::Request)?;
        let end_ns = shared.clock.now_ns();
        shared.tally.borrow_mut().on_response(finished.status, end_ns.saturating_sub(due_ns));
        self.backoff = Backoff(BACKOFF_MIN);
        Ok((finished, end_ns))
    }
}

/// Whether the server has ended the connection between two requests, as it may (RFC 9112, 9.5), or
/// has sent what nobody asked for. Costs no system call while the connection is quiet: tokio knows
/// that nothing came.
fn ended_while_idle(stream: &TcpStream) -> bool {
    let quiet = io::ErrorKind::WouldBlock;
    !matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == quiet)
}

/// Sends what is unsent, and reads until the response ends. Reads also while the server takes no
/// more: it may have answered before the end of the request (413), and wait to be heard.
fn poll_exchange(
    cx: &mut Context<'_>,
    mut stream: Pin<&mut TcpStream>,
    unsent: &mut &[u8],
    scanner: &mut Scanner,
) -> Poll<Result<Finished, Failure>> {
    while !unsent.is_empty() {
        match stream.as_mut().poll_write(cx, unsent) {
            Poll::Ready(Ok(sent)) => *unsent = &unsent[sent..],
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::of_exchange(&error))),
            Poll::Pending => break,
        }
    }
    let mut finished = ready!(poll_response(cx, stream, scanner))?;
    // What is left of the request would be taken for the next one.
    finished.keep_alive &= unsent.is_empty();
    Poll::Ready(Ok(finished))
}

/// Reads until the response ends.
fn poll_response(
    cx: &mut Context<'_>,
    mut stream: Pin<&mut TcpStream>,
    scanner: &mut Scanner,
) -> Poll<Result<Finished, Failure>> {
    loop {
        // Lives on the stack for this poll only: a waiting connection needs no buffer.
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut space);
        if let Err(error) = ready!(stream.as_mut().poll_read(cx, &mut buffer)) {
            return Poll::Ready(Err(Failure::of_exchange(&error)));
        }
        if buffer.filled().is_empty() {
            let early = Failure::of(FailureKind::UnexpectedEof);
            return Poll::Ready(scanner.eof().ok_or(early));
        }
        match scanner.feed(buffer.filled()) {
            Ok(None) => {}
            Ok(Some(finished)) => return Poll::Ready(Ok(finished)),
            Err(_) => return Poll::Ready(Err(Failure::of(FailureKind::Malformed))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_to_its_bound() {
        let mut backoff = Backoff(BACKOFF_MIN);
        let waits: Vec<_> = std::iter::repeat_with(|| backoff.next().as_millis()).take(8).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 250, 250]);
    }
}
