//! The I/O of the tokio-uring server: operations handed to the kernel through `io_uring`.

use std::io;
use std::net::Shutdown;

use socket2::SockRef;
use tokio_uring::buf::BoundedBuf as _;
use tokio_uring::net::{TcpListener, TcpStream};

use super::context::{Listener, Socket, Stream};
use super::uring_pump;

/// Entries of the submission queue (the completion queue has twice as many). tokio-uring submits
/// when its thread parks, or when the queue is full; with its own 256 entries a turn that serves
/// more connections than that would submit several times.
const RING_ENTRIES: u32 = 4096;

/// Runs `main` on tokio-uring's runtime, on this thread, and `afterwards` before the runtime is
/// taken down: that waits for the operations in flight.
///
/// `pumps`: entries are submitted also where tokio-uring does not get round to it (`uring_pump`).
pub(super) fn run<T>(
    pumps: bool,
    main: impl AsyncFnOnce() -> io::Result<()>,
    afterwards: impl FnOnce() -> T,
) -> io::Result<T> {
    let mut builder = tokio_uring::builder();
    builder.entries(RING_ENTRIES);
    let (runtime, ring) = uring_pump::with_its_ring(|| tokio_uring::Runtime::new(&builder))?;
    runtime.block_on(async {
        match ring {
            Some(ring) if pumps => uring_pump::start(ring, RING_ENTRIES),
            None if pumps => tracing::warn!("tokio-uring's ring was not found: its cure is off"),
            _ => {}
        }
        main().await
    })?;
    Ok(afterwards())
}

/// The listening socket.
pub(super) struct UringListener {
    listener: TcpListener,
    /// The same socket once more: tokio-uring lends its own to nobody, and it must be shut down to
    /// end the accept in flight.
    handle: std::net::TcpListener,
}

impl UringListener {
    /// Takes over a listening socket.
    pub(super) fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        // On kernels up to 5.15 an accept on a non-blocking listener fails at once with EAGAIN.
        listener.set_nonblocking(false)?;
        let handle = listener.try_clone()?;
        Ok(Self { listener: TcpListener::from_std(listener), handle })
    }
}

impl Listener for UringListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        uring_pump::has_work();
        let (stream, _) = self.listener.accept().await?;
        // It fails only when the client has already left; that is found out at the first read.
        stream.set_nodelay(true).ok();
        Ok(stream)
    }

    fn stop(&self) {
        // The accept in flight then fails with EINVAL.
        SockRef::from(&self.handle).shutdown(Shutdown::Both).ok();
    }
}

impl Socket for TcpStream {
    fn shut(&self, how: Shutdown) {
        // It fails when the client has already left: then there is nothing to end.
        self.shutdown(how).ok();
    }
}

impl Stream for TcpStream {
    async fn read(&self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        uring_pump::has_work();
        let filled = buffer.len();
        let (outcome, slice) = TcpStream::read(self, buffer.slice(filled..)).await;
        (outcome, slice.into_inner())
    }

    async fn write_all(&self, buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        uring_pump::has_work();
        TcpStream::write_all(self, buffer).await
    }
}
