//! What the servers on tokio-uring do against its faults: each measure taken and left out, and the
//! difference it makes to clients. And the servers with several runtimes, and with each producer.
#![cfg(feature = "servers")]
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is the one who waits"
)]

#[expect(dead_code, reason = "other tests use the rest of it")]
mod serve_harness;

use std::io::{Read, Write};
use std::time::Duration;

use serve_harness::{Broker, STACKS, Server, event, eventually, serve_output, until_end};
use stallscope_probes::sample::Fault;

/// Whether the server answers a new client within a short time.
fn answers(server: &Server) -> bool {
    let mut client = server.connect();
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    client.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).is_ok() && received.ends_with(b"ok\n")
}

#[test]
fn a_task_that_is_always_ready_stalls_the_server_that_is_not_cured_of_it() {
    for stack in ["tokio-uring", "tokio-uring-hyper"] {
        for (cure, is_cured) in [("all", true), ("accept,listen,close", false)] {
            let arguments = ["--fault", "sq-not-flushed@0", "--cure", cure];
            let server = Server::start(stack, &arguments);
            eventually("the task runs", || {
                server.heartbeat().fault.is_some_and(|fault| fault.fault == Fault::SqNotFlushed)
            });
            assert_eq!(answers(&server), is_cured, "{stack}: cured of {cure}");
            // And not once only.
            assert_eq!(answers(&server), is_cured, "{stack}: cured of {cure}");
            server.stop();
        }
    }
}

#[test]
fn an_accept_that_is_dropped_takes_a_client_with_it() {
    for (cure, is_cured) in [("all", true), ("submit,listen,close", false)] {
        let server = Server::start("tokio-uring", &["--cure", cure]);
        let began = server.heartbeat().beat_ns;
        // Several accepts have been dropped by then.
        let a_while_ns = 500_000_000;
        eventually("time passes", || {
            server.heartbeat().beat_ns.unwrap() > began.unwrap() + a_while_ns
        });
        let mut lost = 0;
        let clients: Vec<_> = std::iter::repeat_with(|| {
            let mut client = server.connect();
            client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            client.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            lost += usize::from(client.read(&mut [0; 64]).is_err());
            client
        })
        .take(3)
        .collect();
        assert_eq!(lost, if is_cured { 0 } else { 3 }, "cured of {cure}");
        drop(clients);
        server.stop();
    }
}

#[test]
fn a_connection_that_is_given_up_is_closed() {
    for (cure, is_cured) in [("all", true), ("submit,accept,listen", false)] {
        let arguments = ["--idle-timeout", "100ms", "--cure", cure];
        let server = Server::start("tokio-uring", &arguments);
        let mut client = server.connect();
        eventually("it is accepted", || server.heartbeat().accepted == 1);
        eventually("it is given up", || server.heartbeat().open == 0);
        if is_cured {
            assert_eq!(until_end(&mut client), b"");
            eventually("its socket is closed", || server.accepted_sockets() == 0);
        } else {
            client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            assert!(client.read(&mut [0; 1]).is_err(), "the client is told nothing");
            assert_eq!(server.accepted_sockets(), 1, "the kernel's read keeps it open");
        }
        drop(client);
        server.stop();
    }
}

#[test]
fn a_second_server_on_the_port_is_told_so_unless_it_is_bound_as_tokio_uring_binds() {
    let first = Server::start("tokio-uring", &[]);
    let listen = first.address().to_string();
    let output = serve_output(&["tokio-uring", "--listen", &listen]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot listen on"));
    first.stop();
    // Two that share a port: each takes a part of the connections, and neither is told.
    let first = Server::start("tokio-uring", &["--cure", "submit,accept,close"]);
    let second =
        Server::start_on(first.address(), "tokio-uring", &["--cure", "submit,accept,close"]);
    eventually("both have had clients", || {
        answers(&first) && first.heartbeat().accepted > 0 && second.heartbeat().accepted > 0
    });
    second.stop();
    first.stop();
}

#[test]
fn several_runtimes_share_the_port_and_lose_nothing() {
    for stack in STACKS {
        let broker = Broker::start();
        let server = Server::start(stack, &["--kafka", &broker.bootstrap, "--threads", "3"]);
        for thread in ["runtime-1", "runtime-2"] {
            assert!(server.has_thread(thread), "{stack}: {thread}");
        }
        let request = event("one", "Connection: close\r\n");
        for _ in 0..60 {
            let mut client = server.connect();
            client.write_all(&request).unwrap();
            assert!(until_end(&mut client).starts_with(b"HTTP/1.1 202"), "{stack}");
        }
        let beat = server.heartbeat();
        assert_eq!((beat.accepted, beat.requests, beat.queued), (60, 60, 60), "{stack}");
        let before = beat.beat_ns;
        eventually("all of them beat", || server.heartbeat().beat_ns > before);
        let (status, end) = server.stop();
        assert!(status.success(), "{stack}");
        assert_eq!((end.accepted, end.delivered), (60, 60), "{stack}");
        assert_eq!(broker.count(), 60, "{stack}");
    }
}

#[test]
fn a_server_that_goes_down_tells_the_clients_of_all_its_runtimes_what_was_delivered() {
    const CLIENTS: u64 = 8;
    for stack in STACKS {
        // The producer is polled by the first runtime, also for the others.
        let how = ["--threads", "4", "--producer", "base", "--ack", "delivery"];
        let server = Server::start(stack, &[&how[..], &["--kafka-rtt", "500ms"]].concat());
        let request = event("one", "");
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.write_all(&request).unwrap();
        }
        eventually("all are taken", || server.heartbeat().queued == CLIENTS);
        let begun = std::time::Instant::now();
        let (status, end) = server.stop();
        assert!(status.success(), "{stack}");
        assert_eq!((end.accepted, end.delivered), (CLIENTS, CLIENTS), "{stack}");
        let took = begun.elapsed();
        assert!(took.as_secs() < 8, "{stack}: it waited for its own timeout: {took:?}");
        for client in &mut clients {
            assert!(until_end(client).starts_with(b"HTTP/1.1 200"), "{stack}");
        }
    }
}

#[test]
fn every_producer_puts_each_event_into_one_record() {
    for stack in STACKS {
        for producer in ["base", "threaded", "future"] {
            for ack in ["queue", "delivery"] {
                let broker = Broker::start();
                let kafka = ["--kafka", &broker.bootstrap];
                let how = ["--producer", producer, "--ack", ack];
                let server = Server::start(stack, &[kafka.as_slice(), &how].concat());
                let mut client = server.connect();
                let last = event("c", "Connection: close\r\n");
                let requests = [event("a", ""), event("b", ""), last].concat();
                client.write_all(&requests).unwrap();
                let received = String::from_utf8(until_end(&mut client)).unwrap();
                let status = if ack == "queue" { "HTTP/1.1 202" } else { "HTTP/1.1 200" };
                assert_eq!(received.matches(status).count(), 3, "{stack} {producer} {ack}");
                let (status, end) = server.stop();
                assert!(status.success(), "{stack} {producer} {ack}");
                assert_eq!((end.accepted, end.delivered, end.failed), (3, 3, 0));
                assert_eq!(broker.count(), 3, "{stack} {producer} {ack}");
            }
        }
    }
}

#[test]
fn without_kafka_clients_are_answered_alike_and_a_far_broker_takes_its_time() {
    let server = Server::start("tokio", &["--kafka", "none"]);
    let mut client = server.connect();
    client.write_all(&event("a", "Connection: close\r\n")).unwrap();
    assert!(until_end(&mut client).starts_with(b"HTTP/1.1 202"));
    let (status, end) = server.stop();
    assert!(status.success());
    assert_eq!((end.accepted, end.delivered), (0, 0));

    let arguments = ["--kafka-rtt", "300ms", "--ack", "delivery"];
    let server = Server::start("tokio", &arguments);
    let mut client = server.connect();
    let asked = std::time::Instant::now();
    client.write_all(&event("a", "Connection: close\r\n")).unwrap();
    assert!(until_end(&mut client).starts_with(b"HTTP/1.1 200"));
    assert!(asked.elapsed() >= Duration::from_millis(300), "{:?}", asked.elapsed());
    server.stop();
}

#[test]
fn what_does_not_go_together_is_refused_with_a_sentence() {
    let table: [(&[&str], &str); 8] = [
        (&["tokio", "--cure", "none"], "--cure is for tokio-uring"),
        (&["glommio", "--cure", "all"], "--cure is for tokio-uring"),
        (&["tokio-uring", "--cure", "some"], "'some' is no cure"),
        (&["tokio", "--kafka", "none", "--ack", "delivery"], "needs a broker"),
        (&["tokio", "--kafka", "h:1", "--kafka-rtt", "1ms"], "--kafka-rtt is for"),
        (&["tokio", "--threads", "2", "--fault", "runtime-blocked"], "needs --threads 1"),
        (&["glommio", "--fault", "sq-not-flushed"], "the glommio server has no such ring"),
        (
            &["tokio", "--producer", "future", "--ack", "delivery", "--fault", "kafka-not-polled"],
            "needs --producer base or threaded",
        ),
    ];
    for (arguments, sentence) in table {
        let output = serve_output(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(sentence), "{arguments:?}: {said}");
    }
}
