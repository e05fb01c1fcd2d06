use proptest::prelude::*;

use super::*;

const BODY_BYTES_MAX: u64 = 64;

/// Feeds `pieces` one after the other and writes down everything that comes out.
fn transcript(pieces: &[&[u8]]) -> Vec<String> {
    let mut parser = Parser::new(BODY_BYTES_MAX);
    let mut lines = Vec::new();
    for piece in pieces {
        let mut buffer = parser.take_buffer();
        assert!(buffer.capacity() - buffer.len() >= READ_BYTES);
        buffer.extend_from_slice(piece);
        parser.put_buffer(buffer);
        loop {
            let step = parser.step();
            let line = match &step {
                Step::NeedBytes => break,
                Step::Expects(request) => format!("expects {:?}", request.path),
                Step::Request(request) => format!(
                    "{:?} {} {:?} keep={}",
                    request.head.method,
                    String::from_utf8_lossy(request.path),
                    String::from_utf8_lossy(request.body),
                    request.head.keep_alive,
                ),
                Step::Refused(refusal) => format!("refused {refusal:?}"),
            };
            lines.push(line);
        }
    }
    lines
}

/// Requests of every kind, to be strung together.
const SAMPLES: [&str; 12] = [
    "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n",
    "HEAD /healthz?q HTTP/1.1\r\nHost: h\r\n\r\n",
    "POST /events HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\n{\"data\":\"x\"}",
    "\r\n\nPOST /events HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
    "POST /e HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n",
    "POST /e HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: 1\r\n\r\n",
    "POST /e HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "POST /big HTTP/1.1\r\nHost: h\r\nContent-Length: 65\r\n\r\n",
    "POST /e HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "nonsense that is no request at all, and is longer than the first attempt is made at\r\n",
    "GET / HTTP/1.1\nHost: h\n\n",
];

#[test]
fn requests_follow_one_another() {
    let text = [SAMPLES[2], SAMPLES[4], SAMPLES[3], SAMPLES[0]].concat();
    assert_eq!(
        transcript(&[text.as_bytes()]),
        [
            "Post /events \"{\\\"data\\\":\\\"x\\\"}\" keep=true",
            "Post /e \"abcde\" keep=true",
            "Post /events \"\" keep=true",
            "Get /healthz \"\" keep=true",
        ]
    );
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let refused = transcript(&[SAMPLES[8].as_bytes()]);
    assert!(refused[0].contains("ContentTooLarge"), "{refused:?}");
    let allowed = "POST /big HTTP/1.1\r\nHost: h\r\nContent-Length: 64\r\n\r\n";
    assert!(transcript(&[allowed.as_bytes()]).is_empty(), "its body is still to come");
}

#[test]
fn a_partial_request_is_not_idle_and_an_empty_line_is() {
    let mut parser = Parser::new(BODY_BYTES_MAX);
    for (text, is_idle) in [("\r\n", true), ("G", false), ("ET / HTTP/1.0\r\n\r\n", true)] {
        let mut buffer = parser.take_buffer();
        buffer.extend_from_slice(text.as_bytes());
        parser.put_buffer(buffer);
        while parser.step() != Step::NeedBytes {}
        assert_eq!(parser.is_idle(), is_idle, "{text:?}");
    }
}

/// The cuts of `text` into pieces.
fn pieces<'a>(text: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
    places.extend([0, text.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn any_split_gives_the_same(
        chosen in prop::collection::vec(0..SAMPLES.len(), 1..6),
        cuts in prop::collection::vec(any::<usize>(), 0..40),
    ) {
        let text: String = chosen.iter().map(|index| SAMPLES[*index]).collect();
        let whole = transcript(&[text.as_bytes()]);
        prop_assert_eq!(&transcript(&pieces(text.as_bytes(), &cuts)), &whole);
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        prop_assert_eq!(&transcript(&bytes), &whole);
    }

    #[test]
    fn damaged_requests_never_panic_and_split_alike(
        chosen in prop::collection::vec(0..SAMPLES.len(), 1..4),
        damage in prop::collection::vec((any::<usize>(), any::<u8>()), 0..4),
        cuts in prop::collection::vec(any::<usize>(), 0..10),
    ) {
        let mut text: Vec<u8> = chosen.iter().flat_map(|index| SAMPLES[*index].bytes()).collect();
        for (place, byte) in damage {
            let place = place % text.len();
            text[place] = byte;
        }
        prop_assert_eq!(transcript(&pieces(&text, &cuts)), transcript(&[&text]));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        transcript(&[&bytes]);
    }
}
