//! What every victim answers, whatever it does its I/O with.

use crate::servers::http::{CONTINUE, Parser, Step};

/// Longest body taken, bytes: the load generator sends some hundred.
const BODY_BYTES_MAX: u64 = 1024 * 1024;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// The parser of a new connection.
pub(super) const fn parser() -> Parser {
    Parser::new(BODY_BYTES_MAX)
}

/// The answers to what has come in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    /// What to send; empty while no request is complete.
    pub bytes: Vec<u8>,
    /// Whether the connection ends after it: the client asked for it, or makes no sense.
    pub is_last: bool,
}

/// Answers every request that is complete.
pub(super) fn answers(parser: &mut Parser) -> Answers {
    let mut answers = Answers::default();
    while !answers.is_last {
        match parser.step() {
            Step::NeedBytes => break,
            Step::Expects(_) => answers.bytes.extend_from_slice(CONTINUE),
            Step::Request(request) => {
                answers.bytes.extend_from_slice(OK);
                answers.is_last = !request.head.keep_alive;
            }
            Step::Refused(_) => answers.is_last = true,
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers_to(bytes: &[u8]) -> Answers {
        let mut parser = parser();
        let mut buffer = parser.take_buffer();
        buffer.extend_from_slice(bytes);
        parser.put_buffer(buffer);
        answers(&mut parser)
    }

    #[test]
    fn each_complete_request_gets_its_answer() {
        let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
        let close = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let cases = [
            (String::new(), 0, false),
            (get[..20].to_owned(), 0, false),
            (get.to_owned(), 1, false),
            (post[..post.len() - 1].to_owned(), 0, false),
            (format!("{post}{get}"), 2, false),
            (format!("{close}{get}"), 1, true),
            (String::from("nonsense\r\n\r\n"), 0, true),
        ];
        for (bytes, count, is_last) in cases {
            let expected = Answers { bytes: OK.repeat(count), is_last };
            assert_eq!(answers_to(bytes.as_bytes()), expected, "{bytes}");
        }
    }
}
