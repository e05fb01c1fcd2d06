//! One run: a process is made to stall for real, watched from before the fault and from five
//! seconds after it, and the verdicts are held against what it wrote down itself.
#![expect(clippy::disallowed_methods, reason = "this is where a run's files are made")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::catalogue::{Expected, Load, Need, Scenario, Victim};
use super::chance::Chance;
use super::judge::{NAMED_WITHIN, Seen, judge};
use super::needs;
use super::place::{HostLimit, Room, thaw};
use super::process::{Process, Stdout};
use super::record::{HEALTHY, Outcome, RunRecord, Way, WayRecord};
use super::start::{READY_MAX, TruthSource, await_ready, client, http, victim};
use super::victims::{self, Truth};
use super::watcher::Watcher;
use crate::watch::now_ns;

/// How long after the fault the second watcher comes.
pub const ATTACH_AFTER: Duration = Duration::from_secs(5);
/// How long after readiness the fault begins, at least and at most.
const FAULT_AFTER: (Duration, Duration) = (Duration::from_millis(1_500), Duration::from_secs(4));
/// A fault this soon after readiness has not waited for its time: it is as old as the server.
const INBORN_WITHIN_NS: u64 = 500_000_000;
/// How long a healthy process is watched, and when the second watcher comes to it.
const HEALTHY_FOR: Duration = Duration::from_secs(12);
const HEALTHY_SECOND_AFTER: Duration = Duration::from_secs(4);
/// A leak takes some seconds to fill its table after it has begun.
const TRUTH_MAX: Duration = Duration::from_secs(30);
/// A verdict that has not come this long after it was due is missed.
const VERDICT_PATIENCE: Duration = Duration::from_secs(8);
/// A right verdict may still be changed: this long a certain one, and any other, is listened to.
const SETTLED_CERTAIN: Duration = Duration::from_secs(2);
const SETTLED: Duration = Duration::from_secs(4);
/// How long between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A load prints its result when it is asked to end.
const LOAD_END_PATIENCE: Duration = Duration::from_secs(3);
/// A stalled server cannot end in order; it gets this long all the same.
const VICTIM_END_PATIENCE: Duration = Duration::from_millis(500);
/// The kernel lets go of the cgroup of a dead process a moment after the process.
const CGROUP_PATIENCE: Duration = Duration::from_secs(3);

/// How to run a scenario.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder for its files; it is made.
    pub out: PathBuf,
    /// Where its chance comes from.
    pub seed: u64,
    /// Which repetition, from 0.
    pub rep: u32,
    /// Which ways of watching.
    pub ways: Vec<Way>,
    /// Whether limits of the whole host may be changed for some seconds.
    pub allow_host_changes: bool,
}

/// Runs `scenario`. Whatever goes wrong is in the record; nothing is left running.
pub fn run(scenario: &Scenario, options: &Options, stop: &AtomicBool) -> RunRecord {
    let begun = Instant::now();
    let (truth, ways) = match needs::obstacle(scenario, options.allow_host_changes) {
        Some(why) => (None, all(options, &Outcome::NotRun { why })),
        None => attempt(scenario, options, stop).unwrap_or_else(|error| {
            (None, all(options, &Outcome::Broken { why: format!("{error:#}") }))
        }),
    };
    let record = RunRecord {
        scenario: scenario.name.to_owned(),
        rep: options.rep,
        seed: options.seed,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        expected: match scenario.expected {
            Expected::Stall(cause) => cause.id().to_owned(),
            Expected::Healthy => HEALTHY.to_owned(),
        },
        definition_ms: scenario.takes().as_secs_f64() * 1e3,
        truth,
        took_s: begun.elapsed().as_secs_f64(),
        ways,
    };
    // Also when there is no folder: then the reason is in the record already.
    save(&options.out, "run.json", &record).ok();
    record
}

fn all(options: &Options, outcome: &Outcome) -> Vec<WayRecord> {
    options.ways.iter().map(|way| WayRecord::bare(*way, outcome.clone())).collect()
}

fn save(out: &Path, name: &str, value: &impl serde::Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    let path = out.join(name);
    std::fs::write(&path, format!("{text}\n"))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Where the fault of a run may be written down.
fn truth_files(scenario: &Scenario, out: &Path) -> Vec<PathBuf> {
    let clients = scenario.loads.iter().enumerate();
    let clients = clients.filter(|(_, load)| matches!(load, Load::Client(_)));
    let clients = clients.map(|(number, _)| client_truth(out, number));
    std::iter::once(out.join("truth.json")).chain(clients).collect()
}

/// Where the client that is load `number` writes down what befalls it.
fn client_truth(out: &Path, number: usize) -> PathBuf {
    out.join(format!("truth-{number}.json"))
}

type Attempt = (Option<Truth>, Vec<WayRecord>);
type Watchers = Vec<(Way, Watcher)>;

fn attempt(scenario: &Scenario, options: &Options, stop: &AtomicBool) -> anyhow::Result<Attempt> {
    std::fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot make the folder {}", options.out.display()))?;
    // What an earlier run left there would be taken for this one's.
    for file in truth_files(scenario, &options.out) {
        std::fs::remove_file(file).ok();
    }
    let _limits: Vec<HostLimit> = scenario
        .needs
        .iter()
        .filter_map(|need| match need {
            Need::HostChange(key) => HostLimit::remember(key),
            _ => None,
        })
        .collect();
    let room = Room::make(scenario.place)?;
    let mut stage = Stage::set(scenario, options, &room, stop)?;
    let (truth, watchers) = match scenario.expected {
        Expected::Stall(_) => stage.stall()?,
        Expected::Healthy => (None, stage.healthy()?),
    };
    // The watchers end first: the end of the victim is no part of the run.
    for (_, watcher) in &watchers {
        watcher.ask_to_end();
    }
    let mut seen = Vec::new();
    for (way, watcher) in watchers {
        seen.push((way, watcher.conclude()?));
    }
    let inborn_ns = stage.inborn_ns;
    let broken = stage.end()?;
    if let Some(truth) = &truth {
        save(&options.out, "truth.json", truth)?;
    }
    let ways = seen
        .into_iter()
        .map(|(way, (incident, notes))| {
            let begin_ns = incident.anchor.mono_ns;
            let end_ns = incident.models.last().map_or(begin_ns, |model| model.at_ns);
            let seen = Seen { way, inborn_ns, begin_ns, end_ns, events: &incident.events };
            let mut record = judge(scenario.expected, scenario.takes(), truth.as_ref(), &seen);
            record.notes.extend(notes);
            if let Some(why) = &broken {
                record.outcome = Outcome::Broken { why: why.clone() };
            }
            record
        })
        .collect();
    Ok((truth, ways))
}

/// Removes what a dead victim has left on the host.
///
/// # Errors
/// When it cannot be removed.
fn clean_up(pid: i32) -> anyhow::Result<()> {
    let pid = u32::try_from(pid)?;
    let deadline = Instant::now() + CGROUP_PATIENCE;
    loop {
        match victims::network::clean_up(pid) {
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(LOOK_EVERY),
            Ok(()) => return Ok(()),
        }
    }
}

/// A victim, what is put on it, and who watches.
struct Stage<'a> {
    scenario: &'a Scenario,
    options: &'a Options,
    room: &'a Room,
    stop: &'a AtomicBool,
    chance: Chance,
    /// How long after readiness the fault begins.
    after: Duration,
    victim: Process,
    /// A fault before this, ns, has not waited for its time.
    inborn_ns: u64,
    /// Where the victim listens.
    url: String,
    truth: TruthSource,
    loads: Vec<(Process, Load)>,
}

impl<'a> Stage<'a> {
    /// Starts the victim, and returns once it listens.
    fn set(
        scenario: &'a Scenario,
        options: &'a Options,
        room: &'a Room,
        stop: &'a AtomicBool,
    ) -> anyhow::Result<Self> {
        let mut chance = Chance::of_run(options.seed, scenario.name, options.rep);
        // Whole milliseconds, as the victim will read them.
        let after = chance.between(FAULT_AFTER.0, FAULT_AFTER.1).as_millis() as u64;
        let after = Duration::from_millis(after);
        let file = options.out.join("truth.json");
        let arguments = victim(scenario.victim, after, &file, chance.bits());
        let mut victim = Process::start(room, &options.out, "victim", &arguments, Stdout::Piped)?;
        let ready = await_ready(victim.stdout()?, stop)
            .with_context(|| format!("the victim is not ready; see {}", victim.log.display()))?;
        let inborn_ns = now_ns() + INBORN_WITHIN_NS;
        // A program in between would be watched in its place.
        ensure!(
            ready.pid == victim.pid(),
            "the victim is process {}, not {}",
            ready.pid,
            victim.pid()
        );
        let truth = match scenario.victim {
            Victim::Lab(_) => TruthSource::Files(truth_files(scenario, &options.out)),
            Victim::Serve(_) => TruthSource::page(victim.pid())?,
        };
        let url = ready.url.unwrap_or_default();
        let loads = Vec::new();
        Ok(Self {
            scenario,
            options,
            room,
            stop,
            chance,
            after,
            victim,
            inborn_ns,
            url,
            truth,
            loads,
        })
    }

    /// Watches until each watcher has had its say on a stall.
    fn stall(&mut self) -> anyhow::Result<(Option<Truth>, Watchers)> {
        let ready = Instant::now();
        let mut watchers = Vec::new();
        if self.watches(Way::Before) {
            watchers.push((Way::Before, self.attach(Way::Before)?));
        }
        self.load()?;
        let due = ready + self.after + self.scenario.takes() + TRUTH_MAX;
        let truth = loop {
            if let Some(truth) = self.truth.read() {
                break truth;
            }
            ensure!(Instant::now() < due, "the victim recorded no fault in time");
            self.look(&mut watchers)?;
        };
        let fault = Instant::now();
        if self.watches(Way::After) {
            while fault.elapsed() < ATTACH_AFTER {
                self.look(&mut watchers)?;
            }
            watchers.push((Way::After, self.attach(Way::After)?));
        }
        let end = Instant::now() + NAMED_WITHIN + self.scenario.takes() + VERDICT_PATIENCE;
        while Instant::now() < end && !self.all_settled(&watchers) {
            self.look(&mut watchers)?;
        }
        Ok((Some(truth), watchers))
    }

    /// Watches for a while, whatever is said.
    fn healthy(&mut self) -> anyhow::Result<Watchers> {
        let mut watchers = Vec::new();
        if self.watches(Way::Before) {
            watchers.push((Way::Before, self.attach(Way::Before)?));
        }
        self.load()?;
        let begun = Instant::now();
        while begun.elapsed() < HEALTHY_FOR {
            self.look(&mut watchers)?;
            let second = self.watches(Way::After)
                && begun.elapsed() >= HEALTHY_SECOND_AFTER
                && watchers.iter().all(|(way, _)| *way != Way::After);
            if second {
                watchers.push((Way::After, self.attach(Way::After)?));
            }
        }
        Ok(watchers)
    }

    fn watches(&self, way: Way) -> bool {
        self.options.ways.contains(&way)
    }

    fn attach(&self, way: Way) -> anyhow::Result<Watcher> {
        // Watchers live on the host, whichever namespace the victim lives in.
        let host = Room::make(super::catalogue::Place::Host)?;
        Watcher::attach(&host, &self.options.out, way.id(), self.victim.pid(), self.longest())
    }

    /// No run takes longer: whatever is started for it ends by itself then, runner or not.
    fn longest(&self) -> Duration {
        let waits = READY_MAX + TRUTH_MAX + ATTACH_AFTER + VERDICT_PATIENCE + HEALTHY_FOR;
        waits + self.after + 2 * self.scenario.takes()
    }

    fn all_settled(&self, watchers: &[(Way, Watcher)]) -> bool {
        let Expected::Stall(cause) = self.scenario.expected else { return false };
        watchers.iter().all(|(_, watcher)| {
            let named = watcher.heard.names(cause);
            named.is_some_and(|(certain, since)| {
                since >= if certain { SETTLED_CERTAIN } else { SETTLED }
            })
        })
    }

    /// Waits for a moment, listens, and looks whether everybody still lives.
    fn look(&mut self, watchers: &mut [(Way, Watcher)]) -> anyhow::Result<()> {
        ensure!(!self.stop.load(Ordering::Relaxed), "interrupted");
        std::thread::sleep(LOOK_EVERY);
        for (_, watcher) in watchers {
            watcher.hear();
            if self.victim.exit().is_none()
                && let Some(failure) = watcher.failure()
            {
                bail!(failure);
            }
        }
        if let Some(status) = self.victim.exit() {
            bail!("the victim ended ({status}); see {}", self.victim.log.display());
        }
        for (load, _) in &mut self.loads {
            if let Some(status) = load.exit().filter(|status| !status.success()) {
                bail!("{} ended ({status}); see {}", load.name, load.log.display());
            }
        }
        Ok(())
    }

    fn load(&mut self) -> anyhow::Result<()> {
        for (number, load) in self.scenario.loads.iter().enumerate() {
            let arguments = match load {
                Load::Http { connections, rate, close } => {
                    let connections = self.chance.about(*connections);
                    http(&self.url, connections, *rate, *close, self.longest())
                }
                Load::Client(name) => {
                    let truth = client_truth(&self.options.out, number);
                    client(name, &self.url, self.after, &truth, self.chance.bits())?
                }
            };
            let name = format!("load-{number}");
            let stdout = Stdout::File(&format!("{name}.json"));
            let process = Process::start(self.room, &self.options.out, &name, &arguments, stdout)?;
            self.loads.push((process, *load));
        }
        Ok(())
    }

    /// Ends everything, and says what was broken about it.
    fn end(mut self) -> anyhow::Result<Option<String>> {
        let mut broken = None;
        for (load, _) in &self.loads {
            load.ask_to_end();
        }
        for (load, kind) in &mut self.loads {
            let in_order = load.await_end(LOAD_END_PATIENCE);
            let served = in_order && load.exit().is_some_and(|status| status.success());
            // A load that never got an answer says nothing of a stalled server. Of a healthy one
            // it says that nothing was put on it.
            let needed = matches!(kind, Load::Http { .. });
            if needed && !served && self.scenario.expected == Expected::Healthy {
                broken = Some(format!("{} got no answer; see {}", load.name, load.log.display()));
            }
        }
        let pid = self.victim.pid();
        thaw(pid);
        self.victim.ask_to_end();
        self.victim.await_end(VICTIM_END_PATIENCE);
        clean_up(pid)?;
        Ok(broken)
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        // Only when the run broke off: at its end everything is gone already.
        self.loads.clear();
        let pid = self.victim.pid();
        thaw(pid);
        self.victim.await_end(Duration::ZERO);
        if let Err(error) = clean_up(pid) {
            eprintln!("stallscope: something of the victim is left: {error:#}");
        }
    }
}
