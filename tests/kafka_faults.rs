//! The faults of `stallscope serve` that are made with its Kafka, as clients and the page see them.
#![cfg(feature = "servers")]
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is the one who waits"
)]
#![expect(dead_code, reason = "the harness is that of the tests of `serve`, which use all of it")]

mod serve_harness;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serve_harness::{Server, event, eventually};
use stallscope_probes::sample::Fault;

/// Sends one event on a connection of its own.
fn send(server: &Server) -> TcpStream {
    let mut client = server.connect();
    client.write_all(&event("x", "")).unwrap();
    client
}

/// Whether its answer comes within `patience`, which is then the last one waited for.
fn is_answered(client: &mut TcpStream, patience: Duration) -> bool {
    client.set_read_timeout(Some(patience)).unwrap();
    let mut first = [0];
    match client.read(&mut first) {
        Ok(read) => read == 1,
        Err(error) => {
            let timed_out = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            assert!(timed_out, "{error}");
            false
        }
    }
}

const SHORT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(30);

fn begun(server: &Server) -> stallscope_probes::sample::FaultRaw {
    eventually("the fault begins", || server.heartbeat().fault.is_some());
    server.heartbeat().fault.unwrap()
}

#[test]
fn events_wait_for_a_broker_that_is_gone_or_late_or_unheard_and_are_answered_after() {
    for (stack, fault) in [
        ("tokio", Fault::KafkaUnreachable),
        ("tokio-uring", Fault::KafkaSlow),
        ("tokio", Fault::KafkaNotPolled),
    ] {
        let plan = format!("{}@1+3", fault.id());
        let server = Server::start(stack, &["--ack", "delivery", "--fault", &plan]);
        assert!(is_answered(&mut send(&server), LONG), "{stack} {fault:?}: before");
        assert_eq!(begun(&server).fault, fault);
        let mut waiting = send(&server);
        assert!(!is_answered(&mut waiting, SHORT), "{stack} {fault:?}: while it lasts");
        let page = server.heartbeat();
        assert!(page.beat_ns > page.fault.map(|fault| fault.begin_ns), "the runtime turns");
        let is_polled = page.kafka_beat_ns.unwrap() > page.fault.unwrap().begin_ns + 200_000_000;
        assert_eq!(is_polled, fault != Fault::KafkaNotPolled, "{stack} {fault:?}");
        assert!(is_answered(&mut waiting, LONG), "{stack} {fault:?}: after");
        assert!(server.heartbeat().fault.unwrap().end_ns.is_some());
    }
}

#[test]
fn events_wait_for_room_in_a_queue_that_is_full() {
    for stack in ["tokio", "tokio-uring"] {
        let server = Server::start(stack, &["--fault", "kafka-queue-full@0+4"]);
        let page = server.heartbeat();
        assert_eq!((page.producer_queue_max, page.queue_full), (Some(100), 0), "{stack}");
        let mut clients = Vec::new();
        eventually("the queue is full", || {
            clients.push(send(&server));
            server.heartbeat().queue_full > 0
        });
        assert_eq!(begun(&server).fault, Fault::KafkaQueueFull, "{stack}");
        let mut waiting = send(&server);
        assert!(!is_answered(&mut waiting, SHORT), "{stack}: there is no room");
        let page = server.heartbeat();
        assert_eq!(page.producer_queue, 100, "{stack}");
        assert!(page.queue_full > 1, "{stack}: it is tried again");
        for client in clients.iter_mut().chain([&mut waiting]) {
            assert!(is_answered(client, LONG), "{stack}");
        }
        assert!(server.heartbeat().fault.unwrap().end_ns.is_some(), "{stack}");
        let (status, end) = server.stop();
        assert!(status.success(), "{stack}");
        assert_eq!((end.accepted, end.failed), (end.delivered, 0), "{stack}: nothing is lost");
    }
}
