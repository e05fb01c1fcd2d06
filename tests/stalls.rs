//! Every fault on every server, watched from outside by the real binary: the cause must be right,
//! and the onset within 250 ms of the instant that the faulty server itself recorded. And healthy
//! twins, which must stay healthy.
#![cfg(feature = "servers")]
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests run processes")]

mod support;

use std::net::TcpStream;
use std::time::Duration;

use stallscope::diagnose::verdict::Cause;
use support::{Printed, Server, alone, load, stallscope};

const ONSET_ERROR_MS_MAX: f64 = 250.0;

fn watch(server: &Server, more: &[&str]) -> Printed {
    let pid = server.pid().to_string();
    let mut args = vec!["watch", "--headless", "--pid", &pid];
    args.extend(more);
    stallscope(&args)
}

/// Stalls `stack` by `fault` under load, and checks what the watcher says of it.
fn stalls(stack: &str, fault: &str, load_more: &[&str]) {
    let _alone = alone();
    let server = Server::start(stack, &["--fault", &format!("{fault}@3")]);
    let _load = load(&server.url, &[&["--connections", "64", "--for", "20s"], load_more].concat());
    let printed = watch(&server, &["--until-stall", "--for", "15s"]);
    let truth = server.fault();

    assert_eq!(printed.status, 3, "{printed:?}");
    let verdict = printed.last("verdict").unwrap();
    assert_eq!(verdict["cause"], fault, "{verdict:#}");
    assert_eq!(verdict["confidence"], "certain", "{verdict:#}");
    let onset_ns = verdict["onset_ns"].as_u64().unwrap();
    let error_ms = (onset_ns as f64 - truth.begin_ns as f64) / 1e6;
    assert!(error_ms.abs() <= ONSET_ERROR_MS_MAX, "the onset is off by {error_ms} ms: {verdict:#}");
    assert!(!verdict["summary"].as_str().unwrap().is_empty());
    assert!(!verdict["evidence"].as_array().unwrap().is_empty());
    assert!(!verdict["next"].as_array().unwrap().is_empty());
    let others = Cause::STALLS.len() - 1;
    assert_eq!(verdict["ruled_out"].as_array().unwrap().len(), others, "{verdict:#}");
    assert_eq!(printed.last("end").unwrap()["reason"], "stalled");

    // Whoever comes later finds the same, at once.
    let pid = server.pid().to_string();
    let late = stallscope(&["diagnose", "--json", "--pid", &pid]);
    assert_eq!(late.status, 3, "{late:?}");
    let late = late.last("verdict").unwrap();
    assert_eq!(late["cause"], fault, "{late:#}");
}

#[test]
fn tokio_uring_sq_not_flushed() {
    stalls("tokio-uring", "sq-not-flushed", &[]);
}

#[test]
fn tokio_uring_fd_exhausted() {
    stalls("tokio-uring", "fd-exhausted", &["--close"]);
}

#[test]
fn tokio_uring_runtime_blocked() {
    stalls("tokio-uring", "runtime-blocked", &[]);
}

#[test]
fn tokio_uring_process_stopped() {
    stalls("tokio-uring", "process-stopped", &[]);
}

#[test]
fn tokio_fd_exhausted() {
    stalls("tokio", "fd-exhausted", &["--close"]);
}

#[test]
fn tokio_runtime_blocked() {
    stalls("tokio", "runtime-blocked", &[]);
}

#[test]
fn tokio_process_stopped() {
    stalls("tokio", "process-stopped", &[]);
}

/// Without its heartbeat page a server is as foreign as any other.
#[test]
fn a_server_without_a_page_is_diagnosed_all_the_same() {
    let _alone = alone();
    for (stack, fault, more) in [
        ("tokio-uring", "sq-not-flushed", None),
        ("tokio", "runtime-blocked", None),
        ("tokio", "fd-exhausted", Some("--close")),
    ] {
        let at = format!("{fault}@2");
        let server = Server::start(stack, &["--no-heartbeat", "--fault", &at]);
        let mut args = vec!["--connections", "64", "--for", "15s"];
        args.extend(more);
        let _load = load(&server.url, &args);
        let printed = watch(&server, &["--until-stall", "--for", "10s"]);
        assert_eq!(printed.status, 3, "{stack} {fault}: {printed:?}");
        assert_eq!(printed.last("verdict").unwrap()["cause"], fault, "{stack} {printed:?}");
    }
}

#[test]
fn recovery_is_noticed() {
    let _alone = alone();
    for stack in ["tokio", "tokio-uring"] {
        let server = Server::start(stack, &["--fault", "runtime-blocked@2+2"]);
        let _load = load(&server.url, &["--connections", "32", "--for", "12s"]);
        let printed = watch(&server, &["--for", "7s"]);
        assert_eq!(printed.status, 3, "{printed:?}");
        assert_eq!((printed.count("onset"), printed.count("recovered")), (1, 1), "{printed:?}");
        let stalled_ms = printed.last("recovered").unwrap()["stalled_ms"].as_f64().unwrap();
        let truth = server.fault();
        let true_ms = (truth.end_ns.unwrap() - truth.begin_ns) as f64 / 1e6;
        assert!((stalled_ms - true_ms).abs() < 500.0, "{stalled_ms} against {true_ms}");
    }
}

/// A healthy server, watched for 20 s, is never called stalled.
fn stays_healthy(server: &Server, cause: &str) {
    let printed = watch(server, &["--for", "20s"]);
    assert_eq!(printed.status, 0, "{printed:?}");
    assert_eq!((printed.count("onset"), printed.stalls()), (0, 0), "{printed:?}");
    let pid = server.pid().to_string();
    let verdict = stallscope(&["diagnose", "--json", "--pid", &pid]);
    assert_eq!(verdict.status, 0, "{verdict:?}");
    assert_eq!(verdict.last("verdict").unwrap()["cause"], cause, "{verdict:?}");
}

#[test]
fn a_thousand_idle_connections_are_no_stall() {
    let _alone = alone();
    let servers = ["tokio", "tokio-uring"].map(|stack| Server::start(stack, &[]));
    std::thread::scope(|scope| {
        for server in &servers {
            scope.spawn(|| {
                let connections: Vec<TcpStream> = (0..1_000)
                    .map(|_| TcpStream::connect(("127.0.0.1", server.port)).unwrap())
                    .collect();
                server.await_page(Duration::from_secs(10), |page| page.open == 1_000);
                stays_healthy(server, "healthy-idle");
                drop(connections);
            });
        }
    });
}

#[test]
fn a_saturated_tokio_server_is_no_stall() {
    saturated("tokio", &[]);
}

#[test]
fn a_saturated_tokio_uring_server_is_no_stall() {
    saturated("tokio-uring", &[]);
}

#[test]
fn a_server_saturated_with_new_connections_is_no_stall() {
    saturated("tokio-uring", &["--close"]);
}

fn saturated(stack: &str, more: &[&str]) {
    let _alone = alone();
    let server = Server::start(stack, &[]);
    let _load = load(&server.url, &[&["--connections", "256", "--for", "40s"], more].concat());
    server.await_page(Duration::from_secs(10), |page| page.responses > 1_000);
    stays_healthy(&server, "healthy-busy");
}
