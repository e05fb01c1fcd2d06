//! The threads of one process, followed from read to read.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::{assemble, parse_schedstat, parse_syscall, parse_wchan, read_stack, read_switches};
use crate::files::{self, Buffer, Kept, Listing};
use crate::process::parse_stat;
use crate::reading::{Absence, Reading, Why};
use crate::sample::{SchedRaw, SwitchesRaw, THREADS_MAX, TaskState, ThreadRaw};

/// Threads of [`Ask::important`] that are heeded.
pub const IMPORTANT_MAX: usize = 16;
/// Reads after which the threads are listed anew although nothing tells that they changed.
const LIST_EVERY: u32 = 64;

/// What to read of the threads this time.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Threads of the process, from its `stat` of the same tick: they are listed anew when this
    /// changes. `None` if it could not be read: they are then listed each time.
    pub threads: Option<u64>,
    /// Threads read in full each time and kept even beyond the lowest [`THREADS_MAX`]: those that
    /// run a runtime, say (at most [`IMPORTANT_MAX`]). The main thread need not be named to be kept.
    pub important: &'a [i32],
    /// Reads within which each thread is read in full at least once; from 1, which is "always".
    pub full_within: u32,
    /// Whether to read the kernel stack of every thread.
    pub stacks: bool,
    /// Whether to read context switches: of each thread at first, then when its turn comes, so that
    /// they are `full_within` reads old at most. Not asked for, they are absent.
    pub switches: bool,
}

/// The threads of a process, kept open: four fds a thread, [`THREADS_MAX`] threads at most.
///
/// `schedstat` is read of each thread each time. The rest is read of threads
/// - whose `schedstat` has changed since: they have been put on a CPU (`sched_info_arrive`,
///   kernel/sched/stats.h) or waited for one;
/// - that were on a CPU, or waited for one, when last looked at;
/// - that are important, or whose turn has come.
///
/// Of the others the last reading stands: a thread that has not been on a CPU since sleeps where it
/// slept, in the same system call, with the same CPU time; to be stopped or frozen it must run, too.
/// One thing escapes until its turn comes: a sleeper that has been woken and not yet been given a CPU
/// (a throttled cgroup, starvation) has its `schedstat` unchanged and is shown asleep; and a
/// name that another thread gave it.
#[derive(Debug)]
pub struct Watch {
    tasks: PathBuf,
    pid: i32,
    listing: Option<Listing>,
    followed: Vec<Followed>,
    /// What was asked when the threads were listed last.
    listed_for: (Option<u64>, Vec<i32>),
    list_in: u32,
    turn: usize,
    turns_due: usize,
    buffer: Buffer,
}

impl Watch {
    /// Of the process `pid`; opens nothing yet.
    pub fn new(proc_root: &Path, pid: i32) -> Self {
        Self {
            tasks: files::process(proc_root, pid).join("task"),
            pid,
            listing: None,
            followed: Vec::new(),
            listed_for: (None, Vec::new()),
            list_in: 0,
            turn: 0,
            turns_due: 0,
            buffer: Buffer::default(),
        }
    }

    /// Reads the threads, lowest tids first. One that has ended is left out. Beyond [`THREADS_MAX`]
    /// threads, the oldest are read. Absent, for all, when one could not be read for another reason
    /// than its end (EMFILE, say): a part would pass for the whole.
    pub fn read(&mut self, ask: &Ask<'_>) -> Reading<Vec<ThreadRaw>> {
        let listed = self.must_list(ask);
        if listed && let Err(absence) = self.list(ask) {
            return Reading::Absent(absence);
        }
        let turns = self.take_turns(ask.full_within);
        let mut read = self.read_followed(ask, &turns);
        // The number of threads is the same when one ends and another begins.
        if matches!(read, Ok(None)) {
            if let Err(absence) = self.list(ask) {
                return Reading::Absent(absence);
            }
            read = self.read_followed(ask, &turns);
        }
        match read {
            Ok(Some(threads)) => Reading::Got(threads),
            // Threads end faster than they can be listed: those that are left, then.
            Ok(None) => {
                self.list_in = 0;
                Reading::Got(self.shown(ask.stacks))
            }
            Err(absence) => Reading::Absent(absence),
        }
    }

    fn must_list(&mut self, ask: &Ask<'_>) -> bool {
        self.list_in = self.list_in.saturating_sub(1);
        self.list_in == 0
            || ask.threads.is_none()
            || ask.threads != self.listed_for.0
            || heeded(ask) != self.listed_for.1
    }

    /// Lists the threads and follows those that are not followed yet.
    fn list(&mut self, ask: &Ask<'_>) -> Result<(), Absence> {
        let listed = self.first_tids();
        // Until a listing has come off, the next read tries again.
        self.list_in = 0;
        let tids = match files::reading("list", &self.tasks, listed) {
            Reading::Got(tids) if !tids.is_empty() => tids,
            Reading::Got(_) => {
                self.followed.clear();
                let detail = format!("{} is empty: the process has ended", self.tasks.display());
                return Err(Absence { why: Why::Gone, detail });
            }
            Reading::Absent(absence) => {
                self.followed.clear();
                return Err(absence);
            }
        };
        let chosen = choose(self.pid, heeded(ask), &tids);
        self.followed.retain(|thread| chosen.binary_search(&thread.tid).is_ok());
        for tid in chosen {
            if let Err(at) = self.followed.binary_search_by_key(&tid, |thread| thread.tid) {
                self.followed.insert(at, Followed::new(&self.tasks, tid));
            }
        }
        self.listed_for = (ask.threads, heeded(ask).to_vec());
        self.list_in = LIST_EVERY;
        Ok(())
    }

    /// The first tids in the kernel's order, which is that of their making (`proc_task_readdir`,
    /// fs/proc/base.c), so a process of 10,000 threads is not listed to its end. Through a folder that
    /// stays open: like [`Kept`], it cannot become another process's.
    fn first_tids(&mut self) -> io::Result<Vec<i32>> {
        let listing = match &mut self.listing {
            Some(listing) => listing,
            none => none.insert(Listing::open(&self.tasks)?),
        };
        listing.rewind();
        let mut tids = Vec::with_capacity(THREADS_MAX);
        let _end = listing.advance(|_, tid, _| {
            tids.push(tid);
            if tids.len() == THREADS_MAX {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        Ok(tids)
    }

    /// The tids whose turn it is to be read in full.
    fn take_turns(&mut self, full_within: u32) -> Vec<i32> {
        let threads = self.followed.len();
        // `threads` turns are spread over `full_within` reads.
        let within = full_within.max(1) as usize;
        self.turns_due += threads;
        let turns = (self.turns_due / within).min(threads);
        self.turns_due %= within;
        let first = self.turn;
        self.turn = (first + turns) % threads.max(1);
        (first..first + turns).map(|at| self.followed[at % threads].tid).collect()
    }

    /// `None` if a thread has ended since the last read.
    fn read_followed(
        &mut self,
        ask: &Ask<'_>,
        turns: &[i32],
    ) -> Result<Option<Vec<ThreadRaw>>, Absence> {
        let mut lost = false;
        let mut ended = Vec::new();
        for (at, thread) in self.followed.iter_mut().enumerate() {
            let turn = turns.contains(&thread.tid);
            let full = turn || heeded(ask).contains(&thread.tid);
            let known = thread.raw.is_some();
            match thread.refresh(full, &mut self.buffer) {
                Ok(()) => thread.refresh_switches(ask.switches, turn),
                Err(absence) if absence.why == Why::Gone => {
                    lost |= known;
                    ended.push(at);
                }
                Err(absence) => return Err(absence),
            }
        }
        for at in ended.into_iter().rev() {
            self.followed.remove(at);
        }
        Ok((!lost).then(|| self.shown(ask.stacks)))
    }

    fn shown(&self, stacks: bool) -> Vec<ThreadRaw> {
        self.followed.iter().filter_map(|thread| thread.shown(stacks)).collect()
    }
}

fn heeded<'a>(ask: &Ask<'a>) -> &'a [i32] {
    &ask.important[..ask.important.len().min(IMPORTANT_MAX)]
}

/// At most [`THREADS_MAX`] tids, sorted: the main thread, the important ones, then those listed.
fn choose(pid: i32, important: &[i32], listed: &[i32]) -> Vec<i32> {
    let mut chosen = Vec::with_capacity(THREADS_MAX);
    for tid in std::iter::once(&pid).chain(important).chain(listed) {
        if chosen.len() < THREADS_MAX && !chosen.contains(tid) {
            chosen.push(*tid);
        }
    }
    chosen.sort_unstable();
    chosen
}

/// One thread and its open files.
#[derive(Debug)]
struct Followed {
    tid: i32,
    folder: PathBuf,
    schedstat: Kept,
    stat: Kept,
    syscall: Kept,
    wchan: Kept,
    /// The last reading in full, with `sched` of the last read.
    raw: Option<ThreadRaw>,
    /// `schedstat` as it was before the last reading in full: what ran after it is looked at again.
    full_at: Option<SchedRaw>,
    switches: Option<Reading<SwitchesRaw>>,
}

impl Followed {
    fn new(tasks: &Path, tid: i32) -> Self {
        let folder = tasks.join(tid.to_string());
        let kept = |name: &str| Kept::new(folder.join(name));
        Self {
            tid,
            schedstat: kept("schedstat"),
            stat: kept("stat"),
            syscall: kept("syscall"),
            wchan: kept("wchan"),
            raw: None,
            full_at: None,
            switches: None,
            folder,
        }
    }

    /// Reads `schedstat`, and the rest if it may have changed.
    fn refresh(&mut self, full: bool, buffer: &mut Buffer) -> Result<(), Absence> {
        let sched = self.schedstat.read(buffer).and_then(parse_schedstat);
        if let Reading::Absent(absence) = &sched
            && self.schedstat.is_gone()
        {
            return Err(absence.clone());
        }
        let now = sched.got().copied();
        match &mut self.raw {
            Some(raw) if !full && stands(raw.state, self.full_at, now) => raw.sched = sched,
            _ => {
                self.raw = Some(self.read_full(sched, buffer)?);
                self.full_at = now;
            }
        }
        Ok(())
    }

    fn read_full(
        &mut self,
        sched: Reading<SchedRaw>,
        buffer: &mut Buffer,
    ) -> Result<ThreadRaw, Absence> {
        let stat = match self.stat.read(buffer).and_then(parse_stat) {
            Reading::Got(stat) => stat,
            Reading::Absent(absence) => return Err(absence),
        };
        let syscall = self.syscall.read(buffer).and_then(parse_syscall);
        let wchan = self.wchan.read(buffer).map(parse_wchan);
        Ok(assemble(self.tid, stat, sched, syscall, wchan))
    }

    fn refresh_switches(&mut self, wanted: bool, turn: bool) {
        if !wanted {
            self.switches = None;
        } else if turn || self.switches.is_none() {
            self.switches = Some(read_switches(&self.folder));
        }
    }

    fn shown(&self, stack: bool) -> Option<ThreadRaw> {
        let mut raw = self.raw.clone()?;
        if stack {
            raw.kernel_stack = read_stack(&self.folder);
        }
        if let Some(switches) = &self.switches {
            raw.switches = switches.clone();
        }
        Some(raw)
    }
}

/// Whether the last reading in full still holds, by the state it found and `schedstat` before it and
/// now. "0 0 0" is what a kernel says that keeps no count (`proc_pid_schedstat`, fs/proc/base.c).
fn stands(state: TaskState, then: Option<SchedRaw>, now: Option<SchedRaw>) -> bool {
    state != TaskState::Running && now == then && now.is_some_and(|now| now.timeslices > 0)
}

#[cfg(test)]
mod tests {
    use super::super::tests::stat;
    use super::*;
    use crate::fake::Tree;

    const ASK: Ask<'static> =
        Ask { threads: Some(2), important: &[], full_within: 100, stacks: false, switches: false };

    fn thread(tree: &Tree, tid: i32, comm: &str, state: char, sched: &str) {
        tree.file(&format!("20/task/{tid}/stat"), &stat(tid, comm, state));
        tree.file(&format!("20/task/{tid}/schedstat"), sched);
        tree.file(&format!("20/task/{tid}/syscall"), "202 0x5 0x0\n");
        tree.file(&format!("20/task/{tid}/wchan"), "futex_do_wait");
        let status = format!("voluntary_ctxt_switches:\t{tid}\nnonvoluntary_ctxt_switches:\t1\n");
        tree.file(&format!("20/task/{tid}/status"), &status);
    }

    fn names(watch: &mut Watch, ask: &Ask<'_>) -> Vec<String> {
        let read = watch.read(ask);
        read.got().unwrap().iter().map(|thread| thread.comm.clone()).collect()
    }

    #[test]
    fn whether_the_last_reading_stands() {
        let sched = |timeslices| Some(SchedRaw { run_ns: 1, delay_ns: 2, timeslices });
        let (asleep, running) = (TaskState::Sleeping, TaskState::Running);
        for (state, then, now, expected) in [
            (asleep, sched(3), sched(3), true),
            (TaskState::Stopped, sched(3), sched(3), true),
            (asleep, sched(3), sched(4), false),
            (running, sched(3), sched(3), false),
            (asleep, None, None, false),
            (asleep, sched(3), None, false),
            (asleep, sched(0), sched(0), false),
        ] {
            assert_eq!(stands(state, then, now), expected, "{state:?} {then:?} {now:?}");
        }
    }

    #[test]
    fn a_thread_that_ran_is_read_in_full_and_a_sleeper_is_not() {
        let tree = Tree::new();
        thread(&tree, 20, "a", 'S', "1 1 1");
        thread(&tree, 21, "b", 'S', "1 1 1");
        let mut watch = Watch::new(tree.root(), 20);
        assert_eq!(names(&mut watch, &ASK), ["a", "b"]);
        thread(&tree, 20, "A", 'S', "1 1 1");
        thread(&tree, 21, "B", 'S', "1 1 2");
        assert_eq!(names(&mut watch, &ASK), ["a", "B"]);
        let read = watch.read(&ASK);
        assert_eq!(read.got().unwrap()[1].sched.got().unwrap().timeslices, 2);
        // Two threads within 100 reads: the first turn comes at the 50th.
        for _ in 4..50 {
            assert_eq!(names(&mut watch, &ASK), ["a", "B"]);
        }
        assert_eq!(names(&mut watch, &ASK), ["A", "B"]);
    }

    #[test]
    fn what_runs_is_important_or_has_its_turn_is_read_in_full() {
        let tree = Tree::new();
        let ask = |important| Ask { important, full_within: 4, threads: Some(4), ..ASK };
        for tid in 20..24 {
            thread(&tree, tid, "old", if tid == 20 { 'R' } else { 'S' }, "1 1 1");
        }
        let mut watch = Watch::new(tree.root(), 20);
        watch.read(&ask(&[21]));
        for tid in 20..24 {
            thread(&tree, tid, "new", 'S', "1 1 1");
        }
        watch.turn = 3;
        assert_eq!(names(&mut watch, &ask(&[21])), ["new", "new", "old", "new"]);
        for _ in 0..3 {
            watch.read(&ask(&[21]));
        }
        assert_eq!(names(&mut watch, &ask(&[21])), ["new"; 4]);
    }

    #[test]
    fn threads_are_listed_when_their_number_changes_or_one_is_lost() {
        let tree = Tree::new();
        thread(&tree, 20, "a", 'S', "1 1 1");
        let mut watch = Watch::new(tree.root(), 20);
        let ask = |threads| Ask { threads, ..ASK };
        assert_eq!(names(&mut watch, &ask(Some(1))), ["a"]);
        thread(&tree, 21, "b", 'S', "1 1 1");
        assert_eq!(names(&mut watch, &ask(Some(1))), ["a"]);
        assert_eq!(names(&mut watch, &ask(Some(2))), ["a", "b"]);
        thread(&tree, 22, "c", 'S', "1 1 1");
        assert_eq!(names(&mut watch, &ask(None)), ["a", "b", "c"]);
        thread(&tree, 23, "d", 'S', "1 1 1");
        watch.read(&ask(Some(3)));
        watch.list_in = 1;
        assert_eq!(names(&mut watch, &ask(Some(3))), ["a", "b", "c", "d"]);
    }

    #[test]
    fn context_switches_are_read_when_asked_for() {
        let tree = Tree::new();
        thread(&tree, 20, "a", 'S', "1 1 1");
        let mut watch = Watch::new(tree.root(), 20);
        let mut switches = |switches| {
            let read = watch.read(&Ask { switches, ..ASK });
            read.got().unwrap()[0].switches.clone()
        };
        assert_eq!(switches(false).absence().unwrap().why, Why::NotSampled);
        let known = SwitchesRaw { voluntary: 20, involuntary: 1 };
        assert_eq!(switches(true), Reading::Got(known));
        assert_eq!(switches(false).absence().unwrap().why, Why::NotSampled);
    }

    #[test]
    fn the_main_thread_and_important_ones_come_before_the_rest() {
        let listed: Vec<i32> = (100..100 + THREADS_MAX as i32).collect();
        let chosen = choose(900, &[5, 100, 950], &listed);
        assert_eq!(chosen.len(), THREADS_MAX);
        assert!(chosen.is_sorted());
        for tid in [5, 100, 900, 950] {
            assert!(chosen.contains(&tid), "{tid}");
        }
        assert_eq!(choose(1, &[], &[1, 2]), [1, 2]);
        let many: Vec<i32> = (0..200).collect();
        let ask = Ask { important: &many, ..ASK };
        assert_eq!(heeded(&ask).len(), IMPORTANT_MAX);
    }

    #[test]
    fn a_process_that_is_not_there_is_gone_and_an_unreadable_thread_spoils_the_list() {
        let tree = Tree::new();
        let gone = |reading: Reading<_>| reading.absence().map(|absence| absence.why);
        assert_eq!(gone(Watch::new(tree.root(), 20).read(&ASK)), Some(Why::Gone));
        tree.folder("20/task");
        assert_eq!(gone(Watch::new(tree.root(), 20).read(&ASK)), Some(Why::Gone));
        thread(&tree, 20, "a", 'S', "1 1 1");
        tree.file("20/task/21/stat", "no stat line");
        assert_eq!(gone(Watch::new(tree.root(), 20).read(&ASK)), Some(Why::Malformed));
    }
}
