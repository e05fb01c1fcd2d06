//! `stallscope serve` against a real Kafka: what was acknowledged is in the topic, byte for byte,
//! also when Kafka goes away meanwhile and comes back. librdkafka's mock broker, which the other
//! tests have, neither checks what it is sent nor keeps it over a crash.
//!
//! The tests are ignored unless asked for: they need Kafka (`scripts/kafka`). `STALLSCOPE_KAFKA`
//! says where one is; those that take Kafka away start one of their own.
#![cfg(feature = "servers")]
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is the one who waits"
)]
#![expect(dead_code, reason = "the harness is that of the tests of `serve`, which use all of it")]

mod serve_harness;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serve_harness::{End, PATIENCE, STACKS, Server, event, eventually};

/// When an event is answered, and with what.
const ACKS: [(&str, u16); 2] = [("queue", 202), ("delivery", 200)];

/// Long enough for Kafka to be ended and started again twice.
const LONG: Duration = Duration::from_mins(4);

/// Where Kafka is.
fn kafka() -> String {
    std::env::var("STALLSCOPE_KAFKA").expect(
        "STALLSCOPE_KAFKA=HOST:PORT says where Kafka is, for example \
         STALLSCOPE_KAFKA=$(scripts/kafka start)",
    )
}

/// A Kafka of the test's own, that can be taken away. Dropping it ends and removes it.
struct OwnKafka {
    dir: tempfile::TempDir,
    bootstrap: String,
}

impl OwnKafka {
    fn start() -> Self {
        // Whoever has not set it up for the other tests has not for these.
        kafka();
        let dir = tempfile::tempdir().unwrap();
        let bootstrap = script(dir.path(), &["start", "--port", "0"]);
        Self { dir, bootstrap }
    }

    fn stop(&self, how: &[&str]) {
        script(self.dir.path(), &[&["stop"], how].concat());
    }

    /// Where it was, with what it held.
    fn start_again(&self) {
        let port = self.bootstrap.rsplit_once(':').unwrap().1;
        assert_eq!(script(self.dir.path(), &["start", "--port", port]), self.bootstrap);
    }
}

impl Drop for OwnKafka {
    fn drop(&mut self) {
        self.stop(&["--kill", "--wipe"]);
    }
}

/// Runs `scripts/kafka` for the broker in `dir` and gives the last line it prints.
fn script(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka"))
        .args(arguments)
        .arg("--dir")
        .arg(dir)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "scripts/kafka {arguments:?} failed");
    let stdout = String::from_utf8(output.stdout).unwrap();
    stdout.lines().last().unwrap_or_default().to_owned()
}

/// A topic that nobody has used before. It comes into being with its first record.
struct Topic<'a> {
    bootstrap: &'a str,
    name: String,
}

impl<'a> Topic<'a> {
    fn new(bootstrap: &'a str, what: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        Self { bootstrap, name: format!("{what}-{}-{now}", std::process::id()) }
    }

    /// The payloads of all its records, as a consumer gets them.
    fn records(&self) -> Vec<Vec<u8>> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap)
            .set("group.id", &self.name)
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        let metadata = consumer.fetch_metadata(Some(&self.name), PATIENCE).unwrap();
        let mut everything = TopicPartitionList::new();
        let mut count = 0;
        for partition in metadata.topics()[0].partitions() {
            let id = partition.id();
            let (low, high) = consumer.fetch_watermarks(&self.name, id, PATIENCE).unwrap();
            assert_eq!(low, 0, "nothing has been removed");
            count += usize::try_from(high).unwrap();
            everything.add_partition_offset(&self.name, id, Offset::Beginning).unwrap();
        }
        consumer.assign(&everything).unwrap();
        let mut records = Vec::new();
        eventually("all records are consumed", || {
            while let Some(message) = consumer.poll(Duration::from_millis(100)) {
                records.push(message.unwrap().payload().unwrap_or_default().to_vec());
            }
            records.len() >= count
        });
        assert_eq!(records.len(), count, "{}: offsets and records", self.name);
        records
    }
}

/// How many times each is there.
fn counted<T: AsRef<[u8]>>(payloads: &[T]) -> HashMap<Vec<u8>, usize> {
    let mut counts = HashMap::new();
    for payload in payloads {
        *counts.entry(payload.as_ref().to_vec()).or_default() += 1;
    }
    counts
}

/// A client that understands answers.
struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    fn new(server: &Server) -> Self {
        let client = server.connect();
        client.set_read_timeout(Some(LONG)).unwrap();
        Self { reader: BufReader::new(client) }
    }

    fn send(&mut self, requests: &[u8]) {
        self.reader.get_mut().write_all(requests).unwrap();
    }

    /// Status and body of the next answer.
    fn answer(&mut self) -> (u16, String) {
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body).unwrap();
        (status, String::from_utf8(body).unwrap())
    }

    fn post(&mut self, text: &str) -> (u16, String) {
        self.send(&event(text, ""));
        self.answer()
    }
}

/// As JSON has them between quotes, and as they are to be in the topic.
fn odd_events() -> Vec<(String, Vec<u8>)> {
    let large = "\u{e9}1234567".repeat(100_000);
    [
        ("plain", "plain"),
        ("", ""),
        (" ", " "),
        ("Grüße, \u{1f980} \\\"\\n\\\\", "Grüße, \u{1f980} \"\n\\"),
        ("\\u00e9\\u0000\\u0001\\ud83e\\udd80", "é\0\u{1}\u{1f980}"),
        (&large, &large),
    ]
    .map(|(json, payload)| (json.to_owned(), payload.as_bytes().to_vec()))
    .to_vec()
}

#[test]
#[ignore = "needs a real Kafka: STALLSCOPE_KAFKA=$(scripts/kafka start), then --ignored"]
fn each_acknowledged_event_is_one_record_byte_for_byte() {
    let kafka = kafka();
    for stack in STACKS {
        for (ack, status) in ACKS {
            for tuning in ["default", "tuned"] {
                let what = format!("{stack}-{ack}-{tuning}");
                let topic = Topic::new(&kafka, &what);
                let server = Server::start(
                    stack,
                    &["--kafka", &kafka, "--topic", &topic.name, "--ack", ack, "--tuning", tuning],
                );
                let sent = Mutex::new(Vec::new());
                let note = |payload| {
                    sent.lock().unwrap_or_else(PoisonError::into_inner).push(payload);
                };
                thread::scope(|scope| {
                    let mut client = Client::new(&server);
                    let (note, what) = (&note, &what);
                    scope.spawn(move || {
                        for (json, payload) in odd_events() {
                            assert_eq!(client.post(&json), (status, String::new()), "{what}");
                            note(payload);
                        }
                    });
                    for connection in 0..4 {
                        let mut client = Client::new(&server);
                        scope.spawn(move || {
                            for window in 0..16 {
                                let texts: Vec<String> = (0..32)
                                    .map(|number| format!("{what} {connection} {window} {number}"))
                                    .collect();
                                let requests: Vec<u8> =
                                    texts.iter().flat_map(|text| event(text, "")).collect();
                                client.send(&requests);
                                for text in texts {
                                    assert_eq!(client.answer(), (status, String::new()), "{what}");
                                    note(text.into_bytes());
                                }
                            }
                        });
                    }
                });
                let sent = sent.into_inner().unwrap_or_else(PoisonError::into_inner);
                let in_order = ack == "delivery";
                // What was delivered is there at once; what was queued, once the server has ended.
                let before_the_end = in_order.then(|| topic.records());
                let (exit, end) = server.stop();
                assert!(exit.success(), "{what}");
                let count = sent.len() as u64;
                assert_eq!(end, End { accepted: count, delivered: count, failed: 0 }, "{what}");
                let records = before_the_end.unwrap_or_else(|| topic.records());
                assert!(counted(&records) == counted(&sent), "{what}: not what was acknowledged");
            }
        }
    }
}

#[test]
#[ignore = "needs a real Kafka: STALLSCOPE_KAFKA=$(scripts/kafka start), then --ignored"]
fn an_event_too_large_for_kafka_is_refused_before_it_is_acknowledged() {
    let kafka = kafka();
    let topic = Topic::new(&kafka, "large");
    // What becomes of an event is the same on every stack.
    let server =
        Server::start(STACKS[0], &["--kafka", &kafka, "--topic", &topic.name, "--ack", "delivery"]);
    let mut delivered = Vec::new();
    let mut refused = 0;
    // Around the largest batch that a broker takes by default, 1 048 588 bytes with its headers.
    for size in (1_048_420..1_048_565).step_by(12) {
        let text = "x".repeat(size);
        // A refusal may end the connection.
        match Client::new(&server).post(&text) {
            (200, _) => delivered.push(text),
            (413, _) => refused += 1,
            (status, body) => panic!("{size} bytes: {status} {body}"),
        }
    }
    assert!(!delivered.is_empty() && refused > 0, "{} delivered, {refused}", delivered.len());
    assert!(counted(&topic.records()) == counted(&delivered));
    let (exit, _) = server.stop();
    assert!(exit.success());
}

/// One server while Kafka goes and comes.
struct Patient<'a> {
    topic: Topic<'a>,
    server: Server,
    load: Load,
}

/// What its clients send and are told.
struct Load {
    what: String,
    status: u16,
    acknowledged: Mutex<Vec<String>>,
    count: AtomicUsize,
}

const CLIENTS: usize = 2;

impl<'a> Patient<'a> {
    fn new(kafka: &'a str, stack: &str, (ack, status): (&str, u16)) -> Self {
        let what = format!("{stack}-{ack}");
        let topic = Topic::new(kafka, &what);
        let server = Server::start(
            stack,
            &[
                &["--kafka", kafka, "--topic", &topic.name, "--ack", ack][..],
                &["--message-timeout", "240s", "--shutdown-timeout", "30s"],
            ]
            .concat(),
        );
        let load =
            Load { what, status, acknowledged: Mutex::default(), count: AtomicUsize::new(0) };
        Self { topic, server, load }
    }
}

impl Load {
    /// Sends one event after the other, some hundred in a second.
    fn client(&self, mut client: Client, number: usize, until: &AtomicBool) {
        for event in 0.. {
            if until.load(Ordering::Relaxed) {
                break;
            }
            let text = format!("{} {number} {event}", self.what);
            assert_eq!(client.post(&text), (self.status, String::new()), "{}", self.what);
            self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            self.count.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

/// Waits until each of these has 100 acknowledged events more.
fn all_go_on<'a>(what: &str, loads: impl Iterator<Item = &'a Load>) {
    let aims: Vec<_> = loads.map(|load| (load, load.count() + 100)).collect();
    eventually(what, || aims.iter().all(|(load, aim)| load.count() >= *aim));
}

#[test]
#[ignore = "needs a real Kafka: STALLSCOPE_KAFKA=$(scripts/kafka start), then --ignored"]
fn kafka_going_away_and_coming_back_loses_no_acknowledged_event() {
    let kafka = OwnKafka::start();
    let patients: Vec<Patient<'_>> = STACKS
        .iter()
        .flat_map(|stack| ACKS.map(|ack| Patient::new(&kafka.bootstrap, stack, ack)))
        .collect();
    let loads = || patients.iter().map(|patient| &patient.load);
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        // However this ends, the clients do: they are waited for.
        let _ended = EndOnDrop(&ends);
        for Patient { server, load, .. } in &patients {
            for number in 0..CLIENTS {
                let (client, ends) = (Client::new(server), &ends);
                scope.spawn(move || load.client(client, number, ends));
            }
        }
        all_go_on("events are delivered", loads());
        for how in [&[][..], &["--kill"]] {
            kafka.stop(how);
            // What waits for delivery waits; what is queued goes on being queued.
            let queued = || loads().filter(|load| load.status == 202);
            all_go_on("events are queued without Kafka", queued());
            let waiting: Vec<_> = loads().filter(|load| load.status == 200).collect();
            let before: Vec<_> = waiting.iter().map(|load| load.count()).collect();
            all_go_on("and more of them", queued());
            let after: Vec<_> = waiting.iter().map(|load| load.count()).collect();
            assert_eq!(before, after, "nothing is delivered without Kafka");
            kafka.start_again();
            all_go_on("events are delivered again", loads());
        }
    });
    for Patient { topic, server, load } in patients {
        let what = &load.what;
        let (exit, end) = server.stop();
        assert!(exit.success(), "{what}");
        let acknowledged = load.acknowledged.into_inner().unwrap_or_else(PoisonError::into_inner);
        let count = acknowledged.len() as u64;
        assert_eq!(end, End { accepted: count, delivered: count, failed: 0 }, "{what}");
        let records = topic.records();
        let (acknowledged, found) = (counted(&acknowledged), counted(&records));
        let missing = acknowledged.keys().filter(|text| !found.contains_key(*text)).count();
        assert_eq!(missing, 0, "{what}: of {count} acknowledged events");
        let foreign = found.keys().filter(|text| !acknowledged.contains_key(*text)).count();
        assert_eq!(foreign, 0, "{what}: records that nobody sent");
        // The producer is not idempotent: a record whose acknowledgement was lost is sent again.
        let twice = records.len() - found.len();
        eprintln!("{what}: {count} acknowledged, all in the topic; {twice} of them twice");
    }
}

struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "needs a real Kafka: STALLSCOPE_KAFKA=$(scripts/kafka start), then --ignored"]
fn with_kafka_gone_an_event_is_answered_503_after_the_message_timeout() {
    const TIMEOUT: Duration = Duration::from_secs(3);
    /// Of librdkafka, which looks for events whose time is up once in a second, and of the machine.
    const SLACK: Duration = Duration::from_secs(4);
    let kafka = OwnKafka::start();
    let servers: Vec<_> = STACKS
        .iter()
        .map(|stack| {
            let topic = Topic::new(&kafka.bootstrap, stack);
            let server = Server::start(
                stack,
                &[
                    &["--kafka", &kafka.bootstrap, "--topic", &topic.name][..],
                    &["--ack", "delivery", "--message-timeout", "3s"],
                ]
                .concat(),
            );
            let mut client = Client::new(&server);
            // The first one may find Kafka still making the topic.
            eventually("an event is delivered", || client.post("before").0 == 200);
            (stack, server, client)
        })
        .collect();
    kafka.stop(&[]);
    for (stack, server, mut client) in servers {
        let begin = Instant::now();
        let (status, body) = client.post("after");
        let took = begin.elapsed();
        assert_eq!(status, 503, "{stack}: {body}");
        assert!(body.contains("the event was not delivered: "), "{stack}: {body}");
        assert!(took >= TIMEOUT && took < TIMEOUT + SLACK, "{stack}: answered after {took:?}");
        let (exit, end) = server.stop();
        assert!(exit.success(), "{stack}");
        assert_eq!(end.accepted, end.delivered + end.failed, "{stack}: {end:?}");
        assert_eq!(end.delivered, 1, "{stack}: {end:?}");
    }
}
