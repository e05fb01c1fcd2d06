//! The routes: which request gets which answer.

use std::borrow::Cow;

use serde::Deserialize;
use tokio::sync::oneshot;

use super::http::{Framing, Method, Reply, Request, Status};
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

/// Finds the route from the header section alone: a client that waits for `100 Continue` is
/// answered before it sends a body in vain.
pub fn route(request: &Request<'_>) -> Result<Route, Reply> {
    let method = request.head.method;
    let (route, allowed) = match request.path {
        b"/events" => (Route::Events, "POST"),
        b"/healthz" => (Route::Health, "GET, HEAD"),
        _ => return Err(Reply::error(Status::NotFound, "the paths are /events and /healthz")),
    };
    match (route, method) {
        (Route::Events, Method::Post) if request.head.framing == Framing::Absent => {
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

/// Does what the request asks for.
pub fn handle(request: &Request<'_>, events: &impl Events) -> Outcome {
    match route(request) {
        Err(reply) => Outcome::Reply(reply),
        Ok(Route::Health) => Outcome::Reply(Reply::Healthy),
        Ok(Route::Events) => match serde_json::from_slice::<Event<'_>>(request.body) {
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
