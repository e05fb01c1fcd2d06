//! `stallscope serve`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::args::duration;
use super::{EXIT_ERROR, EXIT_OK, EXIT_USAGE};
use crate::kit::telemetry;
use crate::servers::{
    self, Ack, Cure, Cures, FaultPlan, Kafka, Options, ProducerKind, Ready, Stack, Tally, Tuning,
    Work,
};
use stallscope_probes::sample::Fault;

const ABOUT: &str = "\
Puts events into Kafka: POST /events with the body {\"data\":\"<text>\"} makes one record and is
answered 202 when it is queued; GET /healthz is answered 200. All servers do the same work, on one
thread by default, and differ in their I/O only, or in who speaks HTTP. Each keeps a heartbeat page in /dev/shm,
by which a watcher learns of a stall exactly when it begins.

SIGTERM or SIGINT ends the server: what is in flight is finished and delivered first. A second
signal ends it at once. Exit status: 0 when nothing that was accepted is lost, 1 otherwise, 2 for
wrong usage. Durations are written like 500ms, 10s or 1m30s.";

/// Arguments of `stallscope serve`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = ABOUT)]
pub struct Args {
    /// Which server
    #[arg(value_enum)]
    stack: Stack,

    /// Address to listen on; with port 0 the kernel chooses a port
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// Length of the accept queue, connections
    #[arg(long, value_name = "COUNT", default_value_t = 1024, value_parser = clap::value_parser!(i32).range(1..=65_535))]
    backlog: i32,

    /// Runtimes, each on a thread and with a listening socket of its own (`SO_REUSEPORT`)
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,

    /// Measures against the faults of tokio-uring: all, none, or some of submit, accept, listen,
    /// close. All by default, but for submit with the fault sq-not-flushed
    #[arg(long, value_name = "LIST")]
    cure: Option<Cures>,

    /// Answer the bytes of a 202 to whatever comes in one read: what a server costs beside its I/O
    /// is measured against that
    #[arg(long, value_enum, default_value_t = Work::Events, hide = true)]
    work: Work,

    /// Kafka brokers, `embedded` for one inside this process, or `none` to do without
    #[arg(
        long,
        value_name = "HOST:PORT[,HOST:PORT...]",
        default_value = "embedded",
        value_parser = kafka,
        help_heading = "Kafka"
    )]
    kafka: Kafka,

    /// How long the embedded broker takes to answer, as if it were far away
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Kafka")]
    kafka_rtt: Option<Duration>,

    /// Which producer, and so who asks for the reports of delivery
    #[arg(long, value_enum, default_value_t = ProducerKind::DEFAULT, help_heading = "Kafka")]
    producer: ProducerKind,

    /// Topic of the records
    #[arg(long, value_name = "NAME", default_value = "events", value_parser = topic, help_heading = "Kafka")]
    topic: String,

    /// When an event is answered
    #[arg(long, value_enum, default_value_t = Ack::Queue, help_heading = "Kafka")]
    ack: Ack,

    /// Settings of the producer
    #[arg(long, value_enum, default_value_t = Tuning::Default, help_heading = "Kafka")]
    tuning: Tuning,

    /// How long the delivery of an event is tried before it counts as failed
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = message_timeout, help_heading = "Kafka")]
    message_timeout: Duration,

    /// Largest body of a request, bytes; a larger one is answered 413
    #[arg(long, value_name = "BYTES", default_value_t = 1024 * 1024, value_parser = clap::value_parser!(u64).range(1..=64 * 1024 * 1024), help_heading = "Limits")]
    max_body: u64,

    /// How long a request may take to arrive, and the responses to be taken; then the connection
    /// is cut
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, help_heading = "Limits")]
    request_timeout: Duration,

    /// How long a connection may stay open without a request
    #[arg(long, value_name = "DURATION", default_value = "75s", value_parser = duration, help_heading = "Limits")]
    idle_timeout: Duration,

    /// How long requests in flight may take to end after SIGTERM; undelivered events have as long
    /// again
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, help_heading = "Limits")]
    shutdown_timeout: Duration,

    /// Keep no heartbeat page
    #[arg(long, help_heading = "Instruments")]
    no_heartbeat: bool,

    /// Profile the CPU time, 99 samples per second, into /dev/shm/stallscope.<pid>.profile
    #[arg(long, help_heading = "Instruments")]
    profile: bool,

    /// Serve tokio-console on this address
    #[arg(long, value_name = "IP:PORT", help_heading = "Instruments")]
    console: Option<SocketAddr>,

    /// Stall on purpose: sq-not-flushed (where there is a ring), fd-exhausted, runtime-blocked,
    /// process-stopped; kafka-unreachable, kafka-slow, kafka-not-polled (with --ack delivery),
    /// kafka-queue-full (with --ack queue). @SECONDS after it is ready, 5 by default; for +SECONDS, without end by
    /// default. Example: runtime-blocked@10+5
    #[arg(long, value_name = "ID[@SECONDS][+SECONDS]", help_heading = "Instruments")]
    fault: Option<FaultPlan>,

    /// Say where the server is, and how it ended, in JSON lines on stdout
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(refusal) = refusal(&args) {
        eprintln!("stallscope: {refusal}");
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    telemetry::set_up(args.console)?;
    let json = args.json;
    let options = Options {
        stack: args.stack,
        listen: args.listen,
        backlog: args.backlog,
        threads: args.threads.into(),
        work: args.work,
        kafka: args.kafka,
        kafka_rtt: args.kafka_rtt,
        producer: args.producer,
        topic: args.topic,
        ack: args.ack,
        tuning: args.tuning,
        message_timeout: args.message_timeout,
        body_bytes_max: args.max_body,
        request_timeout: args.request_timeout,
        idle_timeout: args.idle_timeout,
        shutdown_timeout: args.shutdown_timeout,
        cures: cures(args.cure, args.fault),
        heartbeat: !args.no_heartbeat,
        profile: args.profile,
        fault: args.fault,
    };
    let tally = servers::run(&options, |ready| say(&ready_line(ready, json)))?;
    say(&end_line(&tally, json));
    if tally.lost == 0 {
        return Ok(ExitCode::from(EXIT_OK));
    }
    eprintln!("stallscope: {} accepted events did not reach Kafka", tally.lost);
    Ok(ExitCode::from(EXIT_ERROR))
}

fn refusal(args: &Args) -> Option<String> {
    if args.cure.is_some() && !args.stack.is_on_tokio_uring() {
        let name = args.stack.name();
        return Some(format!(
            "--cure is for tokio-uring: the {name} server has none of its faults"
        ));
    }
    if args.kafka_rtt.is_some() && args.kafka != Kafka::Embedded {
        return Some("--kafka-rtt is for --kafka embedded: another broker takes its time".into());
    }
    if args.ack == Ack::Delivery && args.kafka == Kafka::None {
        return Some("--ack delivery needs a broker, and --kafka none has none".into());
    }
    let fault = args.fault?;
    if args.threads > 1 {
        return Some("--fault needs --threads 1: it stalls one runtime, and others go on".into());
    }
    if fault.fault == Fault::KafkaNotPolled && args.producer == ProducerKind::Future {
        let why = "the fault kafka-not-polled needs --producer base or threaded: a FutureProducer \
                   has a thread that polls, and does not pause";
        return Some(why.into());
    }
    fault.check(args.stack, &args.kafka, args.ack).err()
}

/// A stall that was asked for is not cured unless that was asked for too.
fn cures(asked: Option<Cures>, fault: Option<FaultPlan>) -> Cures {
    let stalls = fault.is_some_and(|plan| plan.fault == Fault::SqNotFlushed);
    let usual = if stalls { Cures::ALL.without(Cure::Submit) } else { Cures::ALL };
    asked.unwrap_or(usual)
}

/// One line on stdout, at once. That nobody reads it is no reason to stop serving.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).ok();
}

fn ready_line(ready: &Ready, json: bool) -> String {
    let Ready { address, kafka, heartbeat } = ready;
    let pid = std::process::id();
    if json {
        let ready = json!({
            "type": "ready",
            "url": format!("http://{address}"),
            "port": address.port(),
            "pid": pid,
            "kafka": kafka,
            "heartbeat": heartbeat,
        });
        return ready.to_string();
    }
    let page = heartbeat.as_ref().map_or("none".into(), |path| path.to_string_lossy());
    format!("listening on http://{address} (pid {pid}, kafka {kafka}, heartbeat {page})")
}

fn end_line(tally: &Tally, json: bool) -> String {
    let Tally { accepted, delivered, failed, lost: _ } = tally;
    if json {
        let end = json!({
            "type": "end", "accepted": accepted, "delivered": delivered, "failed": failed,
        });
        return end.to_string();
    }
    format!("stopped: {accepted} events accepted, {delivered} delivered, {failed} failed")
}

/// The rule of `--kafka`.
pub fn kafka(text: &str) -> Result<Kafka, String> {
    match text {
        "embedded" => return Ok(Kafka::Embedded),
        "none" => return Ok(Kafka::None),
        _ => {}
    }
    let is_broker = |broker: &str| {
        broker.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
    };
    if text.split(',').all(is_broker) {
        Ok(Kafka::Bootstrap(text.to_owned()))
    } else {
        Err("write it like host:9092 or host1:9092,host2:9092, or `embedded`, or `none`".to_owned())
    }
}

/// The rule of Kafka's `Topic.validate`.
fn topic(text: &str) -> Result<String, String> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=249).contains(&text.len()) && text.bytes().all(is_legal) && !matches!(text, "." | "..")
    {
        Ok(text.to_owned())
    } else {
        Err("a topic is 1 to 249 letters, digits, dots, underscores or hyphens".to_owned())
    }
}

/// librdkafka takes whole milliseconds, and 0 for "for ever".
fn message_timeout(text: &str) -> Result<Duration, String> {
    let timeout = duration(text)?;
    if (1..=i32::MAX as u128).contains(&timeout.as_millis()) {
        Ok(timeout)
    } else {
        Err("it must lie between 1ms and 24 days".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_and_topics_are_checked() {
        for text in ["h:1", "h:1,[::1]:9092", "embedded", "none"] {
            assert!(kafka(text).is_ok(), "{text}");
        }
        for text in ["", "h", "h:", ":1", "h:0", "h:70000", "h:1,", "embedded,h:1"] {
            assert!(kafka(text).is_err(), "{text}");
        }
        assert!(topic("a.b_c-1").is_ok());
        for text in ["", ".", "..", "a b", "a/b", &"x".repeat(250)] {
            assert!(topic(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_lines_on_stdout() {
        let mut ready = Ready {
            address: "127.0.0.1:80".parse().unwrap(),
            kafka: "k:9092".to_owned(),
            heartbeat: Some("/dev/shm/x".into()),
        };
        let pid = std::process::id();
        let line = ready_line(&ready, false);
        let expected =
            "listening on http://127.0.0.1:80 (pid PID, kafka k:9092, heartbeat /dev/shm/x)";
        assert_eq!(line, expected.replace("PID", &pid.to_string()));
        ready.heartbeat = None;
        let value: serde_json::Value = serde_json::from_str(&ready_line(&ready, true)).unwrap();
        let expected = json!({
            "type": "ready", "url": "http://127.0.0.1:80", "port": 80, "pid": pid,
            "kafka": "k:9092", "heartbeat": null,
        });
        assert_eq!(value, expected);
        let tally = Tally { accepted: 3, delivered: 2, failed: 1, lost: 1 };
        assert_eq!(
            end_line(&tally, true),
            r#"{"accepted":3,"delivered":2,"failed":1,"type":"end"}"#
        );
    }
}
