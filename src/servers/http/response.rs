//! Responses as bytes.

use std::borrow::Cow;
use std::io::Write as _;

/// The statuses this server answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names are those of RFC 9110")]
pub enum Status {
    Ok,
    Accepted,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    LengthRequired,
    ContentTooLarge,
    ExpectationFailed,
    UnprocessableContent,
    HeadersTooLarge,
    NotImplemented,
    ServiceUnavailable,
}

impl Status {
    /// The three digits.
    pub const fn code(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::Accepted => 202,
            Self::BadRequest => 400,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::LengthRequired => 411,
            Self::ContentTooLarge => 413,
            Self::ExpectationFailed => 417,
            Self::UnprocessableContent => 422,
            Self::HeadersTooLarge => 431,
            Self::NotImplemented => 501,
            Self::ServiceUnavailable => 503,
        }
    }

    /// The phrase, as RFC 9110 has it.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Accepted => "Accepted",
            Self::BadRequest => "Bad Request",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::RequestTimeout => "Request Timeout",
            Self::LengthRequired => "Length Required",
            Self::ContentTooLarge => "Content Too Large",
            Self::ExpectationFailed => "Expectation Failed",
            Self::UnprocessableContent => "Unprocessable Content",
            Self::HeadersTooLarge => "Request Header Fields Too Large",
            Self::NotImplemented => "Not Implemented",
            Self::ServiceUnavailable => "Service Unavailable",
        }
    }
}

/// What to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// 202: the event is with the producer.
    Queued,
    /// 200: the broker has the event.
    Delivered,
    /// 200 `ok`.
    Healthy,
    /// An error, with one sentence.
    Error {
        /// The status.
        status: Status,
        /// The sentence; may hold text from the client.
        sentence: Cow<'static, str>,
        /// A further header line: name and value.
        header: Option<(&'static str, &'static str)>,
    },
}

impl Reply {
    /// An error without further header lines.
    pub fn error(status: Status, sentence: impl Into<Cow<'static, str>>) -> Self {
        Self::Error { status, sentence: sentence.into(), header: None }
    }

    /// The body.
    pub fn body(&self) -> Cow<'static, [u8]> {
        match self {
            Self::Queued | Self::Delivered => Cow::Borrowed(b""),
            Self::Healthy => Cow::Borrowed(b"ok\n"),
            Self::Error { sentence, .. } => error_body(sentence).into(),
        }
    }

    /// The header lines that are its own: names and values.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let (content, own) = match self {
            Self::Queued | Self::Delivered => (None, None),
            Self::Healthy => (Some("text/plain; charset=utf-8"), None),
            Self::Error { header, .. } => (Some("application/json"), *header),
        };
        content.map(|content| ("Content-Type", content)).into_iter().chain(own)
    }

    /// The status.
    pub const fn status(&self) -> Status {
        match self {
            Self::Queued => Status::Accepted,
            Self::Delivered | Self::Healthy => Status::Ok,
            Self::Error { status, .. } => *status,
        }
    }
}

/// What becomes of the connection, as the response announces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// It lives on, which HTTP/1.1 need not say.
    Keep,
    /// It lives on, which HTTP/1.0 must say.
    KeepHttp10,
    /// It is closed after this response.
    Close,
}

/// How a response is to be framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// What becomes of the connection.
    pub connection: Connection,
    /// The answer to HEAD: the lengths are given, the body is left out.
    pub head_only: bool,
}

/// The interim response a client with `Expect: 100-continue` waits for.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Appends `reply` to `out`.
pub fn write(out: &mut Vec<u8>, reply: &Reply, form: Form) {
    // The answer that matters for throughput is one constant.
    if matches!(reply, Reply::Queued) && form.connection == Connection::Keep {
        out.extend_from_slice(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
        return;
    }
    let status = reply.status();
    let body = reply.body();
    line(out, format_args!("HTTP/1.1 {} {}", status.code(), status.reason()));
    for (name, value) in reply.headers() {
        line(out, format_args!("{name}: {value}"));
    }
    line(out, format_args!("Content-Length: {}", body.len()));
    match form.connection {
        Connection::Keep => {}
        Connection::KeepHttp10 => line(out, format_args!("Connection: keep-alive")),
        Connection::Close => line(out, format_args!("Connection: close")),
    }
    out.extend_from_slice(b"\r\n");
    if !form.head_only {
        out.extend_from_slice(&body);
    }
}

fn line(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    out.write_fmt(text).ok();
    out.extend_from_slice(b"\r\n");
}

/// `{"error":"…"}`: the sentence may quote the client, so it is escaped.
fn error_body(sentence: &str) -> Vec<u8> {
    let mut body = serde_json::json!({ "error": sentence }).to_string().into_bytes();
    body.push(b'\n');
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(reply: &Reply, connection: Connection, head_only: bool) -> String {
        let mut out = Vec::new();
        write(&mut out, reply, Form { connection, head_only });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn responses_to_the_byte() {
        assert_eq!(
            text(&Reply::Queued, Connection::Keep, false),
            "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(
            text(&Reply::Queued, Connection::KeepHttp10, false),
            "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"
        );
        assert_eq!(
            text(&Reply::Healthy, Connection::Close, true),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\
             Connection: close\r\n\r\n"
        );
    }

    #[test]
    fn text_of_the_client_is_escaped() {
        let reply = Reply::error(Status::UnprocessableContent, "no \"\r\n\u{1b}[31m".to_owned());
        let response = text(&reply, Connection::Keep, false);
        let (_, body) = response.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "{\"error\":\"no \\\"\\r\\n\\u001b[31m\"}\n");
    }
}
