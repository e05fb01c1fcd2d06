//! Catching the stacks of one process, as its threads run and wait.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::buffer::Buffer;
use super::burden::Burden;
use super::event::{self, Counts, Event, Extent};
use super::follow::{Caught, Follow, StackId, Wait, What};
use super::record::{self, Record, SampleRecord};
use super::unwind::{End, Unwinder, Walk};
use super::{RawStack, Stacks, asleep, cpus};
use crate::files;
use crate::reading::{Absence, Reading, Why};

/// Events open at once: two for each thread and CPU. Threads beyond are named as left out; what
/// they make inherits nothing.
pub const EVENTS_MAX: usize = 8_192;
/// Bytes of a CPU's ring: over a second of samples.
const BUFFER_BYTES: usize = 2 << 20;
/// The same where no more may be locked (`kernel.perf_event_mlock_kb`, 516 KiB by default).
const BUFFER_BYTES_SMALL: usize = 128 << 10;
/// Bytes copied of a stack at each sample. What lies deeper is reached along the frame pointers, if
/// the code has them, or by a look at the sleeping thread.
const STACK_BYTES: u32 = 16 << 10;
/// Samples a second at switches, of all threads together, about: while watching, and when asked for
/// a profile of waits. The kernel lets go of every so many to keep to it, beginning with none; how
/// long each wait was is known all the same.
const SWITCH_SAMPLES_PER_S: u64 = 400;
const SWITCH_SAMPLES_ASKED_PER_S: u64 = 3_000;
/// CPUs that are sampled as a whole while the target switches too often; with more of them, the
/// samples of others would be too many.
const CPUS_OF_ALL_MAX: usize = 64;
/// A wait this long whose place was not sampled, or not to its end, is looked at from outside, ns.
const LOOK_AFTER_NS: u64 = 30_000_000;
/// Such looks at one call of [`Capture::look_at_sleepers`].
pub const LOOKS_MAX: usize = 16;
/// Stretches without a look at switches that are remembered: far more than a profile spans.
const BLIND_MAX: usize = 64;
/// Records held back because those of another CPU may be older.
const PENDING_MAX: usize = 200_000;
/// Unknown code makes the mappings be read again, so often at most, ns.
const REFRESH_EVERY_NS: u64 = 1_000_000_000;
/// Rounds of listing threads while new ones keep coming.
const ROUNDS_MAX: usize = 5;

/// What to catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Samples a second of CPU time.
    pub hz: u32,
    /// Waits.
    pub waits: Waits,
}

/// How closely waits are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// Not at all.
    No,
    /// As long as that is cheap: not at all while there are very many, and then no event stays bound
    /// to the target's threads.
    Cheaply,
    /// Always.
    All,
}

/// What was lost or not permitted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Losses {
    /// Records for which a ring had no room.
    pub records: u64,
    /// Times the kernel held samples back.
    pub throttled: u64,
    /// Samples whose stack was not kept, because there were too many different ones.
    pub stacks: u64,
    /// Threads without events, because there are too many.
    pub threads: usize,
    /// Switches were not followed in these stretches, ns.
    pub blind: Vec<(u64, u64)>,
    /// Nor was time on a CPU sampled: whole CPUs may not be, or are too many.
    pub unsampled: Vec<(u64, u64)>,
    /// Frames of the kernel are not permitted.
    pub no_kernel: bool,
    /// Switches of threads that were not followed, because there are too many.
    pub switches: u64,
    /// Why the mappings could not be read again, when that was last tried in vain.
    pub mappings: Option<Absence>,
}

/// Catches the stacks of one process.
#[derive(Debug)]
pub struct Capture {
    proc_root: PathBuf,
    pid: i32,
    ask: Ask,
    clocks: Vec<Event>,
    switches: Vec<Event>,
    /// Clocks of whole CPUs, which count while the target switches too often.
    clocks_of_all: Vec<Event>,
    /// By the number in each sample: whether it is of the clock.
    is_clock: HashMap<u64, bool>,
    buffers: Vec<Buffer>,
    cpus: Vec<i32>,
    /// Where no clock of a whole CPU owns them: which of `clocks` owns the ring of each CPU.
    owners: Vec<usize>,
    unwinder: Unwinder,
    stacks: Stacks,
    follow: Follow,
    names: BTreeMap<i32, String>,
    /// Where sleeping threads were seen last: system call, stack and instruction pointer.
    looked_at: HashMap<i32, ((i64, u64, u64), StackId)>,
    pending: Vec<(u64, i32, What)>,
    losses: Losses,
    stale: bool,
    refreshed_ns: u64,
    begun_ns: u64,
    burden: Burden,
}

impl Capture {
    /// Begins to catch; `now_ns` is `CLOCK_MONOTONIC`.
    ///
    /// # Errors
    /// [`Why::NotPermitted`] with what would permit it; [`Why::Gone`]; [`Why::Unsupported`] on a
    /// kernel without performance events.
    pub fn begin(proc_root: &Path, pid: i32, ask: Ask, now_ns: u64) -> Reading<Self> {
        let unwinder = match Unwinder::new(proc_root, pid) {
            Reading::Got(unwinder) => unwinder,
            Reading::Absent(absence) => return Reading::Absent(absence),
        };
        let mut capture = Self {
            proc_root: proc_root.to_owned(),
            pid,
            ask,
            clocks: Vec::new(),
            switches: Vec::new(),
            clocks_of_all: Vec::new(),
            is_clock: HashMap::new(),
            buffers: Vec::new(),
            cpus: cpus::online(),
            owners: Vec::new(),
            unwinder,
            stacks: Stacks::default(),
            follow: Follow::default(),
            names: BTreeMap::new(),
            looked_at: HashMap::new(),
            pending: Vec::new(),
            losses: Losses::default(),
            stale: false,
            refreshed_ns: now_ns,
            begun_ns: now_ns,
            burden: Burden::default(),
        };
        match capture.open_all(now_ns) {
            Ok(()) => Reading::Got(capture),
            Err(absence) => Reading::Absent(absence),
        }
    }

    /// Opens what owns the rings, and then the events of the threads.
    fn open_all(&mut self, now_ns: u64) -> Result<(), Absence> {
        let mut extent = Extent { kernel: true, stack_bytes: STACK_BYTES, threads_only: true };
        // Refused to most users: then the first thread's clocks own the rings.
        self.open_clocks_of_all(extent).ok();
        self.open_threads(&mut extent, now_ns)?;
        self.losses.no_kernel = !extent.kernel;
        Ok(())
    }

    fn open_threads(&mut self, extent: &mut Extent, now_ns: u64) -> Result<(), Absence> {
        let pid = self.pid;
        let explain = |error: io::Error| explain(pid, &error);
        let cpus = self.cpus.len();
        let mut bound: BTreeSet<i32> = BTreeSet::new();
        self.losses.threads = 0;
        for _ in 0..ROUNDS_MAX {
            let tids = match threads(&self.proc_root, self.pid) {
                Reading::Got(tids) => tids,
                Reading::Absent(absence) => return Err(absence),
            };
            let new: Vec<i32> = tids.iter().copied().filter(|tid| !bound.contains(tid)).collect();
            if new.is_empty() {
                break;
            }
            let room = EVENTS_MAX.saturating_sub(self.events());
            let fit = room / (2 * cpus);
            make_room_for_fds(2 * cpus * new.len().min(fit));
            self.losses.threads += new.len().saturating_sub(fit);
            let per_s = match self.ask.waits {
                Waits::No | Waits::Cheaply => SWITCH_SAMPLES_PER_S,
                Waits::All => SWITCH_SAMPLES_ASKED_PER_S,
            };
            let hz = (per_s / (tids.len() as u64).max(1)).clamp(4, 1_000);
            for (nth, tid) in new.into_iter().enumerate() {
                bound.insert(tid);
                let name = name_of(&self.proc_root, self.pid, tid);
                self.rename(tid, name);
                if nth < fit {
                    match self.open_thread(tid, extent, hz) {
                        // It ended while we looked.
                        Err(error) if is_errno(&error, Errno::SRCH) => {}
                        outcome => outcome.map_err(explain)?,
                    }
                    self.follow.begin(tid, now_ns);
                }
            }
        }
        if self.clocks.is_empty() {
            return Err(explain(Errno::SRCH.into()));
        }
        for event in self.clocks.iter().chain(&self.switches) {
            event::enable(event).map_err(explain)?;
        }
        Ok(())
    }

    /// Opens the events of one thread on every CPU.
    fn open_thread(&mut self, tid: i32, extent: &mut Extent, hz: u64) -> io::Result<()> {
        let period_ns = self.period_ns();
        for nth in 0..self.cpus.len() {
            let cpu = self.cpus[nth];
            let clock = open_as_permitted(tid, cpu, Counts::CpuClock { period_ns }, extent)?;
            self.is_clock.insert(clock.id, true);
            if self.buffers.len() > nth {
                event::send_to(&clock, self.ring(nth))?;
            } else {
                self.buffers.push(map_as_permitted(&clock)?);
                self.owners.push(self.clocks.len());
            }
            self.clocks.push(clock);
            if self.ask.waits == Waits::No {
                continue;
            }
            let switch = open_as_permitted(tid, cpu, Counts::Switches { hz }, extent)?;
            self.is_clock.insert(switch.id, false);
            event::send_to(&switch, self.ring(nth))?;
            self.switches.push(switch);
        }
        Ok(())
    }

    /// Opens clocks of whole CPUs, which own the rings and do not count yet.
    fn open_clocks_of_all(&mut self, extent: Extent) -> io::Result<()> {
        if self.cpus.len() > CPUS_OF_ALL_MAX {
            return Ok(());
        }
        let counts = Counts::CpuClockOfAll { period_ns: self.period_ns() };
        let open = |cpu: &i32| event::open(event::ALL_THREADS, *cpu, counts, extent);
        let clocks: Vec<Event> = self.cpus.iter().map(open).collect::<io::Result<_>>()?;
        self.buffers = clocks.iter().map(map_as_permitted).collect::<io::Result<_>>()?;
        self.is_clock.extend(clocks.iter().map(|clock| (clock.id, true)));
        self.clocks_of_all = clocks;
        Ok(())
    }

    fn period_ns(&self) -> u64 {
        1_000_000_000 / u64::from(self.ask.hz.max(1))
    }

    /// The clock that owns the ring of the nth CPU: of the CPU, or the first thread's.
    fn ring(&self, nth: usize) -> &Event {
        self.clocks_of_all.get(nth).unwrap_or_else(|| &self.clocks[self.owners[nth]])
    }

    /// What was caught until `now_ns`, oldest first. To be called several times a second.
    pub fn drain(&mut self, now_ns: u64) -> Vec<Caught> {
        if self.stale && now_ns.saturating_sub(self.refreshed_ns) >= REFRESH_EVERY_NS / 10 {
            self.refresh(now_ns);
        }
        let mut buffers = std::mem::take(&mut self.buffers);
        for buffer in &mut buffers {
            buffer.drain(|bytes| self.heed(bytes, now_ns));
        }
        self.buffers = buffers;
        // The rings of the CPUs are read one after the other: what is younger than this call may
        // have older companions in a ring that was read before.
        let mut pending = std::mem::take(&mut self.pending);
        pending.sort_by_key(|(at_ns, ..)| *at_ns);
        let later = pending.split_off(pending.partition_point(|(at_ns, ..)| *at_ns < now_ns));
        self.pending = later;
        let mut caught = Vec::with_capacity(pending.len());
        for (at_ns, tid, what) in pending {
            caught.extend(self.follow.heed(tid, at_ns, what));
        }
        self.losses.switches = self.follow.left_out;
        if self.ask.waits == Waits::Cheaply
            && let Some(is_heavy) = self.burden.look(&self.proc_root, self.pid, now_ns)
        {
            self.spare(is_heavy, now_ns);
        }
        caught
    }

    fn heed(&mut self, bytes: &[u8], now_ns: u64) {
        if self.pending.len() >= PENDING_MAX {
            self.losses.records += 1;
            return;
        }
        match record::parse(bytes) {
            Some(Record::Sample(sample)) if sample.pid == self.pid => self.sample(&sample, now_ns),
            Some(Record::SwitchIn { tid, at_ns }) => self.pending.push((at_ns, tid, What::In)),
            Some(Record::SwitchOut { tid, at_ns, preempted }) => {
                self.pending.push((at_ns, tid, What::Out { preempted }));
            }
            Some(Record::Ended { tid, at_ns }) => self.pending.push((at_ns, tid, What::End)),
            Some(Record::Renamed { tid, name }) => self.rename(tid, name),
            Some(Record::Mapped) => self.stale = true,
            Some(Record::Lost { records }) => self.losses.records += records,
            Some(Record::Throttled) => self.losses.throttled += 1,
            Some(Record::Sample(_) | Record::Other) | None => {}
        }
    }

    fn rename(&mut self, tid: i32, name: String) {
        if self.names.len() < super::follow::FOLLOWED_MAX {
            self.names.insert(tid, name);
        }
    }

    fn sample(&mut self, sample: &SampleRecord<'_>, now_ns: u64) {
        let walk = sample.registers.map_or_else(
            || Walk { frames: sample.user.clone(), guessed_from: None, end: End::Lost },
            |registers| self.unwinder.walk(registers, sample.stack, &sample.user),
        );
        if walk.frames.first().is_some_and(|ip| self.unwinder.code().at(*ip).is_none()) {
            // Code that was not there when the mappings were read: written at run time, say.
            self.stale |= now_ns.saturating_sub(self.refreshed_ns) >= REFRESH_EVERY_NS;
        }
        let stack = self.stacks.id_of(RawStack {
            kernel: sample.kernel.clone(),
            kernel_names: Vec::new(),
            user: walk.frames,
            guessed_from: None,
            end: walk.end,
        });
        let Some(stack) = stack else {
            self.losses.stacks += 1;
            return;
        };
        let what = match self.is_clock.get(&sample.id) {
            Some(true) => What::Clock { stack, period_ns: sample.period },
            Some(false) => What::Leaving { stack },
            None => return,
        };
        if !self.names.contains_key(&sample.tid) {
            let name = name_of(&self.proc_root, self.pid, sample.tid);
            self.rename(sample.tid, name);
        }
        self.pending.push((sample.at_ns, sample.tid, what));
    }

    fn refresh(&mut self, now_ns: u64) {
        // Those known are kept, for what is still in the rings; a target that is gone has none.
        if let Reading::Absent(absence) = self.unwinder.refresh()
            && absence.why != Why::Gone
        {
            self.losses.mappings = Some(absence);
        }
        self.stale = false;
        self.refreshed_ns = now_ns;
    }

    /// Takes events off the target's threads where these switch too often, and puts them back when
    /// they no longer do. Meanwhile whole CPUs are sampled, where that is permitted. That counts less
    /// exactly (against the CPU time of redis, 0.6 to 1.1 within 6 s on a virtual machine; `perf
    /// record -a` does too), so who asks for a profile gets the events of the threads all the same.
    fn spare(&mut self, is_heavy: bool, now_ns: u64) {
        self.follow.lose_sight();
        if self.clocks_of_all.is_empty() {
            // They own the rings, and so cannot be closed. An event that does not count costs less.
            turn(&self.clocks, !is_heavy);
            turn(&self.switches, !is_heavy);
            mark(&mut self.losses.unsampled, is_heavy, now_ns);
        } else if is_heavy {
            self.let_go();
            let samples = turn(&self.clocks_of_all, true);
            mark(&mut self.losses.unsampled, !samples, now_ns);
        } else {
            let kernel = !self.losses.no_kernel;
            let mut extent = Extent { kernel, stack_bytes: STACK_BYTES, threads_only: true };
            if self.open_threads(&mut extent, now_ns).is_err() {
                self.let_go();
                self.burden.stays_heavy(now_ns);
                return;
            }
            turn(&self.clocks_of_all, false);
            mark(&mut self.losses.unsampled, false, now_ns);
        }
        mark(&mut self.losses.blind, is_heavy, now_ns);
    }

    /// Closes the events of the threads.
    fn let_go(&mut self) {
        self.clocks.clear();
        self.switches.clear();
        let of_all: Vec<u64> = self.clocks_of_all.iter().map(|clock| clock.id).collect();
        self.is_clock.retain(|id, _| of_all.contains(id));
    }

    /// Looks, without stopping them, at threads whose wait is long and whose place was not sampled,
    /// or not to its end, as they went to sleep.
    pub fn look_at_sleepers(&mut self, now_ns: u64) {
        let waits: Vec<Wait> = self
            .follow
            .to_look_at(now_ns.saturating_sub(LOOK_AFTER_NS))
            .filter(|wait| self.is_wanting(wait.stack))
            .take(LOOKS_MAX)
            .collect();
        for wait in waits {
            let stack = self.look_at(wait.tid);
            self.follow.looked_at(wait.tid, wait.begin_ns, stack);
        }
    }

    /// Whether a stack is not known, or not to its end.
    fn is_wanting(&self, stack: Option<StackId>) -> bool {
        stack.and_then(|id| self.stacks.get(id)).is_none_or(|stack| stack.end == End::Cut)
    }

    /// The stack of a thread that sleeps. One that waits in the same call, made from the same place
    /// with the same stack pointer as when it was last looked at, has come there by the same way.
    fn look_at(&mut self, tid: i32) -> Option<StackId> {
        let state = asleep::state(&self.proc_root, self.pid, tid);
        let (call, _) = state.got()?;
        let place = (call.nr, call.sp, call.ip);
        if let Some((_, stack)) = self.looked_at.get(&tid).filter(|(known, _)| *known == place) {
            return Some(*stack);
        }
        let asleep = asleep::look(&mut self.unwinder, &self.proc_root, self.pid, tid);
        let stack = self.stacks.id_of(raw_of(asleep.got()?))?;
        if self.looked_at.len() < super::follow::FOLLOWED_MAX {
            self.looked_at.insert(tid, (place, stack));
        }
        Some(stack)
    }

    /// Threads that wait at `now_ns`, each with the wait so far.
    pub fn away(&self, now_ns: u64) -> impl Iterator<Item = Wait> {
        self.follow.away(now_ns)
    }

    /// The stacks that numbers mean.
    pub const fn stacks(&self) -> &Stacks {
        &self.stacks
    }

    /// Forgets all stacks: numbers given so far mean nothing any more. Waits that go on lose theirs.
    pub fn forget_stacks(&mut self) {
        self.stacks = Stacks::default();
        self.looked_at.clear();
        self.pending.clear();
        self.follow.lose_sight();
    }

    /// What is known of the target's code.
    pub const fn unwinder(&mut self) -> &mut Unwinder {
        &mut self.unwinder
    }

    /// Names of threads, also of those that have ended.
    pub const fn names(&self) -> &BTreeMap<i32, String> {
        &self.names
    }

    /// What was lost or not permitted so far.
    pub const fn losses(&self) -> &Losses {
        &self.losses
    }

    /// When it began, ns: a wait that seems to have begun then began before.
    pub const fn begun_ns(&self) -> u64 {
        self.begun_ns
    }

    /// Events that are open.
    pub fn events(&self) -> usize {
        self.clocks.len() + self.switches.len() + self.clocks_of_all.len()
    }
}

/// Lets events count, or not, and says whether all obeyed. One whose thread has ended does not count
/// either way.
fn turn(events: &[Event], on: bool) -> bool {
    let act = if on { event::enable } else { event::disable };
    // All of them, also behind one that fails.
    events.iter().filter(|event| act(event).is_err()).count() == 0
}

/// Begins a stretch, or ends the last one.
fn mark(stretches: &mut Vec<(u64, u64)>, begins: bool, now_ns: u64) {
    if begins {
        stretches.push((now_ns, u64::MAX));
        let surplus = stretches.len().saturating_sub(BLIND_MAX);
        stretches.drain(..surplus);
    } else if let Some((_, end_ns)) = stretches.last_mut() {
        // One that has ended stays as it is.
        *end_ns = now_ns.min(*end_ns);
    }
}

/// A sleeping thread's stack, as one to keep.
pub fn raw_of(asleep: &asleep::Asleep) -> RawStack {
    let walk = asleep.walk.got();
    RawStack {
        kernel: Vec::new(),
        kernel_names: asleep.kernel.got().cloned().unwrap_or_default(),
        user: walk.map(|walk| walk.frames.clone()).unwrap_or_default(),
        guessed_from: walk.and_then(|walk| walk.guessed_from),
        end: walk.map_or(End::Lost, |walk| walk.end),
    }
}

/// Opens an event, asking for less where that is all that is permitted or known.
fn open_as_permitted(tid: i32, cpu: i32, counts: Counts, extent: &mut Extent) -> io::Result<Event> {
    loop {
        match event::open(tid, cpu, counts, *extent) {
            Err(error)
                if extent.kernel
                    && (is_errno(&error, Errno::ACCESS) || is_errno(&error, Errno::PERM)) =>
            {
                extent.kernel = false;
            }
            Err(error) if extent.threads_only && is_errno(&error, Errno::INVAL) => {
                extent.threads_only = false;
            }
            outcome => return outcome,
        }
    }
}

fn map_as_permitted(event: &Event) -> io::Result<Buffer> {
    Buffer::map(&event.fd, BUFFER_BYTES).or_else(|error| {
        if is_errno(&error, Errno::PERM) {
            Buffer::map(&event.fd, BUFFER_BYTES_SMALL)
        } else {
            Err(error)
        }
    })
}

fn is_errno(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn explain(pid: i32, error: &io::Error) -> Absence {
    let Absence { why, detail } = Absence::from(error);
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    let (why, advice) = match errno {
        Some(Errno::ACCESS | Errno::PERM) => (
            Why::NotPermitted,
            "; run as root (CAP_PERFMON), or as the user of the process with \
             kernel.perf_event_paranoid 2 or less",
        ),
        Some(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NODEV) => {
            (Why::Unsupported, "; this kernel has no performance events")
        }
        Some(Errno::MFILE) => (Why::Failed, "; raise the limit of fds of this program (ulimit -n)"),
        _ => (why, ""),
    };
    Absence { why, detail: format!("cannot profile process {pid}: {detail}{advice}") }
}

/// The thread ids of a process, sorted.
pub fn threads(proc_root: &Path, pid: i32) -> Reading<Vec<i32>> {
    let folder = files::process(proc_root, pid).join("task");
    files::numbers(&folder, super::follow::FOLLOWED_MAX).map(|(tids, _)| tids)
}

/// The name of a thread; empty when it has ended.
pub fn name_of(proc_root: &Path, pid: i32, tid: i32) -> String {
    let path = files::process(proc_root, pid).join("task").join(tid.to_string()).join("comm");
    let bytes = files::read(&path, 64);
    let name = bytes.got().map(|bytes| String::from_utf8_lossy(bytes).trim_end().to_owned());
    name.unwrap_or_default()
}

/// Raises this process's soft limit of fds, as far as it may.
fn make_room_for_fds(more: usize) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.current.map(|current| current.saturating_add(more as u64));
    let current = match (wanted, limit.maximum) {
        (Some(wanted), Some(maximum)) => Some(wanted.min(maximum)),
        (wanted, _) => wanted,
    };
    // Where it may not, opening will say so.
    setrlimit(Resource::Nofile, Rlimit { current, maximum: limit.maximum }).ok();
}
