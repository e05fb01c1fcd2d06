//! One server, soaked: started, watched, put under load for the whole time, and ended.
#![expect(clippy::disallowed_methods, reason = "this is where the results of processes are read")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};

use super::judge::{End, LONG_S, Seen, Told};
use super::record::Endured;
use super::sample::{Silence, Subject};
use super::series::Series;
use super::{Client, Plan};
use crate::lab::catalogue::Place;
use crate::lab::place::Room;
use crate::lab::process::{Process, Stdout};
use crate::lab::start::{READY_MAX, Ready, http};
use crate::lab::watcher::Watcher;

/// How long between two looks at who lives and what is answered.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Loads and watchers outlast the time by this, should the runner be killed.
const SLACK: Duration = Duration::from_mins(2);
/// A load that no answer has come to by then gets none.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(30);
/// What a server opens once and keeps (connections to its broker) it opens for these first events.
const FIRST_EVENTS: Duration = Duration::from_secs(1);
/// A load prints its result when it is asked to end.
const LOAD_END_PATIENCE: Duration = Duration::from_secs(15);
/// How long fds may take to be what they were.
const FDS_PATIENCE: Duration = Duration::from_secs(10);
/// Fds that stay the same for so many looks in a row have settled.
const SETTLED_LOOKS: u32 = 5;
/// A server delivers what it has accepted: twice its own 10 s, and what it adds to them.
const SERVER_END_PATIENCE: Duration = Duration::from_secs(30);
/// When the soak itself is interrupted, nobody waits for results.
const INTERRUPTED_PATIENCE: Duration = Duration::from_secs(2);
/// The server's `--kafka` that puts a broker inside it.
const EMBEDDED: &str = "embedded";
/// So many events of the load's fill a broker inside the server, which keeps 5 MiB of each of 4
/// partitions: measured were 290,000 to 310,000. Until then memory grows by that.
const BROKER_FULL: u64 = 350_000;
/// Where the server says that it is ready, and how it ended.
const SAID: &str = "server.jsonl";
/// Characters of a server's own words in a message.
const WORDS_MAX: usize = 400;

/// Soaks one stack. `show` gets the time there has been load, and each alarm.
///
/// # Errors
/// When a process cannot be started, the watcher or a load ends by itself, or `stop` is set.
pub(super) fn soak(
    plan: &Plan,
    stack: &str,
    stop: &AtomicBool,
    show: &dyn Fn(Duration, u32),
) -> anyhow::Result<Endured> {
    ensure!(!stop.load(Ordering::Relaxed), "interrupted");
    let out = plan.out.join(stack);
    std::fs::create_dir_all(&out)
        .with_context(|| format!("cannot make the folder {}", out.display()))?;
    let mut stage = Stage::set(plan, stack, out, stop)?;
    let seen = stage.play(show);
    if seen.is_err() {
        stage.clear();
    }
    Ok(Endured::of(stack, stage.arguments.join(" "), seen?))
}

/// The processes of one soak.
struct Stage<'a> {
    plan: &'a Plan,
    stop: &'a AtomicBool,
    out: PathBuf,
    room: Room,
    arguments: Vec<String>,
    server: Process,
    url: String,
    watcher: Option<Watcher>,
    loads: Vec<(Process, String)>,
    told: Told,
    /// When the broker inside the server was full.
    full_at: Option<Duration>,
}

impl<'a> Stage<'a> {
    /// Starts the server and its watcher.
    fn set(
        plan: &'a Plan,
        stack: &str,
        out: PathBuf,
        stop: &'a AtomicBool,
    ) -> anyhow::Result<Self> {
        let room = Room::make(Place::Host)?;
        let arguments = arguments(plan, stack);
        let mut server = Process::start(&room, &out, "server", &arguments, Stdout::File(SAID))?;
        let ready = await_ready(&mut server, &out.join(SAID), stop).inspect_err(|_| {
            server.ask_to_end();
            server.await_end(INTERRUPTED_PATIENCE);
        })?;
        let url = ready.url.context("the server did not say where it listens")?;
        let mut stage = Self {
            plan,
            stop,
            out,
            room,
            arguments,
            server,
            url,
            watcher: None,
            loads: Vec::new(),
            told: Told::default(),
            full_at: None,
        };
        let (pid, at_most) = (stage.server.pid(), plan.time + SLACK);
        match Watcher::attach(&stage.room, &stage.out, "watch", pid, at_most) {
            Ok(watcher) => stage.watcher = Some(watcher),
            Err(error) => {
                stage.clear();
                return Err(error);
            }
        }
        Ok(stage)
    }

    fn play(&mut self, show: &dyn Fn(Duration, u32)) -> anyhow::Result<Seen> {
        let mut subject = Subject::new(self.server.pid());
        self.first_events()?;
        let fds_before = self.settled_fds(&subject)?;
        let mut silence = Silence::default();
        let mut series = Series::new(self.plan.time.as_secs_f64(), SAMPLE_EVERY.as_secs_f64());
        self.begin_loads(&subject)?;
        let begun = Instant::now();
        let died = self.go_on(&mut subject, &mut silence, &mut series, begun, show)?;
        let time_s = begun.elapsed().as_secs_f64();
        self.end_loads()?;
        let fds_after = self.fds_back(&subject, &fds_before)?;
        let (onsets, verdicts) = self.end_watcher()?;
        let end = match died {
            Some(why) => Err(why),
            None => self.end_server(),
        };
        let exit = self.server.exit().and_then(|status| status.code());
        let page = subject.page().err();
        let warm_up = self.plan.warm_up_of(self.full_at);
        Ok(Seen {
            time_s,
            warm_up_s: warm_up.as_secs_f64(),
            rss_change_max: self.plan.rss_change_max,
            has_broker: self.plan.kafka == EMBEDDED,
            is_broker_full: self.full_at.is_some_and(|at| at <= warm_up),
            onsets,
            verdicts,
            told: std::mem::take(&mut self.told),
            silence_s: silence
                .longest_s()
                .ok_or_else(|| page.unwrap_or_else(|| String::from("no answers were counted"))),
            end,
            exit,
            points: series.finish(),
            rss_absent: subject.rss_absent,
            fds_before,
            fds_after,
        })
    }

    /// Lets the server open what it opens once.
    fn first_events(&mut self) -> anyhow::Result<()> {
        let arguments = http(&self.url, 1, None, false, FIRST_EVENTS);
        self.start_load("first", &arguments)?;
        let deadline = Instant::now() + FIRST_EVENTS + LOAD_END_PATIENCE;
        while self.loads.iter_mut().any(|(load, _)| load.exit().is_none()) {
            ensure!(Instant::now() < deadline, "the first events were not answered");
            self.pause()?;
        }
        self.end_loads()
    }

    fn start_load(&mut self, name: &str, arguments: &[String]) -> anyhow::Result<()> {
        let name = format!("load-{name}");
        let file = format!("{name}.json");
        let load = Process::start(&self.room, &self.out, &name, arguments, Stdout::File(&file))?;
        self.loads.push((load, file));
        Ok(())
    }

    /// Starts the loads, and waits until the first of their requests is answered.
    fn begin_loads(&mut self, subject: &Subject) -> anyhow::Result<()> {
        let answers = |subject: &Subject| subject.page().map(|page| page.responses).ok();
        let before = answers(subject);
        let at_most = self.plan.time + SLACK;
        for (name, connections, close) in self.plan.loads() {
            let arguments = http(&self.url, connections, None, close, at_most);
            self.start_load(name, &arguments)?;
        }
        let deadline = Instant::now() + FIRST_ANSWER_MAX;
        while before.is_some() && answers(subject) == before && self.server.exit().is_none() {
            ensure!(Instant::now() < deadline, "no request of the load was answered");
            self.pause()?;
        }
        Ok(())
    }

    /// Samples until the time is over; says why when the server has ended before.
    fn go_on(
        &mut self,
        subject: &mut Subject,
        silence: &mut Silence,
        series: &mut Series,
        begun: Instant,
        show: &dyn Fn(Duration, u32),
    ) -> anyhow::Result<Option<String>> {
        let mut next = Duration::ZERO;
        let mut alarms = 0;
        loop {
            let at = begun.elapsed();
            if at >= self.plan.time {
                return Ok(None);
            }
            if let Some(status) = self.server.exit() {
                let words = words(&self.server.log);
                return Ok(Some(format!(
                    "the server ended by itself after {:.0} s ({status}): {words}",
                    at.as_secs_f64()
                )));
            }
            if let Ok(page) = subject.page() {
                silence.counted(page.responses, at);
                if page.delivered >= BROKER_FULL {
                    self.full_at.get_or_insert(at);
                }
            }
            if at >= next {
                series.add(subject.look(at));
                // Missed ones are left out, not made up for.
                next = SAMPLE_EVERY * (at.as_secs() as u32 + 1);
            }
            let heard = self.heard()?;
            show(at, heard - alarms);
            alarms = heard;
            for (load, _) in &mut self.loads {
                let log = load.log.display().to_string();
                ensure!(load.exit().is_none(), "the {} ended by itself; see {log}", load.name);
            }
            self.pause()?;
        }
    }

    /// Alarms so far.
    fn heard(&mut self) -> anyhow::Result<u32> {
        let Some(watcher) = &mut self.watcher else { return Ok(0) };
        watcher.hear();
        if let Some(failure) = watcher.failure() {
            return Err(anyhow!(failure));
        }
        Ok(watcher.heard.onsets + watcher.heard.verdicts.len() as u32)
    }

    /// Until the next look.
    fn pause(&self) -> anyhow::Result<()> {
        ensure!(!self.stop.load(Ordering::Relaxed), "interrupted");
        std::thread::sleep(LOOK_EVERY);
        Ok(())
    }

    /// Ends the loads, and adds what they were told.
    fn end_loads(&mut self) -> anyhow::Result<()> {
        let mut loads = std::mem::take(&mut self.loads);
        for (load, _) in &loads {
            load.ask_to_end();
        }
        for (load, file) in &mut loads {
            let log = load.log.display().to_string();
            let in_order = load.await_end(LOAD_END_PATIENCE);
            ensure!(in_order, "the {} did not end in order; see {log}", load.name);
            let result = std::fs::read(self.out.join(&*file))
                .with_context(|| format!("cannot read {file}"))?;
            self.told
                .add(&result)
                .with_context(|| format!("the {} left no result; see {log}", load.name))?;
        }
        Ok(())
    }

    /// Fds once they stay the same, or why they are not known.
    fn settled_fds(&self, subject: &Subject) -> anyhow::Result<Result<u64, String>> {
        let deadline = Instant::now() + FDS_PATIENCE;
        let (mut last, mut same) = (subject.fds(), 0);
        while last.is_ok() && same < SETTLED_LOOKS && Instant::now() < deadline {
            self.pause()?;
            let now = subject.fds();
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        Ok(last)
    }

    /// Fds once they are what they were, or at the end of patience.
    fn fds_back(
        &self,
        subject: &Subject,
        before: &Result<u64, String>,
    ) -> anyhow::Result<Result<u64, String>> {
        let deadline = Instant::now() + FDS_PATIENCE;
        loop {
            let now = subject.fds();
            let is_back = match (&now, before) {
                (Ok(now), Ok(before)) => now <= before,
                _ => true,
            };
            if is_back || Instant::now() >= deadline {
                return Ok(now);
            }
            self.pause()?;
        }
    }

    fn end_watcher(&mut self) -> anyhow::Result<(u32, Vec<String>)> {
        let mut watcher = self.watcher.take().context("there was no watcher")?;
        watcher.finish()?;
        let verdicts = watcher.heard.verdicts.iter();
        let verdicts = verdicts.map(|(cause, confidence)| format!("{} ({confidence})", cause.id()));
        Ok((watcher.heard.onsets, verdicts.collect()))
    }

    /// Ends the server, which says how that went.
    fn end_server(&mut self) -> Result<End, String> {
        self.server.ask_to_end();
        if !self.server.await_end(SERVER_END_PATIENCE) {
            return Err(String::from("the server did not end when it was asked to"));
        }
        let said = std::fs::read_to_string(self.out.join(SAID)).unwrap_or_default();
        let last = said.lines().last().unwrap_or_default();
        serde_json::from_str(last).map_err(|_| {
            format!("the server did not say how it ended: {}", words(&self.server.log))
        })
    }

    /// Ends everything, and waits for no results.
    fn clear(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.ask_to_end();
        }
        for (load, _) in &self.loads {
            load.ask_to_end();
        }
        self.server.ask_to_end();
        self.server.await_end(INTERRUPTED_PATIENCE);
        if let Some(mut watcher) = self.watcher.take() {
            // Also when it fails to write the end of its recording.
            watcher.finish().ok();
        }
        self.loads.clear();
    }
}

impl Plan {
    /// The loads of one server: name, connections, whether each request takes one of its own.
    fn loads(&self) -> Vec<(&'static str, u32, bool)> {
        let all = self.connections;
        match self.client {
            Client::KeepAlive => vec![("keep-alive", all, false)],
            Client::Close => vec![("close", all, true)],
            Client::Mixed => {
                vec![("keep-alive", all.div_ceil(2), false), ("close", (all / 2).max(1), true)]
            }
        }
    }
}

impl Plan {
    /// The warm-up that was asked for, or a longer one where the broker inside the server was full
    /// only at `full_at`, if ever; but a look that is to be long stays so. (A short one makes
    /// allowance for the broker.)
    fn warm_up_of(&self, full_at: Option<Duration>) -> Duration {
        if self.kafka != EMBEDDED {
            return self.warm_up;
        }
        let last = self.time.saturating_sub(Duration::from_secs_f64(LONG_S));
        self.warm_up.max(full_at.unwrap_or(self.time).min(last))
    }
}

/// The command line of the server.
fn arguments(plan: &Plan, stack: &str) -> Vec<String> {
    let mut line: Vec<String> =
        ["serve", stack, "--listen", "127.0.0.1:0", "--json", "--kafka"].map(str::to_owned).into();
    line.push(plan.kafka.clone());
    line.extend([String::from("--ack"), plan.ack.clone()]);
    if let Some(producer) = &plan.producer {
        line.extend([String::from("--producer"), producer.clone()]);
    }
    line.extend(plan.server_arguments.iter().cloned());
    line
}

/// Waits for the line in which the server says that it is ready.
fn await_ready(server: &mut Process, said: &Path, stop: &AtomicBool) -> anyhow::Result<Ready> {
    let deadline = Instant::now() + READY_MAX;
    loop {
        let text = std::fs::read_to_string(said).unwrap_or_default();
        if let Some((line, _)) = text.split_once('\n') {
            return serde_json::from_str(line).with_context(|| format!("it said: {line}"));
        }
        if let Some(status) = server.exit() {
            let words = words(&server.log);
            return Err(anyhow!("the server ended at once ({status}): {words}"));
        }
        ensure!(Instant::now() < deadline, "the server is not ready in {} s", READY_MAX.as_secs());
        ensure!(!stop.load(Ordering::Relaxed), "interrupted");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What a process said of its failure: the first lines of its stderr in one, or where that is.
fn words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text: String = text.chars().filter(|letter| !letter.is_control()).take(WORDS_MAX).collect();
    if text.is_empty() { format!("see {}", log.display()) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            stacks: vec![String::from("tokio")],
            time: Duration::from_mins(1),
            warm_up: Duration::from_secs(10),
            connections: 65,
            client: Client::Mixed,
            kafka: String::from("embedded"),
            ack: String::from("queue"),
            producer: None,
            server_arguments: Vec::new(),
            together: false,
            out: PathBuf::new(),
            rss_change_max: None,
        }
    }

    #[test]
    fn servers_are_told_what_was_asked_for() {
        let mut plan = plan();
        let usual = "serve tokio --listen 127.0.0.1:0 --json --kafka embedded --ack queue";
        assert_eq!(arguments(&plan, "tokio").join(" "), usual);
        plan.producer = Some(String::from("threaded"));
        plan.server_arguments = ["--tuning", "tuned"].map(str::to_owned).into();
        let more = format!("{usual} --producer threaded --tuning tuned");
        assert_eq!(arguments(&plan, "tokio").join(" "), more);
    }

    #[test]
    fn warm_up_lasts_until_the_broker_inside_is_full() {
        let mins = Duration::from_mins;
        let plan =
            |time, kafka: &str| Plan { time, warm_up: mins(1), kafka: kafka.to_owned(), ..plan() };
        let hour = plan(mins(60), EMBEDDED);
        assert_eq!(hour.warm_up_of(Some(Duration::from_secs(12))), mins(1));
        assert_eq!(hour.warm_up_of(Some(mins(4))), mins(4));
        assert_eq!(hour.warm_up_of(None), mins(50), "a long look stays long");
        assert_eq!(plan(mins(8), EMBEDDED).warm_up_of(None), mins(1), "a short one is no shorter");
        assert_eq!(plan(mins(60), "host:9092").warm_up_of(None), mins(1));
    }

    #[test]
    fn mixed_clients_share_the_connections() {
        let mut plan = plan();
        assert_eq!(plan.loads(), [("keep-alive", 33, false), ("close", 32, true)]);
        plan.client = Client::Close;
        assert_eq!(plan.loads(), [("close", 65, true)]);
        plan.client = Client::KeepAlive;
        assert_eq!(plan.loads(), [("keep-alive", 65, false)]);
    }
}
