//! One connection without its I/O: bytes in, turns out. What to do next (read, write, wait for a
//! delivery, close) is decided here, alike for both servers.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::handler::{self, Outcome};
use super::http::{self, Connection, Form, Head, Method, Parser, Reply, Status, Step};
use super::sink::{Delivery, Events};

/// Pipelined requests of one connection that may be unanswered; more are not read.
pub const UNANSWERED_MAX: usize = 64;
/// Responses are written once they are this long together, even if more requests are there.
const OUTBOX_BYTES_MAX: usize = 64 * 1024;

/// What the connection has to do next.
#[derive(Debug)]
pub enum Turn {
    /// Receive more bytes.
    Read,
    /// Write what [`Session::take_responses`] gives.
    Write,
    /// Wait for a delivery and hand it to [`Session::settle`].
    Await(oneshot::Receiver<Delivery>),
    /// Nothing more is to be read or written.
    Close,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Session {
    parser: Parser,
    outbox: Vec<u8>,
    /// Final responses in `outbox`.
    responses: u64,
    /// Answers that must wait for an earlier one. Empty unless deliveries are awaited.
    unanswered: VecDeque<(Answer, Form)>,
    /// The form of the answer whose delivery is being awaited.
    awaited: Option<Form>,
    /// No further request is taken.
    closing: bool,
    /// The client may still be sending what nobody will read.
    abandoned: bool,
    /// Requests so far, well formed or not.
    requests: u64,
}

#[derive(Debug)]
enum Answer {
    Ready(Reply),
    Pending(oneshot::Receiver<Delivery>),
}

impl Session {
    /// A new connection.
    pub const fn new(body_bytes_max: u64) -> Self {
        Self {
            parser: Parser::new(body_bytes_max),
            outbox: Vec::new(),
            responses: 0,
            unanswered: VecDeque::new(),
            awaited: None,
            closing: false,
            abandoned: false,
            requests: 0,
        }
    }

    /// Whether no part of a request has been received that is still to be answered.
    pub const fn is_idle(&self) -> bool {
        self.parser.is_idle()
    }

    /// Requests so far: tells whether bytes belong to the same request as before.
    pub const fn requests(&self) -> u64 {
        self.requests
    }

    /// Whether the client may still be sending: closing at once would reset the connection and
    /// might destroy the response on its way (RFC 9112, section 9.6).
    pub const fn client_may_be_sending(&self) -> bool {
        self.abandoned || !self.parser.is_idle()
    }

    /// The buffer to receive into; give it back with [`Self::received`].
    pub fn take_buffer(&mut self) -> Vec<u8> {
        self.parser.take_buffer()
    }

    /// Takes the buffer back, with what was received appended.
    pub fn received(&mut self, buffer: Vec<u8>) {
        self.parser.put_buffer(buffer);
    }

    /// The bytes to write and the number of final responses in them.
    pub fn take_responses(&mut self) -> (Vec<u8>, u64) {
        (std::mem::take(&mut self.outbox), std::mem::take(&mut self.responses))
    }

    /// Gives the written buffer back, to be used again.
    pub fn written(&mut self, mut buffer: Vec<u8>) {
        if self.outbox.is_empty() && buffer.capacity() <= OUTBOX_BYTES_MAX {
            buffer.clear();
            self.outbox = buffer;
        }
    }

    /// The client took too long. A partial request is answered; then the connection closes.
    pub fn timed_out(&mut self, request_is_partial: bool) {
        if request_is_partial {
            self.requests += 1;
            self.refuse(Reply::error(Status::RequestTimeout, "the request took too long"));
        }
        self.closing = true;
    }

    /// Works through what was received, as far as possible. `stopping`: the server goes down, and
    /// the response to come is the last on this connection.
    pub fn turn(&mut self, events: &impl Events, stopping: bool) -> Turn {
        while !self.closing && self.has_room() {
            if !self.advance(events, stopping) {
                break;
            }
        }
        if self.awaited.is_none() {
            while let Some((answer, form)) = self.unanswered.pop_front() {
                match answer {
                    Answer::Ready(reply) => self.respond(&reply, form),
                    Answer::Pending(mut receiver) => match receiver.try_recv() {
                        Ok(delivery) => self.respond(&handler::delivered(Some(delivery)), form),
                        Err(oneshot::error::TryRecvError::Closed) => {
                            self.respond(&handler::delivered(None), form);
                        }
                        Err(oneshot::error::TryRecvError::Empty) if self.outbox.is_empty() => {
                            self.awaited = Some(form);
                            return Turn::Await(receiver);
                        }
                        Err(oneshot::error::TryRecvError::Empty) => {
                            self.unanswered.push_front((Answer::Pending(receiver), form));
                            return Turn::Write;
                        }
                    },
                }
            }
        }
        if !self.outbox.is_empty() {
            Turn::Write
        } else if self.closing || (stopping && self.is_idle()) {
            Turn::Close
        } else {
            Turn::Read
        }
    }

    /// The delivery that was awaited has ended.
    pub fn settle(&mut self, delivery: Option<Delivery>) {
        if let Some(form) = self.awaited.take() {
            self.respond(&handler::delivered(delivery), form);
        }
    }

    fn has_room(&self) -> bool {
        self.unanswered.len() < UNANSWERED_MAX && self.outbox.len() < OUTBOX_BYTES_MAX
    }

    /// Takes one step of the parser; false when it needs more bytes.
    fn advance(&mut self, events: &impl Events, stopping: bool) -> bool {
        match self.parser.step() {
            Step::NeedBytes => return false,
            Step::Refused(refusal) => {
                self.requests += 1;
                self.refuse(Reply::error(refusal.status, refusal.sentence));
            }
            Step::Expects(request) => match handler::route((&request).into()) {
                // An interim response must not overtake the answers to earlier requests. Without
                // it the client sends its body after a while of its own accord.
                Ok(_) if self.unanswered.is_empty() => {
                    self.outbox.extend_from_slice(http::CONTINUE);
                }
                Ok(_) => {}
                Err(reply) => {
                    self.requests += 1;
                    self.refuse(reply);
                }
            },
            Step::Request(request) => {
                let span = tracing::debug_span!(
                    "request",
                    method = ?request.head.method,
                    path = ?String::from_utf8_lossy(request.path),
                )
                .entered();
                let form = form(&request.head, stopping);
                let outcome = handler::handle((&request).into(), request.body, events);
                drop(span);
                self.requests += 1;
                self.closing = form.connection == Connection::Close;
                self.answer(outcome, form);
            }
        }
        true
    }

    fn answer(&mut self, outcome: Outcome, form: Form) {
        let answer = match outcome {
            Outcome::Reply(reply) if self.unanswered.is_empty() => {
                return self.respond(&reply, form);
            }
            Outcome::Reply(reply) => Answer::Ready(reply),
            Outcome::Delivery(receiver) => Answer::Pending(receiver),
        };
        self.unanswered.push_back((answer, form));
    }

    /// Answers and takes nothing more.
    fn refuse(&mut self, reply: Reply) {
        self.closing = true;
        self.abandoned = true;
        let form = Form { connection: Connection::Close, head_only: false };
        self.answer(Outcome::Reply(reply), form);
    }

    fn respond(&mut self, reply: &Reply, form: Form) {
        tracing::debug!(status = reply.status().code(), "response");
        http::write(&mut self.outbox, reply, form);
        self.responses += 1;
    }
}

fn form(head: &Head, stopping: bool) -> Form {
    let connection = match (head.keep_alive && !stopping, head.is_http10) {
        (false, _) => Connection::Close,
        (true, true) => Connection::KeepHttp10,
        (true, false) => Connection::Keep,
    };
    Form { connection, head_only: head.method == Method::Head }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::servers::sink::{Published, Settled};

    /// Keeps what is published and hands out prepared outcomes.
    #[derive(Default)]
    struct Fake {
        texts: RefCell<Vec<String>>,
        outcomes: RefCell<VecDeque<Published>>,
    }

    impl Events for Fake {
        fn publish(&self, text: &str) -> Published {
            self.texts.borrow_mut().push(text.to_owned());
            self.outcomes.borrow_mut().pop_front().unwrap_or(Published::Queued)
        }
    }

    fn receive(session: &mut Session, bytes: &str) {
        let mut buffer = session.take_buffer();
        buffer.extend_from_slice(bytes.as_bytes());
        session.received(buffer);
    }

    fn event(text: &str) -> String {
        let body = format!("{{\"data\":\"{text}\"}}");
        let length = body.len();
        format!("POST /events HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}")
    }

    fn statuses(session: &mut Session) -> (Vec<String>, u64) {
        let (bytes, count) = session.take_responses();
        let text = String::from_utf8(bytes).unwrap();
        let codes = text
            .split("\r\n")
            .filter_map(|line| Some(line[line.find("HTTP/1.1 ")? + 9..][..3].to_owned()))
            .collect();
        (codes, count)
    }

    #[test]
    fn pipelined_answers_come_in_order_and_in_one_write() {
        let events = Fake::default();
        let mut session = Session::new(1024);
        let health = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
        let nowhere = "GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n";
        receive(&mut session, &[&event("a"), nowhere, health, &event("b")].concat());
        assert!(matches!(session.turn(&events, false), Turn::Write));
        let expected = ["202", "404", "200", "202"].map(str::to_owned).to_vec();
        assert_eq!(statuses(&mut session), (expected, 4));
        assert_eq!(*events.texts.borrow(), ["a", "b"]);
        assert!(matches!(session.turn(&events, false), Turn::Read));
    }

    #[test]
    fn a_later_answer_waits_for_an_earlier_delivery() {
        let events = Fake::default();
        let (first, receiver) = oneshot::channel();
        events.outcomes.borrow_mut().push_back(Published::Pending(receiver));
        let (second, receiver) = oneshot::channel();
        events.outcomes.borrow_mut().push_back(Published::Pending(receiver));
        let mut session = Session::new(1024);
        let health = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
        receive(&mut session, &[&event("a"), health, &event("b"), health].concat());
        let Turn::Await(mut waiting) = session.turn(&events, false) else { panic!("no wait") };
        assert!(waiting.try_recv().is_err());
        first.send(Err("no broker".to_owned())).unwrap();
        session.settle(waiting.try_recv().ok());
        assert!(matches!(session.turn(&events, false), Turn::Write));
        assert_eq!(statuses(&mut session), (vec!["503".to_owned(), "200".to_owned()], 2));
        second.send(Ok(Settled::Delivered)).unwrap();
        assert!(matches!(session.turn(&events, false), Turn::Write));
        assert_eq!(statuses(&mut session), (vec!["200".to_owned(), "200".to_owned()], 2));
    }

    #[test]
    fn a_stopping_server_answers_what_came_and_then_closes() {
        let events = Fake::default();
        let mut session = Session::new(1024);
        assert!(matches!(session.turn(&events, true), Turn::Close), "idle");
        receive(&mut session, &[event("a"), event("b")].concat());
        assert!(matches!(session.turn(&events, true), Turn::Write));
        let (bytes, _) = session.take_responses();
        assert!(String::from_utf8(bytes).unwrap().contains("\r\nConnection: close\r\n"));
        assert!(matches!(session.turn(&events, true), Turn::Close));
        assert_eq!(*events.texts.borrow(), ["a"], "the second was not taken, so not promised");
    }

    #[test]
    fn unanswered_requests_have_a_bound() {
        let events = Fake::default();
        let mut senders = Vec::new();
        for _ in 0..2 * UNANSWERED_MAX {
            let (sender, receiver) = oneshot::channel();
            senders.push(sender);
            events.outcomes.borrow_mut().push_back(Published::Pending(receiver));
        }
        let mut session = Session::new(1024);
        receive(&mut session, &event("x").repeat(2 * UNANSWERED_MAX));
        assert!(matches!(session.turn(&events, false), Turn::Await(_)));
        assert_eq!(events.texts.borrow().len(), UNANSWERED_MAX);
    }

    #[test]
    fn only_a_partial_request_is_told_that_it_timed_out() {
        let events = Fake::default();
        for (bytes, expected) in [("", vec![]), ("GET /", vec!["408".to_owned()])] {
            let mut session = Session::new(1024);
            receive(&mut session, bytes);
            assert!(matches!(session.turn(&events, false), Turn::Read));
            session.timed_out(!session.is_idle());
            assert_eq!(statuses(&mut session).0, expected);
            assert!(matches!(session.turn(&events, false), Turn::Close));
        }
    }
}
