//! HTTP/1.1 without I/O: bytes go in, requests come out, responses are bytes again. The same
//! machine drives both servers, so that they differ in their I/O only.

mod body;
mod parse;
mod response;

pub use parse::{Framing, HEAD_BYTES_MAX, HEADERS_MAX, Head, Method, Refusal};
pub use response::{CONTINUE, Connection, Form, Reply, Status, write};

use body::Chunks;

/// Room made in the buffer before a read.
pub const READ_BYTES: usize = 4 * 1024;
/// An empty buffer that a large body has made larger than this is given back.
const IDLE_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// A header section without an end is first tried when it is this long.
const ATTEMPT_BYTES_MIN: usize = 64;

/// The receiving side of one connection.
#[derive(Debug)]
pub struct Parser {
    buffer: Vec<u8>,
    /// Where the current request begins in `buffer`.
    begin: usize,
    stage: Stage,
    /// Bytes of the current request that were searched for the end of its header section.
    scanned_bytes: usize,
    /// When the current request is this long, its header section is tried even without an end.
    attempt_bytes: usize,
    body_bytes_max: u64,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Head,
    /// The header section is there; the client waits for `100 Continue`.
    Announced(Head),
    /// Content-Length bytes are to come.
    Sized(Head, usize),
    Chunked(Head, Chunks),
    /// Nothing more is read from this client.
    Refused,
}

/// A complete request. It borrows from the parser.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The header section.
    pub head: Head,
    /// The path of the target.
    pub path: &'a [u8],
    /// The body, decoded.
    pub body: &'a [u8],
}

/// What the bytes so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Nothing complete: more bytes are needed.
    NeedBytes,
    /// A header section with `Expect: 100-continue`; its body is empty yet. Send
    /// [`CONTINUE`] and go on, or answer and close.
    Expects(Request<'a>),
    /// A complete request.
    Request(Request<'a>),
    /// A request that cannot be taken: answer and close.
    Refused(Refusal),
}

impl Parser {
    /// A parser for a new connection.
    pub const fn new(body_bytes_max: u64) -> Self {
        Self {
            buffer: Vec::new(),
            begin: 0,
            stage: Stage::Head,
            scanned_bytes: 0,
            attempt_bytes: ATTEMPT_BYTES_MIN,
            body_bytes_max,
        }
    }

    /// Whether no byte of a request waits for the rest of it.
    pub const fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Head) && self.begin == self.buffer.len()
    }

    /// Takes the buffer out, to append received bytes to it. It has room for [`READ_BYTES`].
    pub fn take_buffer(&mut self) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut self.buffer);
        // What was answered goes; offsets within the current request are relative to `begin`.
        if self.begin > 0 {
            buffer.drain(..self.begin);
            if let Stage::Chunked(head, chunks) = self.stage {
                self.stage = Stage::Chunked(head, chunks.moved_down(self.begin));
            }
            self.begin = 0;
        }
        if buffer.is_empty() && buffer.capacity() > IDLE_BUFFER_BYTES_MAX {
            buffer = Vec::new();
        }
        buffer.reserve(READ_BYTES);
        buffer
    }

    /// Puts the buffer back, with what was received.
    pub fn put_buffer(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
    }

    /// The next thing the bytes amount to.
    pub fn step(&mut self) -> Step<'_> {
        match self.advance() {
            Ok(Progress::NeedBytes) => Step::NeedBytes,
            Ok(Progress::Expects(head)) => {
                let begin = self.begin;
                Step::Expects(self.request(begin, head, 0))
            }
            Ok(Progress::Complete { head, body_bytes }) => {
                let begin = self.begin;
                self.begin += head.bytes + body_bytes;
                self.stage = Stage::Head;
                self.scanned_bytes = 0;
                self.attempt_bytes = ATTEMPT_BYTES_MIN;
                Step::Request(self.request(begin, head, body_bytes))
            }
            Err(refusal) => {
                self.stage = Stage::Refused;
                Step::Refused(refusal)
            }
        }
    }

    fn request(&self, begin: usize, head: Head, body_bytes: usize) -> Request<'_> {
        let here = &self.buffer[begin..];
        Request {
            head,
            path: &here[head.path_begin..head.path_end],
            body: &here[head.bytes..head.bytes + body_bytes],
        }
    }

    fn advance(&mut self) -> Result<Progress, Refusal> {
        loop {
            match self.stage {
                Stage::Head => {
                    let Some(head) = self.try_head()? else { return Ok(Progress::NeedBytes) };
                    if let Framing::Length(length) = head.framing
                        && length > self.body_bytes_max
                    {
                        let sentence = "the body is larger than this server takes";
                        return Err(Refusal::new(Status::ContentTooLarge, sentence));
                    }
                    let has_body = !matches!(head.framing, Framing::Absent | Framing::Length(0));
                    if head.expects_continue && has_body {
                        self.stage = Stage::Announced(head);
                        return Ok(Progress::Expects(head));
                    }
                    self.stage = self.body_of(head);
                }
                Stage::Announced(head) => self.stage = self.body_of(head),
                Stage::Sized(head, body_bytes) => {
                    let is_complete = self.buffer.len() - self.begin >= head.bytes + body_bytes;
                    return Ok(if is_complete {
                        Progress::Complete { head, body_bytes }
                    } else {
                        Progress::NeedBytes
                    });
                }
                Stage::Chunked(head, mut chunks) => {
                    let is_complete = chunks.decode(&mut self.buffer, self.body_bytes_max)?;
                    self.stage = Stage::Chunked(head, chunks);
                    if !is_complete {
                        return Ok(Progress::NeedBytes);
                    }
                    let body_bytes = chunks.decoded_end - self.begin - head.bytes;
                    return Ok(Progress::Complete { head, body_bytes });
                }
                Stage::Refused => return Ok(Progress::NeedBytes),
            }
        }
    }

    const fn body_of(&self, head: Head) -> Stage {
        match head.framing {
            Framing::Absent => Stage::Sized(head, 0),
            // No larger than `body_bytes_max`, which fits into memory.
            Framing::Length(length) => Stage::Sized(head, length as usize),
            Framing::Chunked => Stage::Chunked(head, Chunks::beginning_at(self.begin + head.bytes)),
        }
    }

    /// Parses the header section once its end has come.
    ///
    /// Parsing whatever there is at every read would let a client that sends byte by byte cost
    /// the server 16 KiB of parsing per byte. Without an end only the first 64, 128, 256 … bytes
    /// are tried, so that nonsense is refused early, and at the same byte however it arrives.
    fn try_head(&mut self) -> Result<Option<Head>, Refusal> {
        if self.scanned_bytes == 0 {
            self.skip_empty_lines();
        }
        let here = &self.buffer[self.begin..];
        let has_end = has_empty_line(&here[self.scanned_bytes.saturating_sub(2)..]);
        self.scanned_bytes = here.len();
        // As nearly all come: one parse, and what it finds wrong is what the tries would have found.
        if has_end && let Some(head) = parse::head(here)? {
            return Ok(Some(head));
        }
        while here.len() >= self.attempt_bytes && self.attempt_bytes <= HEAD_BYTES_MAX {
            if let Some(head) = parse::head(&here[..self.attempt_bytes])? {
                return Ok(Some(head));
            }
            self.attempt_bytes *= 2;
        }
        Ok(None)
    }

    /// Empty lines before a request line are to be ignored (RFC 9112, section 2.2): some clients
    /// send one after a body.
    fn skip_empty_lines(&mut self) {
        let here = &self.buffer[self.begin..];
        let blanks = here.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.begin += blanks;
    }
}

enum Progress {
    NeedBytes,
    Expects(Head),
    Complete { head: Head, body_bytes: usize },
}

/// Whether a line feed is followed by another, or by CR LF: the end of a header section.
fn has_empty_line(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes)
        .any(|at| bytes[at + 1..].starts_with(b"\n") || bytes[at + 1..].starts_with(b"\r\n"))
}

#[cfg(test)]
mod tests;
