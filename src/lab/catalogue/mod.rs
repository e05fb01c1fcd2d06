//! Every scenario of the lab: which victim, which load, where, and what must be found.

mod healthy;
mod kafka;
mod network;
mod runtime;
mod served;

use std::time::Duration;

use crate::diagnose::verdict::Cause;

/// One scenario.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name, as on the command line.
    pub name: &'static str,
    /// What happens in it, one sentence.
    pub what: &'static str,
    /// What must be found.
    pub expected: Expected,
    /// What runs.
    pub victim: Victim,
    /// What is put on it; all begin once the victim listens.
    pub loads: &'static [Load],
    /// Where it all runs.
    pub place: Place,
    /// What it takes that not every machine has.
    pub needs: &'static [Need],
    /// What the definition of the cause itself needs before it can be told, beyond 500 ms: "none
    /// answered for 3 s" needs 3 s.
    pub definition: Duration,
}

/// What must be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// This cause.
    Stall(Cause),
    /// No alarm at all.
    Healthy,
}

/// What runs.
#[derive(Debug, Clone, Copy)]
pub enum Victim {
    /// `stallscope lab-victim NAME`: keeps no page, and writes its truth to a file.
    Lab(&'static str),
    /// `stallscope serve …` with these arguments (the embedded broker, `--json` and the fault's
    /// time are added): keeps a page, its truth is on it.
    Serve(&'static [&'static str]),
}

/// What is put on a victim.
#[derive(Debug, Clone, Copy)]
pub enum Load {
    /// `stallscope load`.
    Http {
        /// Connections at once.
        connections: u32,
        /// Requests a second in all; `None`: as many as get answered.
        rate: Option<u32>,
        /// Whether each request takes a connection of its own.
        close: bool,
    },
    /// `stallscope lab-victim NAME --connect ADDRESS`: a client of the lab's own.
    Client(&'static str),
}

/// Where it all runs.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// On the host, on loopback.
    Host,
    /// In a network namespace of its own, with loopback up and these sysctls (`KEY=VALUE`).
    Netns(&'static [&'static str]),
}

/// What a scenario takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Root.
    Root,
    /// A cgroup it may make, of this controller (`cpu`, `freezer`), v1 or v2.
    Cgroup(&'static str),
    /// Changes a limit of the whole host for some seconds: only with `--allow-host-changes`.
    HostChange(&'static str),
    /// A program, from this Debian package.
    Program(&'static str, &'static str),
    /// Connection tracking in the kernel.
    Conntrack,
}

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    [
        runtime::SCENARIOS,
        network::SCENARIOS,
        kafka::SCENARIOS,
        healthy::SCENARIOS,
        served::SCENARIOS,
    ]
    .into_iter()
    .flatten()
}

/// The scenario of this name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    all().find(|scenario| scenario.name == name)
}
