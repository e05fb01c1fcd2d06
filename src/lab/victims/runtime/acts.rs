//! What a thread can do instead of coming back to its event loop.

use std::hint::black_box;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Signal, getpid, kill_process};

use crate::diagnose::verdict::Cause;

/// What is done; none of it ends while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// `thread::sleep`: `clock_nanosleep`.
    Sleep,
    /// Locks a mutex that another thread keeps: `futex`.
    Lock,
    /// Logs to a stderr that is a pipe, is full, and has no reader: `write`.
    WriteStderr,
    /// Reads a pipe that nobody writes to: `read`.
    ReadPipe,
    /// Reads, in a blocking way, the answer of a server that gives none: `recvfrom`.
    ReadSocket,
    /// Computes.
    Compute,
    /// Stops the process.
    Stop,
}

/// An act that has everything it needs: what would take fds, memory or time was done in advance.
/// It may be carried out by several threads at once.
pub(super) type Prepared = Arc<dyn Fn() + Send + Sync>;

impl Act {
    /// What it is, when the only thread of a runtime does it.
    pub(super) const fn cause(self) -> Cause {
        match self {
            Self::Compute => Cause::RuntimeBusy,
            Self::Stop => Cause::ProcessStopped,
            _ => Cause::RuntimeBlocked,
        }
    }

    /// Takes what it needs.
    ///
    /// # Errors
    /// When that cannot be had.
    pub(super) fn prepare(self) -> anyhow::Result<Prepared> {
        Ok(match self {
            Self::Sleep => Arc::new(sleep),
            Self::Lock => lock()?,
            Self::WriteStderr => write_stderr().context("cannot fill a pipe")?,
            Self::ReadPipe => read_pipe().context("cannot make a pipe")?,
            Self::ReadSocket => read_socket().context("cannot connect to a silent server")?,
            Self::Compute => Arc::new(compute),
            Self::Stop => Arc::new(|| {
                kill_process(getpid(), Signal::STOP).ok();
            }),
        })
    }
}

fn sleep() {
    std::thread::sleep(Duration::from_hours(24));
}

fn compute() {
    loop {
        black_box(compute_a_little());
    }
}

/// Some microseconds of work.
pub(super) fn compute_a_little() -> u64 {
    (0..2000_u64).fold(0, |sum, step| black_box(sum.wrapping_mul(31) ^ step))
}

fn lock() -> anyhow::Result<Prepared> {
    let mutex = Arc::new(Mutex::new(()));
    let (locked, is_locked) = sync_channel(0);
    let its_owner = Arc::clone(&mutex);
    std::thread::Builder::new()
        .name(String::from("holds-the-lock"))
        .spawn(move || {
            let _guard = its_owner.lock();
            locked.send(()).ok();
            loop {
                std::thread::park();
            }
        })
        .context("cannot start a thread")?;
    is_locked.recv().context("the thread that holds the lock ended")?;
    Ok(Arc::new(move || drop(mutex.lock())))
}

fn write_stderr() -> std::io::Result<Prepared> {
    let (reader, mut writer) = std::io::pipe()?;
    rustix::io::ioctl_fionbio(&writer, true)?;
    loop {
        match writer.write(&[b'.'; 4096]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    rustix::io::ioctl_fionbio(&writer, false)?;
    rustix::stdio::dup2_stderr(&writer)?;
    Ok(Arc::new(move || {
        // Held, and never read: closed, it would end the wait with EPIPE.
        let _unread = &reader;
        eprintln!("a line for a reader who has gone to sleep");
    }))
}

fn read_pipe() -> std::io::Result<Prepared> {
    let (reader, writer) = std::io::pipe()?;
    Ok(Arc::new(move || {
        // Held, and never written to: closed, it would end the wait.
        let _silent = &writer;
        (&reader).read_exact(&mut [0]).ok();
    }))
}

fn read_socket() -> std::io::Result<Prepared> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let stream = TcpStream::connect(listener.local_addr()?)?;
    let (peer, _) = listener.accept()?;
    Ok(Arc::new(move || {
        let _silent = &peer;
        (&stream).read_exact(&mut [0]).ok();
    }))
}
