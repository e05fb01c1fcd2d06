//! `stallscope load`, the real binary, against small servers that behave as each test needs.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "what fails in a test server shall end the test")]
#![expect(clippy::disallowed_methods, reason = "tests set up a namespace and bound their waits")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok";
/// What a run may take beyond `--for`, on a machine that is busy with other things.
const GRACE: Duration = Duration::from_secs(20);
/// Set when a test runs in a network namespace of its own.
const PRIVATE_NAMESPACE: &str = "STALLSCOPE_TEST_PRIVATE_NAMESPACE";

/// Starts a server on a free port: `handle` gets each connection in its own thread, and its number.
fn serve(address: &str, handle: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    let local = listener.local_addr().unwrap();
    let handle = Arc::new(handle);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let (handle, stream) = (handle.clone(), stream.unwrap());
            std::thread::spawn(move || handle(stream, number));
        }
    });
    local
}

/// Reads one request, head and body; `None` when the client has gone.
fn read_request(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut request = String::new();
    let mut length = 0;
    loop {
        let begin = request.len();
        if stream.read_line(&mut request).ok()? == 0 {
            return None;
        }
        let line = request[begin..].trim_end();
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    request.push_str(std::str::from_utf8(&body).unwrap());
    Some(request)
}

/// Answers every request on a connection with the same bytes.
fn answer_all(stream: TcpStream, response: &str) {
    let mut stream = BufReader::new(stream);
    while read_request(&mut stream).is_some() {
        if stream.get_mut().write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

fn stallscope(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stallscope"));
    command.arg("load").args(arguments).stdin(Stdio::null());
    command
}

/// Runs with `--json`: the exit code, the object, and stderr.
fn load(address: SocketAddr, arguments: &[&str]) -> (i32, Value, String) {
    let url = format!("http://{address}");
    let output = stallscope(&[&url, "--json"]).args(arguments).output().unwrap();
    result_of(&output)
}

fn result_of(output: &Output) -> (i32, Value, String) {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    let json = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no JSON on stdout: {error}; stderr: {stderr}"));
    (output.status.code().unwrap(), json, stderr)
}

fn number(json: &Value, key: &str) -> u64 {
    json[key].as_u64().unwrap_or_else(|| panic!("no number {key} in {json}"))
}

/// (errno, count) of one kind of error.
fn error(json: &Value, kind: &str) -> Option<(Option<i64>, u64)> {
    let errors = json["errors"].as_array().unwrap();
    let found = errors.iter().find(|error| error["kind"] == kind)?;
    Some((found["errno"].as_i64(), number(found, "count")))
}

/// Nothing is counted twice, nothing is lost.
fn assert_adds_up(json: &Value) {
    let request_kinds = ["reset", "unexpected_eof", "request_timeout", "malformed_response", "io"];
    let errors = json["errors"].as_array().unwrap();
    let failed: u64 = errors
        .iter()
        .filter(|error| request_kinds.contains(&error["kind"].as_str().unwrap()))
        .map(|error| number(error, "count"))
        .sum();
    let requests = number(json, "responses") + failed + number(json, "unfinished");
    assert_eq!(number(json, "requests"), requests, "{json}");
    let by_status = json["responses_by_status"].as_object().unwrap();
    let responses: u64 = by_status.values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(number(json, "responses"), responses, "{json}");
}

#[test]
fn what_is_counted_is_what_the_server_saw() {
    let seen = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(String::new())));
    let in_server = seen.clone();
    let address = serve("127.0.0.1:0", move |stream, _| {
        let (connections, requests, last) = &*in_server;
        connections.fetch_add(1, Ordering::SeqCst);
        let mut stream = BufReader::new(stream);
        while let Some(request) = read_request(&mut stream) {
            requests.fetch_add(1, Ordering::SeqCst);
            *last.lock().unwrap() = request;
            if stream.get_mut().write_all(ACCEPTED.as_bytes()).is_err() {
                return;
            }
        }
    });
    let arguments = ["--connections", "4", "--for", "500ms", "--data-bytes", "3"];
    let (code, json, stderr) = load(address, &arguments);
    let (connections, requests, last) = &*seen;
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_adds_up(&json);
    assert_eq!(json["errors"], serde_json::json!([]));
    assert_eq!(number(&json, "connections_opened"), 4);
    assert_eq!(connections.load(Ordering::SeqCst), 4);
    let responses = number(&json, "responses");
    assert_eq!(number(&json, "accepted_2xx"), responses);
    assert_eq!(json["responses_by_status"]["202"], responses);
    // The last request of each connection may be cut off by the end of the run.
    let served = requests.load(Ordering::SeqCst) as u64;
    assert!((responses..=responses + 4).contains(&served), "served {served}, counted {responses}");
    let last = last.lock().unwrap();
    assert!(last.starts_with("POST /events HTTP/1.1\r\n"), "{last}");
    assert!(last.ends_with("\r\n\r\n{\"data\":\"abc\"}"), "{last}");
}

#[test]
fn get_asks_for_the_path_of_the_url() {
    let last = Arc::new(Mutex::new(String::new()));
    let in_server = last.clone();
    let address = serve("127.0.0.1:0", move |stream, _| {
        let mut stream = BufReader::new(stream);
        while let Some(request) = read_request(&mut stream) {
            *in_server.lock().unwrap() = request;
            // Chunked, in three pieces.
            for piece in [
                "HTTP/1.1 200 OK\r\nTransfer-Enc",
                "oding: chunked\r\n\r\n2\r\no",
                "k\r\n0\r\n\r\n",
            ] {
                if stream.get_mut().write_all(piece.as_bytes()).is_err() {
                    return;
                }
            }
        }
    });
    let url = format!("http://{address}/health?x=1");
    let arguments = [&url, "--json", "--get", "--connections", "1", "--for", "300ms"];
    let (code, json, _) = result_of(&stallscope(&arguments).output().unwrap());
    assert_eq!(code, 0, "{json}");
    assert_eq!(json["errors"], serde_json::json!([]));
    assert!(last.lock().unwrap().starts_with("GET /health?x=1 HTTP/1.1\r\n"));
}

#[test]
fn close_opens_a_connection_for_each_request() {
    let answered = Arc::new(AtomicUsize::new(0));
    let in_server = answered.clone();
    let address = serve("127.0.0.1:0", move |stream, _| {
        let mut stream = BufReader::new(stream);
        let Some(request) = read_request(&mut stream) else { return };
        assert!(request.contains("\r\nConnection: close\r\n"), "{request}");
        if stream.get_mut().write_all(ACCEPTED.as_bytes()).is_ok() {
            in_server.fetch_add(1, Ordering::SeqCst);
        }
        // The server would take another request: it is the client that must not send one.
        assert_eq!(read_request(&mut stream), None, "a second request on a connection");
        in_server.fetch_add(1_000_000, Ordering::SeqCst);
    });
    let (code, json, _) = load(address, &["--close", "--connections", "2", "--for", "500ms"]);
    assert_eq!(code, 0);
    assert_adds_up(&json);
    let (responses, opened) = (number(&json, "responses"), number(&json, "connections_opened"));
    assert!(responses > 2, "{json}");
    assert!((responses..=responses + 2).contains(&opened), "{opened} opened, {responses} answered");
    let ended_alone = answered.load(Ordering::SeqCst) / 1_000_000;
    assert!(ended_alone > 2, "only {ended_alone} connections ended after one request");
}

#[test]
fn each_kind_of_failure_has_its_name() {
    let refusing = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    // Closing a socket with unread bytes sends a reset (RFC 2525, 2.17).
    let resetting = serve("127.0.0.1:0", |stream, _| {
        let _ = stream.peek(&mut [0]);
    });
    let leaving = serve("127.0.0.1:0", |stream, _| {
        let mut stream = BufReader::new(stream);
        let _ = read_request(&mut stream);
        let _ = stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Le");
    });
    let silent = serve("127.0.0.1:0", |mut stream, _| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let garbage = serve("127.0.0.1:0", |stream, _| answer_all(stream, "SSH-2.0-OpenSSH_9.2\r\n"));
    let overloaded = serve("127.0.0.1:0", |stream, _| {
        answer_all(stream, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    });
    let cases = [
        (refusing, "connect_refused", Some(111), "start the server"),
        (resetting, "reset", Some(104), "connection reset (ECONNRESET)"),
        (leaving, "unexpected_eof", None, "connection ended early"),
        (silent, "request_timeout", None, "stallscope diagnose"),
        (garbage, "malformed_response", None, "does not speak HTTP/1.1"),
        (overloaded, "http_503", None, "HTTP status 503"),
    ];
    for (address, kind, errno, words) in cases {
        let arguments = ["--connections", "2", "--for", "600ms", "--timeout", "200ms"];
        let (code, json, stderr) = load(address, &arguments);
        assert_eq!(code, 1, "{kind}: {json}");
        let (seen_errno, count) = error(&json, kind).unwrap_or_else(|| panic!("{kind}: {json}"));
        assert_eq!(seen_errno, errno, "{kind}");
        assert!(count > 0, "{kind}");
        assert_eq!(json["errors"].as_array().unwrap().len(), 1, "{kind} alone: {json}");
        assert!(stderr.contains(words), "{kind}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{kind}: one sentence: {stderr}");
        assert_eq!(number(&json, "accepted_2xx"), 0, "{kind}");
        assert_adds_up(&json);
    }
}

#[test]
fn a_pause_of_the_server_shows_in_every_request_that_had_to_wait() {
    let answered = AtomicUsize::new(0);
    let address = serve("127.0.0.1:0", move |stream, _| {
        let mut stream = BufReader::new(stream);
        while read_request(&mut stream).is_some() {
            if answered.fetch_add(1, Ordering::SeqCst) == 20 {
                std::thread::sleep(Duration::from_millis(500));
            }
            if stream.get_mut().write_all(ACCEPTED.as_bytes()).is_err() {
                return;
            }
        }
    });
    let arguments = ["--rate", "100", "--connections", "1", "--for", "2s"];
    let (code, json, _) = load(address, &arguments);
    assert_eq!(code, 0);
    assert_adds_up(&json);
    // One request of about 200 was slow by itself. Some 50 were due meanwhile, and waited 500 ms,
    // 490 ms, … 10 ms: a quarter of all. Counted from when they were sent, the p90 would be that
    // of a healthy server.
    assert!(number(&json["latency_us"], "p99") >= 400_000, "{json}");
    assert!(number(&json["latency_us"], "p90") >= 150_000, "{json}");
    assert!(number(&json, "responses") <= 201, "no faster than asked: {json}");
    assert!(number(&json, "responses") + number(&json, "overdue") >= 199, "all were due: {json}");
}

#[test]
fn what_a_stalled_server_never_took_is_told() {
    // Accepted by the kernel, never by the server.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let begun = Instant::now();
    let arguments = ["--connections", "5", "--for", "500ms", "--timeout", "1h", "--rate", "100"];
    let (code, json, stderr) = load(address, &arguments);
    assert!(begun.elapsed() < Duration::from_millis(500) + GRACE, "hung on a stalled server");
    assert_eq!(code, 1);
    assert_adds_up(&json);
    assert_eq!(number(&json, "unfinished"), 5);
    assert!((40..=45).contains(&number(&json, "overdue")), "{json}");
    assert_eq!(json["latency_us"], Value::Null);
    assert!(stderr.contains("neither answered nor failed"), "{stderr}");
}

#[test]
fn a_server_that_recovers_is_loaded_again() {
    let address = serve("127.0.0.1:0", |stream, number| {
        if number < 10 {
            let _ = stream.peek(&mut [0]);
        } else {
            answer_all(stream, ACCEPTED);
        }
    });
    let (code, json, _) = load(address, &["--connections", "2", "--for", "3s"]);
    assert_eq!(code, 0, "{json}");
    assert_eq!(error(&json, "reset"), Some((Some(104), 10)));
    assert_eq!(number(&json, "connections_opened"), 12);
    assert!(number(&json, "accepted_2xx") > 0);
    assert_adds_up(&json);
}

#[test]
fn an_answer_before_the_end_of_the_request_is_heard() {
    let address = serve("127.0.0.1:0", |mut stream, _| {
        // Takes the first bytes only, so that the client cannot send all it has.
        let _ = stream.read(&mut [0; 10]);
        let _ = stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
        std::thread::sleep(GRACE);
    });
    let size = (16 << 20).to_string();
    let arguments = ["--data-bytes", &size, "--connections", "1", "--for", "1s"];
    let (code, json, _) = load(address, &arguments);
    assert_eq!(code, 1);
    assert!(error(&json, "http_413").is_some_and(|(_, count)| count > 1), "{json}");
    assert_eq!(number(&json, "connections_opened"), number(&json, "requests"), "{json}");
    assert_adds_up(&json);
}

#[test]
fn a_connection_that_ends_while_idle_is_no_error() {
    let address = serve("127.0.0.1:0", |stream, _| {
        let mut stream = BufReader::new(stream);
        if read_request(&mut stream).is_some() {
            let _ = stream.get_mut().write_all(ACCEPTED.as_bytes());
        }
    });
    let (code, json, _) = load(address, &["--rate", "5", "--connections", "1", "--for", "1s"]);
    assert_eq!((code, &json["errors"]), (0, &serde_json::json!([])));
    assert!(number(&json, "connections_opened") > 2, "{json}");
}

#[test]
fn names_and_ipv6_addresses_are_understood() {
    let address = serve("127.0.0.1:0", |stream, _| answer_all(stream, ACCEPTED));
    let mut urls = vec![format!("http://localhost:{}", address.port())];
    match TcpListener::bind("[::1]:0") {
        Ok(_) => {
            let address = serve("[::1]:0", |stream, _| answer_all(stream, ACCEPTED));
            urls.push(format!("http://[::1]:{}/", address.port()));
        }
        Err(error) => eprintln!("IPv6 left out, because this machine has none: {error}"),
    }
    for url in urls {
        let arguments = [&url, "--json", "--connections", "1", "--for", "300ms"];
        let (code, json, stderr) = result_of(&stallscope(&arguments).output().unwrap());
        assert_eq!(code, 0, "{url}: {stderr}");
        assert_eq!(json["errors"], serde_json::json!([]), "{url}");
    }
}

#[test]
fn an_interrupt_ends_the_run_and_prints_what_there_is() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let address = serve("127.0.0.1:0", move |stream, _| {
        let mut stream = BufReader::new(stream);
        while read_request(&mut stream).is_some() {
            let _ = sender.send(());
            if stream.get_mut().write_all(ACCEPTED.as_bytes()).is_err() {
                return;
            }
        }
    });
    let url = format!("http://{address}");
    let mut command = stallscope(&[&url, "--json", "--connections", "1", "--for", "10m"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The second request shows that the first response has come.
    receiver.recv_timeout(GRACE).unwrap();
    receiver.recv_timeout(GRACE).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let (code, json, _) = result_of(&child.wait_with_output().unwrap());
    assert_eq!(code, 0);
    assert!(json["duration_s"].as_f64().unwrap() < 300.0);
    assert_adds_up(&json);
}

#[test]
fn a_pipe_gets_the_table_and_nothing_else() {
    let address = serve("127.0.0.1:0", |stream, _| answer_all(stream, ACCEPTED));
    let url = format!("http://{address}");
    let output = stallscope(&[&url, "--connections", "1", "--for", "300ms"]).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.stderr, b"");
    assert!(stdout.lines().any(|line| line.starts_with("  latency      p50 ")), "{stdout}");
    assert!(!stdout.contains(['\r', '\x1b']), "no progress in a pipe: {stdout:?}");
}

#[test]
fn wrong_usage_is_refused_before_anything_is_sent() {
    let cases: [&[&str]; 8] = [
        &["https://127.0.0.1/"],
        &["127.0.0.1:80"],
        &["http://127.0.0.1:99999"],
        &["http://127.0.0.1", "--rate", "0"],
        &["http://127.0.0.1", "--connections", "0"],
        &["http://127.0.0.1", "--connections", "60001"],
        &["http://127.0.0.1", "--for", "10"],
        &["http://127.0.0.1", "--get", "--data-bytes", "5"],
    ];
    for arguments in cases {
        let output = stallscope(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(output.stdout, b"", "{arguments:?}");
    }
}

#[test]
fn a_name_without_an_address_is_an_error_in_one_sentence() {
    // RFC 6761, 6.4: `.invalid` never resolves.
    let output = stallscope(&["http://nowhere.invalid:1"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("cannot resolve 'nowhere.invalid'"), "{stderr}");
}

#[test]
fn its_own_fd_limit_is_told_apart() {
    let address = serve("127.0.0.1:0", |stream, _| answer_all(stream, ACCEPTED));
    let script = "ulimit -n 32 && exec \"$0\" load \"$1\" --json --connections 64 --for 500ms";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_stallscope"), &format!("http://{address}")])
        .output()
        .unwrap();
    let (code, json, _) = result_of(&output);
    assert_eq!(code, 0, "some connections were had: {json}");
    let (errno, count) = error(&json, "no_fd").unwrap_or_else(|| panic!("{json}"));
    assert_eq!(errno, Some(24));
    assert!(count >= 32, "{json}");
}

/// Runs [`inside_a_namespace_with_few_ports`] in a network namespace of its own.
#[test]
fn exhausted_ports_are_told_apart() {
    let namespace = ["--user", "--map-root-user", "--net"];
    let possible = Command::new("unshare").args(namespace).args(["ip", "link", "show"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        eprintln!("left out: this machine allows no network namespace, or has no ip command");
        return;
    }
    let test = ["--exact", "inside_a_namespace_with_few_ports", "--ignored", "--nocapture"];
    let output = Command::new("unshare")
        .args(namespace)
        .arg(std::env::current_exe().unwrap())
        .args(test)
        .env(PRIVATE_NAMESPACE, "1")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}{stderr}");
}

#[test]
#[ignore = "changes the port range of its network namespace: run by exhausted_ports_are_told_apart"]
fn inside_a_namespace_with_few_ports() {
    if std::env::var_os(PRIVATE_NAMESPACE).is_none() {
        eprintln!("left out: this would change the port range of the machine");
        return;
    }
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
    assert!(up.success());
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "50000 50009").unwrap();
    let address = serve("127.0.0.1:8080", |stream, _| answer_all(stream, ACCEPTED));
    let (code, json, _) = load(address, &["--connections", "20", "--for", "500ms"]);
    assert_eq!(code, 0, "ten ports are enough for ten connections: {json}");
    assert_eq!(number(&json, "connections_opened"), 10);
    let (errno, count) = error(&json, "addr_not_available").unwrap_or_else(|| panic!("{json}"));
    assert_eq!(errno, Some(99));
    assert!(count >= 10, "{json}");
}
