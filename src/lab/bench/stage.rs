//! One server that is up: what is put on it, what it uses, and how it is brought to its end.
#![expect(clippy::disallowed_methods, reason = "this is where servers are started and waited for")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use serde_json::Value;

use super::axes::REMOTE_RTT;
use super::kafka::{Counter, Mock, Topic};
use super::plan::{Cell, Client, Kafka, Server, TOPIC, foreign_words, serve_words};
use super::record::{Load, Records};
use crate::lab::catalogue::Place;
use crate::lab::place::Room;
use crate::lab::process::{Process, Stdout};
use crate::lab::start::{READY_MAX, http};

/// How long between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A load takes its time, and a moment to print.
const LOAD_PATIENCE: Duration = Duration::from_secs(20);
/// `serve` gives itself ten seconds for what is in flight, and as long for what is not delivered.
const END_PATIENCE: Duration = Duration::from_secs(30);
/// How long a server that is not needed any more may take.
const DROP_PATIENCE: Duration = Duration::from_secs(2);
/// What is not delivered by then is not on its way.
const SETTLE_MAX: Duration = Duration::from_secs(10);
/// Where something was not delivered in time, the next wait is this short, until the last one.
const SETTLE_AGAIN: Duration = Duration::from_millis(500);
/// What has not changed for so long has come to rest: longer than any batch waits to be filled.
const SETTLED_AFTER: Duration = Duration::from_millis(200);
/// How long the records of a run may take to be read from a real cluster.
const READ_MAX: Duration = Duration::from_mins(2);
/// What one server may print.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// What is looked at of what it printed.
const PRINTED_BYTES_MAX: u64 = 64 << 10;
/// Characters shown of a last line.
const LINE_CHARS_MAX: usize = 200;
/// Where the server's stdout goes.
const STDOUT: &str = "server.out";

/// A load to be put on a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order<'a> {
    /// Name of its files.
    pub name: &'a str,
    /// Connections held at once.
    pub connections: u32,
    /// Requests a second; `None`: as many as are answered.
    pub rate: Option<u32>,
    /// How connections are used.
    pub client: Client,
    /// For how long.
    pub time: Duration,
}

/// A server that is up.
pub(super) struct Stage<'a> {
    out: &'a Path,
    stop: &'a AtomicBool,
    room: Room,
    server: Process,
    url: String,
    is_own: bool,
    kafka: Kafka,
    counter: Option<Counter>,
    // In this order: who writes to a broker ends before it does.
    _mock: Option<Mock>,
    _topic: Option<Topic>,
    /// How it was started, as a shell would take it.
    pub(super) command: String,
    acknowledged: u64,
    unsure: u64,
    /// How long delivery is waited for.
    patience: Duration,
}

impl<'a> Stage<'a> {
    /// Starts the server of `cell`, with its files in `out`, and returns once it listens. `fresh` is
    /// a name for a topic that no other run has used.
    ///
    /// # Errors
    /// When it does not listen in time, or Kafka is not there.
    pub(super) fn start(
        cell: &Cell,
        out: &'a Path,
        fresh: &str,
        stop: &'a AtomicBool,
    ) -> anyhow::Result<Self> {
        let kafka = cell.kafka().clone();
        let mut name = TOPIC;
        let (mut mock, mut topic, mut bootstrap) = (None, None, None);
        match &kafka {
            Kafka::None | Kafka::Embedded => {}
            Kafka::Mock | Kafka::Remote => {
                let rtt = (kafka == Kafka::Remote).then_some(REMOTE_RTT);
                let broker = Mock::start(name, rtt)?;
                bootstrap = Some(broker.bootstrap());
                mock = Some(broker);
            }
            Kafka::Brokers(brokers) => {
                name = fresh;
                topic = Some(Topic::make(brokers, name)?);
                bootstrap = Some(brokers.clone());
            }
        }
        let room = Room::make(Place::Host)?;
        let (program, words, port) = match &cell.server {
            Server::Own(own) => {
                let program = std::env::current_exe().context("cannot find this program's file")?;
                (program, serve_words(own, bootstrap.as_deref(), name), None)
            }
            Server::Foreign { command, .. } => {
                let port = free_port()?;
                let mut words = foreign_words(command, port, bootstrap.as_deref(), name);
                (PathBuf::from(words.remove(0)), words, Some(port))
            }
        };
        let shown = match &cell.server {
            Server::Own(_) => Path::new("stallscope"),
            Server::Foreign { .. } => &program,
        };
        let command = limited(shown, &words, cell.fd_limit).1;
        let limited = limited(&program, &words, cell.fd_limit).0;
        let server = Process::launch(&room, out, "server", limited, Stdout::File(STDOUT))?;
        let mut stage = Self {
            out,
            stop,
            room,
            server,
            url: String::new(),
            is_own: port.is_none(),
            kafka,
            counter: None,
            _mock: mock,
            _topic: topic,
            command,
            acknowledged: 0,
            unsure: 0,
            patience: SETTLE_MAX,
        };
        if let Some(port) = port {
            stage.await_port(port)?;
        } else {
            let own_broker = stage.await_line()?;
            bootstrap = bootstrap.or(own_broker);
        }
        if stage.kafka != Kafka::None {
            let brokers = bootstrap.context("the server did not say where its broker is")?;
            stage.counter = Some(Counter::new(&brokers, name)?);
        }
        Ok(stage)
    }

    /// Its process group.
    pub(super) const fn group(&self) -> i32 {
        self.server.pid()
    }

    /// Waits for the line in which `serve` says that it is ready; returns where its broker is.
    fn await_line(&mut self) -> anyhow::Result<Option<String>> {
        let path = self.out.join(STDOUT);
        let ready = self.await_that("is not ready", READY_MAX, || {
            let text = printed(&path);
            let (line, _) = text.split_once('\n')?;
            Some(serde_json::from_str::<Value>(line).map_err(|_| anyhow!("it said: {line}")))
        })??;
        ready["url"].as_str().context("it did not say where it listens")?.clone_into(&mut self.url);
        Ok(ready["kafka"].as_str().map(str::to_owned))
    }

    /// Waits until somebody accepts connections on `port`.
    fn await_port(&mut self, port: u16) -> anyhow::Result<()> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        self.url = format!("http://{address}");
        self.await_that(&format!("does not listen on port {port}"), READY_MAX, || {
            TcpStream::connect_timeout(&address, LOOK_EVERY).ok()
        })?;
        Ok(())
    }

    /// Waits until `look` finds something.
    fn await_that<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut() -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            self.look()?;
            if Instant::now() > deadline {
                bail!("the server {what} within {} s{}", patience.as_secs(), self.last_words());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Whether all is still as it should be.
    fn look(&mut self) -> anyhow::Result<()> {
        ensure!(!self.stop.load(Ordering::Relaxed), "interrupted");
        if let Some(status) = self.server.exit() {
            bail!("the server ended ({status}){}", self.last_words());
        }
        for file in [&self.server.log, &self.out.join(STDOUT)] {
            // One that is not there yet holds nothing.
            let bytes = std::fs::metadata(file).map_or(0, |file| file.len());
            ensure!(bytes <= LOG_BYTES_MAX, "the server prints too much; see {}", file.display());
        }
        Ok(())
    }

    /// What the server said last on stderr.
    fn last_words(&self) -> String {
        let text = printed(&self.server.log);
        let log = self.server.log.display();
        match text.lines().rev().find(|line| !line.trim().is_empty()) {
            Some(line) => {
                let line: String = line.trim().chars().take(LINE_CHARS_MAX).collect();
                format!("; it said: {line} (all of it in {log})")
            }
            None => String::new(),
        }
    }

    /// Puts a load on the server and waits for its end; `meanwhile` is called now and then.
    ///
    /// # Errors
    /// When the load or the server broke, or it is to stop.
    pub(super) fn load(
        &mut self,
        order: Order<'_>,
        mut meanwhile: impl FnMut(),
    ) -> anyhow::Result<Load> {
        let words = self.load_words(order);
        let file = format!("{}.json", order.name);
        let mut load =
            Process::start(&self.room, self.out, order.name, &words, Stdout::File(&file))?;
        let deadline = Instant::now() + order.time + LOAD_PATIENCE;
        while load.exit().is_none() {
            self.look()?;
            ensure!(Instant::now() < deadline, "the load {} does not end", order.name);
            meanwhile();
            std::thread::sleep(LOOK_EVERY);
        }
        let printed = printed(&self.out.join(&file));
        let printed: Option<Value> = serde_json::from_str(&printed).ok();
        let result = printed.as_ref().and_then(Load::of).with_context(|| {
            format!("the load {} printed no result; see {}", order.name, load.log.display())
        })?;
        self.acknowledged += result.accepted_2xx;
        self.unsure += result.requests.saturating_sub(result.accepted_2xx);
        Ok(result)
    }

    fn load_words(&self, order: Order<'_>) -> Vec<String> {
        let close = order.client == Client::Close;
        http(&self.url, order.connections, order.rate, close, order.time)
    }

    /// The command of a load, as a shell would take it.
    pub(super) fn load_command(&self, order: Order<'_>) -> String {
        format!("stallscope {}", quoted(&self.load_words(order)))
    }

    /// Waits until every acknowledged event is in Kafka and none follows, or it has taken too long:
    /// then the count will tell. Without Kafka nothing is under way.
    ///
    /// # Errors
    /// When Kafka does not answer, or it is to stop.
    pub(super) fn settle(&mut self) -> anyhow::Result<()> {
        let Some(counter) = self.counter.take() else { return Ok(()) };
        let begun = Instant::now();
        let (mut last, mut since) = (counter.offsets()?, Instant::now());
        loop {
            self.look()?;
            let now = counter.offsets()?;
            if now != last {
                (last, since) = (now, Instant::now());
            }
            if now >= self.acknowledged && since.elapsed() >= SETTLED_AFTER {
                break;
            }
            if begun.elapsed() >= self.patience {
                self.patience = SETTLE_AGAIN;
                break;
            }
            std::thread::sleep(LOOK_EVERY * 2);
        }
        self.counter = Some(counter);
        Ok(())
    }

    /// Brings the server to its end, and counts what has come of the events; and says what was wrong
    /// about that.
    ///
    /// # Errors
    /// When it does not end, or its records cannot be counted.
    pub(super) fn end(mut self) -> anyhow::Result<(Option<Records>, Vec<String>)> {
        self.patience = SETTLE_MAX;
        self.settle()?;
        let mut problems = Vec::new();
        // The broker inside a server ends with it.
        let before = match (&self.kafka, &self.counter) {
            (Kafka::Embedded, Some(counter)) => Some(counter.offsets()?),
            _ => None,
        };
        self.look()?;
        self.server.ask_to_end();
        if !self.server.await_end(END_PATIENCE) {
            bail!("the server did not end within {} s of SIGTERM", END_PATIENCE.as_secs());
        }
        if let Some(status) = self.server.exit().filter(|status| self.is_own && !status.success()) {
            problems.push(format!("the server ended with {status}{}", self.last_words()));
        }
        let in_kafka = match (&self.kafka, &self.counter, before) {
            (_, None, _) => return Ok((None, problems)),
            (_, _, Some(count)) => count,
            (Kafka::Brokers(_), Some(counter), None) => {
                let offsets = counter.offsets()?;
                let read = counter.read_all(READ_MAX, || self.stop.load(Ordering::Relaxed))?;
                if read != offsets {
                    problems.push(format!(
                        "{read} records can be read, and offsets say that there are {offsets}"
                    ));
                }
                read
            }
            (_, Some(counter), None) => counter.offsets()?,
        };
        let end = self.is_own.then(|| end_line(&printed(&self.out.join(STDOUT)))).flatten();
        if self.is_own && end.is_none() {
            problems.push(String::from("the server did not say what became of its events"));
        }
        let of = |key: &str| end.as_ref().and_then(|end| end[key].as_u64());
        let records = Records {
            acknowledged: self.acknowledged,
            unsure: self.unsure,
            accepted: of("accepted"),
            delivered: of("delivered"),
            failed: of("failed"),
            in_kafka,
        };
        Ok((Some(records), problems))
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        // Asked first: what a server keeps in /dev/shm goes with it only then.
        if self.server.exit().is_none() {
            self.server.ask_to_end();
            self.server.await_end(DROP_PATIENCE);
        }
    }
}

/// The line in which `serve` says what became of the events.
fn end_line(printed: &str) -> Option<Value> {
    let line = printed.lines().next_back()?;
    let end: Value = serde_json::from_str(line).ok()?;
    (end["type"] == "end").then_some(end)
}

/// The beginning of a file, as far as it is text.
fn printed(path: &Path) -> String {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        // What could not be read is looked at again, or missed by whoever needs it.
        file.take(PRINTED_BYTES_MAX).read_to_end(&mut bytes).ok();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A command that runs with this limit of open files, hard and soft (a runtime may raise its soft
/// limit itself, as Go's does), and how to write it.
fn limited(program: &Path, words: &[String], fd_limit: u64) -> (Command, String) {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -n \"$0\" && exec \"$@\""]).arg(fd_limit.to_string());
    command.arg(program).args(words);
    let program = program.to_string_lossy();
    let shown = std::iter::once(program.into_owned()).chain(words.iter().cloned());
    let shown = quoted(&shown.collect::<Vec<_>>());
    (command, format!("(ulimit -n {fd_limit} && exec {shown})"))
}

/// Words as a shell would take them.
fn quoted(words: &[String]) -> String {
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "))
}

/// Whether a process can be given this limit of open files.
pub(super) fn can_have_fds(fd_limit: u64) -> bool {
    let (mut command, _) = limited(Path::new("true"), &[], fd_limit);
    command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A port that nobody listens on. Somebody may take it in the moment until the server does: then
/// the run fails, and is tried again when the study is gone on with.
fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot find a free port")?;
    Ok(listener.local_addr().context("cannot find a free port")?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_runs_within_its_limit() {
        let words = ["-c", "ulimit -Sn; ulimit -Hn"].map(str::to_owned);
        let (mut command, shown) = limited(Path::new("sh"), &words, 300);
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "300\n300\n");
        assert_eq!(shown, "(ulimit -n 300 && exec sh -c 'ulimit -Sn; ulimit -Hn')");
        assert!(can_have_fds(300) && !can_have_fds(u64::MAX));
    }

    #[test]
    fn the_end_is_told_in_the_last_line() {
        let end = end_line("{\"type\":\"ready\"}\n{\"type\":\"end\",\"accepted\":5}\n").unwrap();
        assert_eq!(end["accepted"], 5);
        assert_eq!(end_line("{\"type\":\"ready\"}\n"), None);
        assert_eq!(end_line(""), None);
    }
}
