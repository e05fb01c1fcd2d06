//! The life of one connection that hyper speaks HTTP on, within time.
//!
//! hyper parses, frames and pipelines; what is asked and answered is the other servers' own
//! (`handler`). The times are kept here, since hyper knows only one of them.

use std::cell::Cell;
use std::error::Error as _;
use std::net::Shutdown;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode, Version};

use super::connection::{Deadline, LINGER_MAX, linger, write_within};
use super::context::{Connection, Context, Limits, Socket};
use super::cure::{Cure, Cures};
use super::handler::{self, Asked, Outcome};
use super::http::{self, Form, Framing, HEAD_BYTES_MAX, HEADERS_MAX, Method, Reply, Status};
use super::hyper_io::{Flights, HyperSocket, Traffic};

/// Serves one connection to its end.
pub(super) async fn serve<S: HyperSocket>(stream: S, context: Rc<Context>) {
    let stream = Rc::new(stream);
    let connection = context.enter(Rc::clone(&stream) as Rc<dyn Socket>);
    let exchange = Rc::new(Exchange {
        context: Rc::clone(&context),
        connection: Rc::clone(&connection),
        phase: Cell::new(Phase::Idle),
        has_moved: Cell::new(true),
        unsent: Cell::new(0),
        is_abandoned: Cell::new(false),
    });
    connection.is_idle.set(true);
    exchange.end_if_stopping();
    let (io, flights) = S::io(&stream, Rc::clone(&exchange) as Rc<dyn Traffic>);
    let mut deadline = Deadline::after(context.limits.idle_timeout);
    let ended = converse(io, &exchange, &mut deadline).await;
    connection.is_idle.set(false);
    match (ended, exchange.phase.get()) {
        (Ended::InTime { client_may_be_sending }, _) => {
            if client_may_be_sending || exchange.is_abandoned.get() {
                say_good_bye(&*stream, &flights, &mut deadline, context.cures).await;
            }
        }
        (Ended::TooLate, Phase::Receiving) => {
            context.heartbeat.requests(1);
            let bytes = too_late();
            deadline.set(Instant::now() + context.limits.request_timeout);
            if write_within(&*stream, bytes, &mut deadline, context.cures).await.is_some() {
                context.heartbeat.responses(1);
                say_good_bye(&*stream, &flights, &mut deadline, context.cures).await;
            }
        }
        // An idle client is told nothing, and one that does not read cannot be told.
        (Ended::TooLate, _) => {}
    }
    if flights.are_up() && context.cures.has(Cure::Close) {
        stream.shut(Shutdown::Both);
        flights.land().await;
    }
    drop((exchange, flights, stream));
    context.leave(connection);
}

/// How the conversation ended.
enum Ended {
    /// hyper has come to its end.
    InTime {
        /// What it sends, nobody will read.
        client_may_be_sending: bool,
    },
    /// The client took too long. hyper has been dropped.
    TooLate,
}

async fn converse<I: Read + Write + Unpin>(
    io: I,
    exchange: &Rc<Exchange>,
    deadline: &mut Deadline,
) -> Ended {
    let service = service_fn(|request| {
        let exchange = Rc::clone(exchange);
        async move { exchange.answer(request).await }
    });
    let mut builder = http1::Builder::new();
    builder
        // As the other servers write them.
        .title_case_headers(true)
        .auto_date_header(false)
        // A client may close its half as soon as it has asked.
        .half_close(true)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        // Not `pipeline_flush`: with bytes left unread it never writes the response (hyper 1.12).
        .header_read_timeout(None);
    let mut conversing = pin!(builder.serve_connection(io, service));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(outcome) = conversing.as_mut().poll(cx) {
            let client_may_be_sending = outcome.is_err_and(|error| error.is_parse());
            return Poll::Ready(Ended::InTime { client_may_be_sending });
        }
        let Some(limit) = exchange.phase.get().limit(&exchange.context.limits) else {
            return Poll::Pending;
        };
        // The time is asked for when there is nothing else to do, not at every step.
        if exchange.has_moved.take() {
            deadline.set(Instant::now() + limit);
        }
        deadline.poll_passed(cx).map(|()| Ended::TooLate)
    })
    .await
}

/// Lets the client have the response: what it still sends is read and thrown away, within bounds.
async fn say_good_bye<S: HyperSocket>(
    stream: &S,
    flights: &Flights,
    deadline: &mut Deadline,
    cures: Cures,
) {
    stream.shut(Shutdown::Write);
    deadline.set(Instant::now() + LINGER_MAX);
    let goes_on = tokio::select! {
        biased;
        goes_on = flights.last_read() => goes_on,
        () = deadline.passed() => false,
    };
    if goes_on {
        linger(stream, Vec::new(), deadline, cures).await;
    }
}

fn too_late() -> Vec<u8> {
    let mut bytes = Vec::new();
    let reply = Reply::error(Status::RequestTimeout, "the request took too long");
    let form = Form { connection: http::Connection::Close, head_only: false };
    http::write(&mut bytes, &reply, form);
    bytes
}

/// What the client and the server are at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No byte of a request is there.
    Idle,
    /// A request has begun to arrive.
    Receiving,
    /// The event is under way to the broker: that has a time of its own.
    Handling,
    /// The response is being written.
    Writing,
}

impl Phase {
    /// How long it may last.
    const fn limit(self, limits: &Limits) -> Option<Duration> {
        match self {
            Self::Idle => Some(limits.idle_timeout),
            Self::Receiving | Self::Writing => Some(limits.request_timeout),
            Self::Handling => None,
        }
    }
}

/// The exchange of requests and responses on one connection.
struct Exchange {
    context: Rc<Context>,
    connection: Rc<Connection>,
    phase: Cell<Phase>,
    /// The phase is another than when the time was looked at last.
    has_moved: Cell<bool>,
    /// Responses that hyper has, and the client has not.
    unsent: Cell<u64>,
    /// The client may be sending what nobody will read.
    is_abandoned: Cell<bool>,
}

impl Traffic for Exchange {
    fn received(&self, bytes: usize) {
        if bytes > 0 && self.phase.get() == Phase::Idle {
            self.moves_to(Phase::Receiving);
        }
    }

    fn flushed(&self) {
        let sent = self.unsent.take();
        if sent > 0 {
            self.context.heartbeat.responses(sent);
            if self.phase.get() == Phase::Writing {
                self.moves_to(Phase::Idle);
                self.end_if_stopping();
            }
        }
    }
}

impl Exchange {
    /// An idle connection of a server that goes down ends; those that were idle before have been
    /// told (`Context::drain`).
    fn end_if_stopping(&self) {
        if self.context.stop.is_requested() {
            self.connection.end_reading();
        }
    }

    fn moves_to(&self, phase: Phase) {
        self.phase.set(phase);
        self.has_moved.set(true);
        self.connection.is_idle.set(phase == Phase::Idle);
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Left> {
        if self.phase.get() != Phase::Receiving {
            // It came together with the one before.
            self.moves_to(Phase::Receiving);
        }
        let (parts, body) = request.into_parts();
        let taken = self.take(&parts, body).await;
        if !matches!(taken, Err(Untaken::Left)) {
            self.context.heartbeat.requests(1);
        }
        let (reply, closes) = match taken {
            Ok(outcome) => {
                self.moves_to(Phase::Handling);
                let reply = match outcome {
                    Outcome::Reply(reply) => reply,
                    Outcome::Delivery(receiver) => handler::delivered(receiver.await.ok()),
                };
                (reply, self.context.stop.is_requested())
            }
            Err(Untaken::Refused(reply)) => {
                self.is_abandoned.set(true);
                (reply, true)
            }
            Err(Untaken::Left) => return Err(Left),
        };
        self.moves_to(Phase::Writing);
        self.unsent.set(self.unsent.get() + 1);
        Ok(response(&reply, closes))
    }

    /// Receives the rest of a request and does what it asks for.
    async fn take(&self, parts: &Parts, body: Incoming) -> Result<Outcome, Untaken> {
        let body_bytes_max = self.context.limits.body_bytes_max;
        let expects_continue = check(parts, body_bytes_max)?;
        let asked = asked(parts);
        if expects_continue && let Err(reply) = handler::route(asked) {
            return Err(reply.into());
        }
        let most = usize::try_from(body_bytes_max).unwrap_or(usize::MAX);
        let body = Limited::new(body, most).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return too_large().into();
            }
            match error.downcast_ref::<hyper::Error>() {
                Some(error) if has_left(error) => Untaken::Left,
                _ => {
                    let sentence = "the chunked body is not coded as it should be";
                    Reply::error(Status::BadRequest, sentence).into()
                }
            }
        })?;
        Ok(handler::handle(asked, &body.to_bytes(), &*self.context.sink))
    }
}

/// Why a request was not taken.
enum Untaken {
    /// It is answered so, and the connection ends.
    Refused(Reply),
    /// The client went in the middle of it: nobody waits for an answer.
    Left,
}

impl From<Reply> for Untaken {
    fn from(reply: Reply) -> Self {
        Self::Refused(reply)
    }
}

/// The client left in the middle of its request; hyper closes the connection without a word.
#[derive(Debug, thiserror::Error)]
#[error("the client left in the middle of its request")]
struct Left;

/// Whether the socket ended, and not what was sent on it was wrong.
fn has_left(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    let kind = cause.map(std::io::Error::kind);
    error.is_incomplete_message()
        || kind.is_some_and(|kind| {
            use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
            matches!(kind, BrokenPipe | ConnectionReset | UnexpectedEof)
        })
}

fn too_large() -> Reply {
    Reply::error(Status::ContentTooLarge, "the body is larger than this server takes")
}

/// What hyper leaves to its users to check; says whether the client waits for `100 Continue`.
fn check(parts: &Parts, body_bytes_max: u64) -> Result<bool, Reply> {
    let headers = &parts.headers;
    let is_http11 = parts.version == Version::HTTP_11;
    if is_http11 && headers.get_all(HOST).iter().count() != 1 {
        let sentence = "an HTTP/1.1 request needs exactly one Host header";
        return Err(Reply::error(Status::BadRequest, sentence));
    }
    let expects = headers.get(EXPECT);
    if expects.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        let sentence = "the only expectation this server knows is 100-continue";
        return Err(Reply::error(Status::ExpectationFailed, sentence));
    }
    match framing(headers) {
        Framing::Length(length) if length > body_bytes_max => Err(too_large()),
        framing => {
            let has_body = !matches!(framing, Framing::Absent | Framing::Length(0));
            Ok(is_http11 && expects.is_some() && has_body)
        }
    }
}

fn framing(headers: &HeaderMap) -> Framing {
    if headers.contains_key(TRANSFER_ENCODING) {
        return Framing::Chunked;
    }
    headers.get(CONTENT_LENGTH).map_or(Framing::Absent, |length| {
        let length = length.to_str().ok().and_then(|length| length.parse().ok());
        Framing::Length(length.unwrap_or(u64::MAX))
    })
}

fn asked(parts: &Parts) -> Asked<'_> {
    Asked {
        method: match parts.method {
            hyper::Method::GET => Method::Get,
            hyper::Method::HEAD => Method::Head,
            hyper::Method::POST => Method::Post,
            _ => Method::Other,
        },
        framing: framing(&parts.headers),
        path: parts.uri.path().as_bytes(),
    }
}

fn response(reply: &Reply, closes: bool) -> Response<Full<Bytes>> {
    let status = reply.status();
    let body = reply.body();
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(Full::new(Bytes::from(body.into_owned())));
    // The statuses are constants between 200 and 503: it does not fail.
    let code = StatusCode::from_u16(status.code());
    let code = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.status_mut() = code;
    // Some of hyper's own phrases are those of older RFCs. (Where there is an extension, there is a
    // map of them, made and dropped with each response.)
    if code.canonical_reason() != Some(status.reason()) {
        response.extensions_mut().insert(ReasonPhrase::from_static(status.reason().as_bytes()));
    }
    for (name, value) in reply.headers() {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    // hyper would count itself, and write the line as the last.
    response.headers_mut().insert(CONTENT_LENGTH, length);
    if closes {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
