//! As much of HTTP/1.1 as a victim needs: where requests end, and the one answer to each. A client
//! whose doing the fault is tells the server of it in a request of its own, for the server has the
//! file that the ground truth goes to.

/// The answer to every request.
pub(super) const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
/// Bytes of a request, head and body; more are refused.
pub(super) const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Header fields of a request.
const HEADERS_MAX: usize = 32;

/// What is to be done about the bytes that came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// Whole requests: each gets [`RESPONSE`].
    pub requests: usize,
    /// Whether the connection ends after that: the client wants it so, or sent no HTTP.
    pub close: bool,
    /// The fault that a client has told of.
    pub told: Option<Told>,
}

/// A fault, as the client that caused it tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// Id of the cause.
    pub cause: String,
    /// When it took hold, `CLOCK_MONOTONIC` ns.
    pub begin_ns: u64,
}

impl Told {
    /// The request that tells of it.
    pub(super) fn request(&self) -> Vec<u8> {
        let Self { cause, begin_ns } = self;
        format!("GET /fault/{cause}/{begin_ns} HTTP/1.1\r\nhost: lab\r\n\r\n").into_bytes()
    }

    fn of_path(path: &str) -> Option<Self> {
        let (cause, begin_ns) = path.strip_prefix("/fault/")?.split_once('/')?;
        Some(Self { cause: cause.to_owned(), begin_ns: begin_ns.parse().ok()? })
    }
}

/// Takes the whole requests off the front of `inbox`.
pub(super) fn take(inbox: &mut Vec<u8>) -> Due {
    let mut due = Due::default();
    let mut taken_bytes = 0;
    while !due.close && taken_bytes < inbox.len() {
        match first(&inbox[taken_bytes..]) {
            First::Whole { bytes, close, told } => {
                taken_bytes += bytes;
                due.requests += 1;
                due.close = close;
                due.told = due.told.or(told);
            }
            First::Partial => break,
            First::Foreign => due.close = true,
        }
    }
    inbox.drain(..taken_bytes);
    due.close |= inbox.len() > REQUEST_BYTES_MAX;
    due
}

/// What stands at the front.
enum First {
    Whole { bytes: usize, close: bool, told: Option<Told> },
    Partial,
    Foreign,
}

fn first(bytes: &[u8]) -> First {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head_bytes = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return First::Partial,
        Err(_) => return First::Foreign,
    };
    let told = request.path.and_then(Told::of_path);
    let (mut body_bytes, mut close) = (0, false);
    for header in request.headers.iter() {
        let value = str::from_utf8(header.value).unwrap_or_default().trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            match value.parse::<usize>() {
                Ok(bytes) if bytes <= REQUEST_BYTES_MAX => body_bytes = bytes,
                _ => return First::Foreign,
            }
        } else if header.name.eq_ignore_ascii_case("connection") {
            close = value.eq_ignore_ascii_case("close");
        }
    }
    let bytes_all = head_bytes + body_bytes;
    if bytes.len() < bytes_all {
        return First::Partial;
    }
    First::Whole { bytes: bytes_all, close, told }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn due(text: &str) -> (Due, String) {
        let mut inbox = text.as_bytes().to_vec();
        let due = take(&mut inbox);
        (due, String::from_utf8(inbox).unwrap())
    }

    #[test]
    fn whole_requests_are_taken_and_the_rest_stays() {
        let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let post = "POST /events HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
        let close = "GET / HTTP/1.1\r\nConnection: Close\r\n\r\n";
        let cases = [
            (String::new(), 0, false, ""),
            (get.to_owned(), 1, false, ""),
            (post.to_owned(), 1, false, ""),
            (format!("{get}{post}GET / HT"), 2, false, "GET / HT"),
            (post[..post.len() - 1].to_owned(), 0, false, &post[..post.len() - 1]),
            (format!("{get}{close}{get}"), 2, true, get),
            (String::from("\u{16}\u{3}\u{1}"), 0, true, "\u{16}\u{3}\u{1}"),
            (post.replace('3', "minus one"), 0, true, &post.replace('3', "minus one")),
        ];
        for (text, requests, close, rest) in cases {
            let (found, left) = due(&text);
            let expected = Due { requests, close, told: None };
            assert_eq!((found, left.as_str()), (expected, rest), "{text:?}");
        }
    }

    #[test]
    fn a_client_can_tell_of_a_fault() {
        let told = Told { cause: String::from("conntrack-full"), begin_ns: 71 };
        let mut inbox = told.request();
        inbox.extend_from_slice(b"GET /fault/x HTTP/1.1\r\n\r\n");
        let due = take(&mut inbox);
        assert_eq!(due, Due { requests: 2, close: false, told: Some(told) });
    }

    #[test]
    fn a_request_that_never_ends_is_refused() {
        let mut endless = b"GET / HTTP/1.1\r\nhost: ".to_vec();
        endless.resize(REQUEST_BYTES_MAX, b'a');
        assert!(!take(&mut endless.clone()).close);
        endless.push(b'a');
        assert!(take(&mut endless).close);
    }

    proptest! {
        #[test]
        fn any_bytes_leave_a_tail_of_themselves(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut inbox = bytes.clone();
            take(&mut inbox);
            prop_assert!(bytes.ends_with(&inbox));
        }

        #[test]
        fn it_does_not_matter_how_requests_are_cut(cut in 0usize..80) {
            let text = b"POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nbodyGET / HTTP/1.1\r\n\r\n";
            let cut = cut.min(text.len());
            let mut inbox = text[..cut].to_vec();
            let before = take(&mut inbox).requests;
            inbox.extend_from_slice(&text[cut..]);
            prop_assert_eq!(before + take(&mut inbox).requests, 2);
            prop_assert!(inbox.is_empty());
        }
    }
}
