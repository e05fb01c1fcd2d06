//! The routes: which request gets which answer.

use std::borrow::Cow;

use serde::Deserialize;
use tokio::sync::oneshot;

use super::http::{Framing, Head, Method, Reply, Request, Status};
use super::sink::{Delivery, Events, Published, Settled};

/// The body of `POST /events`: exactly this.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Event<'a> {
    /// The text of the event; borrowed from the body unless it holds escapes.
    #[serde(borrow)]
    data: Cow<'a, str>,
}

/// What a request comes to.
#[derive(Debug)]
pub enum Outcome {
    /// The answer.
    Reply(Reply),
    /// The answer depends on the delivery of the event.
    Delivery(oneshot::Receiver<Delivery>),
}

/// A known path with a method it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `POST /events`
    Events,
    /// `GET /healthz`, `HEAD /healthz`
    Health,
}

/// What a header section asks for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The method.
    pub method: Method,
    /// How the body is delimited.
    pub framing: Framing,
    /// The path of the target.
    pub path: &'a [u8],
}

impl<'a> From<&Request<'a>> for Asked<'a> {
    fn from(request: &Request<'a>) -> Self {
        let Head { method, framing, .. } = request.head;
        Self { method, framing, path: request.path }
    }
}

/// Finds the route from the header section alone: a client that waits for `100 Continue` is
/// answered before it sends a body in vain.
pub fn route(asked: Asked<'_>) -> Result<Route, Reply> {
    let method = asked.method;
    let (route, allowed) = match asked.path {
        b"/events" => (Route::Events, "POST"),
        b"/healthz" => (Route::Health, "GET, HEAD"),
        _ => return Err(Reply::error(Status::NotFound, "the paths are /events and /healthz")),
    };
    match (route, method) {
        (Route::Events, Method::Post) if asked.framing == Framing::Absent => {
            let sentence = "POST needs Content-Length or Transfer-Encoding: chunked";
            Err(Reply::error(Status::LengthRequired, sentence))
        }
        (Route::Events, Method::Post) | (Route::Health, Method::Get | Method::Head) => Ok(route),
        _ => Err(Reply::Error {
            status: Status::MethodNotAllowed,
            sentence: format!("this path allows {allowed}").into(),
            header: Some(("Allow", allowed)),
        }),
    }
}

/// Does what a request asks for, its body decoded.
pub fn handle(asked: Asked<'_>, body: &[u8], events: &impl Events) -> Outcome {
    match route(asked) {
        Err(reply) => Outcome::Reply(reply),
        Ok(Route::Health) => Outcome::Reply(Reply::Healthy),
        Ok(Route::Events) => match serde_json::from_slice::<Event<'_>>(body) {
            Ok(event) => publish(&event.data, events),
            Err(error) => Outcome::Reply(Reply::error(
                Status::UnprocessableContent,
                format!("the body is not {{\"data\":\"<text>\"}}: {error}"),
            )),
        },
    }
}

fn publish(text: &str, events: &impl Events) -> Outcome {
    let reply = match events.publish(text) {
        Published::Pending(receiver) => return Outcome::Delivery(receiver),
        Published::Queued => Reply::Queued,
        Published::Full => Reply::Error {
            status: Status::ServiceUnavailable,
            sentence: "the producer's queue is full".into(),
            header: Some(("Retry-After", "1")),
        },
        Published::TooLarge => {
            Reply::error(Status::ContentTooLarge, "the event is larger than a Kafka record")
        }
        Published::Refused(error) => {
            let sentence = format!("the producer refused the event: {error}");
            Reply::error(Status::ServiceUnavailable, sentence)
        }
    };
    Outcome::Reply(reply)
}

/// The answer once the delivery of the event has come to an end; `None` when the producer was
/// dropped before.
pub fn delivered(outcome: Option<Delivery>) -> Reply {
    match outcome {
        Some(Ok(Settled::Delivered)) => Reply::Delivered,
        Some(Ok(Settled::Queued)) => Reply::Queued,
        Some(Err(error)) => Reply::error(
            Status::ServiceUnavailable,
            format!("the event was not delivered: {error}"),
        ),
        None => Reply::error(Status::ServiceUnavailable, "the server is going down"),
    }
}
