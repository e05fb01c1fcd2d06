//! Clients that wear a server out by the connections they open, hold and close.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, anyhow};

use super::super::{Options, say_ready};
use super::http::{self, Told};
use super::server::{FaultAt, raise_fd_limit};
use crate::kit::now_ns;

/// How long a client waits for a connection or an answer.
const PATIENCE: Duration = Duration::from_secs(5);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: lab\r\n\r\n";
/// Between two connections of a client that gathers them.
const GATHER_EVERY: Duration = Duration::from_millis(20);
/// Connections that such a client holds at most.
const GATHERED_MAX: usize = 4_000;
/// Connections that end at once.
const CROWD: usize = 5_000;
/// Fds a client needs beside its connections.
const FDS_SPARE: u64 = 64;
/// Between two connections when there is no hurry.
const EVERY: Duration = Duration::from_millis(50);

/// The server to wear out.
///
/// # Errors
/// When none was named.
pub(super) fn server(options: &Options) -> anyhow::Result<SocketAddr> {
    options.connect.ok_or_else(|| anyhow!("this is a client: it needs --connect ADDRESS"))
}

/// Connects.
pub(super) fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends a request and reads the answer, so that nothing unread makes a reset of the close.
pub(super) fn ask(mut stream: &TcpStream) -> io::Result<()> {
    stream.write_all(REQUEST)?;
    stream.read_exact(&mut [0; http::RESPONSE.len()])
}

/// A connection made in good time, to tell the server of the fault that this client causes.
#[derive(Debug)]
pub(super) struct Teller(Option<TcpStream>);

impl Teller {
    /// Connects, and makes sure that the server serves it.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn open(server: SocketAddr) -> anyhow::Result<Self> {
        let stream = connect(server).context("cannot connect to the server")?;
        ask(&stream).context("the server does not answer")?;
        Ok(Self(Some(stream)))
    }

    /// Tells that the fault `cause` takes hold now. Only the first call counts.
    pub(super) fn fault_begins(&mut self, cause: &str) {
        let begin_ns = now_ns();
        if let Some(mut stream) = self.0.take() {
            let told = Told { cause: cause.to_owned(), begin_ns };
            // It is read by the server even when this end is closed by then.
            stream.write_all(&told.request()).ok();
            stream.read_exact(&mut [0; http::RESPONSE.len()]).ok();
        }
    }
}

/// Opens one connection after the other, sends a request on each, and keeps them all.
pub(super) fn gather(options: &Options) -> anyhow::Result<()> {
    let server = server(options)?;
    raise_fd_limit(GATHERED_MAX as u64 + FDS_SPARE);
    say_ready(None)?;
    let mut held = Vec::new();
    loop {
        if held.len() < GATHERED_MAX
            && let Ok(mut stream) = connect(server)
        {
            stream.write_all(REQUEST).ok();
            held.push(stream);
        }
        std::thread::sleep(GATHER_EVERY);
    }
}

/// Holds [`CROWD`] connections, each of them served once, and closes them all at one time.
pub(super) fn crowd(options: &Options) -> anyhow::Result<()> {
    let server = server(options)?;
    raise_fd_limit(CROWD as u64 + FDS_SPARE);
    say_ready(None)?;
    let due = FaultAt::of(options);
    let mut crowd = Vec::with_capacity(CROWD);
    for _ in 0..CROWD {
        let stream = connect(server).context("the crowd does not get in")?;
        ask(&stream).context("one of the crowd was not served")?;
        crowd.push(stream);
    }
    due.wait();
    drop(crowd);
    loop {
        std::thread::park();
    }
}

/// Asks the server at the next port, a request per connection.
pub(super) fn next_port(options: &Options) -> anyhow::Result<()> {
    let mut server = server(options)?;
    server.set_port(server.port().checked_add(1).context("there is no port after that")?);
    say_ready(None)?;
    loop {
        connect(server).and_then(|stream| ask(&stream)).ok();
        std::thread::sleep(EVERY);
    }
}

/// Between two attempts of a client that ran out of ports.
const NO_PORT_PAUSE: Duration = Duration::from_millis(10);

/// Opens connections from the time of the fault on, as fast as it can, until no local port is
/// left; then tries now and then. `keep` may keep a connection; else the client closes it first,
/// and so has the TIME_WAIT and with it the port.
fn use_up_ports(options: &Options, mut keep: impl FnMut(TcpStream)) -> anyhow::Result<()> {
    let server = server(options)?;
    let mut teller = Teller::open(server)?;
    say_ready(None)?;
    FaultAt::of(options).wait();
    loop {
        match connect(server) {
            Ok(stream) => {
                ask(&stream).ok();
                keep(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                teller.fault_begins("ephemeral-ports-exhausted");
                std::thread::sleep(NO_PORT_PAUSE);
            }
            Err(_) => std::thread::sleep(NO_PORT_PAUSE),
        }
    }
}

/// Runs out of ports by closing first.
pub(super) fn ports_closed(options: &Options) -> anyhow::Result<()> {
    use_up_ports(options, drop)
}

/// Runs out of ports by holding connections.
pub(super) fn ports_held(options: &Options) -> anyhow::Result<()> {
    raise_fd_limit(u64::from(u16::MAX));
    let mut held = Vec::new();
    // As many as there are ports.
    use_up_ports(options, |stream| held.push(stream))
}
