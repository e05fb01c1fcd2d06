//! Tables and properties of the response scanner.

use proptest::prelude::*;

use super::*;

/// What a whole stream of bytes comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Finished(u16, bool),
    FinishedByEof(u16),
    Early,
    Malformed(Malformed),
}

/// Feeds the pieces, then the end of the stream.
fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> End {
    let mut scanner = Scanner::new();
    let mut finished = None;
    for piece in pieces {
        // Bytes after the end come as a surplus, whether in the same piece or in the next.
        if finished.is_some() && !piece.is_empty() {
            return End::Malformed(Malformed::Surplus);
        }
        match scanner.feed(piece) {
            Ok(Some(done)) => finished = Some(done),
            Ok(None) => {}
            Err(error) => return End::Malformed(error),
        }
    }
    match finished {
        Some(done) => {
            assert!(!scanner.begun(), "ready for the next response");
            End::Finished(done.status, done.keep_alive)
        }
        None => match scanner.eof() {
            Some(done) => End::FinishedByEof(done.status),
            None => End::Early,
        },
    }
}

fn cases() -> Vec<(&'static str, End)> {
    use End::{Early, Finished, FinishedByEof};
    let bad = End::Malformed;
    vec![
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Finished(200, true)),
        ("HTTP/1.1 202 Accepted\r\ncontent-length:0\r\n\r\n", Finished(202, true)),
        ("HTTP/1.1 503 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", Finished(503, false)),
        (
            "HTTP/1.1 200 OK\r\nConnection: Upgrade, Close\r\nContent-Length: 0\r\n\r\n",
            Finished(200, false),
        ),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", Finished(200, false)),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
            Finished(200, true),
        ),
        ("HTTP/1.1 200\nContent-Length: 1\n\nx", Finished(200, true)),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", Finished(204, true)),
        ("HTTP/1.1 304 x\r\n\r\n", Finished(304, true)),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            Finished(200, true),
        ),
        (
            "HTTP/1.1 103 Hints\r\nContent-Length: 7\r\n\r\nHTTP/1.1 404 x\r\nContent-Length: 1\r\n\r\n.",
            Finished(404, true),
        ),
        ("HTTP/1.1 200 OK\r\n\r\nuntil the end", FinishedByEof(200)),
        ("HTTP/1.1 200 OK\r\n\r\n", FinishedByEof(200)),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 1\r\n\r\nabc",
            FinishedByEof(200),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            Finished(200, true),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\nContent-Length: 1\r\n\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n",
            Finished(200, true),
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", Early),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", Early),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", Early),
        ("HTTP/1.1 200 OK\r\nConte", Early),
        ("", Early),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokay", bad(Malformed::Surplus)),
        ("HTTP/1.1 101 Switching\r\n\r\n", bad(Malformed::Upgrade)),
        ("HTTP/2 200 OK\r\n\r\n", bad(Malformed::StatusLine)),
        ("HTTP/1.1 20 OK\r\n\r\n", bad(Malformed::StatusLine)),
        ("HTTP/1.1 2000 OK\r\n\r\n", bad(Malformed::StatusLine)),
        ("HTTP/1.1 099 OK\r\n\r\n", bad(Malformed::StatusLine)),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", bad(Malformed::StatusLine)),
        ("SSH-2.0-OpenSSH_9.2\r\n", bad(Malformed::StatusLine)),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", bad(Malformed::Header)),
        ("HTTP/1.1 200 OK\r\n: x\r\n\r\n", bad(Malformed::Header)),
        ("HTTP/1.1 200 OK\r\nA: b\r\n folded: c\r\n\r\n", bad(Malformed::Header)),
        ("HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n", bad(Malformed::Header)),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", bad(Malformed::ContentLength)),
        ("HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", bad(Malformed::ContentLength)),
        ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", bad(Malformed::ContentLength)),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
            bad(Malformed::ContentLength),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            bad(Malformed::ContentLength),
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", bad(Malformed::Chunk)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", bad(Malformed::Chunk)),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n",
            bad(Malformed::Chunk),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n",
            bad(Malformed::Chunk),
        ),
    ]
}

#[test]
fn responses_end_where_they_say() {
    for (text, expected) in cases() {
        assert_eq!(scan([text.as_bytes()]), expected, "{text:?}");
    }
}

#[test]
fn byte_by_byte_is_the_same_as_at_once() {
    for (text, expected) in cases() {
        assert_eq!(scan(text.as_bytes().chunks(1)), expected, "{text:?}");
    }
}

#[test]
fn heads_and_lines_have_a_bound_on_both_sides() {
    let head = "HTTP/1.1 200 OK\r\n";
    let line = |bytes: usize| format!("A:{}\r\n", "b".repeat(bytes - 4));
    assert_eq!(scan([head.as_bytes(), line(LINE_BYTES_MAX).as_bytes()]), End::Early);
    let long = line(LINE_BYTES_MAX + 1);
    for step in [1, 100, long.len()] {
        let pieces = std::iter::once(head.as_bytes()).chain(long.as_bytes().chunks(step));
        assert_eq!(scan(pieces), End::Malformed(Malformed::TooLong), "pieces of {step}");
    }
    // A line that never ends is refused before it ends.
    let endless = "a".repeat(LINE_BYTES_MAX + 1);
    assert_eq!(scan([endless.as_bytes()]), End::Malformed(Malformed::TooLong));

    let fits = line(HEAD_BYTES_MAX / 4 - head.len());
    let pieces = [head, &fits, &fits, &fits, &fits].map(str::as_bytes);
    assert_eq!(scan(pieces), End::Early);
    let more = line(4 * head.len());
    let pieces = [head, &fits, &fits, &fits, &fits, &more].map(str::as_bytes);
    assert_eq!(scan(pieces), End::Malformed(Malformed::TooLong));
}

#[test]
fn any_number_of_chunks_may_come() {
    let mut scanner = Scanner::new();
    scanner.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    for _ in 0..HEAD_BYTES_MAX {
        assert_eq!(scanner.feed(b"1\r\nx\r\n"), Ok(None));
    }
    let done = Finished { status: 200, keep_alive: true };
    assert_eq!(scanner.feed(b"0\r\n\r\n"), Ok(Some(done)));
}

#[test]
fn one_response_after_another() {
    let mut scanner = Scanner::new();
    for status in [200, 503, 202] {
        let text = format!("HTTP/1.1 {status} x\r\nContent-Length: 1\r\n\r\ny");
        assert_eq!(scanner.feed(text.as_bytes()), Ok(Some(Finished { status, keep_alive: true })));
    }
}

/// Bytes that often look like a response.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Just(b"HTTP/1.0 100 \n".to_vec()),
        Just(b"Content-Length: 5\r\n".to_vec()),
        Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        Just(b"Connection: close\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"5\r\nabcde\r\n".to_vec()),
        Just(b"0\r\n\r\n".to_vec()),
        Just(b"ffffffffffffffff\r\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..12),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn how_the_bytes_are_cut_makes_no_difference(bytes in streams(), cuts in proptest::collection::vec(1usize..20, 1..60)) {
        let mut pieces = Vec::new();
        let mut rest = bytes.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, tail) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = tail;
        }
        prop_assert_eq!(scan(pieces), scan([bytes.as_slice()]));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        scan([bytes.as_slice()]);
    }
}
