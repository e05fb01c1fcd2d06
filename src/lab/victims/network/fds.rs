//! Servers without an fd for another connection: each takes the refusal in its own way.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::rc::Rc;

use anyhow::Context as _;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio_uring::net::{TcpListener as UringListener, TcpStream as UringStream};

use super::super::{Ground, Options, say_ready};
use super::http;
use super::server::{BACKLOG, converse, idle, listen, on_tokio, serve};

const CAUSE: &str = "fd-exhausted";
/// Fds left to the server when its limit falls: so many more connections it can still take.
const FDS_LEFT: u64 = 16;

/// Whether the process has no fd left (`accept(2)`: EMFILE).
pub(super) fn no_fd_left(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::MFILE.raw_os_error())
}

/// Lowers this process's own limit to a few more than it has open.
///
/// # Errors
/// When the fds cannot be counted or the limit not set.
pub(super) fn lower_limit() -> anyhow::Result<()> {
    let open = std::fs::read_dir("/proc/self/fd").context("cannot count the fds")?.count();
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(open as u64 + FDS_LEFT);
    setrlimit(Resource::Nofile, limit).context("cannot lower the limit of fds")
}

fn note(ground: &Ground, error: &io::Error) {
    if no_fd_left(error) {
        ground.fault_begins(CAUSE);
    }
}

async fn lower_after(options: &Options) -> anyhow::Result<()> {
    tokio::time::sleep(options.after).await;
    lower_limit()
}

/// tokio, and an accept loop that tries again at once.
pub(super) fn spin(options: &Options) -> anyhow::Result<()> {
    at_once(options, &async |_: &TcpListener| {})
}

/// tokio with an fd in reserve: where no other is left it gives that up, accepts with it, and closes
/// the connection at once, as libuv does (`uv__emfile_trick`).
pub(super) fn turns_away(options: &Options) -> anyhow::Result<()> {
    let reserve = RefCell::new(File::open("/dev/null").ok());
    at_once(options, &async |listener: &TcpListener| {
        drop(reserve.take());
        // Whoever comes is closed; an accept that fails is tried again like any other.
        drop(listener.accept().await);
        reserve.replace(File::open("/dev/null").ok());
    })
}

/// tokio, and an accept loop that makes no pause after a refusal: it does what `refused` says.
fn at_once(options: &Options, refused: &impl AsyncFn(&TcpListener)) -> anyhow::Result<()> {
    let ground = Ground::open(options)?;
    on_tokio(async {
        let listener = TcpListener::from_std(listen(options.listen, BACKLOG)?)?;
        say_ready(Some(listener.local_addr()?))?;
        let served = async {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        tokio::spawn(converse(stream, idle));
                    }
                    Err(error) => {
                        note(&ground, &error);
                        refused(&listener).await;
                    }
                }
            }
        };
        let lowered = lower_after(options);
        tokio::pin!(served);
        tokio::select! {
            outcome = lowered => outcome?,
            () = &mut served => {}
        }
        served.await;
        Ok(())
    })
}

/// tokio, and an accept loop that waits a little before it tries again.
pub(super) fn back_off(options: &Options) -> anyhow::Result<()> {
    let ground = Ground::open(options)?;
    on_tokio(async {
        let listener = TcpListener::from_std(listen(options.listen, BACKLOG)?)?;
        say_ready(Some(listener.local_addr()?))?;
        let served = serve(&listener, idle, |error| note(&ground, error));
        let (lowered, ()) = tokio::join!(lower_after(options), served);
        lowered
    })
}

/// tokio-uring, and an accept loop that tries again at once.
pub(super) fn uring(options: &Options) -> anyhow::Result<()> {
    let ground = Rc::new(Ground::open(options)?);
    let listener = listen(options.listen, BACKLOG)?;
    // On kernels up to 5.15 an accept on a non-blocking listener fails at once with EAGAIN.
    listener.set_nonblocking(false)?;
    let address = listener.local_addr()?;
    let after = options.after;
    tokio_uring::start(async move {
        let listener = UringListener::from_std(listener);
        tokio_uring::spawn(async move {
            tokio::time::sleep(after).await;
            if let Err(error) = lower_limit() {
                eprintln!("{error:#}");
            }
        });
        say_ready(Some(address))?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio_uring::spawn(converse_uring(stream));
                }
                Err(error) => note(&ground, &error),
            }
        }
    })
}

/// As [`converse`], on a ring.
async fn converse_uring(stream: UringStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut inbox, mut buffer) = (Vec::new(), Vec::with_capacity(1024));
    loop {
        buffer.clear();
        let (outcome, filled) = stream.read(buffer).await;
        buffer = filled;
        if outcome? == 0 {
            return Ok(());
        }
        inbox.extend_from_slice(&buffer);
        let due = http::take(&mut inbox);
        if due.requests > 0 {
            stream.write_all(http::RESPONSE.repeat(due.requests)).await.0?;
        }
        if due.close {
            return Ok(());
        }
    }
}
