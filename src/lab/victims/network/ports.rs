//! A server that asks another one for each request, over a connection of its own each time: it is
//! itself the client that runs out of local ports.

use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::super::{Ground, Options, say_ready};
use super::http;
use super::server::{BACKLOG, idle, listen, on_tokio, plain};

/// Name of the server behind it among the victims.
pub(super) const BEHIND: &str = "net-behind";
/// Between two attempts to get a connection to it.
const RETRY_EVERY: Duration = Duration::from_millis(50);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: behind\r\n\r\n";

/// The server behind: it ends with the process that started it.
pub(super) fn behind(options: &Options) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    plain(options, BACKLOG, idle, async |_: Rc<TcpListener>| Ok(()))
}

fn start_behind() -> anyhow::Result<(Child, SocketAddr)> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(program);
    command.args(["lab-victim", BEHIND]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start the server behind")?;
    let stdout = child.stdout.take().ok_or_else(|| anyhow!("the server behind has no stdout"))?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).context("the server behind says nothing")?;
    let ready: serde_json::Value = serde_json::from_str(&line)?;
    let url = ready.get("url").and_then(serde_json::Value::as_str).unwrap_or_default();
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    Ok((child, address.parse().with_context(|| format!("the server behind said: {line}"))?))
}

/// Connections to the server behind that nobody uses at the moment; as many as there are requests
/// at once.
type Pool = Arc<Mutex<Vec<TcpStream>>>;

#[derive(Debug, Clone)]
struct Behind {
    address: SocketAddr,
    pool: Pool,
    /// From then on no connection is kept.
    forget_at: tokio::time::Instant,
    ground: Arc<Ground>,
}

/// Runs the server. Up to the time of the fault it keeps its connections.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let ground = Arc::new(Ground::open(options)?);
    let (_child, address) = start_behind()?;
    on_tokio(async {
        let listener = TcpListener::from_std(listen(options.listen, BACKLOG)?)?;
        say_ready(Some(listener.local_addr()?))?;
        let forget_at = tokio::time::Instant::now() + options.after;
        let behind = Behind { address, pool: Pool::default(), forget_at, ground };
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, behind.clone()));
            }
        }
    })
}

async fn converse(mut stream: TcpStream, behind: Behind) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut inbox = Vec::with_capacity(1024);
    while stream.read_buf(&mut inbox).await? > 0 {
        let due = http::take(&mut inbox);
        for _ in 0..due.requests {
            behind.ask().await?;
            stream.write_all(http::RESPONSE).await?;
        }
        if due.close {
            break;
        }
    }
    Ok(())
}

impl Behind {
    async fn ask(&self) -> io::Result<()> {
        let mut stream = self.stream().await;
        stream.write_all(REQUEST).await?;
        stream.read_exact(&mut [0; http::RESPONSE.len()]).await?;
        // Closed first from here: the TIME_WAIT and its port stay on this side.
        if tokio::time::Instant::now() < self.forget_at
            && let Ok(mut pool) = self.pool.lock()
        {
            pool.push(stream);
        }
        Ok(())
    }

    async fn stream(&self) -> TcpStream {
        if let Some(stream) = self.pool.lock().ok().and_then(|mut pool| pool.pop()) {
            return stream;
        }
        loop {
            match TcpStream::connect(self.address).await {
                Ok(stream) => return stream,
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    self.ground.fault_begins("ephemeral-ports-exhausted");
                }
                Err(_) => {}
            }
            tokio::time::sleep(RETRY_EVERY).await;
        }
    }
}
