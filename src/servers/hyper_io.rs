//! Sockets as hyper wants them: to be polled, with buffers that are lent.
//!
//! tokio's sockets are made for that. An operation of `io_uring` is not: the kernel reads into its
//! buffer, and writes from it, after the call that began it has returned. So the adapter owns the
//! buffers, keeps the operation in flight as a future, and copies what has arrived into hyper's
//! buffer, or hyper's bytes into its own. hyper needs nothing more: it knows no runtime, spawns
//! nothing and has no timers here. `docs/hyper-on-uring.md` tells what does not work, and why.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::net::TcpStream;

use super::context::Stream;
use super::http::READ_BYTES;

/// Bytes taken over from hyper in one write.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// Learns of what goes through a socket.
pub(super) trait Traffic {
    /// So many bytes have arrived.
    fn received(&self, bytes: usize);
    /// All that was written is with the kernel.
    fn flushed(&self);
}

/// A socket that hyper can be given.
pub(super) trait HyperSocket: Stream {
    /// hyper's view of it.
    type Io: Read + Write + Unpin;
    /// That view, and what of it may still be in flight when hyper has let go of it.
    fn io(stream: &Rc<Self>, traffic: Rc<dyn Traffic>) -> (Self::Io, Flights);
}

type Reading = Pin<Box<dyn Future<Output = (io::Result<usize>, Vec<u8>)>>>;
type Writing = Pin<Box<dyn Future<Output = (io::Result<()>, Vec<u8>)>>>;

/// The operations of one connection that the kernel has not ended yet.
#[derive(Clone, Default)]
pub(super) struct Flights(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    reading: Option<Reading>,
    /// What was read, and how much of it hyper has taken.
    read: Vec<u8>,
    taken: usize,
    writing: Option<Writing>,
    /// The buffer of the last write, to be used again.
    spare: Vec<u8>,
}

impl State {
    /// Hands over what was read; false when there is nothing.
    fn hand_over(&mut self, cursor: &mut ReadBufCursor<'_>) -> bool {
        let rest = &self.read[self.taken..];
        let bytes = rest.len().min(cursor.remaining());
        cursor.put_slice(&rest[..bytes]);
        self.taken += bytes;
        bytes > 0
    }

    fn poll_reading(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(reading) = &mut self.reading else { return Poll::Ready(Ok(0)) };
        let (outcome, buffer) = ready!(reading.as_mut().poll(cx));
        self.reading = None;
        self.read = buffer;
        self.taken = 0;
        Poll::Ready(outcome)
    }

    fn poll_writing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(writing) = &mut self.writing else { return Poll::Ready(Ok(())) };
        let (outcome, buffer) = ready!(writing.as_mut().poll(cx));
        self.writing = None;
        self.spare = buffer;
        Poll::Ready(outcome)
    }
}

impl Flights {
    /// Whether the kernel still has an operation.
    pub(super) fn are_up(&self) -> bool {
        let state = self.0.borrow();
        state.reading.is_some() || state.writing.is_some()
    }

    /// Waits for the read in flight, if there is one, and says whether the client may send more.
    pub(super) async fn last_read(&self) -> bool {
        if self.0.borrow().reading.is_none() {
            return true;
        }
        let outcome = std::future::poll_fn(|cx| self.0.borrow_mut().poll_reading(cx)).await;
        matches!(outcome, Ok(bytes) if bytes > 0)
    }

    /// Waits for all of them; the socket must have been shut down, or they may take for ever.
    pub(super) async fn land(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.0.borrow_mut();
            let read = state.poll_reading(cx).is_ready();
            let written = state.poll_writing(cx).is_ready();
            if read && written { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// A socket of which the buffers must be owned by the operation.
pub(super) struct OwnedIo<S> {
    stream: Rc<S>,
    flights: Flights,
    traffic: Rc<dyn Traffic>,
}

impl<S: Stream> OwnedIo<S> {
    fn new(stream: &Rc<S>, traffic: Rc<dyn Traffic>) -> (Self, Flights) {
        let flights = Flights::default();
        (Self { stream: Rc::clone(stream), flights: flights.clone(), traffic }, flights)
    }
}

impl<S: Stream> Read for OwnedIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let state = &mut *self.flights.0.borrow_mut();
        if state.hand_over(&mut cursor) {
            return Poll::Ready(Ok(()));
        }
        if state.reading.is_none() {
            let mut buffer = std::mem::take(&mut state.read);
            state.taken = 0;
            buffer.clear();
            buffer.reserve(READ_BYTES);
            let stream = Rc::clone(&self.stream);
            state.reading = Some(Box::pin(async move { stream.read(buffer).await }));
        }
        // 0 is the end: hyper sees it by an untouched buffer.
        let bytes = ready!(state.poll_reading(cx))?;
        self.traffic.received(bytes);
        state.hand_over(&mut cursor);
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> OwnedIo<S> {
    /// Takes the bytes over and begins to write them; they count as written. An error comes to light
    /// at the next write, or when it is flushed.
    fn begin_to_write<'a>(
        &self,
        cx: &mut Context<'_>,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.flights.0.borrow_mut();
        ready!(state.poll_writing(cx))?;
        let mut buffer = std::mem::take(&mut state.spare);
        buffer.clear();
        for piece in pieces {
            let room = WRITE_BYTES_MAX - buffer.len();
            buffer.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        let bytes = buffer.len();
        if bytes == 0 {
            state.spare = buffer;
            return Poll::Ready(Ok(0));
        }
        let stream = Rc::clone(&self.stream);
        state.writing = Some(Box::pin(async move { stream.write_all(buffer).await }));
        // The first poll puts the operation into the ring.
        match state.poll_writing(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(bytes)),
        }
    }
}

impl<S: Stream> Write for OwnedIo<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.begin_to_write(cx, std::iter::once(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.begin_to_write(cx, pieces.iter().map(|piece| &**piece))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.flights.0.borrow_mut().poll_writing(cx))?;
        self.traffic.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        self.stream.shut(std::net::Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}

/// A socket of tokio's: tried when it is ready.
pub(super) struct ReadyIo {
    stream: Rc<TcpStream>,
    traffic: Rc<dyn Traffic>,
}

impl HyperSocket for TcpStream {
    type Io = ReadyIo;

    fn io(stream: &Rc<Self>, traffic: Rc<dyn Traffic>) -> (ReadyIo, Flights) {
        (ReadyIo { stream: Rc::clone(stream), traffic }, Flights::default())
    }
}

impl HyperSocket for tokio_uring::net::TcpStream {
    type Io = OwnedIo<Self>;

    fn io(stream: &Rc<Self>, traffic: Rc<dyn Traffic>) -> (OwnedIo<Self>, Flights) {
        OwnedIo::new(stream, traffic)
    }
}

/// Repeats an attempt each time the socket becomes ready.
macro_rules! when_ready {
    ($poll_ready:expr, $attempt:expr) => {
        loop {
            ready!($poll_ready)?;
            match $attempt {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => break outcome,
            }
        }
    };
}

impl Read for ReadyIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // hyper's buffer is not initialised, and to write into such takes `unsafe`: a copy of some
        // hundred bytes is cheaper than that.
        let mut buffer = [0; READ_BYTES];
        let room = cursor.remaining().min(READ_BYTES);
        let bytes = when_ready!(
            self.stream.poll_read_ready(cx),
            self.stream.try_read(&mut buffer[..room])
        )?;
        self.traffic.received(bytes);
        cursor.put_slice(&buffer[..bytes]);
        Poll::Ready(Ok(()))
    }
}

impl Write for ReadyIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(when_ready!(self.stream.poll_write_ready(cx), self.stream.try_write(bytes)))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(when_ready!(
            self.stream.poll_write_ready(cx),
            self.stream.try_write_vectored(pieces)
        ))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.traffic.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        super::context::Socket::shut(&*self.stream, std::net::Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}
