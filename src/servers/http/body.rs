//! Chunked bodies (RFC 9112, section 7.1), decoded in place: the content of each chunk is moved
//! down to the end of what was decoded before, so that a whole body lies in one piece.

use super::parse::Refusal;
use super::response::Status;

/// Longest line with a chunk's size and extensions.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Most bytes of extensions and trailers in one body: they are read and thrown away.
pub const CHUNK_EXTRAS_BYTES_MAX: usize = 16 * 1024;

/// Decodes one chunked body.
#[derive(Debug, Clone, Copy)]
pub struct Chunks {
    expects: Expects,
    /// End of the decoded content in the buffer.
    pub decoded_end: usize,
    /// Bytes of extensions and trailers so far.
    extras_bytes: usize,
    content_begin: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    SizeLine,
    Content(u64),
    ContentEnd,
    Trailer,
    Nothing,
}

const MALFORMED: Refusal =
    Refusal::new(Status::BadRequest, "the chunked body is not coded as it should be");
const EXTRAS: Refusal =
    Refusal::new(Status::BadRequest, "the chunked body has too many extensions or trailers");
const TOO_LARGE: Refusal =
    Refusal::new(Status::ContentTooLarge, "the body is larger than this server takes");

impl Chunks {
    /// A body whose first chunk begins at `begin` of the buffer.
    pub const fn beginning_at(begin: usize) -> Self {
        Self {
            expects: Expects::SizeLine,
            decoded_end: begin,
            extras_bytes: 0,
            content_begin: begin,
        }
    }

    /// The same after the first `bytes` of the buffer were removed.
    pub const fn moved_down(mut self, bytes: usize) -> Self {
        self.decoded_end -= bytes;
        self.content_begin -= bytes;
        self
    }

    /// Decodes what `buffer` holds beyond `decoded_end`; what was used is removed from it. True
    /// when the body is complete: what then follows `decoded_end` is the next request.
    pub fn decode(&mut self, buffer: &mut Vec<u8>, body_bytes_max: u64) -> Result<bool, Refusal> {
        let mut at = self.decoded_end;
        let outcome = self.advance(buffer, &mut at, body_bytes_max);
        // The gap between content and rest is closed at once: its size is the client's choice.
        buffer.drain(self.decoded_end..at);
        outcome
    }

    fn advance(
        &mut self,
        buffer: &mut [u8],
        at: &mut usize,
        body_bytes_max: u64,
    ) -> Result<bool, Refusal> {
        loop {
            match self.expects {
                Expects::SizeLine => {
                    let Some((line_bytes, size)) = size_line(&buffer[*at..])? else {
                        return Ok(false);
                    };
                    // Beyond the digits and CR LF it is extension; a few blanks do not matter.
                    self.spend_extras(line_bytes.saturating_sub(2 + 16))?;
                    *at += line_bytes;
                    let content = (self.decoded_end - self.content_begin) as u64;
                    if content.saturating_add(size) > body_bytes_max {
                        return Err(TOO_LARGE);
                    }
                    self.expects =
                        if size == 0 { Expects::Trailer } else { Expects::Content(size) };
                }
                Expects::Content(left) => {
                    let here = left.min((buffer.len() - *at) as u64) as usize;
                    buffer.copy_within(*at..*at + here, self.decoded_end);
                    self.decoded_end += here;
                    *at += here;
                    if (here as u64) < left {
                        self.expects = Expects::Content(left - here as u64);
                        return Ok(false);
                    }
                    self.expects = Expects::ContentEnd;
                }
                Expects::ContentEnd => match buffer[*at..] {
                    [b'\r', b'\n', ..] => {
                        *at += 2;
                        self.expects = Expects::SizeLine;
                    }
                    [] | [b'\r'] => return Ok(false),
                    _ => return Err(MALFORMED),
                },
                Expects::Trailer => {
                    let Some(line_bytes) = trailer_line(&buffer[*at..])? else {
                        return Ok(false);
                    };
                    *at += line_bytes;
                    if line_bytes == 2 {
                        self.expects = Expects::Nothing;
                    } else {
                        self.spend_extras(line_bytes)?;
                    }
                }
                Expects::Nothing => return Ok(true),
            }
        }
    }

    fn spend_extras(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.extras_bytes += bytes;
        if self.extras_bytes > CHUNK_EXTRAS_BYTES_MAX { Err(EXTRAS) } else { Ok(()) }
    }
}

/// Length of the line, with CR LF, and the size it gives.
fn size_line(bytes: &[u8]) -> Result<Option<(usize, u64)>, Refusal> {
    let window = &bytes[..bytes.len().min(CHUNK_LINE_BYTES_MAX)];
    match httparse::parse_chunk_size(window) {
        Ok(httparse::Status::Complete((line_bytes, size))) => {
            // httparse lets any octet stand in an extension. A bare LF there is taken for the end
            // of the line by some proxies: a way to smuggle a request.
            let line = &window[..line_bytes - 2];
            let begins_with_digit = line.first().is_some_and(u8::is_ascii_hexdigit);
            let is_clean = !line.iter().any(|byte| matches!(byte, b'\n' | b'\r' | 0));
            if begins_with_digit && is_clean {
                Ok(Some((line_bytes, size)))
            } else {
                Err(MALFORMED)
            }
        }
        Ok(httparse::Status::Partial) if window.len() == CHUNK_LINE_BYTES_MAX => Err(EXTRAS),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(MALFORMED),
    }
}

/// Length of a trailer line with CR LF; 2 is the empty line that ends the body.
fn trailer_line(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    let window = &bytes[..bytes.len().min(CHUNK_EXTRAS_BYTES_MAX)];
    match window.iter().position(|byte| *byte == b'\n') {
        Some(at) if at > 0 && window[at - 1] == b'\r' => Ok(Some(at + 1)),
        Some(_) => Err(MALFORMED),
        None if window.len() == CHUNK_EXTRAS_BYTES_MAX => Err(EXTRAS),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The decoded body and what follows it.
    type Decoded = (Vec<u8>, Vec<u8>);

    fn decode(text: &[u8], max: u64) -> Result<Option<Decoded>, u16> {
        let mut buffer = text.to_vec();
        let mut chunks = Chunks::beginning_at(0);
        match chunks.decode(&mut buffer, max) {
            Ok(true) => {
                let rest = buffer.split_off(chunks.decoded_end);
                Ok(Some((buffer, rest)))
            }
            Ok(false) => Ok(None),
            Err(refusal) => Err(refusal.status.code()),
        }
    }

    #[test]
    fn chunks_extensions_and_trailers() {
        let text = b"4;a=b\r\nwiki\r\n5\r\npedia\r\n0\r\nTrailer: x\r\n\r\nGET";
        let (body, rest) = decode(text, 9).unwrap().unwrap();
        assert_eq!((body.as_slice(), rest.as_slice()), (&b"wikipedia"[..], &b"GET"[..]));
        assert_eq!(decode(text, 8), Err(413), "one byte over the limit");
        assert_eq!(decode(&text[..text.len() - 5], 9), Ok(None), "the last line is missing");
        assert_eq!(decode(b"0\r\n\r\n", 0).unwrap().unwrap().0, b"");
    }

    #[test]
    fn what_is_not_chunked_is_refused() {
        let cases: [&[u8]; 8] = [
            b"\r\n",
            b";ext\r\n",
            b"x\r\n",
            b"11111111111111111\r\n",
            b"3\r\nabcd",
            b"3\nabc\r\n0\r\n\r\n",
            b"3;a\nb\r\nabc\r\n0\r\n\r\n",
            b"0\r\nX: y\n\r\n",
        ];
        for text in cases {
            assert_eq!(decode(text, 100), Err(400), "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn extensions_and_trailers_have_a_bound() {
        let long_line = [b"1;".as_slice(), &[b'x'; CHUNK_LINE_BYTES_MAX]].concat();
        assert_eq!(decode(&long_line, 100), Err(400));
        let line = format!("1;{}\r\nz\r\n", "x".repeat(200));
        assert_eq!(decode(line.repeat(80).as_bytes(), 100), Ok(None));
        assert_eq!(decode(line.repeat(100).as_bytes(), 100), Err(400));
        let trailers = format!("0\r\n{}", "X: y\r\n".repeat(3000));
        assert_eq!(decode(trailers.as_bytes(), 100), Err(400));
    }
}
