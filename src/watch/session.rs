//! Watching one live process: the sampling loop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stallscope_probes::sample::{Sample, TaskState};
use stallscope_probes::{Absence, Reading, Why};

use super::active;
use super::budget::Budget;
use super::clock::{anchor, now_ns, thread_cpu_ns};
use super::config::Config;
use super::engine::Engine;
use super::event::{Anchor, EndReason, Environment, Event, ProfileWindow, Step, Target};
use super::profiles::Profiles;
use super::sampler::{Due, Sampler};
use super::stacks::keeper::{Keeper, Made};
use super::target::{self, Selection, TargetError};
use crate::diagnose::verdict::{Confidence, Verdict};
use crate::profile::stacks::ThreadStacks;

/// How to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacing {
    /// Time between ticks, as long as the budget allows it.
    pub interval: Duration,
    /// CPU time the watcher may use, in millionths of one core.
    pub budget_ppm: u32,
    /// What to read from.
    pub probes: Probes,
}

/// What to read from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Probes {
    /// The cheapest source there is for each reading: the ring's own memory, sock_diag, procfs
    #[default]
    Auto,
    /// procfs alone: ring fdinfo, /proc/net/tcp, a listing of the fds. Dear; to compare with
    Procfs,
}

/// When to end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Until {
    /// After this long.
    pub duration: Option<Duration>,
    /// Once a stall has been named.
    pub stall: bool,
    /// This long after a stall was first named.
    pub after_verdict: Option<Duration>,
}

/// After the first verdict, this long a surer one is waited for.
const SURER_PATIENCE_NS: u64 = 2_000_000_000;

/// Threads of the event loop that are read in full at every tick of suspicion: as many as the probe
/// heeds, 6 us each. Of a runtime with more workers the others are read when they have run, like any
/// thread.
const LOOP_THREADS_MAX: usize = stallscope_probes::threads::IMPORTANT_MAX;

/// One tick, for whoever listens.
#[derive(Debug)]
pub struct Tick<'a> {
    /// As read.
    pub sample: &'a Sample,
    /// As judged.
    pub step: &'a Step,
    /// Profile windows that have become available.
    pub profiles: &'a [ProfileWindow],
    /// Looks at the stacks of all threads that have become available.
    pub stacks: &'a [ThreadStacks],
}

/// Profiles and stacks that become available only once watching has ended.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Last {
    /// Profile windows.
    pub profiles: Vec<ProfileWindow>,
    /// Stacks of all threads.
    pub stacks: Vec<ThreadStacks>,
}

impl Last {
    fn add(&mut self, made: impl IntoIterator<Item = Made>) {
        for made in made {
            match made {
                Made::Profile(window) => self.profiles.push(window),
                Made::Stacks(stacks) => self.stacks.push(stacks),
            }
        }
    }
}

/// A watched process.
#[derive(Debug)]
pub struct Session {
    /// Who.
    pub target: Target,
    /// Where.
    pub environment: Environment,
    /// Wall time.
    pub anchor: Anchor,
    sampler: Sampler,
    engine: Engine,
    profiles: Profiles,
    keeper: Option<Keeper>,
    budget: Budget,
    /// Threads of the event loop, as last seen.
    loop_tids: Vec<i32>,
    config: Config,
    interval_ns: u64,
    stalls: u64,
    ticks: u64,
}

impl Session {
    /// Finds the target and opens what is needed to watch it. Changes nothing in it.
    ///
    /// # Errors
    /// When there is no such process, or it may not be looked at.
    pub fn attach(selection: Selection, pacing: Pacing) -> Result<Self, TargetError> {
        Self::attach_with(selection, pacing, Config::default())
    }

    /// The same, with thresholds of the user's own.
    ///
    /// # Errors
    /// As [`Session::attach`].
    pub fn attach_with(
        selection: Selection,
        pacing: Pacing,
        config: Config,
    ) -> Result<Self, TargetError> {
        let mut target = target::resolve(selection)?;
        let interval_ns = u64::try_from(pacing.interval.as_nanos()).unwrap_or(u64::MAX);
        let mut environment = target::environment(&target, interval_ns / 1_000_000);
        let sampler =
            Sampler::new(target.pid, target.start_time_ticks, selection.port(), pacing.probes);
        target.foreign_netns = sampler.foreign_netns();
        let engine = Engine::with(target.pid, environment.ticks_per_s, config);
        let profiles = Profiles::new(target.pid);
        let mut session = Self {
            anchor: anchor(),
            sampler,
            engine,
            profiles,
            keeper: None,
            budget: Budget::new(pacing.budget_ppm, now_ns()),
            loop_tids: Vec::new(),
            config,
            interval_ns,
            stalls: 0,
            ticks: 0,
            environment: environment.clone(),
            target,
        };
        // One look in advance says what is not permitted; the engine does not see it.
        let first = session.sample(now_ns());
        environment.limits = limits(&first);
        if config != Config::default() {
            environment
                .limits
                .push(String::from("thresholds are those of --config, not the defaults"));
        }
        session.environment = environment;
        Ok(session)
    }

    /// By which it is judged.
    pub const fn config(&self) -> Config {
        self.config
    }

    /// Makes connections of its own from now on, as `plan` says.
    pub fn probe_actively(&mut self, plan: active::Plan) {
        self.sampler.probe_actively(plan);
    }

    /// Catches stacks from now on, `hz` times a second of the target's CPU time, so that there is a
    /// profile of what led to a stall. It costs the target a few microseconds at each sample.
    ///
    /// # Errors
    /// When the target may not be profiled, with what would permit it.
    pub fn catch_stacks(&mut self, hz: u32) -> Result<(), Absence> {
        self.keeper = Some(Keeper::begin(&self.target, hz)?);
        Ok(())
    }

    /// Notes something that could not be had, one sentence.
    pub fn note_limit(&mut self, sentence: String) {
        self.environment.limits.push(sentence);
    }

    /// Stalls seen so far.
    pub const fn stalls(&self) -> u64 {
        self.stalls
    }

    /// Ticks so far.
    pub const fn ticks(&self) -> u64 {
        self.ticks
    }

    /// The engine: its present stall and verdict.
    pub const fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// Watches until `until`, the target's end, `stop`, or an error of `listen`.
    ///
    /// # Errors
    /// What `listen` returns.
    pub fn run<E>(
        &mut self,
        until: Until,
        stop: &AtomicBool,
        mut listen: impl FnMut(&Tick<'_>) -> Result<(), E>,
    ) -> Result<EndReason, E> {
        let begin_ns = now_ns();
        let later = |from_ns: u64, more: Duration| {
            from_ns.saturating_add(u64::try_from(more.as_nanos()).unwrap_or(u64::MAX))
        };
        let end_ns = until.duration.map(|duration| later(begin_ns, duration));
        let mut over_ns = None;
        let mut due_ns = begin_ns;
        let mut named_ns = None;
        let mut cpu_ns = thread_cpu_ns();
        loop {
            match self.sleep_until(due_ns, stop) {
                Slept::ToTheEnd => {}
                Slept::Stopped => return Ok(EndReason::Interrupted),
                Slept::TargetExited => return Ok(self.target_gone()),
            }
            let sample = self.sample(due_ns);
            if is_gone(&sample) {
                return Ok(self.target_gone());
            }
            let step = self.engine.push(&sample);
            self.loop_tids.clear();
            let loops = step.model.runtime_threads().map(|thread| thread.tid);
            self.loop_tids.extend(loops.take(LOOP_THREADS_MAX));
            self.ticks += 1;
            for event in &step.events {
                match event {
                    Event::Onset(_) => self.stalls += 1,
                    Event::Verdict(verdict) if verdict.cause.is_stall() => {
                        named_ns = named_ns.or(Some(verdict.detected_ns));
                        over_ns = over_ns
                            .or(until.after_verdict.map(|more| later(verdict.detected_ns, more)));
                    }
                    Event::Recovered { .. } => named_ns = None,
                    Event::Verdict(_) | Event::Forecast(_) | Event::Note { .. } => {}
                }
            }
            let mut new = Last { profiles: self.profiles.collect(now_ns()), stacks: Vec::new() };
            if let Some(keeper) = &self.keeper {
                keeper.heed(&step.events);
                new.add(keeper.take());
            }
            let Last { profiles, stacks } = &new;
            listen(&Tick { sample: &sample, step: &step, profiles, stacks })?;
            let now_ns = now_ns();
            let over = over_ns.is_some_and(|over_ns| now_ns >= over_ns);
            if over || (until.stall && self.is_named(named_ns, now_ns)) {
                return Ok(EndReason::Stalled);
            }
            if end_ns.is_some_and(|end_ns| now_ns >= end_ns) {
                return Ok(EndReason::TimeUp);
            }
            let used_ns = thread_cpu_ns();
            self.budget.spend(now_ns, used_ns.saturating_sub(cpu_ns), self.sampler.dear_ns());
            cpu_ns = used_ns;
            let interval_ns = self.budget.interval_ns(self.interval_ns);
            let next_ns = next_due(due_ns, interval_ns, now_ns);
            self.sampler.skip(missed(due_ns, next_ns, interval_ns));
            due_ns = next_ns;
        }
    }

    /// The tick that is due at `due_ns`.
    fn sample(&mut self, due_ns: u64) -> Sample {
        self.sampler.sample(&Due {
            due_ns,
            suspicious: self.engine.is_suspicious(),
            important_tids: &self.loop_tids,
            interval_asked_ns: self.interval_ns,
            interval_ns: self.budget.interval_ns(self.interval_ns),
            budget: &self.budget,
        })
    }

    /// Sleeps until `due_ns`, the end of the target, or `stop`.
    fn sleep_until(&self, due_ns: u64, stop: &AtomicBool) -> Slept {
        /// A long interval is slept in pieces, so that an interrupt is not kept waiting.
        const PIECE_NS: u64 = 100_000_000;
        loop {
            if stop.load(Ordering::Relaxed) {
                return Slept::Stopped;
            }
            let left_ns = due_ns.saturating_sub(now_ns());
            if left_ns == 0 {
                return Slept::ToTheEnd;
            }
            if self.sampler.wait_exit(Duration::from_nanos(left_ns.min(PIECE_NS))) {
                return Slept::TargetExited;
            }
        }
    }

    /// Lets go of what was the target's at once: a mapped ring keeps its registered files alive.
    fn target_gone(&mut self) -> EndReason {
        self.sampler.release();
        EndReason::TargetGone
    }

    fn is_named(&self, named_ns: Option<u64>, now_ns: u64) -> bool {
        let certain = |verdict: &Verdict| verdict.confidence == Confidence::Certain;
        self.engine.verdict().is_some_and(certain)
            || named_ns.is_some_and(|at_ns| now_ns.saturating_sub(at_ns) >= SURER_PATIENCE_NS)
    }

    /// Collects the profiles and stacks that are still to come after the run. Takes as long as their
    /// names take, seconds for a large program with debug information.
    pub fn last_profiles(&mut self) -> Last {
        let mut last = Last { profiles: self.profiles.collect_rest(), stacks: Vec::new() };
        last.add(self.keeper.take().map(Keeper::finish).unwrap_or_default());
        last
    }
}

/// The next tick on the grid; ticks that were missed are left out, not made up for.
const fn next_due(due_ns: u64, interval_ns: u64, now_ns: u64) -> u64 {
    let next = due_ns.saturating_add(interval_ns);
    if next >= now_ns {
        return next;
    }
    let missed = now_ns.saturating_sub(due_ns) / interval_ns;
    due_ns.saturating_add((missed + 1).saturating_mul(interval_ns))
}

/// Ticks between this and the next that did not take place.
fn missed(due_ns: u64, next_ns: u64, interval_ns: u64) -> u64 {
    let ticks = next_ns.saturating_sub(due_ns).checked_div(interval_ns);
    ticks.map_or(0, |ticks| ticks.saturating_sub(1))
}

/// How a sleep ended.
enum Slept {
    ToTheEnd,
    Stopped,
    TargetExited,
}

fn is_gone(sample: &Sample) -> bool {
    match &sample.process.reading {
        Reading::Got(process) => {
            // A zombie whose threads are all gone has closed everything; its parent has not
            // reaped it yet.
            matches!(process.state, TaskState::Zombie | TaskState::Dead) && process.threads <= 1
        }
        Reading::Absent(absence) => absence.why == Why::Gone,
    }
}

/// What could not be read at the start, one sentence each.
fn limits(sample: &Sample) -> Vec<String> {
    let mut limits = Vec::new();
    let mut note = |name: &str, absence: Option<&stallscope_probes::Absence>| {
        if let Some(absence) = absence
            && matches!(absence.why, Why::NotPermitted | Why::Failed | Why::Malformed)
        {
            limits.push(format!("{name}: {}", absence.detail));
        }
    };
    note("fds", sample.fds.reading.absence());
    note("threads", sample.threads.reading.absence());
    note("listeners", sample.listeners.reading.absence());
    note("sockets", sample.sockets.reading.absence());
    note("rings", sample.rings.reading.absence());
    note("TCP counters", sample.tcp.reading.absence());
    let thread = sample.threads.got().and_then(|threads| threads.first());
    note("system calls of threads", thread.and_then(|thread| thread.syscall.absence()));
    note("wait channels of threads", thread.and_then(|thread| thread.wchan.absence()));
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_ticks_are_left_out() {
        assert_eq!(next_due(100, 50, 120), 150);
        assert_eq!(next_due(100, 50, 150), 150);
        assert_eq!(next_due(100, 50, 151), 200);
        assert_eq!(next_due(100, 50, 420), 450);
    }
}
