//! A server of no runtime at all: one thread, one epoll set, the listener edge-triggered. When it
//! has no fd left it goes back to sleep, and wakes for nobody who waits already.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::super::{Ground, Options, say_ready};
use super::fds::{lower_limit, no_fd_left};
use super::http;
use super::server::{BACKLOG, FaultAt, listen};

/// Names the listener in the epoll set; connections count up from there.
const LISTENER: u64 = 0;
/// Events taken at once.
const EVENTS_MAX: usize = 64;

struct Server {
    epoll: OwnedFd,
    listener: TcpListener,
    /// By their name in the epoll set; as many as there are fds.
    connections: HashMap<u64, Connection>,
    name_next: u64,
    ground: Ground,
}

struct Connection {
    stream: TcpStream,
    inbox: Vec<u8>,
}

/// Runs it.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let ground = Ground::open(options)?;
    let listener = listen(options.listen, BACKLOG)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), edges)?;
    say_ready(Some(listener.local_addr()?))?;
    let due = FaultAt::of(options);
    let mut server =
        Server { epoll, listener, connections: HashMap::new(), name_next: LISTENER + 1, ground };
    server.turn_while(|| due.left())?;
    lower_limit()?;
    server.turn_while(|| Duration::MAX)
}

impl Server {
    /// Serves until no time is `left`.
    fn turn_while(&mut self, left: impl Fn() -> Duration) -> anyhow::Result<()> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            let left = left();
            if left.is_zero() {
                return Ok(());
            }
            // A time too long for the kernel is no limit at all.
            let timeout = Timespec::try_from(left).ok();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Err(Errno::INTR) => continue,
                outcome => outcome?,
            };
            for event in events.drain(..) {
                match event.data.u64() {
                    LISTENER => self.accept_all(),
                    name => self.answer(name),
                }
            }
        }
    }

    /// An edge is told once: everyone who waits is taken now, or not before someone else comes.
    fn accept_all(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if self.add(stream).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    if no_fd_left(&error) {
                        self.ground.fault_begins("fd-exhausted");
                    }
                    return;
                }
            }
        }
    }

    fn add(&mut self, stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let name = self.name_next;
        self.name_next += 1;
        let data = epoll::EventData::new_u64(name);
        epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN)?;
        self.connections.insert(name, Connection { stream, inbox: Vec::new() });
        Ok(())
    }

    fn answer(&mut self, name: u64) {
        let Some(connection) = self.connections.get_mut(&name) else { return };
        // Closing takes it out of the epoll set: nobody else holds the socket.
        if !connection.answer() {
            self.connections.remove(&name);
        }
    }
}

impl Connection {
    /// Answers what there is; false when the connection has ended.
    fn answer(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => return false,
            Ok(count) => self.inbox.extend_from_slice(&bytes[..count]),
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
        let due = http::take(&mut self.inbox);
        // A socket that takes not even this at once belongs to a client that does not read.
        let written = self.stream.write_all(&http::RESPONSE.repeat(due.requests));
        written.is_ok() && !due.close
    }
}
