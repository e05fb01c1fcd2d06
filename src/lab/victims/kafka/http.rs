//! HTTP/1.1 as these victims speak it: every request is answered `200 ok` once its handler is done.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::{LocalSet, spawn_local};
use tokio_uring::buf::BoundedBuf as _;

/// Longest request, bytes; a longer one ends its connection.
const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Fields of a request's head.
const FIELDS_MAX: usize = 32;
/// Room made for what a connection sends.
const RECEIVE_BYTES: usize = 2048;
/// Length of the accept queue asked for.
const BACKLOG: i32 = 4096;
/// Pause after a failed accept.
const BACK_OFF: Duration = Duration::from_millis(50);

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const SWITCHED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

/// A request that has come as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Its path.
    pub path: String,
    /// Whether the client wants the connection closed after the answer.
    closes: bool,
    /// Head and body together, bytes.
    bytes: usize,
}

/// What the handler makes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// `200 ok`.
    Ok,
    /// `101`: from then on the connection is the client's to close.
    Switched,
}

/// What has come of a connection so far.
#[derive(Debug, PartialEq, Eq)]
enum Received {
    /// Not yet a request.
    Part,
    /// One.
    Request(Request),
    /// Nothing that this server takes.
    Refused,
}

/// Looks for a request at the beginning of `bytes`.
fn parse(bytes: &[u8]) -> Received {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    let head_bytes = match head.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) if bytes.len() < REQUEST_BYTES_MAX => return Received::Part,
        _ => return Received::Refused,
    };
    let path = head.path.unwrap_or("/").to_owned();
    let field = |name: &str| {
        let found = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        found.and_then(|field| std::str::from_utf8(field.value).ok())
    };
    let Ok(body_bytes) = field("content-length").unwrap_or("0").trim().parse::<usize>() else {
        return Received::Refused;
    };
    let closes = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    match head_bytes.checked_add(body_bytes).filter(|bytes| *bytes <= REQUEST_BYTES_MAX) {
        None => Received::Refused,
        Some(whole) if bytes.len() < whole => Received::Part,
        Some(whole) => Received::Request(Request { path, closes, bytes: whole }),
    }
}

/// A listening socket with a long accept queue.
///
/// # Errors
/// When the address cannot be had.
pub fn listen(address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    let made = || -> io::Result<std::net::TcpListener> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    made().with_context(|| format!("cannot listen on {address}"))
}

/// Serves on a current-thread tokio runtime, on this thread, for ever. `begin` runs first, within
/// it: it may spawn tasks.
///
/// # Errors
/// When there is no runtime.
pub fn serve_tokio<S>(
    listener: std::net::TcpListener,
    begin: impl FnOnce() -> anyhow::Result<()>,
    service: S,
) -> anyhow::Result<()>
where
    S: AsyncFn(Request) -> Answer + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        begin()?;
        let service = Rc::new(service);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    stream.set_nodelay(true).ok();
                    spawn_local(converse(stream, Rc::clone(&service)));
                }
                Err(_) => tokio::time::sleep(BACK_OFF).await,
            }
        }
    })
}

async fn converse<S>(mut stream: tokio::net::TcpStream, service: Rc<S>)
where
    S: AsyncFn(Request) -> Answer,
{
    let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
    loop {
        match parse(&buffer) {
            Received::Part => match stream.read_buf(&mut buffer).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            },
            Received::Refused => return,
            Received::Request(request) => {
                buffer.drain(..request.bytes);
                let closes = request.closes;
                let answer = service(request).await;
                let text = if answer == Answer::Switched { SWITCHED } else { OK };
                if stream.write_all(text).await.is_err() || closes {
                    return;
                }
                if answer == Answer::Switched {
                    let mut ignored = [0; 256];
                    while matches!(stream.read(&mut ignored).await, Ok(1..)) {}
                    return;
                }
            }
        }
    }
}

/// Serves on a tokio-uring runtime, on this thread, for ever. `begin` runs first, within it.
///
/// # Errors
/// When there is no runtime.
pub fn serve_uring<S>(
    listener: std::net::TcpListener,
    begin: impl FnOnce() -> anyhow::Result<()>,
    service: S,
) -> anyhow::Result<()>
where
    S: AsyncFn(Request) -> Answer + 'static,
{
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder())?;
    runtime.block_on(async {
        let listener = tokio_uring::net::TcpListener::from_std(listener);
        begin()?;
        let service = Rc::new(service);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    stream.set_nodelay(true).ok();
                    spawn_local(converse_uring(stream, Rc::clone(&service)));
                }
                Err(_) => tokio::time::sleep(BACK_OFF).await,
            }
        }
    })
}

async fn converse_uring<S>(stream: tokio_uring::net::TcpStream, service: Rc<S>)
where
    S: AsyncFn(Request) -> Answer,
{
    let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
    loop {
        match parse(&buffer) {
            Received::Part => {
                buffer.reserve(RECEIVE_BYTES);
                let filled = buffer.len();
                let (outcome, slice) = stream.read(buffer.slice(filled..)).await;
                buffer = slice.into_inner();
                if !matches!(outcome, Ok(1..)) {
                    return;
                }
            }
            Received::Refused => return,
            Received::Request(request) => {
                buffer.drain(..request.bytes);
                let closes = request.closes;
                // Here no victim switches protocols.
                service(request).await;
                if stream.write_all(OK.to_vec()).await.0.is_err() || closes {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_whole_or_not_at_all() {
        let whole = b"POST /a HTTP/1.1\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabcGET";
        for end in 0..whole.len() - 3 {
            assert_eq!(parse(&whole[..end]), Received::Part, "{end}");
        }
        let expected = Request { path: "/a".to_owned(), closes: true, bytes: whole.len() - 3 };
        assert_eq!(parse(whole), Received::Request(expected));
        for refused in [
            &b"\x00\x01\x02"[..],
            b"GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
            b"GET / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n",
        ] {
            assert_eq!(parse(refused), Received::Refused);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            if let Received::Request(request) = parse(&bytes) {
                proptest::prop_assert!(request.bytes <= bytes.len());
            }
        }
    }
}
