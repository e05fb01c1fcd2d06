//! The process as a whole: `/proc/PID/stat`, and who it is.

use std::path::{Path, PathBuf};

use crate::files::{self, Buffer, Kept};
use crate::reading::{Reading, Why};
use crate::sample::{ProcessRaw, TaskState};

/// Bytes kept of a command line.
pub const CMDLINE_MAX_BYTES: usize = 4096;

/// Who a process is. Names stem from the process: hostile text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its name (`comm`).
    pub comm: String,
    /// Its arguments joined by spaces, at most [`CMDLINE_MAX_BYTES`] before lossy decoding.
    pub cmdline: String,
    /// Its executable, if the link may be read.
    pub exe: Option<PathBuf>,
    /// Start, clock ticks after boot: tells a re-used pid apart.
    pub start_time_ticks: u64,
    /// Its parent.
    pub ppid: i32,
}

/// The fields of a `stat` line (of a process or a thread) that the probes use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskStat {
    /// Name, as the process chose it: hostile text.
    pub comm: String,
    /// State letter.
    pub state: TaskState,
    /// Parent.
    pub ppid: i32,
    /// User CPU time, clock ticks.
    pub utime_ticks: u64,
    /// Kernel CPU time, clock ticks.
    pub stime_ticks: u64,
    /// Threads in the process.
    pub threads: u64,
    /// Resident memory, pages.
    pub rss_pages: u64,
    /// Start, clock ticks after boot.
    pub start_time_ticks: u64,
}

/// Reads `/proc/PID/stat` once; [`Watch`] for again and again.
pub fn read(proc_root: &Path, pid: i32) -> Reading<ProcessRaw> {
    let path = files::process(proc_root, pid).join("stat");
    let page_bytes = rustix::param::page_size() as u64;
    files::read(&path, files::SMALL_MAX_BYTES)
        .and_then(|bytes| StatLine::parse(&bytes).map(|line| line.process(page_bytes)))
}

/// `/proc/PID/stat`, kept open: 1 to 5 us a read (the kernel adds up the CPU time of all threads,
/// `thread_group_cputime_adjusted`). Holds one fd.
///
/// A pid that is re-used is never read once the first read came off, see [`Kept`]; the first one
/// tells its start time.
#[derive(Debug)]
pub struct Watch {
    stat: Kept,
    buffer: Buffer,
    page_bytes: u64,
}

impl Watch {
    /// Of the process `pid`; opens nothing yet.
    pub fn new(proc_root: &Path, pid: i32) -> Self {
        Self {
            stat: Kept::new(files::process(proc_root, pid).join("stat")),
            buffer: Buffer::default(),
            page_bytes: rustix::param::page_size() as u64,
        }
    }

    /// Reads it. Gone once the process has been reaped, and for ever after.
    pub fn read(&mut self) -> Reading<ProcessRaw> {
        let page_bytes = self.page_bytes;
        self.stat
            .read(&mut self.buffer)
            .and_then(|bytes| StatLine::parse(bytes).map(|line| line.process(page_bytes)))
    }
}

/// Reads who a process is: once per run, not per tick.
pub fn identity(proc_root: &Path, pid: i32) -> Reading<Identity> {
    let folder = files::process(proc_root, pid);
    read_stat(&folder).map(|stat| Identity {
        comm: stat.comm,
        // A zombie has none, and an unreadable one is not worth losing the rest for.
        cmdline: files::read(&folder.join("cmdline"), CMDLINE_MAX_BYTES as u64)
            .got()
            .map_or_else(String::new, |bytes| join_arguments(bytes)),
        exe: files::link(&folder.join("exe")).got().cloned(),
        start_time_ticks: stat.start_time_ticks,
        ppid: stat.ppid,
    })
}

/// The process that `id` belongs to. `/proc` opens by the id of any thread (proc(5)), without
/// listing it.
pub fn leader(proc_root: &Path, id: i32) -> Reading<i32> {
    let path = files::process(proc_root, id).join("status");
    files::read(&path, files::SMALL_MAX_BYTES).and_then(|bytes| parse_leader(&bytes))
}

fn parse_leader(bytes: &[u8]) -> Reading<i32> {
    // The name stands on a line of its own before this one, with its newlines escaped
    // (`proc_task_name`, fs/proc/array.c).
    let text = String::from_utf8_lossy(bytes);
    let tgid = text.lines().find_map(|line| line.strip_prefix("Tgid:"));
    match tgid.map(|tgid| tgid.trim().parse()) {
        Some(Ok(tgid)) => Reading::Got(tgid),
        _ => Reading::absent(Why::Malformed, "the status file has no Tgid line"),
    }
}

/// Reads the `stat` of a process or thread folder.
pub(crate) fn read_stat(folder: &Path) -> Reading<TaskStat> {
    files::read(&folder.join("stat"), files::SMALL_MAX_BYTES).and_then(|bytes| parse_stat(&bytes))
}

/// Parses a `stat` line (proc(5)).
pub fn parse_stat(bytes: &[u8]) -> Reading<TaskStat> {
    StatLine::parse(bytes).map(StatLine::into_owned)
}

/// A `stat` line whose name is still in the buffer.
///
/// `procfs` parses all 52 fields, makes strings of them first, and slices around the parentheses
/// without looking; this is read for every thread, at every tick, for eight fields.
struct StatLine<'a> {
    comm: &'a [u8],
    state: TaskState,
    ppid: i32,
    utime_ticks: u64,
    stime_ticks: u64,
    threads: u64,
    rss_pages: u64,
    start_time_ticks: u64,
}

impl<'a> StatLine<'a> {
    fn parse(bytes: &'a [u8]) -> Reading<Self> {
        Self::fields(bytes).map_or_else(
            || Reading::absent(Why::Malformed, "the stat line is not as proc(5) has it"),
            Reading::Got,
        )
    }

    fn fields(bytes: &'a [u8]) -> Option<Self> {
        // The name may hold anything, parentheses, spaces and newlines included; what follows the
        // last parenthesis is letters and numbers.
        let open = bytes.iter().position(|byte| *byte == b'(')?;
        let close = bytes.iter().rposition(|byte| *byte == b')')?;
        let comm = bytes.get(open + 1..close)?;
        let rest = std::str::from_utf8(&bytes[close + 1..]).ok()?;
        if !bytes[..open].ends_with(b" ") || !rest.starts_with(' ') {
            return None;
        }
        // Field 3 of proc(5) is the first of these.
        let mut words = rest.split_ascii_whitespace();
        let mut letters = words.next()?.chars();
        let (Some(letter), None) = (letters.next(), letters.next()) else { return None };
        let ppid = words.next()?.parse().ok()?;
        // Each skips the fields up to the one in the comment.
        let utime_ticks = words.nth(9)?.parse().ok()?; // 14
        let stime_ticks = words.next()?.parse().ok()?; // 15
        let threads = words.nth(4)?.parse().ok()?; // 20
        let start_time_ticks = words.nth(1)?.parse().ok()?; // 22
        let rss_pages = words.nth(1)?.parse().ok()?; // 24
        Some(Self {
            comm,
            state: TaskState::from_letter(letter),
            ppid,
            utime_ticks,
            stime_ticks,
            threads,
            rss_pages,
            start_time_ticks,
        })
    }

    fn into_owned(self) -> TaskStat {
        TaskStat {
            // Unescaped, unlike in `status`: `do_task_stat` (fs/proc/array.c).
            comm: String::from_utf8_lossy(self.comm).into_owned(),
            state: self.state,
            ppid: self.ppid,
            utime_ticks: self.utime_ticks,
            stime_ticks: self.stime_ticks,
            threads: self.threads,
            rss_pages: self.rss_pages,
            start_time_ticks: self.start_time_ticks,
        }
    }

    const fn process(&self, page_bytes: u64) -> ProcessRaw {
        ProcessRaw {
            state: self.state,
            utime_ticks: self.utime_ticks,
            stime_ticks: self.stime_ticks,
            threads: self.threads,
            rss_bytes: self.rss_pages.saturating_mul(page_bytes),
            start_time_ticks: self.start_time_ticks,
        }
    }
}

fn join_arguments(bytes: &[u8]) -> String {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let spaced: Vec<u8> =
        bytes[..end].iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect();
    String::from_utf8_lossy(&spaced).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fake::Tree;

    const REST: &str = "7 1 1 0 -1 4194560 1 0 0 0 11 22 0 0 20 0 3 0 \
        987 1000 42 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0";

    #[test]
    fn awkward_names_do_not_shift_the_fields() {
        let cases =
            ["plain", "a) R 1 (b", ") S 0 (((", "two\nlines", r"back\slash", "\u{1b}[31mred", ""];
        for comm in cases {
            let stat = parse_stat(format!("42 ({comm}) S {REST}\n").as_bytes());
            let stat = stat.got().unwrap_or_else(|| panic!("{comm:?}: {stat:?}"));
            assert_eq!(stat.comm, comm);
            assert_eq!((stat.state, stat.ppid), (TaskState::Sleeping, 7), "{comm:?}");
            assert_eq!((stat.utime_ticks, stat.stime_ticks), (11, 22), "{comm:?}");
            assert_eq!((stat.threads, stat.start_time_ticks), (3, 987), "{comm:?}");
            assert_eq!(stat.rss_pages, 42, "{comm:?}");
        }
    }

    #[test]
    fn what_is_not_a_stat_line_is_malformed() {
        for text in ["", "(", ")(", "(x) S", "1 (x)", "1 (x)é", "1 (x) S", "1 (x) S 1 2 3"] {
            let why = parse_stat(text.as_bytes()).absence().map(|absence| absence.why);
            assert_eq!(why, Some(Why::Malformed), "{text:?}");
        }
    }

    #[test]
    fn an_identity_survives_what_may_not_be_read() {
        let tree = Tree::new();
        tree.file("42/stat", &format!("42 (server) S {REST}"));
        tree.file("42/cmdline", "server\0--port\08080\0");
        let known = identity(tree.root(), 42);
        let known = known.got().unwrap();
        assert_eq!((known.cmdline.as_str(), &known.exe), ("server --port 8080", &None));
        assert_eq!((known.ppid, known.start_time_ticks), (7, 987));
        tree.link("42/exe", "/usr/bin/server");
        let with_exe = identity(tree.root(), 42);
        assert_eq!(with_exe.got().unwrap().exe.as_deref(), Some(Path::new("/usr/bin/server")));
        assert_eq!(identity(tree.root(), 43).absence().unwrap().why, Why::Gone);
        assert_eq!(read(tree.root(), 43).absence().unwrap().why, Why::Gone);
    }

    #[test]
    fn a_long_command_line_is_cut() {
        let tree = Tree::new();
        tree.file("42/stat", &format!("42 (server) S {REST}"));
        tree.file("42/cmdline", &"x".repeat(CMDLINE_MAX_BYTES + 1));
        let known = identity(tree.root(), 42);
        assert_eq!(known.got().unwrap().cmdline.len(), CMDLINE_MAX_BYTES);
    }

    #[test]
    fn a_watch_reads_what_one_read_does_and_notices_the_end() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let (proc_root, pid) = (Path::new("/proc"), child.id() as i32);
        let mut watch = Watch::new(proc_root, pid);
        // Once it sleeps, its numbers stand still.
        while read(proc_root, pid).got().unwrap().state != TaskState::Sleeping {
            std::thread::yield_now();
        }
        assert_eq!(watch.read(), read(proc_root, pid));
        assert_eq!(watch.read().got().unwrap().threads, 1);
        child.kill().unwrap();
        while watch.read().got().unwrap().state != TaskState::Zombie {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(watch.read().absence().unwrap().why, Why::Gone);
        assert_eq!(watch.read().absence().unwrap().why, Why::Gone);
    }

    #[test]
    fn the_fields_are_those_that_procfs_finds() {
        let own = files::read(Path::new("/proc/self/stat"), files::SMALL_MAX_BYTES);
        let bytes = own.got().unwrap();
        let theirs: procfs::process::Stat = procfs::FromRead::from_read(bytes.as_slice()).unwrap();
        let ours = parse_stat(bytes);
        let ours = ours.got().unwrap();
        assert_eq!((&ours.comm, ours.state.letter()), (&theirs.comm, theirs.state));
        assert_eq!((ours.ppid, ours.threads as i64), (theirs.ppid, theirs.num_threads));
        assert_eq!((ours.utime_ticks, ours.stime_ticks), (theirs.utime, theirs.stime));
        assert_eq!((ours.rss_pages, ours.start_time_ticks), (theirs.rss, theirs.starttime));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse_stat(&bytes);
        }

        #[test]
        fn parsing_near_misses_never_panics(text in r"[0-9 ()é\\]{0,40}[A-Z(] [0-9 -]{0,200}") {
            parse_stat(text.as_bytes());
        }
    }
}
