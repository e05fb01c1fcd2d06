//! Hours of health: servers under loads that keep changing, each watched as a user would watch it.
//! Every alarm is a false one.
#![expect(clippy::disallowed_methods, reason = "this is where the results of loads are read")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use super::catalogue::{self, Expected, Place, Scenario, Victim};
use super::chance::Chance;
use super::place::Room;
use super::process::{Process, Stdout};
use super::record::{Outcome, Way};
use super::run;
use super::start::{await_ready, http, victim};
use super::watcher::Watcher;

/// How long between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long one load goes on, at least and at most.
const PHASE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(20));
/// The servers' clients and watchers outlast the time by this, should the runner be killed.
const SLACK: Duration = Duration::from_mins(1);
/// A load prints its result when it is asked to end; a server delivers what it has accepted.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// Twins that went wrong, kept as sentences.
const NOTES_MAX: usize = 32;

/// What is served all the time.
const SERVERS: [(&str, &[&str]); 3] = [
    ("tokio", &["tokio"]),
    ("tokio-uring", &["tokio-uring"]),
    ("tokio-uring-blind", &["tokio-uring", "--no-heartbeat"]),
];

/// Loads that take turns: connections, requests a second (`None`: as many as are answered), whether
/// each takes a connection of its own; `None` is silence.
const LOADS: [Option<(u32, Option<u32>, bool)>; 7] = [
    None,
    Some((4, Some(10), false)),
    Some((32, Some(500), false)),
    Some((64, None, false)),
    Some((16, Some(100), true)),
    Some((16, None, true)),
    Some((400, Some(200), false)),
];

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Folder for the files.
    pub out: PathBuf,
    /// How long.
    pub time: Duration,
    /// Where its chance comes from.
    pub seed: u64,
}

/// What came of one server, or of all twins.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Watched {
    /// Which.
    pub name: String,
    /// How long it was watched, s.
    pub healthy_s: f64,
    /// Loads put on it, one after another.
    pub loads: u32,
    /// Of those, without a readable result: what they were answered is not in the sum.
    pub loads_unread: u32,
    /// Requests it answered.
    pub responses: u64,
    /// Onsets given.
    pub onsets: u32,
    /// Verdicts on stalls given.
    pub verdicts: u32,
}

/// What came of it all.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Hours {
    /// One by one.
    pub watched: Vec<Watched>,
    /// What was said, and what went wrong, one sentence each.
    pub notes: Vec<String>,
}

impl Hours {
    /// How long health was watched, s.
    pub fn healthy_s(&self) -> f64 {
        self.watched.iter().map(|one| one.healthy_s).sum()
    }

    /// Onsets and verdicts given.
    pub fn alarms(&self) -> u32 {
        self.watched.iter().map(|one| one.onsets + one.verdicts).sum()
    }

    /// Whether there was silence, and something to be silent about.
    pub fn is_fine(&self) -> bool {
        self.alarms() == 0
            && self.notes.is_empty()
            && self.watched.iter().all(|one| one.loads == 0 || one.responses > 0)
    }

    /// All in one line.
    pub fn line(&self) -> String {
        let onsets: u32 = self.watched.iter().map(|one| one.onsets).sum();
        let verdicts: u32 = self.watched.iter().map(|one| one.verdicts).sum();
        let responses: u64 = self.watched.iter().map(|one| one.responses).sum();
        let loads: u32 = self.watched.iter().map(|one| one.loads).sum();
        let unread = match self.watched.iter().map(|one| one.loads_unread).sum::<u32>() {
            0 => String::new(),
            unread => format!(" ({unread} without a readable result)"),
        };
        format!(
            "{:.1} min of healthy servers watched, {loads} loads{unread}, {responses} responses: {onsets} onsets, {verdicts} verdicts of a stall",
            self.healthy_s() / 60.0
        )
    }
}

/// Serves and watches for as long as planned. `show` gets the share of the time that is over, and
/// the alarms so far.
///
/// # Errors
/// When a server or a watcher cannot be started, or ends by itself.
pub fn run(
    plan: &Plan,
    stop: &AtomicBool,
    mut show: impl FnMut(f64, u32),
) -> anyhow::Result<Hours> {
    let begun = Instant::now();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let twins = scope.spawn(|| twins(plan, &over));
        let served = serve(plan, stop, begun, &mut show);
        over.store(true, Ordering::Relaxed);
        let twins = twins.join().map_err(|_| anyhow::anyhow!("a thread of the lab failed"));
        let mut hours = served?;
        let (watched, notes) = twins?;
        hours.watched.push(watched);
        hours.notes.extend(notes);
        Ok(hours)
    })
}

/// A server under changing loads.
struct Guest {
    server: Process,
    watcher: Watcher,
    url: String,
    begun: Instant,
    load: Option<Process>,
    next: Instant,
    tally: Watched,
    out: PathBuf,
}

fn serve(
    plan: &Plan,
    stop: &AtomicBool,
    begun: Instant,
    show: &mut dyn FnMut(f64, u32),
) -> anyhow::Result<Hours> {
    let mut chance = Chance::new(plan.seed);
    let room = Room::make(Place::Host)?;
    let mut guests = Vec::new();
    for (name, arguments) in SERVERS {
        guests.push(Guest::start(plan, &room, name, arguments, stop)?);
    }
    while begun.elapsed() < plan.time {
        ensure!(!stop.load(Ordering::Relaxed), "interrupted");
        std::thread::sleep(LOOK_EVERY);
        let mut alarms = 0;
        for guest in &mut guests {
            guest.look(&room, &mut chance)?;
            alarms += guest.watcher.heard.onsets + guest.watcher.heard.verdicts.len() as u32;
        }
        show(begun.elapsed().as_secs_f64() / plan.time.as_secs_f64(), alarms);
    }
    let mut hours = Hours::default();
    // The watchers end before the servers do: that would be no healthy sight.
    for guest in &guests {
        guest.watcher.ask_to_end();
    }
    for guest in guests {
        let (watched, notes) = guest.end()?;
        hours.watched.push(watched);
        hours.notes.extend(notes);
    }
    Ok(hours)
}

impl Guest {
    fn start(
        plan: &Plan,
        room: &Room,
        name: &'static str,
        arguments: &'static [&'static str],
        stop: &AtomicBool,
    ) -> anyhow::Result<Self> {
        let out = plan.out.join(name);
        std::fs::create_dir_all(&out)
            .with_context(|| format!("cannot make the folder {}", out.display()))?;
        let arguments = victim(Victim::Serve(arguments), Duration::ZERO, Path::new(""), 0);
        let mut server = Process::start(room, &out, "server", &arguments, Stdout::Piped)?;
        let ready = await_ready(server.stdout()?, stop)
            .with_context(|| format!("the server is not ready; see {}", server.log.display()))?;
        let watcher = Watcher::attach(room, &out, "watch", server.pid(), plan.time + SLACK)?;
        Ok(Self {
            server,
            watcher,
            url: ready.url.context("the server did not say where it listens")?,
            begun: Instant::now(),
            load: None,
            next: Instant::now(),
            tally: Watched { name: name.to_owned(), ..Watched::default() },
            out,
        })
    }

    fn look(&mut self, room: &Room, chance: &mut Chance) -> anyhow::Result<()> {
        self.watcher.hear();
        if let Some(status) = self.server.exit() {
            bail!("the server ended ({status}); see {}", self.server.log.display());
        }
        if let Some(failure) = self.watcher.failure() {
            bail!(failure);
        }
        if self.load.as_mut().is_some_and(|load| load.exit().is_none())
            || Instant::now() < self.next
        {
            return Ok(());
        }
        self.end_load();
        let time = chance.between(PHASE.0, PHASE.1);
        self.next = Instant::now() + time;
        if let Some((connections, rate, close)) = LOADS[chance.below(LOADS.len())] {
            let connections = chance.about(connections);
            let arguments = http(&self.url, connections, rate, close, time);
            let stdout = Stdout::File("load.json");
            self.load = Some(Process::start(room, &self.out, "load", &arguments, stdout)?);
            self.tally.loads += 1;
        }
        Ok(())
    }

    fn end_load(&mut self) {
        let Some(mut load) = self.load.take() else { return };
        load.ask_to_end();
        load.await_end(END_PATIENCE);
        let result = std::fs::read(self.out.join("load.json"));
        let result = result.ok().and_then(|text| serde_json::from_slice(&text).ok());
        match result.and_then(|result: serde_json::Value| result["responses"].as_u64()) {
            Some(responses) => self.tally.responses += responses,
            None => self.tally.loads_unread += 1,
        }
    }

    fn end(mut self) -> anyhow::Result<(Watched, Vec<String>)> {
        self.watcher.finish()?;
        self.tally.healthy_s = self.begun.elapsed().as_secs_f64();
        self.end_load();
        self.server.ask_to_end();
        self.server.await_end(END_PATIENCE);
        let heard = &self.watcher.heard;
        self.tally.onsets = heard.onsets;
        self.tally.verdicts = heard.verdicts.len() as u32;
        let name = &self.tally.name;
        let said = heard.verdicts.iter().take(NOTES_MAX);
        let said =
            said.map(|(cause, confidence)| format!("{name}: said {} ({confidence})", cause.id()));
        let notes = said.collect();
        Ok((self.tally, notes))
    }
}

/// The healthy scenarios of the catalogue, one after another, until it is `over`.
fn twins(plan: &Plan, over: &AtomicBool) -> (Watched, Vec<String>) {
    let mut watched = Watched { name: String::from("twins"), ..Watched::default() };
    let mut notes = Vec::new();
    let twins: Vec<&Scenario> =
        catalogue::all().filter(|scenario| scenario.expected == Expected::Healthy).collect();
    let mut chance = Chance::new(!plan.seed);
    let mut rep = 0;
    while !twins.is_empty() && !over.load(Ordering::Relaxed) {
        let twin = twins[chance.below(twins.len())];
        let options = run::Options {
            out: plan.out.join("twins").join(twin.name),
            seed: plan.seed,
            rep,
            ways: vec![Way::Before],
            allow_host_changes: false,
        };
        rep += 1;
        let record = run::run(twin, &options, over);
        if over.load(Ordering::Relaxed) {
            break;
        }
        for way in &record.ways {
            watched.healthy_s += way.healthy_s;
            watched.onsets += way.alarms;
            watched.verdicts += u32::from(way.named.is_some());
            let fine = way.outcome.is_fine() || notes.len() >= NOTES_MAX;
            match &way.outcome {
                _ if fine => {}
                Outcome::Broken { why } => notes.push(format!("{}: {why}", twin.name)),
                _ => notes.push(format!(
                    "{}: said {}",
                    twin.name,
                    way.named.as_deref().unwrap_or("there is a stall")
                )),
            }
        }
        if record.ways.iter().any(|way| !way.outcome.is_judged()) {
            // What cannot be run is not to be tried a thousand times a second.
            std::thread::sleep(LOOK_EVERY);
        }
    }
    (watched, notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_only_where_something_was_served() {
        let one = |loads, responses, onsets| Hours {
            watched: vec![Watched {
                loads,
                responses,
                onsets,
                healthy_s: 90.0,
                ..Watched::default()
            }],
            notes: Vec::new(),
        };
        assert!(one(3, 100, 0).is_fine());
        assert!(!one(3, 0, 0).is_fine(), "the loads got no answer");
        assert!(!one(3, 100, 1).is_fine(), "an alarm");
        let broken = Hours { notes: vec![String::from("it broke")], ..one(3, 100, 0) };
        assert!(!broken.is_fine());
        assert_eq!(
            one(3, 100, 1).line(),
            "1.5 min of healthy servers watched, 3 loads, 100 responses: 1 onsets, 0 verdicts of a stall"
        );
    }
}
