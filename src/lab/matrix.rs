//! Every scenario, several times, in an order that chance decides; each finished run is kept, so that
//! a matrix that was broken off goes on where it was.
#![expect(clippy::disallowed_methods, reason = "this is where finished runs are read again")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::catalogue::{Expected, Scenario};
use super::chance::Chance;
use super::record::{Outcome, RunRecord, Way};
use super::run::{self, Options};
use super::tally::Summary;

/// What a matrix is to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which scenarios.
    pub scenarios: Vec<&'static Scenario>,
    /// How often each.
    pub reps: u32,
    /// Where its chance comes from.
    pub seed: u64,
    /// Folder for its files: `OUT/SCENARIO/REP`.
    pub out: PathBuf,
    /// Whether finished runs of the same seed and version are taken as they are.
    pub resume: bool,
    /// No run begins that is not expected to be over by then.
    pub time_max: Option<Duration>,
    /// Whether limits of the whole host may be changed for some seconds.
    pub allow_host_changes: bool,
}

/// How far it is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// Runs that are over.
    pub done: u64,
    /// All runs.
    pub of: u64,
    /// What comes next; `None` at the end.
    pub next: Option<&'a str>,
    /// What has just come to an end, if anything has.
    pub last: Option<&'a RunRecord>,
    /// About how long the rest takes.
    pub left: Duration,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// Every run, in order of scenario and repetition.
    pub records: Vec<RunRecord>,
    /// Their sums.
    pub summary: Summary,
}

/// Runs the whole plan, or as much of it as the time allows.
pub fn run(plan: &Plan, stop: &AtomicBool, mut show: impl FnMut(&Progress<'_>)) -> Matrix {
    let begun = Instant::now();
    let mut runs = order(plan);
    let of = runs.len() as u64;
    let mut records: Vec<RunRecord> = Vec::new();
    if plan.resume {
        runs.retain(|(scenario, rep)| match finished(plan, scenario, *rep) {
            Some(record) => {
                records.push(record);
                false
            }
            None => true,
        });
    }
    let mut pace = Pace::default();
    let mut left_out: Vec<String> = Vec::new();
    let mut interrupted = false;
    for (place, (scenario, rep)) in runs.iter().enumerate() {
        let rest: Duration = runs[place..].iter().map(|(next, _)| pace.expects(next)).sum();
        let progress = Progress {
            done: of - (runs.len() - place) as u64,
            of,
            next: Some(scenario.name),
            last: records.last(),
            left: rest,
        };
        show(&progress);
        interrupted |= stop.load(Ordering::Relaxed);
        let late = |max: Duration| begun.elapsed() + pace.expects(scenario) > max;
        if interrupted {
            left_out.push(format!("{} {rep}: interrupted", scenario.name));
            continue;
        }
        if plan.time_max.is_some_and(late) {
            left_out.push(format!("{} {rep}: no time was left for it", scenario.name));
            continue;
        }
        let record = run::run(scenario, &options(plan, scenario, *rep), stop);
        if stop.load(Ordering::Relaxed) {
            // It was broken off, and is no result.
            interrupted = true;
            left_out.push(format!("{} {rep}: interrupted", scenario.name));
            std::fs::remove_file(folder(plan, scenario, *rep).join(FINISHED)).ok();
            continue;
        }
        pace.add(scenario, &record);
        records.push(record);
    }
    show(&Progress {
        done: records.len() as u64,
        of,
        next: None,
        last: records.last(),
        left: Duration::ZERO,
    });
    records.sort_by(|a, b| (&a.scenario, a.rep).cmp(&(&b.scenario, b.rep)));
    let summary = Summary { left_out, ..Summary::of(&records) };
    Matrix { records, summary }
}

/// The record that a finished run leaves in its folder.
const FINISHED: &str = "run.json";

fn folder(plan: &Plan, scenario: &Scenario, rep: u32) -> PathBuf {
    plan.out.join(scenario.name).join(rep.to_string())
}

fn options(plan: &Plan, scenario: &Scenario, rep: u32) -> Options {
    Options {
        out: folder(plan, scenario, rep),
        seed: plan.seed,
        rep,
        ways: Way::ALL.to_vec(),
        allow_host_changes: plan.allow_host_changes,
    }
}

/// Every run, in an order of its own: what the run before leaves behind on the machine is not the
/// same each time.
fn order(plan: &Plan) -> Vec<(&'static Scenario, u32)> {
    let mut runs: Vec<(&'static Scenario, u32)> = (0..plan.reps)
        .flat_map(|rep| plan.scenarios.iter().map(move |scenario| (*scenario, rep)))
        .collect();
    Chance::new(plan.seed).shuffle(&mut runs);
    runs
}

/// The record of a run that has taken place already. One that could not be run is tried again:
/// rights may have changed.
fn finished(plan: &Plan, scenario: &Scenario, rep: u32) -> Option<RunRecord> {
    let record = read(&folder(plan, scenario, rep).join(FINISHED))?;
    let same = record.seed == plan.seed
        && record.rep == rep
        && record.scenario == scenario.name
        && record.version == env!("CARGO_PKG_VERSION");
    let not_run = |outcome: &Outcome| matches!(outcome, Outcome::NotRun { .. });
    let ran =
        record.ways.len() == Way::ALL.len() && !record.ways.iter().any(|way| not_run(&way.outcome));
    (same && ran).then_some(record)
}

fn read(path: &Path) -> Option<RunRecord> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// How long runs take, learnt from those that are over.
#[derive(Debug, Default)]
struct Pace {
    stalls: Mean,
    healthy: Mean,
}

#[derive(Debug, Default)]
struct Mean {
    total: Duration,
    runs: u32,
}

impl Pace {
    fn add(&mut self, scenario: &Scenario, record: &RunRecord) {
        if record.ways.iter().any(|way| matches!(way.outcome, Outcome::NotRun { .. })) {
            return;
        }
        let own = Duration::from_secs_f64(record.took_s).saturating_sub(scenario.takes());
        let mean = match scenario.expected {
            Expected::Stall(_) => &mut self.stalls,
            Expected::Healthy => &mut self.healthy,
        };
        mean.total += own;
        mean.runs += 1;
    }

    fn expects(&self, scenario: &Scenario) -> Duration {
        /// Before the first run of its kind is over.
        const GUESS: Duration = Duration::from_secs(16);
        let mean = match scenario.expected {
            Expected::Stall(_) => &self.stalls,
            Expected::Healthy => &self.healthy,
        };
        mean.total.checked_div(mean.runs).unwrap_or(GUESS) + scenario.takes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::catalogue::{Place, Victim};
    use crate::lab::tally::tests::way;

    static IMPOSSIBLE: [Scenario; 2] = [scenario("one"), scenario("two")];

    const fn scenario(name: &'static str) -> Scenario {
        Scenario {
            name,
            what: "",
            expected: Expected::Healthy,
            victim: Victim::Lab("none"),
            loads: &[],
            place: Place::Host,
            needs: &[crate::lab::catalogue::Need::HostChange("nothing")],
            definition: Duration::ZERO,
        }
    }

    fn plan(out: &Path) -> Plan {
        Plan {
            scenarios: IMPOSSIBLE.iter().collect(),
            reps: 3,
            seed: 5,
            out: out.to_owned(),
            resume: true,
            time_max: None,
            allow_host_changes: false,
        }
    }

    #[test]
    fn every_scenario_runs_as_often_as_it_is_to() {
        let folder = tempfile::tempdir().unwrap();
        let mut shown = Vec::new();
        let stop = AtomicBool::new(false);
        let matrix = run(&plan(folder.path()), &stop, |progress| {
            shown.push((progress.done, progress.of, progress.next.is_some()));
        });
        let runs: Vec<_> =
            matrix.records.iter().map(|run| (run.scenario.as_str(), run.rep)).collect();
        let expected = [("one", 0), ("one", 1), ("one", 2), ("two", 0), ("two", 1), ("two", 2)];
        assert_eq!(runs, expected);
        assert_eq!((matrix.summary.total.not_run, matrix.summary.is_fine()), (12, true));
        assert_eq!((shown.len(), shown.last()), (7, Some(&(6, 6, false))));
    }

    #[test]
    fn a_finished_run_is_not_run_again() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(folder.path());
        let mut record = crate::lab::tally::tests::run(
            "one",
            "healthy",
            vec![way(Way::Before, Outcome::Right, None), way(Way::After, Outcome::Missed, None)],
        );
        (record.seed, record.rep) = (5, 1);
        record.version = env!("CARGO_PKG_VERSION").to_owned();
        let place = super::folder(&plan, plan.scenarios[0], 1);
        std::fs::create_dir_all(&place).unwrap();
        let write = |record: &RunRecord| {
            std::fs::write(place.join(FINISHED), serde_json::to_string(record).unwrap()).unwrap();
        };
        let kept = |record: &RunRecord| {
            write(record);
            finished(&plan, plan.scenarios[0], 1).is_some()
        };
        assert!(kept(&record));
        assert!(!kept(&RunRecord { seed: 6, ..record.clone() }), "another seed");
        assert!(!kept(&RunRecord { version: String::new(), ..record.clone() }), "another version");
        assert!(!kept(&RunRecord { ways: Vec::new(), ..record.clone() }), "not both ways");
        write(&record);
        let matrix = run(&plan, &AtomicBool::new(false), |_| {});
        assert_eq!((matrix.records.len(), matrix.summary.total.missed), (6, 1));
    }

    #[test]
    fn what_there_is_no_time_for_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let mut plan = plan(folder.path());
        plan.time_max = Some(Duration::from_secs(1));
        let matrix = run(&plan, &AtomicBool::new(false), |_| {});
        assert_eq!((matrix.records.len(), matrix.summary.left_out.len()), (0, 6));
        let matrix = run(&plan, &AtomicBool::new(true), |_| {});
        assert!(matrix.summary.left_out[0].ends_with("interrupted"));
    }

    #[test]
    fn the_order_is_that_of_the_seed() {
        let folder = Path::new("/nowhere");
        let names = |seed| -> Vec<(&str, u32)> {
            let plan = Plan { seed, reps: 10, ..plan(folder) };
            order(&plan).into_iter().map(|(scenario, rep)| (scenario.name, rep)).collect()
        };
        assert_eq!(names(1), names(1));
        assert_ne!(names(1), names(2));
    }
}
