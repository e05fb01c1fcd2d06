//! Opens reports from disk in headless chromium: no console message, no breach of the page's own
//! policy, flamegraphs that draw, zoom and search.
//!
//! Needs `chromium` and `chromedriver` (Debian: `apt-get install chromium chromium-driver`). In CI
//! their absence is a failure, elsewhere it is printed.

#![expect(clippy::disallowed_methods, reason = "a test that writes files and waits for a browser")]

mod report_fixture;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stallscope::report::html;

const ANSWER_WITHIN: Duration = Duration::from_mins(1);
const CONDITION_WITHIN: Duration = Duration::from_secs(30);
/// Key code of Enter in the `WebDriver` protocol (W3C, 17.4.2).
const ENTER: &str = "\u{e007}";

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
struct Browser<'a> {
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

    fn post(&self, what: &str, body: &Value) -> Value {
        self.driver
            .call("POST", &format!("/session/{}/{what}", self.session), body)
            .unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    fn script(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until a script returns true.
    fn wait(&self, condition: &str) {
        let begin = Instant::now();
        while self.script(&format!("return Boolean({condition})")) != Value::Bool(true) {
            assert!(begin.elapsed() < CONDITION_WITHIN, "never true: {condition}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn element(&self, css: &str) -> Value {
        self.post("element", &json!({ "using": "css selector", "value": css }))
    }

    fn act(&self, element: &Value, what: &str, body: &Value) {
        let id = element.as_object().and_then(|o| o.values().next()).and_then(Value::as_str);
        self.post(&format!("element/{}/{what}", id.expect("an element id")), body);
    }

    fn enter_frame(&self, css: &str) {
        let frame = self.element(css);
        self.post("frame", &json!({ "id": frame }));
    }

    fn leave_frame(&self) {
        self.post("frame", &json!({ "id": null }));
    }

    /// Everything the browser had to say: script errors, breaches of policy, failed requests.
    fn console(&self) -> Vec<Value> {
        self.post("se/log", &json!({ "type": "browser" })).as_array().cloned().unwrap_or_default()
    }
}

/// Runs a test in a browser, or says why not.
fn in_browser(test: impl FnOnce(&Browser<'_>, &Path)) {
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

#[test]
fn every_report_opens_from_disk_in_silence_and_draws_its_charts() {
    in_browser(|browser, folder| {
        for (name, incident) in report_fixture::all() {
            let path = folder.join(format!("{name}.html"));
            std::fs::write(&path, html(&incident)).expect("written");
            browser.post("url", &json!({ "url": format!("file://{}", path.display()) }));
            browser.wait("document.readyState === 'complete'");
            let styled = "getComputedStyle(document.querySelector('h1')).fontSize !== '2em' && \
                          getComputedStyle(document.querySelector('main')).maxWidth === '1080px'";
            browser.wait(styled);
            let wide = "return document.documentElement.scrollWidth - innerWidth";
            assert!(browser.script(wide).as_i64().is_some_and(|px| px <= 0), "{name} is too wide");
            let flat = "return [...document.querySelectorAll('path.line')].filter(p => \
                        p.getAttribute('d') && !(p.getBoundingClientRect().width > 0)).length";
            assert_eq!(browser.script(flat), 0, "{name}: a line has no extent");
            let frames = browser.script("return document.querySelectorAll('iframe').length");
            for n in 0..frames.as_u64().unwrap_or_default() {
                browser.post("frame", &json!({ "id": n }));
                browser.wait("document.querySelectorAll('#frames rect').length > 3");
                browser.leave_frame();
            }
            let console = browser.console();
            assert!(console.is_empty(), "{name}: {console:#?}");
        }
    });
}

#[test]
fn flamegraphs_zoom_and_search_by_pointer_and_by_keyboard() {
    in_browser(|browser, folder| {
        let path = folder.join("report.html");
        std::fs::write(&path, html(&report_fixture::sq_not_flushed())).expect("written");
        browser.post("url", &json!({ "url": format!("file://{}", path.display()) }));
        browser.enter_frame("#profiles iframe");
        browser.wait("document.querySelector('#frames g[tabindex]')");

        // Search: the tasks that keep the runtime awake are most of the stalled profile.
        let term = browser.element("#term");
        browser.act(&term, "value", &json!({ "text": format!("always_ready{ENTER}") }));
        browser.wait("document.getElementById('said').textContent.startsWith('Matched: 8')");
        browser.act(&browser.element("#clear"), "click", &json!({}));
        browser.wait("document.getElementById('said').textContent === ''");
        browser.act(&term, "value", &json!({ "text": format!("(unclosed{ENTER}") }));
        browser.wait("document.getElementById('said').textContent.startsWith('Not a regular')");

        // Zoom by keyboard, back by the button.
        let hidden = "document.querySelectorAll('#frames g.hide').length";
        browser.script(
            "[...document.querySelectorAll('#frames g[tabindex]')]\
             .find(g => g.getAttribute('aria-label').includes('yield_now')).focus()",
        );
        let focused = browser.script("return document.activeElement");
        browser.act(&focused, "value", &json!({ "text": ENTER }));
        browser.wait(&format!("{hidden} > 0"));
        browser.act(&browser.element("#reset"), "click", &json!({}));
        browser.wait(&format!("{hidden} === 0"));

        // Zoom by pointer.
        browser.script(
            "[...document.querySelectorAll('#frames g')]\
             .find(g => g.querySelector('title').textContent.includes('yield_now'))\
             .querySelector('rect').dispatchEvent(new MouseEvent('click', { bubbles: true }))",
        );
        browser.wait(&format!("{hidden} > 0"));
        let console = browser.console();
        assert!(console.is_empty(), "{console:#?}");
    });
}

#[test]
fn the_policy_of_the_page_stops_what_escaping_would_miss() {
    in_browser(|browser, folder| {
        let page = String::from_utf8(html(&report_fixture::sq_not_flushed())).expect("UTF-8");
        // As if escaping had failed: a script, a handler and a remote image in the page.
        let holed = page.replacen(
            "<main>",
            "<main><script>window.owned = 1</script>\
             <img src=\"http://127.0.0.1:9/x.png\" onerror=\"window.owned = 2\">",
            1,
        );
        assert_ne!(page, holed);
        let path = folder.join("holed.html");
        std::fs::write(&path, holed).expect("written");
        browser.post("url", &json!({ "url": format!("file://{}", path.display()) }));
        browser.wait("document.readyState === 'complete'");
        assert_eq!(browser.script("return window.owned || null"), Value::Null);
        let refused = browser
            .console()
            .iter()
            .filter(|entry| entry["message"].to_string().contains("Content Security Policy"))
            .count();
        assert!(refused >= 2, "the browser refused {refused} of them");
    });
}
