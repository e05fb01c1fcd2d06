//! `stallscope serve` as its clients, its broker and its watcher see it: the real binary, on every
//! stack. What holds for one must hold for the others, to the byte; where hyper answers otherwise,
//! `serve_harness/refusals.rs` says so, answer by answer.
#![cfg(feature = "servers")]
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is the one who waits"
)]

#[expect(dead_code, reason = "other tests use the rest of it")]
mod serve_harness;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serve_harness::refusals::{error, of_hyper, refusals};
use serve_harness::{
    Broker, PATIENCE, STACKS, Server, event, eventually, no_broker, serve_output, until_end,
};
use stallscope_probes::sample::{Fault, HeartbeatRaw};
use stallscope_probes::{heartbeat, spool};

/// What a client does on one connection.
enum Act<'a> {
    /// Writes these bytes at once.
    Send(&'a [u8]),
    /// Writes these bytes one by one.
    Trickle(&'a [u8]),
    /// Waits for exactly these bytes.
    Receive(&'a [u8]),
    /// Will send no more.
    HangUp,
}
use Act::{HangUp, Receive, Send, Trickle};

const QUEUED: &[u8] = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";
const QUEUED_LAST: &[u8] =
    b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const CHUNKED: &[u8] = b"POST /events HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\
    Connection: close\r\n\r\n5;name=value\r\n{\"dat\r\nA\r\na\":\"text\"}\r\n0\r\nTrailer: x\r\n\r\n";

/// What a server said, with the one difference taken out that hyper has in the order of lines.
fn said(stack: &str, received: &[u8]) -> String {
    let received = String::from_utf8_lossy(received).into_owned();
    if !stack.ends_with("hyper") {
        return received;
    }
    let (of_hyper, usual) =
        ("Connection: close\r\nContent-Length: 0", "Content-Length: 0\r\nConnection: close");
    received.replace(of_hyper, usual)
}

/// Carries out `acts` on a new connection and gives what is received after them, to the end.
fn converse(server: &Server, name: &str, acts: &[Act<'_>]) -> String {
    let mut client = server.connect();
    for act in acts {
        match act {
            Send(bytes) => client.write_all(bytes).unwrap(),
            Trickle(bytes) => {
                for byte in bytes.chunks(1) {
                    client.write_all(byte).unwrap();
                }
            }
            HangUp => client.shutdown(Shutdown::Write).unwrap(),
            Receive(expected) => {
                let mut received = vec![0; expected.len()];
                client.read_exact(&mut received).unwrap();
                let received = String::from_utf8_lossy(&received);
                assert_eq!(received, String::from_utf8_lossy(expected), "{name}");
            }
        }
    }
    String::from_utf8_lossy(&until_end(&mut client)).into_owned()
}

#[test]
fn all_stacks_answer_every_client_alike_to_the_byte() {
    let health = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
    let ok = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n";
    let healthy = [ok.as_slice(), b"\r\nok\n"].concat();
    let one = event("one", "");
    let last = event("last", "Connection: close\r\n");
    let expecting = "POST /events HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\
        Connection: close\r\nContent-Length: 12\r\n\r\n";
    let short = "POST /events HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\n{\"data\"";
    let http10 = "HEAD /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let ok_kept = [ok.as_slice(), b"Connection: keep-alive\r\n\r\n"].concat();
    let old = "POST /events HTTP/1.0\r\nContent-Length: 12\r\n\r\n{\"data\":\"x\"}";
    let unfound = "GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n";
    let not_found = error("404 Not Found", "", "the paths are /events and /healthz", false);
    let pipeline = [one.as_slice(), unfound.as_bytes(), health, &last].concat();
    let answers = [QUEUED, &not_found, &healthy, QUEUED_LAST].concat();
    let absolute = "GET http://h/healthz?x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let ok_last = [ok.as_slice(), b"Connection: close\r\n\r\nok\n"].concat();

    let mut table: Vec<(&str, Vec<Act<'_>>, Vec<u8>)> = vec![
        (
            "keep-alive",
            vec![Send(&one), Receive(QUEUED), Send(health), Receive(&healthy), Send(&last)],
            QUEUED_LAST.to_vec(),
        ),
        ("pipelined", vec![Send(&pipeline)], answers.clone()),
        ("pipelined, byte by byte", vec![Trickle(&pipeline)], answers),
        ("chunked", vec![Send(CHUNKED)], QUEUED_LAST.to_vec()),
        ("chunked, byte by byte", vec![Trickle(CHUNKED)], QUEUED_LAST.to_vec()),
        (
            "100-continue",
            vec![Send(expecting.as_bytes()), Receive(CONTINUE), Send(b"{\"data\":\"x\"}")],
            QUEUED_LAST.to_vec(),
        ),
        (
            "HTTP/1.0 kept, then closed",
            vec![Send(http10.as_bytes()), Send(old.as_bytes())],
            [ok_kept.as_slice(), QUEUED_LAST].concat(),
        ),
        // What is announced is longer than what comes: nobody waits for an answer.
        ("cut short", vec![Send(short.as_bytes()), HangUp], Vec::new()),
        ("cut short, chunked", vec![Send(&CHUNKED[..CHUNKED.len() - 40]), HangUp], Vec::new()),
        ("absolute target", vec![Send(absolute.as_bytes())], ok_last),
    ];
    let refusals = refusals();
    for (name, request, response) in &refusals {
        table.push((name, vec![Send(request)], response.clone()));
    }
    for stack in STACKS {
        let server = Server::start(stack, &["--max-body", "1000"]);
        for (name, acts, expected) in &table {
            let received = converse(&server, name, acts);
            let hyper = stack.ends_with("hyper").then(|| of_hyper(name)).flatten();
            let expected = hyper.unwrap_or_else(|| String::from_utf8_lossy(expected).into_owned());
            assert_eq!(said(stack, received.as_bytes()), expected, "{stack}: {name}");
        }
        let beat = server.heartbeat();
        assert_eq!(beat.requests, beat.responses, "{stack}: every request was answered");
        assert_eq!(beat.accepted, table.len() as u64, "{stack}");
        assert_eq!(beat.queued, 10, "{stack}: the events of the table");
        server.stop();
    }
}

#[test]
fn slow_and_idle_clients_are_cut_and_leave_no_fd_behind() {
    for stack in STACKS {
        let arguments = ["--request-timeout", "300ms", "--idle-timeout", "600ms"];
        let server = Server::start(stack, &arguments);
        let late = error("408 Request Timeout", "", "the request took too long", true);
        let late = String::from_utf8_lossy(&late);
        let partial: [&[u8]; 3] = [
            b"GET /hea",
            b"POST /events HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\n{",
            b"POST /events HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        ];
        for text in partial {
            assert_eq!(converse(&server, "partial", &[Send(text)]), late, "{stack}");
        }
        let beat = server.heartbeat();
        assert_eq!((beat.requests, beat.responses), (3, 3), "{stack}: each was one request");
        assert_eq!(converse(&server, "idle", &[]), "", "{stack}: an idle client is told nothing");

        let mut blank = server.connect();
        eventually("empty lines are no request", || blank.write_all(b"\r\n").is_err());

        // A client that sends requests and never reads: its responses are stuck in the server.
        let mut deaf = server.connect();
        socket2::SockRef::from(&deaf).set_recv_buffer_size(4096).unwrap();
        let requests = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1000);
        while deaf.write_all(&requests).is_ok() {}
        eventually("all connections are closed", || server.heartbeat().open == 0);
        eventually("no socket has leaked", || server.accepted_sockets() == 0);
        server.stop();
    }
}

#[test]
fn each_event_becomes_one_record() {
    for stack in STACKS {
        let broker = Broker::start();
        let server = Server::start(stack, &["--kafka", &broker.bootstrap, "--ack", "delivery"]);
        let texts = ["plain", "", "Grüße, \u{1f980} \\\"\\n", "\\u00e9\\u0000"];
        let payloads = ["plain", "", "Grüße, \u{1f980} \"\n", "é\0"];
        let delivered = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let pipeline: Vec<u8> = texts.iter().flat_map(|text| event(text, "")).collect();
        let mut client = server.connect();
        client.write_all(&pipeline).unwrap();
        let mut received = vec![0; delivered.len() * texts.len()];
        client.read_exact(&mut received).unwrap();
        assert_eq!(String::from_utf8(received).unwrap(), delivered.repeat(texts.len()), "{stack}");
        let mut records = broker.records(texts.len());
        records.sort();
        let mut expected = payloads.map(|text| text.as_bytes().to_vec()).to_vec();
        expected.sort();
        assert_eq!(records, expected, "{stack}");
        drop(client);
        let (status, end) = server.stop();
        assert!(status.success());
        assert_eq!((end.accepted, end.delivered, end.failed), (4, 4, 0), "{stack}");
    }
}

#[test]
fn without_a_broker_events_are_refused_once_the_queue_is_full_and_the_loss_is_said() {
    for stack in STACKS {
        let (_held, nobody) = no_broker();
        let arguments =
            ["--kafka", &nobody, "--shutdown-timeout", "100ms", "--max-body", "2000000"];
        let server = Server::start(stack, &arguments);
        let mut client = server.connect();
        let full = error(
            "503 Service Unavailable",
            "Retry-After: 1\r\n",
            "the producer's queue is full",
            false,
        );
        let large = event(&"x".repeat(1_000_000), "");
        let mut queued = 0_u64;
        loop {
            client.write_all(&large).unwrap();
            let mut begin = [0; 12];
            client.read_exact(&mut begin).unwrap();
            let rest = if &begin == b"HTTP/1.1 202" { QUEUED } else { &full };
            let mut received = vec![0; rest.len()];
            received[..12].copy_from_slice(&begin);
            client.read_exact(&mut received[12..]).unwrap();
            assert_eq!(String::from_utf8_lossy(&received), String::from_utf8_lossy(rest));
            if rest != QUEUED {
                break;
            }
            queued += 1;
            assert!(queued < 100, "{stack}: the queue has no bound");
        }
        assert_eq!(server.heartbeat().queued, queued);
        drop(client);
        let (status, end) = server.stop();
        assert_eq!(status.code(), Some(1), "{stack}");
        assert_eq!((end.accepted, end.delivered), (queued, 0), "{stack}");
    }
}

#[test]
fn an_undelivered_event_is_answered_503_and_is_no_loss() {
    for stack in STACKS {
        let (_held, nobody) = no_broker();
        let arguments = ["--kafka", &nobody, "--ack", "delivery", "--message-timeout", "200ms"];
        let server = Server::start(stack, &arguments);
        let response = converse(&server, "503", &[Send(&event("x", "Connection: close\r\n"))]);
        assert!(response.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{response}");
        assert!(response.contains("the event was not delivered: "), "{response}");
        let (status, end) = server.stop();
        assert!(status.success(), "{stack}");
        assert_eq!((end.accepted, end.delivered, end.failed), (1, 0, 1), "{stack}");
    }
}

#[test]
fn sigterm_under_load_loses_no_accepted_event() {
    for stack in STACKS {
        let broker = Broker::start();
        let server = Server::start(stack, &["--kafka", &broker.bootstrap]);
        let answered = AtomicU64::new(0);
        let (status, end) = thread::scope(|scope| {
            for _ in 0..6 {
                let mut client = server.connect();
                let answered = &answered;
                scope.spawn(move || {
                    let request = event("under load", "");
                    let mut begin = [0; 12];
                    // To the end of the connection, which the server chooses.
                    while client.write_all(&request).is_ok()
                        && client.read_exact(&mut begin).is_ok()
                    {
                        assert_eq!(&begin, b"HTTP/1.1 202");
                        answered.fetch_add(1, Ordering::Relaxed);
                        let mut rest = vec![0; QUEUED.len() - begin.len()];
                        if client.read_exact(&mut rest).is_err() || !rest.ends_with(b"\r\n\r\n") {
                            break;
                        }
                    }
                });
            }
            eventually("the load runs", || answered.load(Ordering::Relaxed) > 300);
            // A client with half a request is waited for, an idle one is not.
            let mut slow = server.connect();
            let request = event("slow", "");
            let (first, second) = request.split_at(20);
            slow.write_all(first).unwrap();
            let _idle = server.connect();
            eventually("both are accepted", || server.heartbeat().open == 8);
            server.signal(Signal::TERM);
            eventually("all others are closed", || server.heartbeat().open == 1);
            slow.write_all(second).unwrap();
            assert_eq!(
                said(stack, &until_end(&mut slow)),
                String::from_utf8_lossy(QUEUED_LAST),
                "{stack}"
            );
            answered.fetch_add(1, Ordering::Relaxed);
            server.wait()
        });
        assert!(status.success(), "{stack}");
        let answered = answered.load(Ordering::Relaxed);
        assert!(answered <= end.accepted, "{stack}: {answered} 202s, {} accepted", end.accepted);
        assert_eq!((end.delivered, end.failed), (end.accepted, 0), "{stack}");
        assert_eq!(broker.count(), end.accepted, "{stack}");
    }
}

/// The fault on the page, once it has begun.
fn fault(server: &Server) -> stallscope_probes::sample::FaultRaw {
    eventually("the fault begins", || server.heartbeat().fault.is_some());
    server.heartbeat().fault.unwrap()
}

#[test]
fn running_out_of_fds_stops_neither_the_accept_loop_nor_the_machine() {
    for stack in STACKS {
        let server = Server::start(stack, &["--fault", "fd-exhausted@0+3", "--profile"]);
        eventually("the limit is lowered", || server.fd_limit() < 200);
        assert_eq!(server.heartbeat().fault, None, "{stack}: nothing has happened yet");
        let mut clients: Vec<TcpStream> = Vec::new();
        for _ in 0..60 {
            let mut client = server.connect();
            client.write_all(&event("x", "Connection: close\r\n")).unwrap();
            clients.push(client);
        }
        let fault = fault(&server);
        let beat = server.heartbeat();
        assert_eq!((beat.accept_errno, fault.fault), (Some(24), Fault::FdExhausted), "{stack}");
        // Failures come at the rate of the back-off: 3 s hold at most 2 + 30 of them.
        eventually("the fault ends", || server.heartbeat().fault.unwrap().end_ns.is_some());
        let failures = server.heartbeat().accept_errors;
        assert!((2..=40).contains(&failures), "{stack}: {failures} failures");
        for client in &mut clients {
            let late = said(stack, &until_end(client));
            assert_eq!(late.as_bytes(), QUEUED_LAST, "{stack}: served late, but served");
        }
        eventually("nothing is held back", || server.heartbeat().open == 0);
        server.stop();
    }
}

/// Whether the server answers a new client within a short time.
fn answers(server: &Server) -> bool {
    let mut client = server.connect();
    client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    client.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).is_ok() && received.ends_with(b"ok\n")
}

/// The stall is there between begin and end, on the page as well as for clients.
fn stall_and_recovery(server: &Server, expected: Fault, stuck: impl Fn(&HeartbeatRaw) -> bool) {
    assert_eq!(fault(server).fault, expected);
    assert!(!answers(server));
    let before = server.heartbeat();
    assert!(stuck(&before), "{before:?}");
    eventually("the fault ends", || server.heartbeat().fault.unwrap().end_ns.is_some());
    eventually("clients are answered", || answers(server));
    let ended = server.heartbeat().fault.unwrap();
    let lasted_ns = ended.end_ns.unwrap() - ended.begin_ns;
    assert!(lasted_ns >= 1_900_000_000, "{lasted_ns}");
    assert!(server.heartbeat().last_response_ns.unwrap() > ended.end_ns.unwrap());
}

#[test]
fn sq_not_flushed_stalls_while_the_runtime_turns_and_shows_in_the_profile() {
    let server = Server::start("tokio-uring", &["--fault", "sq-not-flushed@0.5+2.5", "--profile"]);
    stall_and_recovery(&server, Fault::SqNotFlushed, |beat| {
        let fault = beat.fault.unwrap();
        beat.beat_ns.unwrap() + 200_000_000 > fault.begin_ns
    });
    let found = spool::find(std::path::Path::new("/proc"), server.pid());
    let spool = found.got().unwrap();
    eventually("the always-ready task is in the profile", || {
        let windows = spool.newer_than(0);
        windows.got().unwrap().iter().any(|window| {
            let text = spool.read(window);
            text.got().is_some_and(|text| {
                text.lines().any(|line| {
                    line.starts_with("stallscope;") && line.contains("always_ready_task")
                })
            })
        })
    });
    let folder = spool::folder(server.pid());
    assert!(folder.exists());
    server.stop();
    assert!(!folder.exists());
}

#[test]
fn runtime_blocked_stops_the_beats_and_not_the_kafka_thread() {
    for stack in STACKS {
        let server = Server::start(stack, &["--fault", "runtime-blocked@0+2"]);
        stall_and_recovery(&server, Fault::RuntimeBlocked, |beat| {
            let begin_ns = beat.fault.unwrap().begin_ns;
            beat.beat_ns.unwrap() <= begin_ns && beat.kafka_beat_ns.unwrap() > begin_ns
        });
        server.stop();
    }
}

#[test]
fn process_stopped_lasts_until_sigcont() {
    for stack in STACKS {
        let server = Server::start(stack, &["--fault", "process-stopped@0"]);
        eventually("the process is stopped", || server.state() == 'T');
        let stopped = server.heartbeat().fault.unwrap();
        assert_eq!((stopped.fault, stopped.end_ns), (Fault::ProcessStopped, None), "{stack}");
        assert!(!answers(&server));
        server.signal(Signal::CONT);
        eventually("clients are answered", || answers(&server));
        assert!(server.heartbeat().fault.unwrap().end_ns.unwrap() > stopped.begin_ns);
        server.stop();
    }
}

#[test]
fn a_second_signal_ends_a_stuck_server_at_once() {
    for stack in STACKS {
        let server = Server::start(stack, &["--fault", "runtime-blocked@0"]);
        fault(&server);
        server.signal(Signal::TERM);
        eventually("the first signal was taken", || server.has_thread("watchdog"));
        server.signal(Signal::TERM);
        assert_eq!(server.wait_for_exit().code(), Some(128 + 15), "{stack}");
    }
}

#[test]
fn a_stuck_server_ends_itself_after_the_first_signal() {
    let arguments = ["--fault", "runtime-blocked@0", "--shutdown-timeout", "1ms"];
    let server = Server::start("tokio-uring", &arguments);
    fault(&server);
    server.signal(Signal::TERM);
    assert_eq!(server.wait_for_exit().code(), Some(1));
}

#[test]
fn the_heartbeat_page_is_found_by_pid_and_goes_with_the_server() {
    for stack in STACKS {
        let server = Server::start(stack, &[]);
        let beat = server.heartbeat();
        // The page has room for sixteen bytes.
        let name = if stack.len() > 16 { "uring-hyper" } else { stack };
        assert_eq!(beat.stack, name);
        assert_eq!(beat.runtime_tid, Some(server.pid()));
        eventually("the Kafka thread beats", || server.heartbeat().kafka_beat_ns.is_some());
        eventually("the runtime beats on", || server.heartbeat().beat_ns > beat.beat_ns);
        let page = std::path::Path::new(heartbeat::FOLDER).join(heartbeat::file_name(server.pid()));
        assert!(page.exists());
        server.stop();
        assert!(!page.exists());

        let server = Server::start(stack, &["--no-heartbeat"]);
        assert!(server.try_heartbeat().got().is_none());
        server.stop();
    }
}

#[test]
fn clients_that_leave_early_harm_nobody() {
    for stack in STACKS {
        let server = Server::start(stack, &[]);
        for round in 0..60 {
            let mut client = server.connect();
            let request = event("x", "");
            client.write_all(&request[..request.len() * round / 59]).unwrap();
            if round % 2 == 0 {
                client.shutdown(Shutdown::Write).unwrap();
            }
        }
        eventually("all are gone", || {
            let beat = server.heartbeat();
            beat.accepted == 60 && beat.open == 0
        });
        eventually("no socket has leaked", || server.accepted_sockets() == 0);
        assert!(answers(&server), "{stack}");
        server.stop();
    }
}

#[test]
fn profiling_under_load_crashes_nothing_and_names_threads() {
    for stack in STACKS {
        let server = Server::start(stack, &["--profile"]);
        let found = spool::find(std::path::Path::new("/proc"), server.pid());
        let spool = found.got().unwrap();
        let mut client = server.connect();
        let requests = event("x", "").repeat(20);
        let mut responses = vec![0; QUEUED.len() * 20];
        eventually("the runtime's thread is in the profile", || {
            for _ in 0..200 {
                client.write_all(&requests).unwrap();
                client.read_exact(&mut responses).unwrap();
            }
            let windows = spool.newer_than(0);
            windows.got().unwrap().iter().any(|window| {
                let text = spool.read(window);
                text.got().is_some_and(|text| text.contains("stallscope::servers::"))
            })
        });
        drop(client);
        let (status, _) = server.stop();
        assert!(status.success(), "{stack}");
    }
}

#[test]
fn wrong_usage_is_refused_with_a_sentence() {
    let cases: [&[&str]; 8] = [
        &["tokio", "--fault", "sq-not-flushed"],
        &["tokio", "--fault", "process-stopped+5"],
        &["tokio", "--fault", "unheard-of"],
        &["tokio-uring", "--fault", "runtime-blocked", "--fault", "fd-exhausted"],
        &["tokio", "--request-timeout", "5"],
        &["tokio", "--max-body", "0"],
        &["tokio", "--kafka", "host"],
        &["hyper"],
    ];
    for arguments in cases {
        let output = serve_output(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && output.stderr.len() > 20, "{arguments:?}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for stack in STACKS {
        let output = serve_output(&[stack, "--listen", &address]);
        assert_eq!(output.status.code(), Some(1), "{stack}");
        let sentence = String::from_utf8(output.stderr).unwrap();
        assert!(sentence.contains(&format!("cannot listen on {address}: ")), "{sentence}");
    }
    assert!(PATIENCE > Duration::from_secs(5));
}
