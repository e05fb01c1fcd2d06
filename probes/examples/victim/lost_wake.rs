//! An epoll server that forgets to arm its listener again.
//!
//! With EPOLLONESHOT an event disarms its fd (epoll(7)). The server goes back to sleep without
//! arming it, so no connection wakes it any more. A signal does: `epoll_wait` is never restarted
//! after one (signal(7)), and the loop begins by arming.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use rustix::event::epoll;

use crate::{Outcome, listen, monotonic_ns, say};

/// Stalls once it has served `connections`.
pub fn run(connections: u64) -> Outcome {
    let (listener, port) = listen()?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let data = epoll::EventData::new_u64(0);
    let armed = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
    epoll::add(&epoll, &listener, data, armed)?;
    say(&format!("listening {port}"))?;
    let mut served = 0;
    loop {
        epoll::modify(&epoll, &listener, data, armed)?;
        served += wait_and_serve(&epoll, &listener);
        if served == connections {
            // Counted once: after the signal it serves on.
            served += 1;
            say(&format!("stalled {}", monotonic_ns()))?;
            wait_and_serve(&epoll, &listener);
        }
    }
}

/// Sleeps until an event or a signal, and serves one connection if there is one.
fn wait_and_serve(epoll: impl std::os::fd::AsFd, listener: &TcpListener) -> u64 {
    let mut events = Vec::with_capacity(1);
    // An error is EINTR.
    epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), None).ok();
    let Ok((mut stream, _)) = listener.accept() else { return 0 };
    let mut bytes = [0; 256];
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok();
    if let Ok(read) = stream.read(&mut bytes) {
        stream.write_all(&bytes[..read]).ok();
    }
    1
}
