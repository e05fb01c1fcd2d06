//! Finds the end of an HTTP/1.x response in a stream of bytes. Pure: no sockets, no clock.
//!
//! Bytes come in pieces of any size ([`Scanner::feed`]); nothing of a body is kept, and of a head
//! only a line that is cut by the end of a piece. Framing follows RFC 9112, section 6.3.

/// Bytes of one head line, chunk-size line or trailer line.
pub const LINE_BYTES_MAX: usize = 16 << 10;
/// Bytes of a head, of interim responses before it, and of trailers, together.
pub const HEAD_BYTES_MAX: usize = 64 << 10;

/// Why bytes are not a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not `HTTP/1.x NNN …`.
    #[error("the status line is not HTTP/1.x with a three-digit status")]
    StatusLine,
    /// Not `name: value`.
    #[error("a header line has no name and colon")]
    Header,
    /// Not a number, or two that differ.
    #[error("Content-Length is not one number")]
    ContentLength,
    /// Not a hexadecimal number, or no line end after the data.
    #[error("a chunk has no valid size or no line end")]
    Chunk,
    /// Above [`LINE_BYTES_MAX`] or [`HEAD_BYTES_MAX`].
    #[error("the head is too long")]
    TooLong,
    /// 101: this client never asks for another protocol.
    #[error("the server switched protocols unasked")]
    Upgrade,
    /// More bytes than the response has.
    #[error("bytes follow the end of the response")]
    Surplus,
}

/// A response has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Its status, 200 to 999.
    pub status: u16,
    /// Whether the connection may carry another request.
    pub keep_alive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    StatusLine,
    Header,
    Sized { left: u64 },
    ChunkSize,
    ChunkData { left: u64 },
    ChunkEnd,
    Trailer,
    UntilEof,
}

/// What the head said so far.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    status: u16,
    content_length: Option<u64>,
    chunked: bool,
    other_coding: bool,
    keep_alive: bool,
}

/// Scans one response after another on one connection.
#[derive(Debug)]
pub struct Scanner {
    state: State,
    head: Head,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// Bytes of lines seen in this response.
    lines_bytes: usize,
    begun: bool,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// A scanner at the begin of a response.
    pub const fn new() -> Self {
        Self {
            state: State::StatusLine,
            head: Head {
                status: 0,
                content_length: None,
                chunked: false,
                other_coding: false,
                keep_alive: false,
            },
            line: Vec::new(),
            lines_bytes: 0,
            begun: false,
        }
    }

    /// Whether bytes of the current response have come.
    pub const fn begun(&self) -> bool {
        self.begun
    }

    /// Forgets everything: for a new connection.
    pub fn reset(&mut self) {
        self.state = State::StatusLine;
        self.line.clear();
        self.lines_bytes = 0;
        self.begun = false;
    }

    /// Takes the next bytes. `Some` when they end the response: then the scanner stands at the
    /// begin of the next.
    ///
    /// # Errors
    /// [`Malformed`]; the connection is of no more use, and the scanner needs [`Self::reset`].
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<Option<Finished>, Malformed> {
        self.begun |= !bytes.is_empty();
        while !bytes.is_empty() {
            let ended = match self.state {
                State::Sized { left } => {
                    let left = skip(&mut bytes, left);
                    self.state = State::Sized { left };
                    left == 0
                }
                State::ChunkData { left } => {
                    let left = skip(&mut bytes, left);
                    self.state =
                        if left == 0 { State::ChunkEnd } else { State::ChunkData { left } };
                    false
                }
                State::UntilEof => return Ok(None),
                _ => self.feed_line(&mut bytes)?,
            };
            if ended {
                return if bytes.is_empty() {
                    Ok(Some(self.finish()))
                } else {
                    Err(Malformed::Surplus)
                };
            }
        }
        Ok(None)
    }

    /// The server has closed the connection. `Some` when that is how this response ends; `None`
    /// when it comes too early.
    pub fn eof(&mut self) -> Option<Finished> {
        (self.state == State::UntilEof).then(|| self.finish())
    }

    fn finish(&mut self) -> Finished {
        let finished = Finished { status: self.head.status, keep_alive: self.head.keep_alive };
        self.reset();
        finished
    }

    /// Takes bytes up to the end of a line, and the line, if it ends here. True when the response
    /// ends with it.
    fn feed_line(&mut self, bytes: &mut &[u8]) -> Result<bool, Malformed> {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            self.count(bytes.len())?;
            self.line.extend_from_slice(bytes);
            *bytes = &[];
            return Ok(false);
        };
        let (line, rest) = bytes.split_at(end + 1);
        *bytes = rest;
        self.count(line.len())?;
        if self.line.is_empty() {
            return self.on_line(trim_end(line));
        }
        let mut whole = std::mem::take(&mut self.line);
        whole.extend_from_slice(line);
        let ended = self.on_line(trim_end(&whole));
        whole.clear();
        self.line = whole;
        ended
    }

    /// Counts bytes of lines against the bounds, before any of them is kept.
    fn count(&mut self, bytes: usize) -> Result<(), Malformed> {
        // Chunk sizes do not add up: a body may have any number of chunks.
        if self.state != State::ChunkSize && self.state != State::ChunkEnd {
            self.lines_bytes += bytes;
        }
        if self.lines_bytes > HEAD_BYTES_MAX || self.line.len() + bytes > LINE_BYTES_MAX {
            return Err(Malformed::TooLong);
        }
        Ok(())
    }

    fn on_line(&mut self, line: &[u8]) -> Result<bool, Malformed> {
        match self.state {
            State::StatusLine => {
                self.head = status_line(line)?;
                self.state = State::Header;
                Ok(false)
            }
            State::Header if line.is_empty() => self.on_head_end(),
            State::Header => {
                self.head.on_header(line)?;
                Ok(false)
            }
            State::ChunkSize => {
                self.state = match chunk_size(line)? {
                    0 => State::Trailer,
                    left => State::ChunkData { left },
                };
                Ok(false)
            }
            State::ChunkEnd if line.is_empty() => {
                self.state = State::ChunkSize;
                Ok(false)
            }
            State::ChunkEnd => Err(Malformed::Chunk),
            State::Trailer => Ok(line.is_empty()),
            State::Sized { .. } | State::ChunkData { .. } | State::UntilEof => Ok(false),
        }
    }

    /// The empty line after the headers. True when no body follows.
    fn on_head_end(&mut self) -> Result<bool, Malformed> {
        let head = &mut self.head;
        match head.status {
            101 => return Err(Malformed::Upgrade),
            // An interim response: the real one follows.
            100..=199 => {
                self.state = State::StatusLine;
                return Ok(false);
            }
            204 | 304 => return Ok(true),
            _ => {}
        }
        // RFC 9112, 6.3: Transfer-Encoding overrides Content-Length; with neither, or with a coding
        // this client cannot delimit, the body lasts until the connection ends.
        self.state = if head.chunked {
            State::ChunkSize
        } else if let (false, Some(left)) = (head.other_coding, head.content_length) {
            State::Sized { left }
        } else {
            head.keep_alive = false;
            State::UntilEof
        };
        Ok(self.state == State::Sized { left: 0 })
    }
}

impl Head {
    fn on_header(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Malformed::Header)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        // A blank at the begin is a folded line, one before the colon hides a header from some
        // readers: both are forbidden (RFC 9112, 5.1 and 5.2).
        let is_token = |byte: &u8| byte.is_ascii_graphic();
        if name.is_empty() || !name.iter().all(is_token) {
            return Err(Malformed::Header);
        }
        // Lengths first: most headers are none of these.
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => self.on_content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                for coding in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    // Only the last coding delimits the body.
                    self.chunked = coding.eq_ignore_ascii_case(b"chunked");
                    self.other_coding = !self.chunked;
                }
                Ok(())
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    if option.eq_ignore_ascii_case(b"close") {
                        self.keep_alive = false;
                    } else if option.eq_ignore_ascii_case(b"keep-alive") {
                        self.keep_alive = true;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn on_content_length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        let value = value.trim_ascii();
        if value.is_empty() {
            return Err(Malformed::ContentLength);
        }
        let mut length: u64 = 0;
        for byte in value {
            let digit = byte.wrapping_sub(b'0');
            let next = length.checked_mul(10).and_then(|ten| ten.checked_add(u64::from(digit)));
            length = next.filter(|_| digit < 10).ok_or(Malformed::ContentLength)?;
        }
        if self.content_length.is_some_and(|before| before != length) {
            return Err(Malformed::ContentLength);
        }
        self.content_length = Some(length);
        Ok(())
    }
}

/// Drops up to `left` bytes from the front, and returns how many of `left` remain to come.
fn skip(bytes: &mut &[u8], left: u64) -> u64 {
    let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    *bytes = &bytes[taken..];
    left - taken as u64
}

/// Without its line end: LF, or CR LF.
fn trim_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn status_line(line: &[u8]) -> Result<Head, Malformed> {
    let bad = Malformed::StatusLine;
    let rest = line.strip_prefix(b"HTTP/1.").ok_or(bad)?;
    let [minor, b' ', a, b, c, rest @ ..] = rest else { return Err(bad) };
    let digits = [minor, a, b, c];
    if !digits.iter().all(|digit| digit.is_ascii_digit()) || *a == b'0' {
        return Err(bad);
    }
    if !matches!(rest, [] | [b' ', ..]) {
        return Err(bad);
    }
    let digit = |byte: &u8| u16::from(byte - b'0');
    Ok(Head {
        status: digit(a) * 100 + digit(b) * 10 + digit(c),
        keep_alive: *minor != b'0',
        ..Head::default()
    })
}

/// The number before any chunk extension.
fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    if digits.is_empty() || digits.len() > 16 {
        return Err(Malformed::Chunk);
    }
    digits.iter().try_fold(0, |size: u64, byte| {
        let digit = char::from(*byte).to_digit(16).ok_or(Malformed::Chunk)?;
        Ok(size << 4 | u64::from(digit))
    })
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
