//! Starts servers and brokers for the tests of `stallscope serve`.

pub mod refusals;

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rustix::process::{Pid, Signal};
use stallscope_probes::sample::HeartbeatRaw;
use stallscope_probes::{Reading, heartbeat};

/// The servers, as on the command line.
pub const STACKS: [&str; 5] =
    ["tokio", "tokio-uring", "tokio-hyper", "tokio-uring-hyper", "glommio"];

/// How long a condition may take to come true, on a machine that is busy with something else.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A `POST /events`; `text` is put between the quotes as it is.
pub fn event(text: &str, lines: &str) -> Vec<u8> {
    let body = format!("{{\"data\":\"{text}\"}}");
    let length = body.len();
    format!("POST /events HTTP/1.1\r\nHost: h\r\n{lines}Content-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// Everything the server sends until it closes the connection.
pub fn until_end(client: &mut TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    received
}

/// An address where no broker is, for as long as the socket is held.
pub fn no_broker() -> (socket2::Socket, String) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap().to_string();
    (socket, address)
}

fn serve_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stallscope"));
    command.arg("serve").args(arguments).env_remove("RUST_LOG");
    command
}

/// Runs `stallscope serve` where it is to end by itself.
pub fn serve_output(arguments: &[&str]) -> Output {
    serve_command(arguments).output().unwrap()
}

/// The last line on stdout.
#[derive(Debug, PartialEq, Eq)]
pub struct End {
    pub accepted: u64,
    pub delivered: u64,
    pub failed: u64,
}

/// A running server. Dropping it kills it.
pub struct Server {
    child: RefCell<Child>,
    stdout: RefCell<BufReader<ChildStdout>>,
    address: SocketAddr,
    start_time_ticks: u64,
}

impl Server {
    /// Starts one on a free port and waits until it is ready.
    pub fn start(stack: &str, arguments: &[&str]) -> Self {
        Self::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), stack, arguments)
    }

    /// Starts one on this address and waits until it is ready.
    pub fn start_on(address: SocketAddr, stack: &str, arguments: &[&str]) -> Self {
        let mut child = serve_command(&[stack, "--listen", &address.to_string(), "--json"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(ready["type"], "ready");
        assert_eq!(ready["pid"], child.id());
        let address = ready["url"].as_str().unwrap().strip_prefix("http://").unwrap();
        let address: SocketAddr = address.parse().unwrap();
        assert_eq!(ready["port"], address.port());
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        // Field 22; the name, field 2, ends at the last parenthesis.
        let after_name = stat.rsplit_once(") ").unwrap().1;
        let start_time_ticks = after_name.split(' ').nth(19).unwrap().parse().unwrap();
        Self { child: RefCell::new(child), stdout: RefCell::new(stdout), address, start_time_ticks }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> i32 {
        self.child.borrow().id().cast_signed()
    }

    fn proc(&self, entry: &str) -> PathBuf {
        Path::new("/proc").join(self.pid().to_string()).join(entry)
    }

    /// A new client. It gives up where the server never answers.
    pub fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_nodelay(true).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_write_timeout(Some(PATIENCE)).unwrap();
        client
    }

    pub fn try_heartbeat(&self) -> Reading<HeartbeatRaw> {
        heartbeat::find(Path::new("/proc"), self.pid(), self.start_time_ticks)
            .and_then(|page| page.read())
    }

    pub fn heartbeat(&self) -> HeartbeatRaw {
        self.try_heartbeat().got().unwrap().clone()
    }

    /// Sockets on the server's port that it has accepted and not closed. (Closed ones that linger
    /// in the kernel, and those not accepted yet, have inode 0.)
    pub fn accepted_sockets(&self) -> usize {
        let table = std::fs::read_to_string(self.proc("net/tcp")).unwrap();
        let port = format!(":{:04X}", self.address.port());
        let listening = "0A";
        table
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|fields| {
                fields[1].ends_with(&port) && fields[3] != listening && fields[9] != "0"
            })
            .count()
    }

    pub fn fd_limit(&self) -> u64 {
        let limits = std::fs::read_to_string(self.proc("limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        line.split_whitespace().nth(3).unwrap().parse().unwrap()
    }

    pub fn state(&self) -> char {
        let stat = std::fs::read_to_string(self.proc("stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    }

    pub fn has_thread(&self, name: &str) -> bool {
        std::fs::read_dir(self.proc("task")).unwrap().flatten().any(|task| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
        })
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_raw(self.pid()).unwrap(), signal).unwrap();
    }

    /// Waits for the end.
    pub fn wait_for_exit(&self) -> ExitStatus {
        let mut status = None;
        eventually("the server ends", || {
            status = self.child.borrow_mut().try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Waits for the end and gives what the server says of it.
    pub fn wait(&self) -> (ExitStatus, End) {
        let status = self.wait_for_exit();
        let mut line = String::new();
        self.stdout.borrow_mut().read_line(&mut line).unwrap();
        let end: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(end["type"], "end");
        let number = |name: &str| end[name].as_u64().unwrap();
        let end = End {
            accepted: number("accepted"),
            delivered: number("delivered"),
            failed: number("failed"),
        };
        (status, end)
    }

    /// Ends the server with SIGTERM.
    pub fn stop(&self) -> (ExitStatus, End) {
        self.signal(Signal::TERM);
        self.wait()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        // It may have ended already.
        child.kill().ok();
        child.wait().ok();
    }
}

const PARTITIONS: i32 = 3;

/// A broker of the test's own, that outlives the servers.
pub struct Broker {
    cluster: MockCluster<'static, DefaultProducerContext>,
    pub bootstrap: String,
}

impl Broker {
    pub fn start() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("events", PARTITIONS, 1).unwrap();
        let bootstrap = cluster.bootstrap_servers();
        Self { cluster, bootstrap }
    }

    /// Cuts all connections, and takes none until it is back.
    pub fn goes_away(&self) {
        self.cluster.broker_down(1).unwrap();
    }

    pub fn comes_back(&self) {
        self.cluster.broker_up(1).unwrap();
    }

    fn consumer(&self) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", "test")
            .create()
            .unwrap()
    }

    /// Records in the topic.
    pub fn count(&self) -> u64 {
        let consumer = self.consumer();
        (0..PARTITIONS)
            .map(|partition| consumer.fetch_watermarks("events", partition, PATIENCE).unwrap())
            .map(|(low, high)| u64::try_from(high - low).unwrap())
            .sum()
    }

    /// The payloads of `count` records, which must be all.
    pub fn records(&self, count: usize) -> Vec<Vec<u8>> {
        assert_eq!(self.count(), count as u64);
        let consumer = self.consumer();
        let mut everything = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            everything.add_partition_offset("events", partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&everything).unwrap();
        let mut records = Vec::new();
        eventually("all records are consumed", || {
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                records.push(message.unwrap().payload().unwrap_or_default().to_vec());
            }
            records.len() == count
        });
        records
    }
}
