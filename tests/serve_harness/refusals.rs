//! Requests that are refused, and how: the table both servers must agree with.

/// An error response, the connection closed after it or not.
pub fn error(status: &str, header: &str, sentence: &str, closes: bool) -> Vec<u8> {
    let body = format!("{{\"error\":{}}}\n", serde_json::Value::from(sentence));
    let length = body.len();
    let close = if closes { "Connection: close\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{header}Content-Length: {length}\r\n\
         {close}\r\n{body}"
    )
    .into_bytes()
}

/// What hyper answers where it does not leave the answer to the server: it refuses a malformed
/// request itself, without a body; believes the transfer coding where a length is given too (RFC
/// 9112, section 6.3, permits either); and speaks HTTP/1.0 with a client that does.
pub fn of_hyper(name: &str) -> Option<String> {
    let refused = |status: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    };
    Some(match name {
        "431 too long" | "431 too many" => refused("431 Request Header Fields Too Large"),
        "400 two lengths" | "400 no request" | "501" => refused("400 Bad Request"),
        "400 two framings" => {
            let sentence = "the body is not {\"data\":\"<text>\"}: EOF while parsing a value at line \
                            1 column 0";
            let response = error("422 Unprocessable Content", "", sentence, true);
            String::from_utf8_lossy(&response).into_owned()
        }
        "HTTP/1.0 kept, then closed" => String::from(
            "HTTP/1.0 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\
             Connection: keep-alive\r\n\r\n\
             HTTP/1.0 202 Accepted\r\nContent-Length: 0\r\n\r\n",
        ),
        _ => return None,
    })
}

/// Requests, and the response that ends the connection.
#[expect(clippy::too_many_lines, reason = "it is a table")]
pub fn refusals() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let post = |lines: &str, body: &str| {
        format!("POST /events HTTP/1.1\r\nHost: h\r\n{lines}\r\n{body}").into_bytes()
    };
    let sized = |body: &str| {
        post(&format!("Connection: close\r\nContent-Length: {}\r\n", body.len()), body)
    };
    let get = |target: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").into_bytes()
    };
    let bad = |sentence| error("400 Bad Request", "", sentence, true);
    let unprocessable = |detail: &str| {
        let sentence = format!("the body is not {{\"data\":\"<text>\"}}: {detail}");
        error("422 Unprocessable Content", "", &sentence, true)
    };
    let too_large =
        || error("413 Content Too Large", "", "the body is larger than this server takes", true);
    vec![
        (
            "404",
            get("/nowhere"),
            error("404 Not Found", "", "the paths are /events and /healthz", true),
        ),
        (
            "405",
            get("/events"),
            error("405 Method Not Allowed", "Allow: POST\r\n", "this path allows POST", true),
        ),
        (
            "405 the other way",
            b"PUT /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_vec(),
            error(
                "405 Method Not Allowed",
                "Allow: GET, HEAD\r\n",
                "this path allows GET, HEAD",
                true,
            ),
        ),
        (
            "411",
            post("Connection: close\r\n", ""),
            error(
                "411 Length Required",
                "",
                "POST needs Content-Length or Transfer-Encoding: chunked",
                true,
            ),
        ),
        ("413 announced", post("Content-Length: 1001\r\n", &"x".repeat(300_000)), too_large()),
        (
            "413 chunked",
            post("Transfer-Encoding: chunked\r\n", &format!("3e9\r\n{}", "x".repeat(300_000))),
            too_large(),
        ),
        (
            "431 too long",
            post(&format!("X: {}\r\n", "x".repeat(20_000)), ""),
            error(
                "431 Request Header Fields Too Large",
                "",
                "the header section is longer than 16 KiB",
                true,
            ),
        ),
        (
            "431 too many",
            post(&"X: y\r\n".repeat(70), ""),
            error(
                "431 Request Header Fields Too Large",
                "",
                "there are more than 64 header lines",
                true,
            ),
        ),
        ("422 no JSON", sized("nonsense"), unprocessable("expected ident at line 1 column 2")),
        (
            "422 unknown field",
            sized(r#"{"data":"x","more":1}"#),
            unprocessable("unknown field `more`, expected `data` at line 1 column 18"),
        ),
        ("422 empty", sized("{}"), unprocessable("missing field `data` at line 1 column 2")),
        (
            "422 wrong type",
            sized(r#"{"data":5}"#),
            unprocessable("invalid type: integer `5`, expected a string at line 1 column 9"),
        ),
        (
            "400 two lengths",
            post("Content-Length: 3\r\nContent-Length: 4\r\n", "abcd"),
            bad("there are different Content-Length values"),
        ),
        (
            "400 two framings",
            post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            bad("both Content-Length and Transfer-Encoding are given"),
        ),
        (
            "400 no request",
            [b"\x16\x03\x01\x02\x00".as_slice(), &[0xff; 300]].concat(),
            bad("the request line is malformed"),
        ),
        (
            "400 chunk size",
            post("Transfer-Encoding: chunked\r\n", "xyz\r\n"),
            bad("the chunked body is not coded as it should be"),
        ),
        (
            "400 no Host",
            b"GET /healthz HTTP/1.1\r\n\r\n".to_vec(),
            bad("an HTTP/1.1 request needs exactly one Host header"),
        ),
        (
            "501",
            post("Transfer-Encoding: gzip\r\n", ""),
            error(
                "501 Not Implemented",
                "",
                "the only transfer coding this server knows is chunked",
                true,
            ),
        ),
        (
            "417",
            post("Expect: miracles\r\n", ""),
            error(
                "417 Expectation Failed",
                "",
                "the only expectation this server knows is 100-continue",
                true,
            ),
        ),
        (
            "404 before the body",
            b"POST /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
                .to_vec(),
            error("404 Not Found", "", "the paths are /events and /healthz", true),
        ),
    ]
}
