//! A headless chromium, driven by chromedriver.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const ANSWER_WITHIN: Duration = Duration::from_mins(1);
const CONDITION_WITHIN: Duration = Duration::from_secs(30);
/// Key code of Enter in the `WebDriver` protocol (W3C, 17.4.2).
pub const ENTER: &str = "\u{e007}";

/// A running chromedriver; ended with the test.
struct Driver {
    child: Child,
    port: u16,
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Driver {
    /// Starts it on a port of its own choice; `None` when it is not installed.
    fn start() -> Option<Self> {
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let port = stdout.lines().map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse().ok()
        });
        Some(Self { child, port: port.expect("chromedriver names its port") })
    }

    /// One request of the `WebDriver` protocol; the `value` of the answer.
    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value, Value> {
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let mut stream =
            TcpStream::connect(("127.0.0.1", self.port)).expect("chromedriver answers");
        stream.set_read_timeout(Some(ANSWER_WITHIN)).expect("timeout");
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.port,
            body.len()
        )
        .expect("request");
        let answer = body_of(&mut BufReader::new(stream));
        let mut answer: Value = serde_json::from_slice(&answer).expect("JSON");
        let value = answer["value"].take();
        if value.get("error").is_some() { Err(value) } else { Ok(value) }
    }
}

/// The body of an HTTP answer with a length.
fn body_of(stream: &mut impl std::io::BufRead) -> Vec<u8> {
    let mut length = None;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).expect("header");
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
    }
    let mut body = vec![0; length.expect("a length")];
    stream.read_exact(&mut body).expect("body");
    body
}

/// One browser window.
pub struct Browser<'a> {
    driver: &'a Driver,
    session: String,
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        let _ = self.driver.call("DELETE", &format!("/session/{}", self.session), &Value::Null);
    }
}

impl<'a> Browser<'a> {
    fn start(driver: &'a Driver, profile: &Path) -> Result<Self, Value> {
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1280,1000",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": args },
            "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let session = driver.call("POST", "/session", &capabilities)?;
        let session = session["sessionId"].as_str().expect("a session id").to_owned();
        Ok(Self { driver, session })
    }

    pub fn post(&self, what: &str, body: &Value) -> Value {
        self.driver
            .call("POST", &format!("/session/{}/{what}", self.session), body)
            .unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    pub fn script(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until a script returns true.
    pub fn wait(&self, condition: &str) {
        let begin = Instant::now();
        while self.script(&format!("return Boolean({condition})")) != Value::Bool(true) {
            assert!(begin.elapsed() < CONDITION_WITHIN, "never true: {condition}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Opens a page from disk and waits until it is there.
    pub fn open(&self, path: &Path) {
        self.post("url", &json!({ "url": format!("file://{}", path.display()) }));
        self.wait("document.readyState === 'complete'");
    }

    /// One command of the browser's own protocol.
    pub fn devtools(&self, command: &str, params: &Value) -> Value {
        self.post("goog/cdp/execute", &json!({ "cmd": command, "params": params }))
    }

    /// Shows pages as a medium and a preference have it: `screen` or `print`, `light` or `dark`.
    pub fn emulate(&self, medium: &str, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let params = json!({ "media": medium, "features": features });
        self.devtools("Emulation.setEmulatedMedia", &params);
    }

    /// The size of the window, px.
    pub fn resize(&self, width: u32, height: u32) {
        let params =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", &params);
    }

    /// Keys to what has the focus.
    pub fn keys(&self, text: &str) {
        let focused = self.script("return document.activeElement");
        self.act(&focused, "value", &json!({ "text": text }));
    }

    pub fn element(&self, css: &str) -> Value {
        self.post("element", &json!({ "using": "css selector", "value": css }))
    }

    pub fn act(&self, element: &Value, what: &str, body: &Value) {
        let id = element.as_object().and_then(|o| o.values().next()).and_then(Value::as_str);
        self.post(&format!("element/{}/{what}", id.expect("an element id")), body);
    }

    pub fn enter_frame(&self, css: &str) {
        let frame = self.element(css);
        // A frame out of sight does not begin to draw.
        self.post(
            "execute/sync",
            &json!({ "script": "arguments[0].scrollIntoView()", "args": [frame] }),
        );
        self.post("frame", &json!({ "id": frame }));
    }

    pub fn leave_frame(&self) {
        self.post("frame", &json!({ "id": null }));
    }

    /// A picture of what the window shows.
    pub fn picture(&self, path: &Path) {
        self.devtools("Emulation.setScrollbarsHidden", &json!({ "hidden": true }));
        let answer = self.devtools("Page.captureScreenshot", &json!({ "format": "png" }));
        let data = answer["data"].as_str().expect("a picture");
        std::fs::write(path, base64(data)).expect("written");
    }

    /// Everything the browser had to say: script errors, breaches of policy, failed requests.
    pub fn console(&self) -> Vec<Value> {
        self.post("se/log", &json!({ "type": "browser" })).as_array().cloned().unwrap_or_default()
    }
}

/// Runs a test in a browser, or says why not.
pub fn in_browser(test: impl FnOnce(&Browser<'_>, &Path)) {
    let folder = tempfile::tempdir().expect("folder");
    let started = Driver::start();
    let browser =
        started.as_ref().map(|driver| Browser::start(driver, &folder.path().join("user")));
    match browser {
        Some(Ok(browser)) => test(&browser, folder.path()),
        Some(Err(error)) => absent(&format!("chromedriver could not start chromium: {error}")),
        None => absent("chromedriver is not installed"),
    }
}

fn absent(reason: &str) {
    let advice = "Debian: apt-get install chromium chromium-driver";
    assert!(std::env::var_os("CI").is_none(), "{reason}; CI must open the report. {advice}");
    eprintln!("NOT TESTED: {reason}. {advice}");
}

/// RFC 4648, section 4, read.
fn base64(text: &str) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let sixes: Vec<u8> = text.bytes().filter_map(value).collect();
    sixes
        .chunks(4)
        .flat_map(|four| {
            let bits = four.iter().fold(0_u32, |bits, six| bits << 6 | u32::from(*six));
            let bits = bits << (6 * (4 - four.len()));
            bits.to_be_bytes()[1..four.len()].to_vec()
        })
        .collect()
}
