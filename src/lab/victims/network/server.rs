//! The plain server that the victims are variants of: one thread, tokio, one task a connection.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

use super::super::{Ground, Options, say_ready};
use super::http;

/// The usual backlog.
pub(super) const BACKLOG: i32 = 1024;
/// A pause after which a failed accept is tried again.
pub(super) const BACK_OFF: Duration = Duration::from_millis(50);

/// A listening socket, non-blocking, its address free again as soon as it is closed.
///
/// # Errors
/// When the address cannot be had.
pub(super) fn listen(address: SocketAddr, backlog: i32) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Runs `main` on a runtime of this thread alone.
///
/// # Errors
/// Those of `main`, and when the runtime cannot be made.
pub(super) fn on_tokio(main: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(main)
}

/// What a request costs the server, beside its answer.
pub(super) type Work = fn();

/// Answers the requests of one connection until the client has enough.
pub(super) async fn converse(stream: TcpStream, work: Work) -> io::Result<()> {
    converse_noting(stream, work, |_| {}).await
}

/// The same, and hands on what a client tells of a fault.
async fn converse_noting(
    mut stream: TcpStream,
    work: Work,
    note: impl Fn(http::Told),
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut inbox = Vec::with_capacity(1024);
    while stream.read_buf(&mut inbox).await? > 0 {
        let mut due = http::take(&mut inbox);
        if let Some(told) = due.told.take() {
            note(told);
        }
        (0..due.requests).for_each(|_| work());
        stream.write_all(&http::RESPONSE.repeat(due.requests)).await?;
        if due.close {
            break;
        }
    }
    Ok(())
}

/// Accepts and serves for ever; an accept that fails is tried again after [`BACK_OFF`], once
/// `failed` was told.
pub(super) async fn serve(listener: &TcpListener, work: Work, failed: impl Fn(&io::Error)) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(converse(stream, work));
            }
            Err(error) => {
                failed(&error);
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// A server with nothing wrong with it, which `prepare` may make otherwise once it runs.
///
/// # Errors
/// When it cannot listen or say so.
pub(super) fn plain(
    options: &Options,
    backlog: i32,
    work: Work,
    prepare: impl AsyncFnOnce(Rc<TcpListener>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    on_tokio(async {
        let listener = Rc::new(TcpListener::from_std(listen(options.listen, backlog)?)?);
        say_ready(Some(listener.local_addr()?))?;
        let served = serve(&listener, work, |_| {});
        let other = async {
            prepare(Rc::clone(&listener)).await?;
            std::future::pending().await
        };
        tokio::select! {
            () = served => Ok(()),
            outcome = other => outcome,
        }
    })
}

/// A server with nothing wrong with it, whose clients are the trouble, and tell of it.
///
/// # Errors
/// When it cannot listen or say so.
pub(super) fn told(options: &Options, backlog: i32) -> anyhow::Result<()> {
    let ground = Arc::new(Ground::open(options)?);
    on_tokio(async {
        let listener = TcpListener::from_std(listen(options.listen, backlog)?)?;
        say_ready(Some(listener.local_addr()?))?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let ground = Arc::clone(&ground);
                    let note = move |told: http::Told| {
                        ground.fault_began(&told.cause, told.begin_ns);
                    };
                    tokio::spawn(converse_noting(stream, idle, note));
                }
                Err(_) => tokio::time::sleep(BACK_OFF).await,
            }
        }
    })
}

/// No work at all.
pub(super) const fn idle() {}

/// The time of the fault, for those that wait for it without a runtime.
#[derive(Debug, Clone, Copy)]
pub(super) struct FaultAt(Instant);

impl FaultAt {
    /// Counted from now, which should be the moment of readiness.
    pub(super) fn of(options: &Options) -> Self {
        Self(Instant::now() + options.after)
    }

    /// How long until then; nothing once it has come.
    pub(super) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Sleeps until then.
    pub(super) fn wait(self) {
        std::thread::sleep(self.left());
    }
}

/// Takes as many fds as the hard limit allows, or `wanted` if those are fewer.
pub(super) fn raise_fd_limit(wanted: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted.min(hard));
        // What is missing shows when the fds run out.
        setrlimit(Resource::Nofile, limit).ok();
    }
}
