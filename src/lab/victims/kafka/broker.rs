//! A Kafka broker in a process of its own, so that its connections really die, stop or fall silent.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use rdkafka::mocking::MockCluster;
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Signal, getppid, kill_process, pidfd_getfd, pidfd_open,
    set_parent_process_death_signal,
};
use socket2::{SockFilter, Socket};

use crate::lab::victims::Options;

/// The topic of every record.
pub const TOPIC: &str = "events";
const PARTITIONS: i32 = 4;
/// librdkafka numbers the brokers of a mock cluster from 1.
const BROKER_ID: i32 = 1;
/// `BPF_RET | BPF_K` (`linux/bpf_common.h`): with k = 0 it drops the packet (socket(7),
/// `SO_ATTACH_FILTER`).
const BPF_RETURN: u16 = 0x06;

/// The broker's process: `stallscope lab-victim kafka-broker`. It says where it listens, and then
/// does what each line on its stdin says (`answers-after MS`), until that is closed.
pub fn run(_: &Options) -> anyhow::Result<()> {
    // A stopped process does not see that its stdin was closed; this signal ends it all the same
    // when its parent is killed.
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    ensure!(getppid() == parent, "the parent has ended");
    let cluster = MockCluster::new(1)?;
    cluster.create_topic(TOPIC, PARTITIONS, 1)?;
    println!("{}", cluster.bootstrap_servers());
    for line in std::io::stdin().lines() {
        let line = line?;
        let delay = line.strip_prefix("answers-after ").and_then(|ms| ms.parse().ok());
        let delay = delay.ok_or_else(|| anyhow!("the broker does not know how to '{line}'"))?;
        cluster.broker_round_trip_time(BROKER_ID, Duration::from_millis(delay))?;
        println!("done");
    }
    Ok(())
}

/// A running broker. Dropping it kills it.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    bootstrap: String,
}

impl Broker {
    /// Starts one, and returns once it listens. To be called on a thread that lives as long as the
    /// process: the broker dies with it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut child = Command::new(program)
            .args(["lab-victim", "kafka-broker"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the broker")?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(anyhow!("the broker has no pipes"));
        };
        let mut broker =
            Self { child, stdin, stdout: BufReader::new(stdout), bootstrap: String::new() };
        broker.bootstrap = broker.line().context("the broker did not start")?;
        Ok(broker)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        ensure!(self.stdout.read_line(&mut line)? > 0, "the broker has ended");
        Ok(line.trim_end().to_owned())
    }

    /// Its address.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Kills it: its connections are closed, and others refused.
    ///
    /// # Errors
    /// When that fails.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops it: its kernel goes on taking what it is sent, until there is no room left.
    ///
    /// # Errors
    /// When that fails.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        Ok(kill_process(self.pid()?, Signal::STOP)?)
    }

    /// Lets it answer each request this long after it came. Returns once that holds.
    ///
    /// # Errors
    /// When the broker has ended.
    pub fn answers_after(&mut self, delay: Duration) -> anyhow::Result<()> {
        writeln!(self.stdin, "answers-after {}", delay.as_millis())?;
        self.line().map(drop)
    }

    /// Lets it vanish from the network: whatever arrives at any of its sockets is dropped before
    /// TCP sees it, so that nothing is acknowledged and nothing reset, as when the cable is cut.
    /// New connections find the same silence: the filter of the listening socket drops their SYNs
    /// (kernel: `tcp_v4_rcv`, `tcp_filter`).
    ///
    /// # Errors
    /// When its sockets cannot be had: that takes the right to trace it (`pidfd_getfd(2)`).
    pub fn vanish(&mut self) -> anyhow::Result<()> {
        let pid = self.pid()?;
        let process = pidfd_open(pid, PidfdFlags::empty()).context("cannot open the broker")?;
        let drop_all = [SockFilter::new(BPF_RETURN, 0, 0, 0)];
        let folder = format!("/proc/{}/fd", pid.as_raw_nonzero());
        let mut sockets = 0;
        for entry in fs::read_dir(folder)?.flatten() {
            let is_socket = fs::read_link(entry.path())
                .is_ok_and(|target| target.to_string_lossy().starts_with("socket:"));
            let number = entry.file_name().to_string_lossy().parse();
            let (true, Ok(number)) = (is_socket, number) else { continue };
            let fd = pidfd_getfd(&process, number, PidfdGetfdFlags::empty())
                .context("cannot reach the broker's sockets")?;
            Socket::from(fd).attach_filter(&drop_all)?;
            sockets += 1;
        }
        ensure!(sockets > 0, "the broker has no sockets");
        Ok(())
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        pid.ok_or_else(|| anyhow!("the broker has no pid"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill().ok();
    }
}

/// An address on which connections are refused for as long as the socket is held: it is bound, and
/// does not listen.
///
/// # Errors
/// When there is no port.
pub fn closed_port() -> anyhow::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let address = socket.local_addr()?.as_socket();
    Ok((socket, address.ok_or_else(|| anyhow!("the closed port has no address"))?))
}
