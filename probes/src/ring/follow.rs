//! The rings of one process, from when they are found to when they are closed.

use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};

use super::layout::{Counters, EntrySizes};
use super::memory::{FileId, RingMemory};
use super::parse::Parsed;
use super::read_fdinfo;
use crate::files;
use crate::pidfd::PidFd;
use crate::reading::{Absence, Reading, Why};
use crate::sample::{ArmedRaw, RINGS_MAX, RingRaw, RingSource, RingState};

/// fdinfo reads in a row that contradict the memory before it is given up. The first may be due to
/// a ring that was resized (`IORING_REGISTER_RESIZE_RINGS`, 6.13): it has other memory then, and
/// is mapped anew.
const MISMATCHES_MAX: u32 = 2;

/// How the counters of a ring are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingAccess {
    /// From its memory where that can be had, else from fdinfo.
    Memory,
    /// From fdinfo only: nothing is mapped, no fd copied.
    FdinfoOnly,
}

/// Follows the rings of one process (at most [`RINGS_MAX`]).
///
/// A ring that is mapped stays alive, with its registered files, until the mapping goes. So every
/// [`Self::read`] looks whether each fd still is the file that was mapped, and lets go of what is
/// not; after the exit of the process, [`Self::release`] does it without another look.
///
/// That look tells files apart by their inodes, which rings have of their own since about 5.16 (seen
/// on 6.18). Where they share the inode of all anonymous files, nothing is held between two reads:
/// each read maps the ring and lets it go again.
#[derive(Debug)]
pub struct Rings {
    proc_root: PathBuf,
    pid: i32,
    /// The process, or why no memory can be read.
    process: Reading<PidFd>,
    /// The inode that rings share with every other anonymous file where they have none of their own.
    shared_file: Option<FileId>,
    followed: Vec<Followed>,
    stale: bool,
    /// fdinfo reads so far: whose last one is longest ago is read next.
    fdinfo_reads: u64,
}

/// One ring.
#[derive(Debug)]
struct Followed {
    fd: i32,
    /// `/proc/PID/fd/FD`.
    path: PathBuf,
    /// Which file the fd was when it was taken up.
    file: Option<FileId>,
    source: Source,
    /// The last fdinfo.
    fdinfo: Reading<RingState>,
    armed: Reading<ArmedRaw>,
    sqpoll: Option<bool>,
    /// What fdinfo says of the size of entries.
    sizes: EntrySizes,
    /// The number of its last fdinfo read; 0 before the first.
    fdinfo_read: u64,
}

/// Where the counters come from.
#[derive(Debug)]
enum Source {
    Memory { hold: Hold, confirmed: bool, mismatches: u32 },
    Fdinfo(Absence),
}

/// Whether the mapping is kept between reads.
#[derive(Debug)]
enum Hold {
    Kept(Box<RingMemory>),
    /// It could not be noticed that the ring is another one now.
    Anew,
}

impl Rings {
    /// Follows no ring yet. `pid` is that of the process, not of one of its threads, and is meant
    /// as of now: whoever knows the process by its start time compares that after this call
    /// ([`PidFd::open`]).
    pub fn new(proc_root: &Path, pid: i32, how: RingAccess) -> Self {
        let process = match how {
            RingAccess::Memory => PidFd::open(pid),
            RingAccess::FdinfoOnly => {
                Reading::absent(Why::NotSampled, "the memory of rings is not read: so it was asked")
            }
        };
        let shared_file = eventfd(0, EventfdFlags::CLOEXEC)
            .ok()
            .and_then(|anonymous| FileId::of_fd(&anonymous).ok());
        Self {
            proc_root: proc_root.to_owned(),
            pid,
            process,
            shared_file,
            followed: Vec::new(),
            stale: false,
            fdinfo_reads: 0,
        }
    }

    /// Takes up the rings that a census found ([`crate::fds::census`]): maps new ones, lets go of
    /// those that are not in the list.
    pub fn follow(&mut self, fds: &[i32]) {
        self.followed.retain(|ring| fds.contains(&ring.fd));
        self.let_go_of_closed();
        for fd in fds.iter().take(RINGS_MAX) {
            match self.followed.iter().position(|ring| ring.fd == *fd) {
                None => {
                    let ring = self.take_up(*fd);
                    self.followed.push(ring);
                }
                Some(known) if self.followed[known].may_be_tried_again() => {
                    let source = self.attach(*fd);
                    self.followed[known].set(source);
                }
                Some(_) => {}
            }
        }
        self.followed.truncate(RINGS_MAX);
        self.followed.sort_by_key(|ring| ring.fd);
        self.stale = false;
    }

    /// Reads every ring: its memory where that is mapped, else what its last fdinfo said. Reads no
    /// fdinfo itself. Costs a stat(2) for each ring, which takes neither a lock of the ring nor a
    /// reference to it.
    ///
    /// A ring whose fd is closed, or another file now, is let go of here and is not in the list.
    pub fn read(&mut self) -> Vec<RingRaw> {
        self.let_go_of_closed();
        self.followed.iter().map(|ring| ring.read(&self.proc_root, &self.process)).collect()
    }

    /// Whether a ring went, or its fd became another file, since [`Self::follow`]: it is time for
    /// a new census. A ring that *came* is seen by the census only.
    pub const fn is_stale(&self) -> bool {
        self.stale
    }

    /// The fds of the rings that are followed, lowest first.
    pub fn fds(&self) -> Vec<i32> {
        self.followed.iter().map(|ring| ring.fd).collect()
    }

    /// Reads the fdinfo of the ring whose last one is longest ago, one ring a call: which
    /// operations are in flight, whether the kernel polls the queue, how long the entries are, and
    /// whether the memory is what it was taken for. Takes the ring's lock (see [`read_fdinfo`]).
    ///
    /// `clock` gives the time, `CLOCK_MONOTONIC`. Returns the fd that was read, if there was one.
    pub fn read_fdinfo(&mut self, clock: impl Fn() -> u64) -> Option<i32> {
        let at = (0..self.followed.len()).min_by_key(|at| self.followed[*at].fdinfo_read)?;
        self.fdinfo_reads += 1;
        let (proc_root, pid) = (&self.proc_root, self.pid);
        let ring = &mut self.followed[at];
        ring.fdinfo_read = self.fdinfo_reads;
        let fd = ring.fd;

        let (verdict, parsed) = ring.with_memory(proc_root, &self.process, |memory| {
            let Some(memory) = memory else {
                return (Verdict::None, read_fdinfo(proc_root, pid, fd));
            };
            let before = memory.counters();
            let parsed = read_fdinfo(proc_root, pid, fd);
            let after = memory.counters();
            let entries = (memory.layout().sq_entries, memory.layout().cq_entries);
            (judge(entries, &before, &parsed, &after), parsed)
        });
        ring.take(parsed, clock());
        match verdict {
            Verdict::None => {}
            Verdict::Confirmed => ring.confirm(),
            Verdict::Mismatch => {
                let source = self.after_mismatch(at);
                self.followed[at].set(source);
            }
        }
        self.let_go_of_closed();
        Some(fd)
    }

    /// Lets go of every ring.
    pub fn release(&mut self) {
        self.followed.clear();
    }

    fn let_go_of_closed(&mut self) {
        let before = self.followed.len();
        self.followed.retain_mut(Followed::is_still_there);
        self.stale |= self.followed.len() < before;
    }

    fn take_up(&self, fd: i32) -> Followed {
        let path = files::process(&self.proc_root, self.pid).join("fd").join(fd.to_string());
        let mut ring = Followed {
            fd,
            // Before the ring is mapped: if the fd becomes another ring in between, the next look
            // finds that one, which is not the file noted here.
            file: FileId::of_path(&path).ok(),
            path,
            source: Source::Fdinfo(Absence { why: Why::NotSampled, detail: String::new() }),
            fdinfo: Reading::absent(Why::NotSampled, "its fdinfo was not read yet"),
            armed: Reading::absent(Why::NotSampled, "its fdinfo was not read yet"),
            sqpoll: None,
            sizes: EntrySizes::default(),
            fdinfo_read: 0,
        };
        ring.set(self.attach(fd));
        ring
    }

    fn attach(&self, fd: i32) -> Source {
        let process = match &self.process {
            Reading::Got(process) => process,
            Reading::Absent(absence) => return Source::Fdinfo(absence.clone()),
        };
        match RingMemory::attach(&self.proc_root, process, fd) {
            Reading::Got(memory) => {
                // Not known (no fd was left to look with) is taken for shared: that is never wrong.
                let is_shared = self.shared_file.is_none_or(|shared| shared == memory.file());
                let hold = if is_shared { Hold::Anew } else { Hold::Kept(Box::new(memory)) };
                Source::Memory { hold, confirmed: false, mismatches: 0 }
            }
            Reading::Absent(absence) => Source::Fdinfo(absence),
        }
    }

    fn after_mismatch(&self, at: usize) -> Source {
        let ring = &self.followed[at];
        let Source::Memory { mismatches, .. } = ring.source else {
            return self.attach(ring.fd);
        };
        let seen = mismatches + 1;
        if seen >= MISMATCHES_MAX {
            let detail = "the ring's memory says otherwise than its fdinfo, also mapped anew";
            return Source::Fdinfo(Absence { why: Why::Malformed, detail: detail.to_owned() });
        }
        match self.attach(ring.fd) {
            Source::Memory { hold, confirmed, .. } => {
                Source::Memory { hold, confirmed, mismatches: seen }
            }
            fdinfo @ Source::Fdinfo(_) => fdinfo,
        }
    }
}

/// What a read of fdinfo says of the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing.
    None,
    Confirmed,
    Mismatch,
}

/// Heads and tails only grow. So what fdinfo prints lies between two reads of the memory, one
/// before it and one after, if they are the same heads and tails.
fn judge(
    entries: (u32, u32),
    before: &Reading<Counters>,
    parsed: &Reading<Parsed>,
    after: &Reading<Counters>,
) -> Verdict {
    let Some(printed) = parsed.got().map(|parsed| &parsed.state) else { return Verdict::None };
    let (Some(before), Some(after)) = (before.got(), after.got()) else {
        return Verdict::Mismatch;
    };
    let between = |of: fn(&Counters) -> u32, printed: u32| {
        printed.wrapping_sub(of(before)) <= of(after).wrapping_sub(of(before))
    };
    let agree = (printed.sq_entries, printed.cq_entries) == entries
        && between(|counters| counters.sq_head, printed.sq_head)
        && between(|counters| counters.sq_tail, printed.sq_tail)
        && between(|counters| counters.cq_head, printed.cq_head)
        && between(|counters| counters.cq_tail, printed.cq_tail);
    if agree { Verdict::Confirmed } else { Verdict::Mismatch }
}

impl Followed {
    /// Whether the fd still is what it was. Where that cannot be told any more, a mapping must not
    /// be held: it goes.
    fn is_still_there(&mut self) -> bool {
        match FileId::of_path(&self.path) {
            Ok(now) => {
                let known = *self.file.get_or_insert(now);
                known == now
            }
            Err(error) => {
                let absence = Absence::from(&error);
                let is_gone = absence.why == Why::Gone;
                if !is_gone && matches!(self.source, Source::Memory { .. }) {
                    self.source = Source::Fdinfo(absence);
                }
                !is_gone
            }
        }
    }

    /// Takes a source for the counters; one that is the memory of another file is none.
    fn set(&mut self, source: Source) {
        self.source = source;
        if let Source::Memory { hold: Hold::Kept(memory), .. } = &mut self.source {
            memory.learn(self.sizes);
            if self.file != Some(memory.file()) {
                let detail = "the fd became another file while it was mapped, or process numbers \
                              are not those of the proc folder";
                let absence = Absence { why: Why::Gone, detail: detail.to_owned() };
                self.source = Source::Fdinfo(absence);
            }
        }
    }

    /// Whether what kept the memory from being mapped may have passed.
    fn may_be_tried_again(&self) -> bool {
        matches!(&self.source, Source::Fdinfo(Absence { why: Why::Failed | Why::Gone, .. }))
    }

    fn with_memory<T>(
        &self,
        proc_root: &Path,
        process: &Reading<PidFd>,
        look: impl FnOnce(Option<&RingMemory>) -> T,
    ) -> T {
        match &self.source {
            Source::Memory { hold: Hold::Kept(memory), .. } => look(Some(memory)),
            Source::Memory { hold: Hold::Anew, .. } => {
                look(self.map_anew(proc_root, process).got())
            }
            Source::Fdinfo(_) => look(None),
        }
    }

    fn map_anew(&self, proc_root: &Path, process: &Reading<PidFd>) -> Reading<RingMemory> {
        process.as_ref().and_then(|process| RingMemory::attach(proc_root, process, self.fd)).map(
            |mut memory| {
                memory.learn(self.sizes);
                memory
            },
        )
    }

    fn read(&self, proc_root: &Path, process: &Reading<PidFd>) -> RingRaw {
        let with_sqpoll = |state: RingState| RingState { sqpoll: self.sqpoll, ..state };
        let (source, state) = match &self.source {
            Source::Memory { hold, confirmed, .. } => {
                let state = match hold {
                    Hold::Kept(memory) => memory.state(),
                    Hold::Anew => {
                        self.map_anew(proc_root, process).and_then(|memory| memory.state())
                    }
                };
                (RingSource::Memory { confirmed: *confirmed }, state.map(with_sqpoll))
            }
            Source::Fdinfo(absence) => (RingSource::Fdinfo(absence.clone()), self.fdinfo.clone()),
        };
        RingRaw { fd: self.fd, source, state, armed: self.armed.clone() }
    }

    /// Takes over what a read of fdinfo said.
    fn take(&mut self, parsed: Reading<Parsed>, at_ns: u64) {
        match parsed {
            Reading::Got(parsed) => {
                self.sqpoll = parsed.state.sqpoll;
                self.sizes = self.sizes.or(parsed.sizes);
                self.armed = Reading::Got(ArmedRaw { at_ns, ..parsed.armed });
                self.fdinfo = Reading::Got(parsed.state);
                if let Source::Memory { hold: Hold::Kept(memory), .. } = &mut self.source {
                    memory.learn(self.sizes);
                }
            }
            Reading::Absent(absence) => {
                // A lock that was held says nothing of the operations: what was seen before
                // stands, with its time.
                if absence.why != Why::Locked || self.armed.got().is_none() {
                    self.armed = Reading::Absent(absence.clone());
                }
                self.fdinfo = Reading::Absent(absence);
            }
        }
    }

    const fn confirm(&mut self) {
        if let Source::Memory { confirmed, mismatches, .. } = &mut self.source {
            *confirmed = true;
            *mismatches = 0;
        }
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
