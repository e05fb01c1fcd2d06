//! The process as a whole: `/proc/PID/stat`, and who it is.

use std::path::{Path, PathBuf};

use procfs::FromRead;

use crate::files;
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

/// Reads `/proc/PID/stat`.
pub fn read(proc_root: &Path, pid: i32) -> Reading<ProcessRaw> {
    let page_bytes = rustix::param::page_size() as u64;
    read_stat(&files::process(proc_root, pid)).map(|stat| ProcessRaw {
        state: stat.state,
        utime_ticks: stat.utime_ticks,
        stime_ticks: stat.stime_ticks,
        threads: stat.threads,
        rss_bytes: stat.rss_pages.saturating_mul(page_bytes),
        start_time_ticks: stat.start_time_ticks,
    })
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
    let malformed = || Reading::absent(Why::Malformed, "the stat line is not as proc(5) has it");
    let text = String::from_utf8_lossy(bytes);
    let line = text.trim();
    if !has_name_in_parentheses(line) {
        return malformed();
    }
    let Ok(stat) = procfs::process::Stat::from_read(line.as_bytes()) else { return malformed() };
    let Ok(threads) = u64::try_from(stat.num_threads) else { return malformed() };
    Reading::Got(TaskStat {
        // Unescaped, unlike in `status`: `do_task_stat` (fs/proc/array.c).
        comm: stat.comm,
        state: TaskState::from_letter(stat.state),
        ppid: stat.ppid,
        utime_ticks: stat.utime,
        stime_ticks: stat.stime,
        threads,
        rss_pages: stat.rss,
        start_time_ticks: stat.starttime,
    })
}

/// `procfs` slices around the outer parentheses without looking; this looks.
fn has_name_in_parentheses(line: &str) -> bool {
    let bytes = line.as_bytes();
    let (Some(open), Some(close)) = (line.find('('), line.rfind(')')) else { return false };
    open < close && open > 0 && bytes[open - 1] == b' ' && bytes.get(close + 1) == Some(&b' ')
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
