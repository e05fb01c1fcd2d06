//! The I/O of the glommio server: tries each operation, and polls for readiness through glommio's
//! `io_uring`s.

use std::cell::RefCell;
use std::future::Future as _;
use std::io;
use std::net::Shutdown;
use std::os::fd::{FromRawFd as _, IntoRawFd as _};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use futures_lite::{AsyncRead as _, AsyncWriteExt as _};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};
use socket2::SockRef;

use super::context::{Listener, Socket, Stream};
use super::rt;

/// Memory for buffers registered with the kernel, bytes: sockets use none, and glommio's own 10 MiB
/// are more than `RLIMIT_MEMLOCK` allows in many places.
const IO_MEMORY_BYTES: usize = 64 * 1024;
/// Entries of each of glommio's rings; its own 128 would be submitted many times in one turn.
const RING_ENTRIES: usize = 1024;

/// Most bytes taken in by one read.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Runs `main` on glommio's executor, on this thread, and `afterwards` before it is taken down.
pub(super) fn run<T>(
    main: impl AsyncFnOnce() -> io::Result<()>,
    afterwards: impl FnOnce() -> T,
) -> io::Result<T> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_ENTRIES)
        .make()
        .map_err(io::Error::from)?;
    rt::is_of(rt::Kind::Glommio);
    executor.run(main())?;
    Ok(afterwards())
}

/// The listening socket.
pub(super) struct GlommioListener {
    listener: TcpListener,
    /// The same socket once more: glommio lends its own to nobody, and it must be shut down to end
    /// the accept in flight.
    handle: std::net::TcpListener,
}

impl GlommioListener {
    /// Takes over a listening socket. To be called within the executor.
    pub(super) fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        let handle = listener.try_clone()?;
        // SAFETY: the fd is that of a listening socket, and `into_raw_fd` gave up its ownership.
        // glommio has no other way to take over a socket: its own `bind` sets the backlog to 1024
        // and `SO_REUSEPORT` always (net/tcp_socket.rs).
        let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
        Ok(Self { listener, handle })
    }
}

impl Listener for GlommioListener {
    type Stream = GlommioStream;

    async fn accept(&self) -> io::Result<GlommioStream> {
        let stream = self.listener.accept().await.map_err(io::Error::from)?;
        // It fails only when the client has already left; that is found out at the first read.
        stream.set_nodelay(true).ok();
        Ok(GlommioStream(RefCell::new(stream)))
    }

    fn stop(&self) {
        // The accept in flight then fails with EINVAL.
        SockRef::from(&self.handle).shutdown(Shutdown::Both).ok();
    }
}

/// A connected socket. glommio wants it for itself at each poll, and a read and a write may be under
/// way at the same time: it is borrowed within a poll only.
pub(super) struct GlommioStream(RefCell<TcpStream>);

impl Socket for GlommioStream {
    fn shut(&self, how: Shutdown) {
        let stream = self.0.borrow();
        // It is one system call, done at the first poll (net/stream.rs, `poll_shutdown`). It fails
        // when the client has already left: then there is nothing to end.
        let _done = pin!(stream.shutdown(how)).poll(&mut Context::from_waker(Waker::noop()));
    }
}

impl Stream for GlommioStream {
    async fn read(&self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let filled = buffer.len();
        // As much as is cleared: a client that trickles into the room of a large body would have all of
        // it cleared for each byte.
        buffer.resize(buffer.capacity().min(filled + READ_BYTES_MAX), 0);
        let outcome = std::future::poll_fn(|cx| {
            Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, &mut buffer[filled..])
        })
        .await;
        buffer.truncate(filled + outcome.as_ref().map_or(0, |bytes| *bytes));
        (outcome, buffer)
    }

    async fn write_all(&self, buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let mut written = 0;
        let outcome = std::future::poll_fn(|cx| {
            let mut stream = self.0.borrow_mut();
            while written < buffer.len() {
                match pin!(stream.write(&buffer[written..])).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    Poll::Ready(Ok(bytes)) => written += bytes,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                }
            }
            Poll::Ready(Ok(()))
        })
        .await;
        (outcome, buffer)
    }
}
