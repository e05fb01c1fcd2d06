//! A tokio-uring server that loses one submission, and with it everything.
//!
//! tokio-uring 0.5.0 submits when its thread parks, and ignores the error (`runtime/mod.rs`,
//! `on_thread_park`). The entries stay in the SQ and the thread goes to sleep in epoll, where
//! nothing is armed that could wake it. There is no timer here, so it sleeps until a signal comes.
//! The error is the kernel's to give (EAGAIN when a request cannot be allocated); here a seccomp
//! filter gives it, once.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crate::seccomp::{Supervisor, supervise};
use crate::{Outcome, monotonic_ns, say};

/// Set when the next submission is to fail.
static LOSE_NEXT: AtomicBool = AtomicBool::new(false);

/// Stalls at the submission that follows the `connections`th connection: the READ on it, and the
/// next ACCEPT. Earlier clients must have gone by then, or their READs are armed and wake it.
pub fn run(connections: u64) -> Outcome {
    let runtime_tid = rustix::thread::gettid().as_raw_nonzero().get();
    let (hand_over, supervisor) = mpsc::channel();
    // Begun before the filter is: a thread inherits the filter of the thread that begins it.
    std::thread::spawn(move || {
        let Ok(supervisor) = supervisor.recv() else { return };
        if let Err(error) = decide(&supervisor, runtime_tid) {
            eprintln!("victim: the supervisor ended: {error}");
            std::process::exit(1);
        }
    });
    hand_over.send(supervise(libc::SYS_io_uring_enter)?)?;
    tokio_uring::start(serve(connections))
}

async fn serve(connections: u64) -> Outcome {
    let listener = tokio_uring::net::TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    say(&format!("listening {}", listener.local_addr()?.port()))?;
    let mut accepted = 0;
    loop {
        let (stream, _) = listener.accept().await?;
        accepted += 1;
        tokio_uring::spawn(send_back(stream));
        LOSE_NEXT.store(accepted == connections, Ordering::SeqCst);
    }
}

async fn send_back(stream: tokio_uring::net::TcpStream) {
    let mut buffer = vec![0; 256];
    loop {
        let (read, mut bytes) = stream.read(buffer).await;
        let Ok(read @ 1..) = read else { return };
        bytes.truncate(read);
        let (written, mut bytes) = stream.write_all(bytes).await;
        if written.is_err() {
            return;
        }
        bytes.resize(256, 0);
        buffer = bytes;
    }
}

/// Permits every `io_uring_enter`, but for one that would have submitted something.
fn decide(supervisor: &Supervisor, runtime_tid: i32) -> io::Result<()> {
    loop {
        let Some(call) = supervisor.next()? else { continue };
        let to_submit = call.arg1;
        if to_submit == 0 || !LOSE_NEXT.swap(false, Ordering::SeqCst) {
            supervisor.permit(&call)?;
            continue;
        }
        let begin_ns = monotonic_ns();
        supervisor.fail(&call, libc::EAGAIN)?;
        await_epoll(runtime_tid)?;
        say(&format!("stalled {begin_ns}"))?;
    }
}

/// Waits until the thread sleeps in epoll.
#[expect(clippy::disallowed_methods, reason = "an example may read files")]
fn await_epoll(tid: i32) -> io::Result<()> {
    #[cfg(target_arch = "x86_64")]
    let sleeps = [libc::SYS_epoll_wait, libc::SYS_epoll_pwait];
    #[cfg(not(target_arch = "x86_64"))]
    let sleeps = [libc::SYS_epoll_pwait];
    loop {
        let syscall = std::fs::read_to_string(format!("/proc/self/task/{tid}/syscall"))?;
        let nr = syscall.split(' ').next().and_then(|nr| nr.parse().ok());
        if nr.is_some_and(|nr| sleeps.contains(&nr)) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
