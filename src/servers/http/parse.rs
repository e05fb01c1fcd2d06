//! The header section of a request: bytes in, [`Head`] or [`Refusal`] out.

use std::mem::MaybeUninit;

use super::response::Status;

/// Longest header section, request line included.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most header lines.
pub const HEADERS_MAX: usize = 64;

/// The method, as far as the routes care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET
    Get,
    /// HEAD: as GET, without the body.
    Head,
    /// POST
    Post,
    /// Any other token.
    Other,
}

/// How the end of the body is found (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Neither Content-Length nor Transfer-Encoding: there is no body.
    Absent,
    /// Content-Length; `u64::MAX` stands for anything that does not fit.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A header section that is complete and well formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// Where the path begins, counted from the begin of the request.
    pub path_begin: usize,
    /// Where it ends; the query is left out.
    pub path_end: usize,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the client lets the connection live on.
    pub keep_alive: bool,
    /// HTTP/1.0: a kept connection must be announced.
    pub is_http10: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Length of the header section, with the empty line.
    pub bytes: usize,
}

/// Why a request is not taken. The connection cannot be used afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The status to answer with.
    pub status: Status,
    /// What is wrong, for the client.
    pub sentence: &'static str,
}

impl Refusal {
    /// A refusal.
    pub const fn new(status: Status, sentence: &'static str) -> Self {
        Self { status, sentence }
    }
}

const TOO_LONG: Refusal =
    Refusal::new(Status::HeadersTooLarge, "the header section is longer than 16 KiB");
const TOO_MANY: Refusal =
    Refusal::new(Status::HeadersTooLarge, "there are more than 64 header lines");

/// Parses the header section at the begin of `bytes`. `Ok(None)`: more bytes are needed.
///
/// The answer depends on the bytes alone, not on how they arrived: only the first
/// [`HEAD_BYTES_MAX`] are looked at.
pub fn head(bytes: &[u8]) -> Result<Option<Head>, Refusal> {
    let window = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(window, &mut headers) {
        Ok(httparse::Status::Partial) if window.len() == HEAD_BYTES_MAX => Err(TOO_LONG),
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(length)) => interpret(bytes, &request, length).map(Some),
        Err(httparse::Error::TooManyHeaders) => Err(TOO_MANY),
        Err(error) => Err(Refusal::new(Status::BadRequest, malformed(error))),
    }
}

const fn malformed(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "a header name is malformed",
        httparse::Error::HeaderValue => "a header value is malformed",
        httparse::Error::NewLine => "a line does not end in CR LF",
        httparse::Error::Version => "the HTTP version is neither 1.0 nor 1.1",
        _ => "the request line is malformed",
    }
}

/// What the header lines say about the message, gathered line by line.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is the presence of one option")]
struct Fields {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    hosts: usize,
}

fn interpret(
    bytes: &[u8],
    request: &httparse::Request<'_, '_>,
    length: usize,
) -> Result<Head, Refusal> {
    let mut fields = Fields::default();
    for header in request.headers.iter() {
        fields.take(header.name, header.value)?;
    }
    let is_http10 = request.version == Some(0);
    if is_http10 && fields.chunked {
        return Err(bad("HTTP/1.0 has no Transfer-Encoding"));
    }
    if !is_http10 && fields.hosts != 1 {
        return Err(bad("an HTTP/1.1 request needs exactly one Host header"));
    }
    let framing = match (fields.chunked, fields.length) {
        (true, Some(_)) => return Err(bad("both Content-Length and Transfer-Encoding are given")),
        (true, None) => Framing::Chunked,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::Absent,
    };
    let target = request.path.unwrap_or("");
    // The target is a slice of `bytes`: its place is the difference of the addresses.
    let target_begin = target.as_ptr().addr() - bytes.as_ptr().addr();
    let path = path_within(target);
    Ok(Head {
        method: match request.method {
            Some("POST") => Method::Post,
            Some("GET") => Method::Get,
            Some("HEAD") => Method::Head,
            _ => Method::Other,
        },
        path_begin: target_begin + path.start,
        path_end: target_begin + path.end,
        framing,
        keep_alive: !fields.close && (!is_http10 || fields.keep_alive),
        is_http10,
        expects_continue: fields.expects_continue && !is_http10,
        bytes: length,
    })
}

/// The path in a request target: without query, and without scheme and authority if the target is
/// in absolute form, as proxies send it (RFC 9112, section 3.2.2).
fn path_within(target: &str) -> std::ops::Range<usize> {
    let end = target.find('?').unwrap_or(target.len());
    let scheme = ["http://", "https://"].into_iter().find(|scheme| target.starts_with(scheme));
    let begin = scheme.map_or(0, |scheme| {
        target[scheme.len()..end].find('/').map_or(end, |slash| scheme.len() + slash)
    });
    begin..end
}

impl Fields {
    fn take(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        if name.eq_ignore_ascii_case("content-length") {
            self.take_length(value)?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if self.chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                let sentence = "the only transfer coding this server knows is chunked";
                return Err(Refusal::new(Status::NotImplemented, sentence));
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case("connection") {
            for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if name.eq_ignore_ascii_case("expect") {
            if !value.trim_ascii().eq_ignore_ascii_case(b"100-continue") {
                let sentence = "the only expectation this server knows is 100-continue";
                return Err(Refusal::new(Status::ExpectationFailed, sentence));
            }
            self.expects_continue = true;
        } else if name.eq_ignore_ascii_case("host") {
            self.hosts += 1;
        }
        Ok(())
    }

    /// Several equal lengths are one; different ones are the tool of request smuggling.
    fn take_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for text in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
                return Err(bad("Content-Length is not a number"));
            }
            let length = text.iter().fold(0_u64, |length, digit| {
                length.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
            });
            if self.length.is_some_and(|earlier| earlier != length) {
                return Err(bad("there are different Content-Length values"));
            }
            self.length = Some(length);
        }
        Ok(())
    }
}

const fn bad(sentence: &'static str) -> Refusal {
    Refusal::new(Status::BadRequest, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Head {
        head(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn the_path_is_found_in_every_form_of_target() {
        let cases = [
            ("/events", "/events"),
            ("/events?a=b?c", "/events"),
            ("http://host:80/events?x", "/events"),
            ("http://host", ""),
            ("http://host?x=/y", ""),
            ("*", "*"),
        ];
        for (target, path) in cases {
            let text = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
            let head = parsed(&text);
            assert_eq!(&text[head.path_begin..head.path_end], path, "{target}");
            assert_eq!(head.bytes, text.len());
        }
    }

    #[test]
    fn whether_a_connection_is_kept() {
        let cases = [
            ("HTTP/1.1\r\nHost: h", true),
            ("HTTP/1.1\r\nHost: h\r\nConnection: CLOSE", false),
            ("HTTP/1.1\r\nHost: h\r\nConnection: foo, close", false),
            ("HTTP/1.0", false),
            ("HTTP/1.0\r\nConnection: Keep-Alive", true),
        ];
        for (tail, kept) in cases {
            assert_eq!(parsed(&format!("GET / {tail}\r\n\r\n")).keep_alive, kept, "{tail}");
        }
    }

    #[test]
    fn ambiguous_or_malformed_messages_are_refused() {
        let cases = [
            ("Content-Length: 5\r\nContent-Length: 6", 400),
            ("Content-Length: 5, 6", 400),
            ("Content-Length: +5", 400),
            ("Content-Length: -1", 400),
            ("Content-Length: ", 400),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
            ("Transfer-Encoding: gzip, chunked", 501),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 501),
            ("Expect: something", 417),
            ("Host: second", 400),
            ("Bad Name: x", 400),
            ("Folded: x\r\n y", 400),
        ];
        for (line, code) in cases {
            let text = format!("POST / HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n");
            let refusal = head(text.as_bytes()).unwrap_err();
            assert_eq!(refusal.status.code(), code, "{line}");
        }
        assert_eq!(head(b"GET / HTTP/1.1\r\n\r\n").unwrap_err().status.code(), 400, "no Host");
        assert_eq!(head(b"GET / HTTP/2.0\r\n\r\n").unwrap_err().status.code(), 400);
        let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(head(old).unwrap_err().status.code(), 400);
    }

    #[test]
    fn equal_lengths_are_one_and_huge_ones_saturate() {
        let length =
            |line: &str| parsed(&format!("POST / HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n")).framing;
        assert_eq!(length("Content-Length: 5, 5\r\nContent-Length: 05"), Framing::Length(5));
        let huge = "Content-Length: 99999999999999999999999";
        assert_eq!(length(huge), Framing::Length(u64::MAX));
        assert_eq!(length("transfer-encoding: Chunked"), Framing::Chunked);
        assert_eq!(length("X: y"), Framing::Absent);
    }

    #[test]
    fn the_limits_hold_on_both_sides() {
        let lines = |count: usize| {
            let more = "X: y\r\n".repeat(count - 1);
            format!("GET / HTTP/1.1\r\nHost: h\r\n{more}\r\n")
        };
        assert!(head(lines(HEADERS_MAX).as_bytes()).unwrap().is_some());
        assert_eq!(head(lines(HEADERS_MAX + 1).as_bytes()).unwrap_err(), TOO_MANY);
        let long = |bytes: usize| {
            let frame = "GET / HTTP/1.1\r\nHost: h\r\nX: \r\n\r\n".len();
            let value = "v".repeat(bytes - frame);
            format!("GET / HTTP/1.1\r\nHost: h\r\nX: {value}\r\n\r\n")
        };
        assert!(head(long(HEAD_BYTES_MAX).as_bytes()).unwrap().is_some());
        assert_eq!(head(long(HEAD_BYTES_MAX + 1).as_bytes()).unwrap_err(), TOO_LONG);
        assert!(head(&long(HEAD_BYTES_MAX).as_bytes()[..HEAD_BYTES_MAX - 1]).unwrap().is_none());
    }
}
