//! Tables that the target shares with others and that can be full: the file table of the system, and
//! the connections that netfilter tracks in the target's network namespace.
//!
//! Cost on 6.18 with two CPUs, kept open: 0.9 us for `file-nr`, 0.7 us for the maximum of connection
//! tracking, 2.4 us for its counts, which are a line for each CPU.

use std::path::{Path, PathBuf};

use crate::files::{self, Buffer, Kept};
use crate::reading::{Absence, Reading, Why};
use crate::sample::{ConntrackRaw, FileTableRaw, TablesRaw};

/// Reads after which the kept file of connection tracking is opened anew: a process can move to
/// another namespace (setns(2)), and an open file stays with the old one.
const REOPEN_EVERY: u32 = 16;
/// `CAP_SYS_ADMIN` (`linux/capability.h`).
const CAP_SYS_ADMIN: u32 = 21;
/// What is absent for want of the file that netfilter keeps.
const NOT_TRACKED: &str = "this kernel does not track connections (nf_conntrack is not there, or is \
                           built without CONFIG_NF_CONNTRACK_PROCFS)";

/// Reads both tables once, for process `pid`; [`Watch`] for again and again.
pub fn read(proc_root: &Path, pid: i32) -> Reading<TablesRaw> {
    Watch::new(proc_root, pid).read(true)
}

/// Both tables: three files, kept open if that is harmless.
///
/// An open file of `net/` holds its network namespace (`seq_open_net`, `fs/proc/proc_net.c`) beyond the
/// end of the process. So it is kept open only when the watcher lives in the same namespace anyway.
#[derive(Debug)]
pub struct Watch {
    process: PathBuf,
    own: PathBuf,
    file_nr: Kept,
    conntrack: Kept,
    conntrack_max: Kept,
    buffer: Buffer,
    reads_left: u32,
    exempt: Option<bool>,
}

impl Watch {
    /// For the process `pid`; opens nothing yet.
    pub fn new(proc_root: &Path, pid: i32) -> Self {
        const STAT: &str = "net/stat/nf_conntrack";
        let process = files::process(proc_root, pid);
        Self {
            own: proc_root.join("thread-self").join(STAT),
            file_nr: Kept::new(proc_root.join("sys/fs/file-nr")),
            conntrack: Kept::new(process.join(STAT)),
            conntrack_max: Kept::new(proc_root.join("sys/net/netfilter/nf_conntrack_max")),
            buffer: Buffer::default(),
            reads_left: REOPEN_EVERY,
            exempt: None,
            process,
        }
    }

    /// Reads them, and with `rights` the capabilities of the process too, which seldom change: in
    /// between the last ones stand. `Gone` with the process.
    pub fn read(&mut self, rights: bool) -> Reading<TablesRaw> {
        let conntrack = self.read_conntrack();
        if let Reading::Absent(absence) = &conntrack
            && absence.why == Why::Gone
        {
            return Reading::Absent(absence.clone());
        }
        if rights {
            self.exempt = read_exempt(&self.process);
        }
        let exempt = self.exempt;
        let files = self
            .file_nr
            .read(&mut self.buffer)
            .and_then(parse_file_nr)
            .map(|(open, max)| FileTableRaw { open, max, exempt });
        Reading::Got(TablesRaw { files, conntrack })
    }

    fn read_conntrack(&mut self) -> Reading<ConntrackRaw> {
        // The maximum is that of the whole system: any namespace shows it.
        let max = self.conntrack_max.read(&mut self.buffer).and_then(parse_conntrack_max);
        let (file, buffer) = (&mut self.conntrack, &mut self.buffer);
        let counts =
            max.and_then(|max| file.read(buffer).and_then(|bytes| parse_conntrack(bytes, max)));
        self.reads_left = self.reads_left.saturating_sub(1);
        if self.reads_left == 0 || (self.reads_left + 1 == REOPEN_EVERY && !self.is_own()) {
            self.reads_left = REOPEN_EVERY;
            self.conntrack.close();
        }
        match counts {
            Reading::Absent(Absence { why: Why::Gone, detail }) => {
                if files::inode(&self.process).is_some() {
                    Reading::absent(Why::Unsupported, NOT_TRACKED)
                } else {
                    Reading::absent(Why::Gone, detail)
                }
            }
            other => other,
        }
    }

    /// Whether the open file is of the watcher's own namespace: the inode numbers in `net/` are the
    /// namespace's own (`proc_alloc_inum`, fs/proc/generic.c).
    fn is_own(&self) -> bool {
        let theirs = self.conntrack.inode();
        theirs.is_some() && theirs == files::inode(&self.own)
    }
}

/// Whether the process may open files beyond `fs.file-max`: `capable(CAP_SYS_ADMIN)`
/// (`alloc_empty_file`, `fs/file_table.c`), which only a capability in the first user namespace is.
/// `None` when its rights cannot be read.
fn read_exempt(process: &Path) -> Option<bool> {
    let small = |name: &str| files::read(&process.join(name), files::SMALL_MAX_BYTES);
    let has = parse_has_capability(small("status").got()?, CAP_SYS_ADMIN)?;
    match small("uid_map") {
        Reading::Got(map) => Some(has && is_first_user_namespace(&map)),
        // A kernel without user namespaces has only the first one.
        Reading::Absent(absence) => (absence.why == Why::Gone).then_some(has),
    }
}

/// Parses `file-nr`: open files and the maximum (`proc_sys_fs(5)`); the number between them has been 0
/// since 2.6.
pub fn parse_file_nr(bytes: &[u8]) -> Reading<(u64, u64)> {
    let text = String::from_utf8_lossy(bytes);
    let mut words = text.split_ascii_whitespace().map(str::parse);
    match (words.next(), words.next(), words.next()) {
        (Some(Ok(open)), Some(Ok(_)), Some(Ok(max))) => Reading::Got((open, max)),
        _ => Reading::absent(Why::Malformed, "file-nr does not hold three numbers"),
    }
}

/// Parses `net/stat/nf_conntrack`: a line of names, then a line of hexadecimal numbers for each CPU
/// (`ct_cpu_seq_show`, `net/netfilter/nf_conntrack_standalone.c`). The entries are those of the whole
/// namespace, the same on each line; the other columns are summed. `max` comes from another file.
pub fn parse_conntrack(bytes: &[u8], max: u32) -> Reading<ConntrackRaw> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let names = lines.next().unwrap_or_default();
    let column = |name: &str| names.split_ascii_whitespace().position(|one| one == name);
    let columns =
        [column("entries"), column("drop"), column("early_drop"), column("insert_failed")];
    let [Some(entries), Some(drop), Some(early_drop), Some(insert_failed)] = columns else {
        return Reading::absent(
            Why::Malformed,
            "net/stat/nf_conntrack lacks columns it should have",
        );
    };
    let mut counts = ConntrackRaw { entries: 0, max, drops: 0, early_drops: 0, insert_failed: 0 };
    let mut cpus = 0_u32;
    for line in lines {
        let number = |at: usize| {
            let word = line.split_ascii_whitespace().nth(at)?;
            u32::from_str_radix(word, 16).ok()
        };
        let numbers = [entries, drop, early_drop, insert_failed].map(number);
        let [Some(entries), Some(drops), Some(early_drops), Some(insert_failed)] = numbers else {
            return Reading::absent(Why::Malformed, "a line of net/stat/nf_conntrack is cut");
        };
        cpus += 1;
        counts.entries = counts.entries.max(entries);
        counts.drops += u64::from(drops);
        counts.early_drops += u64::from(early_drops);
        counts.insert_failed += u64::from(insert_failed);
    }
    if cpus == 0 {
        return Reading::absent(Why::Malformed, "net/stat/nf_conntrack has no line for a CPU");
    }
    Reading::Got(counts)
}

/// Parses `nf_conntrack_max`. 0 stands for "no limit" (`__nf_conntrack_alloc`,
/// `net/netfilter/nf_conntrack_core.c`), which is `u32::MAX` here: no table is ever that full.
pub fn parse_conntrack_max(bytes: &[u8]) -> Reading<u32> {
    let text = String::from_utf8_lossy(bytes);
    match text.trim().parse() {
        Ok(0) => Reading::Got(u32::MAX),
        Ok(max) => Reading::Got(max),
        Err(_) => Reading::absent(Why::Malformed, "nf_conntrack_max does not hold a number"),
    }
}

/// Whether the line `CapEff` of `status` (`proc_pid_status(5)`) has this capability.
pub fn parse_has_capability(status: &[u8], capability: u32) -> Option<bool> {
    let text = String::from_utf8_lossy(status);
    let line = text.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let set = u64::from_str_radix(line.trim(), 16).ok()?;
    Some(set.checked_shr(capability)? & 1 == 1)
}

/// Whether this `uid_map` (`user_namespaces(7)`) is that of the first user namespace: all ids, each
/// as itself.
pub fn is_first_user_namespace(uid_map: &[u8]) -> bool {
    let text = String::from_utf8_lossy(uid_map);
    text.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
