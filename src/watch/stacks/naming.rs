//! What was caught, with names: the part that takes long, and so is done apart from the catching.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use stallscope_probes::stacks::capture::Capture;
use stallscope_probes::stacks::code::Code;
use stallscope_probes::stacks::follow::Caught;
use stallscope_probes::stacks::symbols::Symbols;
use stallscope_probes::stacks::{RawStack, Stacks};

use crate::profile::build::{self, Material, addresses};
use crate::profile::stacks::{Kind, Profile};

/// A stretch of time to make profiles of, with all that is needed to name them.
#[derive(Debug)]
pub struct Job {
    /// Begin, ns.
    pub begin_ns: u64,
    /// End, ns.
    pub end_ns: u64,
    /// What is wanted.
    pub kinds: Vec<Kind>,
    /// What was caught.
    pub caught: Vec<Caught>,
    /// The stacks that this names.
    pub stacks: Stacks,
    /// Where code lies.
    pub code: Code,
    /// Names of threads.
    pub threads: BTreeMap<i32, String>,
    /// What could not be seen, one sentence each.
    pub notes: Vec<String>,
}

impl Job {
    /// Of a capture: copies what was caught and its stacks, so that catching can go on.
    pub fn new(
        capture: &mut Capture,
        (begin_ns, end_ns): (u64, u64),
        kinds: Vec<Kind>,
        mut caught: Vec<Caught>,
    ) -> Self {
        let used = caught.iter().filter_map(|caught| match caught {
            Caught::Ran { stack, .. } => Some(*stack),
            Caught::Waited(wait) => wait.stack,
        });
        let (stacks, ids) = capture.stacks().part(used.collect::<BTreeSet<_>>());
        for caught in &mut caught {
            match caught {
                Caught::Ran { stack, .. } => *stack = ids.get(stack).copied().unwrap_or(*stack),
                Caught::Waited(wait) => {
                    wait.stack = wait.stack.and_then(|stack| ids.get(&stack).copied());
                }
            }
        }
        let threads = capture.names().clone();
        let notes = notes(capture, begin_ns, end_ns);
        let code = capture.unwinder().code().clone();
        Self { begin_ns, end_ns, kinds, caught, stacks, code, threads, notes }
    }
}

/// What a profile between two instants could not see.
fn notes(capture: &mut Capture, begin_ns: u64, end_ns: u64) -> Vec<String> {
    let losses = capture.losses().clone();
    let mut notes = Vec::new();
    if losses.no_kernel {
        notes.push(String::from(
            "frames of the kernel are not permitted to this user, so waits have no sampled place: root (CAP_PERFMON) or kernel.perf_event_paranoid 1 would permit them",
        ));
    }
    if losses.records > 0 {
        notes.push(format!("{} records were lost: the rings were full", losses.records));
    }
    if losses.throttled > 0 {
        notes.push(format!(
            "the kernel held samples back {} times (kernel.perf_event_max_sample_rate)",
            losses.throttled
        ));
    }
    if losses.stacks > 0 {
        notes.push(format!("{} samples were left out: too many different stacks", losses.stacks));
    }
    if losses.threads > 0 {
        notes.push(format!("{} threads were left out: there are too many", losses.threads));
    }
    let blind_ns: u64 = losses
        .blind
        .iter()
        .map(|(from, to)| end_ns.min(*to).saturating_sub(begin_ns.max(*from)))
        .sum();
    if blind_ns > 0 {
        notes.push(format!(
            "waits were not followed for {:.1} s of {:.1}: there were more than {} switches a second, and following them would be felt",
            blind_ns as f64 / 1e9,
            end_ns.saturating_sub(begin_ns) as f64 / 1e9,
            stallscope_probes::stacks::capture::SWITCHES_PER_S_MAX,
        ));
    }
    for (file, absence) in capture.unwinder().unread().iter().take(3) {
        notes.push(format!("stacks may end early in {file}: {}", absence.detail));
    }
    notes
}

/// Names the stacks of one process.
#[derive(Debug)]
pub struct Namer {
    symbols: Symbols,
    pid: i32,
    comm: String,
    hz: u32,
}

impl Namer {
    /// For process `pid`, profiled `hz` times a second of CPU time.
    pub fn new(pid: i32, comm: &str, hz: u32) -> Self {
        let symbols = Symbols::new(Path::new("/proc"), pid);
        Self { symbols, pid, comm: comm.to_owned(), hz }
    }

    /// The profiles that a job asks for.
    pub fn name(&mut self, job: &Job) -> Vec<Profile> {
        self.learn(&job.code, job.stacks.iter());
        let material = Material {
            stacks: &job.stacks,
            symbols: &self.symbols,
            threads: &job.threads,
            pid: self.pid,
            comm: &self.comm,
            hz: self.hz,
        };
        let profiles = job.kinds.iter().map(|kind| {
            let mut profile = build::build(*kind, job.begin_ns, job.end_ns, &job.caught, &material);
            profile.notes.extend(job.notes.iter().cloned());
            profile
        });
        profiles.collect()
    }

    /// Learns the names of these stacks.
    pub fn learn<'a>(&mut self, code: &Code, stacks: impl Iterator<Item = &'a RawStack>) {
        let (mut user, mut kernel) = (BTreeSet::new(), BTreeSet::new());
        for stack in stacks {
            let (of_user, of_kernel) = addresses(stack);
            user.extend(of_user);
            kernel.extend(of_kernel);
        }
        self.symbols.learn_user(code, user);
        self.symbols.learn_kernel(kernel);
    }

    /// What is known.
    pub const fn symbols(&self) -> &Symbols {
        &self.symbols
    }
}
