//! What a load run is to do. Pure: the name is resolved by [`run`](super::run()).

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Connections one run may hold: below the 64 Ki ports a client has towards one server address.
pub const CONNECTIONS_MAX: usize = 60_000;
/// Requests per second an open loop may be asked for.
pub const RATE_MAX: u64 = 10_000_000;
/// Characters of `data` in a request body.
pub const DATA_BYTES_MAX: usize = 16 << 20;
/// Length of a URL.
pub const URL_BYTES_MAX: usize = 8192;

/// What the data is made of.
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";

/// Where requests go, from a URL: `http://HOST[:PORT][/PATH]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name or address; an IPv6 address stands without its brackets.
    pub host: String,
    /// Port; 80 when the URL names none.
    pub port: u16,
    /// Path and query; `None` when the URL ends with the port.
    pub path: Option<String>,
}

/// Why a text is not a URL that can be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// TLS.
    #[error("https is not supported: load the server behind the TLS end, by http://")]
    Https,
    /// No scheme, or another one.
    #[error("a URL must begin with http://, like http://127.0.0.1:8080/events")]
    Scheme,
    /// No host, or one with characters no host has.
    #[error("'{0}' is not a host: write a name, an IPv4 address, or an IPv6 address in brackets")]
    Host(String),
    /// Not 1 to 65535.
    #[error("'{0}' is not a port: write a number from 1 to 65535")]
    Port(String),
    /// A user name or password.
    #[error("a user name in the URL is not supported")]
    User,
    /// A character that must be percent-encoded.
    #[error("the path holds a character that must be percent-encoded (such as %20 for a blank)")]
    Path,
    /// Longer than [`URL_BYTES_MAX`].
    #[error("the URL is longer than {URL_BYTES_MAX} bytes")]
    Long,
}

impl std::str::FromStr for Target {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        if url.len() > URL_BYTES_MAX {
            return Err(UrlError::Long);
        }
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::Scheme)?;
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" => return Err(UrlError::Https),
            _ => return Err(UrlError::Scheme),
        }
        // A fragment is never sent (RFC 9110, 7.1).
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (host, port) = split_authority(authority)?;
        Ok(Self { host, port, path: path_of(path)? })
    }
}

fn split_authority(authority: &str) -> Result<(String, u16), UrlError> {
    if authority.contains('@') {
        return Err(UrlError::User);
    }
    let bad_host = || UrlError::Host(authority.escape_default().to_string());
    let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, port) = bracketed.split_once(']').ok_or_else(bad_host)?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| bad_host())?;
        match port {
            "" => (host, None),
            port => (host, Some(port.strip_prefix(':').ok_or_else(bad_host)?)),
        }
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_name) {
        return Err(bad_host());
    }
    let port = match port {
        None => 80,
        Some(text) => {
            let bad_port = || UrlError::Port(text.escape_default().to_string());
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let port = text.parse().ok().filter(|port| digits && *port > 0);
            port.ok_or_else(bad_port)?
        }
    };
    Ok((host.to_owned(), port))
}

fn path_of(path: &str) -> Result<Option<String>, UrlError> {
    // Visible ASCII only: a blank or a line end would let a URL write headers.
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(UrlError::Path);
    }
    Ok(match path.bytes().next() {
        None => None,
        Some(b'/') => Some(path.to_owned()),
        Some(_) => Some(format!("/{path}")),
    })
}

impl Target {
    /// Host and port as a URL writes them.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// The request every connection sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `GET`, without a body.
    Get,
    /// `POST` of `{"data":"…"}`.
    Post {
        /// Characters in `data`.
        data_bytes: usize,
    },
}

/// A whole run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where to.
    pub target: Target,
    /// What.
    pub method: Method,
    /// Connections held at once, 1 to [`CONNECTIONS_MAX`].
    pub connections: usize,
    /// A new connection for each request.
    pub close: bool,
    /// Open loop: requests per second over all connections, 1 to [`RATE_MAX`]. `None`: closed
    /// loop, in which a connection sends as soon as it has its response.
    pub rate: Option<u64>,
    /// How long to go on.
    pub duration: Duration,
    /// How long a connect, and a request, may each take.
    pub timeout: Duration,
    /// Set to end the run early.
    pub stop: Arc<AtomicBool>,
}

impl Plan {
    /// The default plan: 64 kept connections, closed loop, 10 s, 64 characters of data.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            method: Method::Post { data_bytes: 64 },
            connections: 64,
            close: false,
            rate: None,
            duration: Duration::from_secs(10),
            timeout: Duration::from_secs(10),
            stop: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Path and query of each request: that of the URL, else `/events` (GET: `/`).
    pub fn path(&self) -> &str {
        let fallback = match self.method {
            Method::Get => "/",
            Method::Post { .. } => "/events",
        };
        self.target.path.as_deref().unwrap_or(fallback)
    }

    /// Name of the method.
    pub const fn method_name(&self) -> &'static str {
        match self.method {
            Method::Get => "GET",
            Method::Post { .. } => "POST",
        }
    }

    /// The bytes of one request: every request of a run is the same.
    pub fn request_bytes(&self) -> Vec<u8> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: stallscope/{}\r\nAccept: */*\r\n",
            self.method_name(),
            self.path(),
            self.target.authority(),
            env!("CARGO_PKG_VERSION"),
        );
        if self.close {
            head.push_str("Connection: close\r\n");
        }
        let body = match self.method {
            Method::Get => String::new(),
            Method::Post { data_bytes } => {
                let mut letters = LETTERS.repeat(data_bytes.div_ceil(LETTERS.len()));
                letters.truncate(data_bytes);
                format!("{{\"data\":\"{letters}\"}}")
            }
        };
        if let Method::Post { .. } = self.method {
            head.push_str("Content-Type: application/json\r\n");
            // Writing to a String cannot fail.
            let _ = write!(head, "Content-Length: {}\r\n", body.len());
        }
        head.push_str("\r\n");
        head.push_str(&body);
        head.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str, port: u16, path: Option<&str>) -> Target {
        Target { host: host.to_owned(), port, path: path.map(str::to_owned) }
    }

    #[test]
    fn urls_are_taken_apart() {
        let cases = [
            ("http://127.0.0.1:8080/events", target("127.0.0.1", 8080, Some("/events"))),
            ("http://localhost", target("localhost", 80, None)),
            ("HTTP://a.b:1", target("a.b", 1, None)),
            ("http://[::1]:9000/", target("::1", 9000, Some("/"))),
            ("http://[fe80::1]", target("fe80::1", 80, None)),
            ("http://h/a?b=c#d", target("h", 80, Some("/a?b=c"))),
            ("http://h:1?b", target("h", 1, Some("/?b"))),
        ];
        for (url, expected) in cases {
            assert_eq!(url.parse(), Ok(expected), "{url}");
        }
    }

    #[test]
    fn what_is_not_a_url_is_refused_with_the_reason() {
        let host = |text: &str| UrlError::Host(text.to_owned());
        let port = |text: &str| UrlError::Port(text.to_owned());
        let cases = [
            ("https://h/", UrlError::Https),
            ("ftp://h/", UrlError::Scheme),
            ("127.0.0.1:80", UrlError::Scheme),
            ("", UrlError::Scheme),
            ("http://", host("")),
            ("http://:80", host(":80")),
            ("http://a b/", host("a b")),
            ("http://[::1", host("[::1")),
            ("http://[nine]:1", host("[nine]:1")),
            ("http://[::1]1", host("[::1]1")),
            ("http://::1:80/", host("::1:80")),
            ("http://h:", port("")),
            ("http://h:0", port("0")),
            ("http://h:+80", port("+80")),
            ("http://h:65536", port("65536")),
            ("http://u:p@h/", UrlError::User),
            ("http://h/a b", UrlError::Path),
            ("http://h/a\r\nX: y", UrlError::Path),
        ];
        for (url, expected) in cases {
            assert_eq!(url.parse::<Target>(), Err(expected), "{url:?}");
        }
        let long = format!("http://h/{}", "a".repeat(URL_BYTES_MAX));
        assert_eq!(long.parse::<Target>(), Err(UrlError::Long));
    }

    #[test]
    fn the_request_is_what_the_plan_says() {
        let mut plan = Plan::new(target("::1", 9000, None));
        plan.method = Method::Post { data_bytes: 28 };
        let post = String::from_utf8(plan.request_bytes()).unwrap();
        assert!(post.starts_with("POST /events HTTP/1.1\r\nHost: [::1]:9000\r\n"), "{post}");
        assert!(post.contains("\r\nContent-Length: 39\r\n\r\n"), "{post}");
        assert!(post.ends_with("{\"data\":\"abcdefghijklmnopqrstuvwxyzab\"}"), "{post}");
        assert!(!post.contains("Connection:"), "{post}");

        plan.method = Method::Get;
        plan.close = true;
        let get = String::from_utf8(plan.request_bytes()).unwrap();
        assert!(get.starts_with("GET / HTTP/1.1\r\n"), "{get}");
        assert!(get.ends_with("Connection: close\r\n\r\n"), "{get}");
    }
}
