//! The I/O of the tokio server: readiness through epoll.

use std::io;
use std::net::Shutdown;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use super::context::{Listener, Socket, Stream};

/// Runs `main` on a current-thread runtime, on this thread, and `afterwards` before the runtime is
/// taken down.
pub(super) fn run<T>(
    main: impl AsyncFnOnce() -> io::Result<()>,
    afterwards: impl FnOnce() -> T,
) -> io::Result<T> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    // tokio-uring runs its tasks on a LocalSet too: the servers are to differ in their I/O only.
    let local = LocalSet::new();
    runtime.block_on(local.run_until(main()))?;
    Ok(afterwards())
}

/// The listening socket.
pub(super) struct TokioListener(TcpListener);

impl TokioListener {
    /// Takes over a listening socket. To be called within the runtime.
    pub(super) fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(Self)
    }
}

impl Listener for TokioListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.0.accept().await?;
        // It fails only when the client has already left; that is found out at the first read.
        stream.set_nodelay(true).ok();
        Ok(stream)
    }

    fn stop(&self) {
        // An accept on it then fails with EINVAL.
        SockRef::from(&self.0).shutdown(Shutdown::Both).ok();
    }
}

impl Socket for TcpStream {
    fn shut(&self, how: Shutdown) {
        // It fails when the client has already left: then there is nothing to end.
        SockRef::from(self).shutdown(how).ok();
    }
}

impl Stream for TcpStream {
    async fn read(&self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        loop {
            if let Err(error) = self.readable().await {
                return (Err(error), buffer);
            }
            match self.try_read_buf(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return (outcome, buffer),
            }
        }
    }

    async fn write_all(&self, buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let mut written = 0;
        while written < buffer.len() {
            match self.try_write(&buffer[written..]) {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buffer),
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = self.writable().await {
                        return (Err(error), buffer);
                    }
                }
                Err(error) => return (Err(error), buffer),
            }
        }
        (Ok(()), buffer)
    }
}
