//! What was caught, with names: the part that takes long, and so is done apart from the catching.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use stallscope_probes::Absence;
use stallscope_probes::stacks::burden::SWITCHES_PER_S_MAX;
use stallscope_probes::stacks::capture::{Capture, Losses};
use stallscope_probes::stacks::code::Code;
use stallscope_probes::stacks::follow::Caught;
use stallscope_probes::stacks::symbols::Symbols;
use stallscope_probes::stacks::{RawStack, Stacks};

use crate::profile::build::{self, Material, addresses};
use crate::profile::stacks::{Kind, Profile};

/// Files named of which the unwind tables could not be read.
const FILES_NAMED_MAX: usize = 3;

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
        let losses = capture.losses().clone();
        let notes = notes(&losses, capture.unwinder().unread(), begin_ns, end_ns);
        let code = capture.unwinder().code().clone();
        Self { begin_ns, end_ns, kinds, caught, stacks, code, threads, notes }
    }
}

/// What a profile between two instants could not see.
fn notes(
    losses: &Losses,
    unread: &BTreeMap<String, Absence>,
    begin_ns: u64,
    end_ns: u64,
) -> Vec<String> {
    let mut notes = Vec::new();
    if losses.no_kernel {
        notes.push(String::from(
            "frames of the kernel are not permitted to this user, so waits have no sampled place: root (CAP_PERFMON) or kernel.perf_event_paranoid 1 would permit them",
        ));
    }
    if losses.records > 0 {
        notes.push(format!("{} records were lost so far: the rings were full", losses.records));
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
    if losses.switches > 0 {
        notes.push(format!(
            "{} switches were left out so far: there are too many threads",
            losses.switches
        ));
    }
    if let Some(absence) = &losses.mappings {
        notes.push(format!("code loaded since may have no names: {}", absence.detail));
    }
    let of_all_s = end_ns.saturating_sub(begin_ns) as f64 / 1e9;
    let missed = [
        (&losses.blind, "waits were not followed"),
        (&losses.unsampled, "time on a CPU was not sampled either (whole CPUs may be, by root)"),
    ];
    let missed_s = |stretches: &[(u64, u64)]| {
        let within = |(from, to): &(u64, u64)| end_ns.min(*to).saturating_sub(begin_ns.max(*from));
        stretches.iter().map(within).sum::<u64>() as f64 / 1e9
    };
    for (stretches, what) in missed {
        let missed_s = missed_s(stretches);
        if missed_s > 0.0 {
            notes.push(format!(
                "{what} for {missed_s:.1} s of {of_all_s:.1}: there were more than {SWITCHES_PER_S_MAX} switches a second, and it would be felt",
            ));
        }
    }
    if missed_s(&losses.blind) > 0.0 && missed_s(&losses.unsampled) == 0.0 {
        notes.push(String::from(
            "while there were too many switches whole CPUs were sampled, which tells shares of CPU time, and its total less exactly",
        ));
    }
    for (file, absence) in unread.iter().take(FILES_NAMED_MAX) {
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
            profile.notes.extend(
                self.symbols
                    .unnamed()
                    .iter()
                    .take(FILES_NAMED_MAX)
                    .map(|(file, why)| format!("no names could be looked for in {file}: {why}")),
            );
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

#[cfg(test)]
mod tests {
    use stallscope_probes::Why;
    use stallscope_probes::stacks::follow::Wait;
    use stallscope_probes::stacks::unwind::End;

    use super::*;

    const S: u64 = 1_000_000_000;

    fn told(losses: &Losses) -> Vec<String> {
        notes(losses, &BTreeMap::new(), 10 * S, 20 * S)
    }

    #[test]
    fn each_loss_is_a_sentence_and_without_losses_there_is_none() {
        assert!(told(&Losses::default()).is_empty());
        let losses = Losses {
            records: 1,
            throttled: 2,
            stacks: 3,
            threads: 4,
            blind: vec![(12 * S, 15 * S)],
            unsampled: vec![(12 * S, 14 * S)],
            no_kernel: true,
            switches: 5,
            mappings: Some(Absence { why: Why::Gone, detail: String::from("no maps") }),
        };
        let sentences = told(&losses);
        let words = [
            "frames of the kernel are not permitted",
            "1 records were lost",
            "held samples back 2 times",
            "3 samples were left out",
            "4 threads were left out",
            "5 switches were left out",
            "code loaded since may have no names: no maps",
            "waits were not followed for 3.0 s of 10.0: there were more than 10000 switches",
            "time on a CPU was not sampled either (whole CPUs may be, by root) for 2.0 s of 10.0",
        ];
        assert_eq!(sentences.len(), words.len(), "{sentences:#?}");
        for (sentence, words) in sentences.iter().zip(words) {
            assert!(sentence.contains(words), "{sentence}");
        }
    }

    #[test]
    fn only_blind_stretches_within_the_profile_count() {
        // Before, over the begin, within, going on, after.
        let blind = vec![
            (S, 9 * S),
            (9 * S, 11 * S),
            (12 * S, 13 * S),
            (18 * S, u64::MAX),
            (20 * S, u64::MAX),
        ];
        let sentences = told(&Losses { blind, ..Losses::default() });
        assert!(sentences[0].contains("for 4.0 s of 10.0"), "{sentences:?}");
        let before = vec![(S, 9 * S)];
        let sentences = told(&Losses { blind: before, ..Losses::default() });
        assert!(sentences.is_empty(), "{sentences:?}");
    }

    #[test]
    fn files_without_tables_are_named_up_to_the_bound() {
        let absence = Absence { why: Why::Malformed, detail: String::from("no ELF file") };
        let files = (0..FILES_NAMED_MAX + 2).map(|nth| (format!("/lib/{nth}.so"), absence.clone()));
        let sentences = notes(&Losses::default(), &files.collect(), 0, S);
        assert_eq!(sentences.len(), FILES_NAMED_MAX);
        assert_eq!(sentences[0], "stacks may end early in /lib/0.so: no ELF file");
    }

    #[test]
    fn a_job_yields_a_profile_of_each_kind_with_its_notes() {
        let mut stacks = Stacks::default();
        let raw = RawStack {
            kernel: Vec::new(),
            kernel_names: Vec::new(),
            user: vec![0x1010],
            guessed_from: None,
            end: End::Root,
        };
        let stack = stacks.id_of(raw);
        let wait = Wait { tid: 7, begin_ns: 0, end_ns: 5, stack, preempted: false };
        let job = Job {
            begin_ns: 0,
            end_ns: 10,
            kinds: vec![Kind::Cpu, Kind::OffCpu],
            caught: vec![Caught::Waited(wait)],
            stacks,
            code: Code::default(),
            threads: BTreeMap::from([(7, String::from("worker"))]),
            notes: vec![String::from("a note")],
        };
        let own = i32::try_from(std::process::id()).expect("a pid");
        let profiles = Namer::new(own, "server", 99).name(&job);
        let told: Vec<_> =
            profiles.iter().map(|profile| (profile.kind, profile.samples.len())).collect();
        assert_eq!(told, [(Kind::Cpu, 0), (Kind::OffCpu, 1)]);
        for profile in &profiles {
            assert_eq!(
                (profile.pid, profile.hz, profile.notes.as_slice()),
                (own, 99, &job.notes[..])
            );
        }
        let frames = profiles[1].frames_of(profiles[1].samples[0].stack);
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].function, "0x1010", "there is no code there, and so no name");
        assert_eq!(profiles[1].threads[0].name, "worker");
    }
}
