//! A profile of some seconds, or a look at all threads.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stallscope_probes::sample::TaskState;
use stallscope_probes::stacks::capture::{Ask, Capture, Waits};
use stallscope_probes::stacks::follow::Caught;
use stallscope_probes::stacks::unwind::Unwinder;
use stallscope_probes::{Absence, Reading};

use super::dump::{self, Eyes};
use super::naming::{Job, Namer};
use super::rolling::Rolling;
use crate::profile::stacks::{Kind, Profile, ThreadStacks};
use crate::watch::clock::{now_ns, process_cpu_ns};
use crate::watch::event::Target;

/// Time between looks at the rings.
pub const DRAIN_EVERY: Duration = Duration::from_millis(25);
/// Stretches caught in one run; later ones are left out.
pub const CAUGHT_MAX: usize = 4_000_000;

/// What to profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// What is counted.
    pub kind: Kind,
    /// Samples a second of CPU time.
    pub hz: u32,
    /// How long.
    pub length: Duration,
}

/// A profile, and what it cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// The profile.
    pub profile: Profile,
    /// CPU time of this process while it caught, as a share of one core.
    pub cpu_share: f64,
    /// How long naming took.
    pub naming: Duration,
}

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It may not be profiled, or cannot.
    #[error("{}", .0.detail)]
    Refused(Absence),
}

/// Profiles `target`. `progress` hears now and then how long it has gone on; it ends early when
/// `stop` is set or the target exits.
///
/// # Errors
/// When the target may not be profiled.
pub fn run(
    target: &Target,
    plan: Plan,
    stop: &AtomicBool,
    mut progress: impl FnMut(Duration),
) -> Result<Made, RunError> {
    let waits = if plan.kind == Kind::Cpu { Waits::No } else { Waits::All };
    let begin_ns = now_ns();
    let ask = Ask { hz: plan.hz, waits };
    let mut capture = match Capture::begin(Path::new("/proc"), target.pid, ask, begin_ns) {
        Reading::Got(capture) => capture,
        Reading::Absent(absence) => return Err(RunError::Refused(absence)),
    };
    // Opening the events of many threads takes a while: what is caught counts from here.
    let begin_ns = now_ns();
    let cpu_ns = process_cpu_ns();
    let mut caught: Vec<Caught> = Vec::new();
    let length_ns = u64::try_from(plan.length.as_nanos()).unwrap_or(u64::MAX);
    let mut left_out = 0_u64;
    let end_ns = loop {
        let now_ns = now_ns();
        for one in capture.drain(now_ns) {
            if caught.len() < CAUGHT_MAX {
                caught.push(one);
            } else {
                left_out += 1;
            }
        }
        if plan.kind != Kind::Cpu {
            capture.look_at_sleepers(now_ns);
        }
        let passed_ns = now_ns.saturating_sub(begin_ns);
        progress(Duration::from_nanos(passed_ns));
        if passed_ns >= length_ns || stop.load(Ordering::Relaxed) || is_gone(target.pid) {
            break now_ns;
        }
        let left = Duration::from_nanos(length_ns - passed_ns);
        std::thread::sleep(left.min(DRAIN_EVERY));
    };
    let used_ns = process_cpu_ns().saturating_sub(cpu_ns);
    let going_on: Vec<_> = capture.away(end_ns).map(Caught::Waited).collect();
    caught.extend(going_on);
    let mut job = Job::new(&mut capture, (begin_ns, end_ns), vec![plan.kind], caught);
    if left_out > 0 {
        job.notes
            .push(format!("{left_out} switches and samples beyond {CAUGHT_MAX} were left out"));
    }
    // The events go before the names are looked for: that may take seconds.
    drop(capture);
    let naming_ns = now_ns();
    let mut namer = Namer::new(target.pid, &target.comm, plan.hz);
    let mut profiles = namer.name(&job);
    let profile = profiles.remove(0);
    let naming = Duration::from_nanos(now_ns().saturating_sub(naming_ns));
    let cpu_share = used_ns as f64 / end_ns.saturating_sub(begin_ns).max(1) as f64;
    Ok(Made { profile, cpu_share, naming })
}

fn is_gone(pid: i32) -> bool {
    let process = stallscope_probes::process::read(Path::new("/proc"), pid);
    process.got().is_none_or(|process| matches!(process.state, TaskState::Zombie | TaskState::Dead))
}

/// How long threads that run are waited for, before their stacks are told.
const LOOK_FOR: Duration = Duration::from_millis(300);
/// Samples a second meanwhile: a thread that runs now and then is to be caught too.
const LOOK_HZ: u32 = 499;

/// The stacks of all threads of `target` now.
///
/// # Errors
/// When not even its mappings may be read.
pub fn stacks_now(target: &Target, stop: &AtomicBool) -> Result<ThreadStacks, RunError> {
    let proc_root = Path::new("/proc");
    let mut namer = Namer::new(target.pid, &target.comm, LOOK_HZ);
    let ask = Ask { hz: LOOK_HZ, waits: Waits::Cheaply };
    let begin_ns = now_ns();
    let mut stacks = match Capture::begin(proc_root, target.pid, ask, begin_ns) {
        Reading::Got(mut capture) => {
            let mut rolling = Rolling::new(begin_ns);
            while !stop.load(Ordering::Relaxed)
                && u128::from(now_ns().saturating_sub(begin_ns)) < LOOK_FOR.as_nanos()
            {
                std::thread::sleep(DRAIN_EVERY);
                let now_ns = now_ns();
                rolling.push(capture.drain(now_ns), now_ns);
            }
            let found = dump::find(target.pid, Eyes::Following(&mut capture, &rolling), now_ns());
            drop(capture);
            dump::name(&found, &mut namer)
        }
        Reading::Absent(absence) => {
            let mut unwinder = match Unwinder::new(proc_root, target.pid) {
                Reading::Got(unwinder) => unwinder,
                Reading::Absent(absence) => return Err(RunError::Refused(absence)),
            };
            let found = dump::find(target.pid, Eyes::Sleepers(&mut unwinder), now_ns());
            let mut stacks = dump::name(&found, &mut namer);
            stacks.notes.push(format!("threads that run were not caught: {}", absence.detail));
            stacks
        }
    };
    stacks.threads.sort_by_key(|thread| thread.tid);
    Ok(stacks)
}
