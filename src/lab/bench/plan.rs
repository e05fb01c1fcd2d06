//! What a study compares. Pure.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::servers::{ProducerKind, Work};

pub use super::axes::{Client, Kafka};

/// Most cells of a study: beyond that no table can be read.
pub const CELLS_MAX: usize = 256;
/// Most rounds of a study.
pub const ROUNDS_MAX: u32 = 1_000;
/// Most characters of the name of a server of one's own.
pub const NAME_CHARS_MAX: usize = 48;
/// Most words of a command of one's own.
pub const WORDS_MAX: usize = 256;
/// Fds that a server needs beside its connections, with a reserve.
const FDS_SPARE: u64 = 128;
/// The topic of a broker to which no one else writes: what `serve` takes when it is told nothing.
pub const TOPIC: &str = "events";
/// What `serve` takes for itself when it is told nothing.
const THREADS_DEFAULT: u32 = 1;

/// Somebody else's server: `NAME=COMMAND`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    /// What it is called in the tables.
    pub name: String,
    /// Program and arguments, with placeholders.
    pub words: Vec<String>,
}

impl Foreign {
    fn mentions(&self, placeholder: &str) -> bool {
        self.words.iter().any(|word| word.contains(placeholder))
    }
}

impl std::str::FromStr for Foreign {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, command) = text
            .split_once('=')
            .ok_or("write it like 'name=COMMAND', with {port} where the port goes")?;
        let visible = |char: char| !char.is_control() && !char.is_whitespace() && char != ',';
        if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || !name.chars().all(visible) {
            return Err(format!(
                "a server's name has 1 to {NAME_CHARS_MAX} characters, none of them a blank or a comma"
            ));
        }
        let words = shlex::split(command).ok_or("a quotation mark in the command is not closed")?;
        if words.is_empty() || words.len() > WORDS_MAX {
            return Err(format!("the command has 1 to {WORDS_MAX} words"));
        }
        let foreign = Self { name: name.to_owned(), words };
        if foreign.mentions("{port}") {
            Ok(foreign)
        } else {
            Err(String::from("the command has no {port}: the server is told there where to listen"))
        }
    }
}

/// A server of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// As `serve` calls it.
    pub stack: String,
    /// What it does with a request.
    pub work: Work,
    /// Which producer; only where there is Kafka.
    pub producer: Option<ProducerKind>,
    /// Settings of the producer, as `serve` calls them; only where there is Kafka.
    pub tuning: Option<String>,
    /// Where records go.
    pub kafka: Kafka,
    /// Which cures of its runtime's ills are on, as `serve` is told; `None`: it is told nothing.
    pub cure: Option<String>,
    /// Threads that serve.
    pub threads: u32,
}

/// Which server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Server {
    /// Of this same binary.
    Own(Own),
    /// Somebody else's.
    Foreign {
        /// Name and command.
        command: Foreign,
        /// Where records go; [`Kafka::None`] when the command has no place for it.
        kafka: Kafka,
    },
}

/// One combination of what is crossed: a row of the tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Which server.
    pub server: Server,
    /// Its limit of open files, hard and soft.
    pub fd_limit: u64,
    /// How clients use their connections.
    pub client: Client,
    /// Connections held at once.
    pub connections: u32,
}

/// What is crossed. Each list is in the order in which it was given.
#[derive(Debug, Clone, Default)]
pub struct Axes {
    /// Stacks of ours, and whether each is on tokio-uring, and so takes cures.
    pub stacks: Vec<(String, bool)>,
    /// What they do.
    pub works: Vec<Work>,
    /// Their producers.
    pub producers: Vec<ProducerKind>,
    /// Their producers' settings.
    pub tunings: Vec<String>,
    /// Where records go.
    pub kafkas: Vec<Kafka>,
    /// Cures, for those on tokio-uring; empty: they are told nothing.
    pub cures: Vec<String>,
    /// Threads that serve.
    pub threads: Vec<u32>,
    /// Limits of open files.
    pub fd_limits: Vec<u64>,
    /// How clients use their connections.
    pub clients: Vec<Client>,
    /// Connections held at once.
    pub connections: Vec<u32>,
    /// Servers of others.
    pub servers: Vec<Foreign>,
}

impl Axes {
    /// Every combination once, those that differ by their server next to each other. What makes no
    /// difference to a server is not varied for it: without Kafka there is no producer, and an echo
    /// knows no Kafka.
    ///
    /// # Errors
    /// A sentence: there are none or too many, or two servers have one name.
    pub fn cells(&self) -> Result<Vec<Cell>, String> {
        let mut names = BTreeSet::new();
        let foreign = self.servers.iter().map(|server| server.name.as_str());
        for name in self.stacks.iter().map(|(name, _)| name.as_str()).chain(foreign) {
            if !names.insert(name) {
                return Err(format!(
                    "two servers are called {name}: give one of them another name"
                ));
            }
        }
        let mut cells: Vec<Cell> = Vec::new();
        for &connections in &self.connections {
            for &client in &self.clients {
                for &fd_limit in &self.fd_limits {
                    for server in self.all_servers() {
                        let cell = Cell { server, fd_limit, client, connections };
                        if !cells.contains(&cell) {
                            cells.push(cell);
                        }
                        if cells.len() > CELLS_MAX {
                            return Err(format!(
                                "more than {CELLS_MAX} cells: leave out some values of some axes"
                            ));
                        }
                    }
                }
            }
        }
        if cells.is_empty() {
            return Err(String::from("there is nothing to compare: name a --stack or a --server"));
        }
        Ok(cells)
    }

    fn all_servers(&self) -> Vec<Server> {
        let mut servers = Vec::new();
        for &threads in &self.threads {
            for kafka in &self.kafkas {
                for tuning in &self.tunings {
                    for &producer in &self.producers {
                        for &work in &self.works {
                            self.own(&mut servers, work, producer, tuning, kafka, threads);
                        }
                    }
                }
                for command in &self.servers {
                    let kafka = match kafka {
                        _ if !command.mentions("{kafka}") => Kafka::None,
                        // It has no broker inside: it gets one outside.
                        Kafka::Embedded => Kafka::Mock,
                        kafka => kafka.clone(),
                    };
                    servers.push(Server::Foreign { command: command.clone(), kafka });
                }
            }
        }
        servers
    }

    /// The stacks, in one way of putting them to work.
    fn own(
        &self,
        servers: &mut Vec<Server>,
        work: Work,
        producer: ProducerKind,
        tuning: &str,
        kafka: &Kafka,
        threads: u32,
    ) {
        let kafka = if work == Work::Echo { &Kafka::None } else { kafka };
        let has_kafka = *kafka != Kafka::None;
        for (stack, takes_cures) in &self.stacks {
            let cures: Vec<Option<&String>> = match self.cures.as_slice() {
                cures if *takes_cures && !cures.is_empty() => cures.iter().map(Some).collect(),
                _ => vec![None],
            };
            for cure in cures {
                servers.push(Server::Own(Own {
                    stack: stack.clone(),
                    work,
                    producer: has_kafka.then_some(producer),
                    tuning: has_kafka.then(|| tuning.to_owned()),
                    kafka: kafka.clone(),
                    cure: cure.cloned(),
                    threads,
                }));
            }
        }
    }
}

/// What a value of an axis is called where an axis does not apply.
pub const NONE: &str = "–";

impl Cell {
    /// The axes that cells are told apart by: name of the axis, value.
    pub fn axes(&self) -> Vec<(&'static str, String)> {
        let none = || String::from(NONE);
        let (name, own) = match &self.server {
            Server::Own(own) => (own.stack.clone(), Some(own)),
            Server::Foreign { command, .. } => (command.name.clone(), None),
        };
        vec![
            ("server", name),
            ("work", own.map_or_else(none, |own| own.work.name().to_owned())),
            ("kafka", self.kafka().name().to_owned()),
            (
                "producer",
                own.and_then(|own| own.producer)
                    .map_or_else(none, |producer| producer.name().to_owned()),
            ),
            ("tuning", own.and_then(|own| own.tuning.clone()).unwrap_or_else(none)),
            ("cure", own.and_then(|own| own.cure.clone()).unwrap_or_else(none)),
            ("threads", own.map_or_else(none, |own| own.threads.to_string())),
            ("fd limit", self.fd_limit.to_string()),
            ("client", self.client.name().to_owned()),
            ("connections", self.connections.to_string()),
        ]
    }

    /// Everything that makes this cell what it is, in one line: by this a run is known again.
    pub fn key(&self) -> String {
        let mut key = String::new();
        for (axis, value) in self.axes() {
            // Writing to a String cannot fail.
            let _ = write!(key, "{axis}={value} ");
        }
        if let Server::Foreign { command, .. } = &self.server {
            let _ = write!(key, "command={}", command.words.join("\u{1f}"));
        }
        key.trim_end().to_owned()
    }

    /// Where its records go.
    pub const fn kafka(&self) -> &Kafka {
        match &self.server {
            Server::Own(own) => &own.kafka,
            Server::Foreign { kafka, .. } => kafka,
        }
    }

    /// Whether the client and the machine are the same to both.
    fn same_outside(&self, other: &Self) -> bool {
        (self.fd_limit, self.client, self.connections)
            == (other.fd_limit, other.client, other.connections)
    }

    /// What is added to `below` to have this cell, if it is a step: HTTP to an echo, Kafka to HTTP.
    pub fn step_from(&self, below: &Self) -> Option<String> {
        if !self.same_outside(below) {
            return None;
        }
        match (&self.server, &below.server) {
            (Server::Own(own), Server::Own(other)) => {
                let same = (&own.stack, &own.cure, own.threads)
                    == (&other.stack, &other.cure, other.threads);
                let plain = |server: &Own| server.kafka == Kafka::None;
                match (own.work, other.work) {
                    _ if !same || !plain(other) => None,
                    (Work::Events, Work::Echo) if plain(own) => {
                        Some(String::from("HTTP without Kafka / bare echo"))
                    }
                    (Work::Events, Work::Events) if !plain(own) => {
                        Some(format!("{} Kafka / without Kafka", own.kafka.name()))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The connections that can be held idle to see what each takes: as asked for, and as many as
    /// the limit of open files leaves room for.
    pub fn idle_connections(&self, asked: u32) -> u32 {
        let room = u32::try_from(self.fd_limit.saturating_sub(FDS_SPARE)).unwrap_or(u32::MAX);
        asked.min(room)
    }
}

/// What each cell is called: the axes by which the cells differ, the server always.
pub fn labels(cells: &[Cell]) -> Vec<String> {
    let varying = varying(cells);
    let label = |cell: &Cell| {
        let axes = cell.axes();
        let values = axes.iter().filter(|(axis, value)| varying.contains(axis) && value != NONE);
        let named = |(axis, value): &(&str, String)| match *axis {
            "fd limit" => format!("{value} fds"),
            "threads" => format!("{value} threads"),
            "connections" => format!("{value} connections"),
            "kafka" if value == "none" => String::from("no Kafka"),
            "kafka" => format!("Kafka {value}"),
            "cure" => format!("cure {value}"),
            _ => value.clone(),
        };
        values.map(named).collect::<Vec<_>>().join(", ")
    };
    cells.iter().map(label).collect()
}

/// The axes by which `cells` differ; the server is always one.
pub fn varying(cells: &[Cell]) -> Vec<&'static str> {
    let all: Vec<_> = cells.iter().map(Cell::axes).collect();
    let Some(first) = all.first() else { return Vec::new() };
    let varies = |at: &usize| *at == 0 || all.iter().any(|axes| axes[*at].1 != first[*at].1);
    (0..first.len()).filter(varies).map(|at| first[at].0).collect()
}

/// The words with which a server of ours is started: what differs from `serve`'s own defaults, so
/// that the command says what is special about it.
pub fn serve_words(own: &Own, bootstrap: Option<&str>, topic: &str) -> Vec<String> {
    let mut words: Vec<String> =
        ["serve", &own.stack, "--listen", "127.0.0.1:0", "--json"].map(str::to_owned).into();
    let mut add = |name: &str, value: &str| {
        words.extend([name.to_owned(), value.to_owned()]);
    };
    if own.work != Work::Events {
        add("--work", own.work.name());
    }
    match (own.work, &own.kafka) {
        (Work::Echo, _) => {}
        (_, Kafka::None) => add("--kafka", "none"),
        (_, kafka) => {
            add("--kafka", bootstrap.unwrap_or(kafka.name()));
            if topic != TOPIC {
                add("--topic", topic);
            }
        }
    }
    if let Some(producer) = own.producer.filter(|producer| *producer != ProducerKind::DEFAULT) {
        add("--producer", producer.name());
    }
    if let Some(tuning) = own.tuning.as_deref().filter(|tuning| *tuning != "default") {
        add("--tuning", tuning);
    }
    if own.threads != THREADS_DEFAULT {
        add("--threads", &own.threads.to_string());
    }
    if let Some(cure) = &own.cure {
        add("--cure", cure);
    }
    words
}

/// The words of somebody else's server, with its placeholders filled in.
pub fn foreign_words(
    command: &Foreign,
    port: u16,
    bootstrap: Option<&str>,
    topic: &str,
) -> Vec<String> {
    let fill = |word: &String| {
        word.replace("{port}", &port.to_string())
            .replace("{kafka}", bootstrap.unwrap_or_default())
            .replace("{topic}", topic)
    };
    command.words.iter().map(fill).collect()
}

/// How a search for the highest rate goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Saturation {
    /// Greatest 99th percentile of the latency, µs.
    pub p99_max_us: u64,
    /// How long one rate is tried, ms.
    pub step_ms: u64,
}

/// A whole study.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// What is compared.
    pub cells: Vec<Cell>,
    /// How often each is run.
    pub rounds: u32,
    /// How long it is measured, ms.
    pub time_ms: u64,
    /// How long it is loaded before that, ms.
    pub warm_up_ms: u64,
    /// Connections held open to see what each takes; 0: it is not measured.
    pub idle_connections: u32,
    /// Whether the highest rate is searched for, and how.
    pub saturation: Option<Saturation>,
    /// Cell that others are compared with: its place in `cells`.
    pub baseline: usize,
    /// SHA-256 of the binary: what another build measured is another study.
    pub build: String,
}

impl Plan {
    /// What a run of this plan is known by. The number of rounds and the baseline are no part of it:
    /// a study may be gone on with, and read in another way.
    pub fn hash(&self) -> String {
        let mut text = String::new();
        let saturation = self.saturation.map(|it| (it.p99_max_us, it.step_ms));
        let _ = write!(
            text,
            "{} {} {} {} {saturation:?}",
            self.build, self.time_ms, self.warm_up_ms, self.idle_connections
        );
        for cell in &self.cells {
            let _ = write!(text, "\n{}", cell.key());
        }
        let digest = Sha256::digest(text.as_bytes());
        digest.iter().take(8).fold(String::new(), |mut hash, byte| {
            let _ = write!(hash, "{byte:02x}");
            hash
        })
    }

    /// Runs of the whole study.
    pub fn runs(&self) -> u64 {
        self.cells.len() as u64 * u64::from(self.rounds)
    }

    /// About how long one run takes, before any has been seen.
    pub fn run_takes(&self) -> Duration {
        /// Starting, a few first requests, counting, ending.
        const AROUND: Duration = Duration::from_millis(2_500);
        /// Connections are held open.
        const IDLE: Duration = Duration::from_millis(1_800);
        /// Rates that a search takes, about.
        const STEPS: u32 = 11;
        let mut takes = Duration::from_millis(self.time_ms + self.warm_up_ms) + AROUND;
        if self.idle_connections > 0 {
            takes += IDLE;
        }
        if let Some(saturation) = self.saturation {
            takes += Duration::from_millis(saturation.step_ms + 300) * STEPS;
        }
        takes
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
