//! CPU profiles, one window a second, spooled into shared memory (`stallscope_probes::spool`).
//!
//! The sampling is pprof's: `ITIMER_PROF` counts the CPU time of the whole process and sends
//! SIGPROF to the thread that used it, whose handler walks the frame pointers. Three things follow
//! for whoever reads a profile:
//!
//! - A thread that waits is not in it. An empty window says that the process used no CPU time.
//! - librdkafka's threads block all signals (`rdkafka.c rd_kafka_new`). Their CPU time is charged
//!   to another thread, at the place where that one waits.
//! - The walk begins at the return address of the interrupted function, so a stack ends at its
//!   caller.
//!
//! The thread `profiler` that collects and writes needs no runtime, and leaves itself out.
#![expect(clippy::disallowed_methods, reason = "this is the code that writes the spool")]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use pprof::{Frames, ProfilerGuard, ProfilerGuardBuilder};
use stallscope_probes::spool::{self, WINDOW_BYTES_MAX, WINDOWS_MAX, WindowName};

use super::now_ns;
use super::rate::RateLimit;

/// Samples per second of CPU time. Not 100, so as not to march in step with a timer.
const SAMPLES_HZ: u32 = 99;
/// Length of a window.
const WINDOW: Duration = Duration::from_secs(1);
/// pprof's store only grows, and moves to a file when it is full: it is made anew from time to time.
const WINDOWS_PER_GUARD_MAX: u32 = 600;
/// The name of the collecting thread.
const THREAD: &str = "profiler";

/// Why there is no profiler.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The spool could not be made.
    #[error("cannot make the folder for profiles {path}: {source}")]
    Folder {
        /// Its place.
        path: PathBuf,
        /// The answer of the operating system.
        source: io::Error,
    },
    /// pprof did not start.
    #[error("cannot start the CPU profiler: {0}")]
    Pprof(#[from] pprof::Error),
    /// No thread.
    #[error("cannot start the thread profiler: {0}")]
    Thread(io::Error),
}

/// A running profiler. Dropping it ends it and removes the spool.
#[derive(Debug)]
pub struct Profiler {
    /// Dropped to end the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Profiler {
    /// Makes the spool of this process and starts profiling into it.
    pub fn start() -> Result<Self, ProfileError> {
        remove_orphans();
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let spool = Spool::create(spool::folder(pid))?;
        let guard = begin_sampling()?;
        let (end, ended) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(THREAD.to_owned())
            .spawn(move || collect(guard, &spool, &ended))
            .map_err(ProfileError::Thread)?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn begin_sampling() -> Result<ProfilerGuard<'static>, pprof::Error> {
    ProfilerGuardBuilder::default().frequency(SAMPLES_HZ as i32).build()
}

/// Body of the thread `profiler`.
fn collect(mut guard: ProfilerGuard<'static>, spool: &Spool, ended: &Receiver<()>) {
    let warnings = RateLimit::every_ns(10_000_000_000);
    let warn = |error: &dyn std::fmt::Display| {
        if let Some(held_back) = warnings.admit(now_ns()) {
            tracing::warn!(held_back, "a profile window is lost: {error}");
        }
    };
    // pprof counts from its start; what a window adds is the difference. (Its type for stacks as
    // addresses has no public name.)
    let mut before = HashMap::new();
    let mut windows = 0;
    let mut begin_ns = now_ns();
    let mut spare = Spare::new();
    while ended.recv_timeout(WINDOW) == Err(RecvTimeoutError::Timeout) {
        // pprof reopens its own file for a report, and the window needs one: with an fd kept for
        // this the profile goes on where the server runs out of them.
        spare.release();
        let end_ns = now_ns();
        match guard.report().build_unresolved() {
            Ok(report) => {
                let new = report.data.iter().filter_map(|(stack, count)| {
                    let more = before.get(stack).map_or(*count, |earlier| count - earlier);
                    (more > 0).then(|| (Frames::from(stack.clone()), more as u64))
                });
                let text = fold(new);
                let name = WindowName { begin_ns, end_ns, hz: SAMPLES_HZ };
                if let Err(error) = spool.write(&name, &text) {
                    warn(&error);
                }
                before = report.data;
                begin_ns = end_ns;
            }
            Err(error) => warn(&error),
        }
        windows += 1;
        // Ending the old guard needs an fd: without one, pprof could never be started again.
        if windows >= WINDOWS_PER_GUARD_MAX && Spare::new().is_held() {
            drop(guard);
            match begin_sampling() {
                Ok(begun) => guard = begun,
                Err(error) => {
                    tracing::error!("the CPU profiler has ended: {error}");
                    return;
                }
            }
            before.clear();
            windows = 0;
            begin_ns = now_ns();
        }
        spare.take_back();
    }
}

/// One fd, kept for when there are no others.
struct Spare(Option<File>);

impl Spare {
    fn new() -> Self {
        Self(File::open("/dev/null").ok())
    }

    fn release(&mut self) {
        self.0 = None;
    }

    fn take_back(&mut self) {
        *self = Self::new();
    }

    const fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

/// Folded stacks, the most frequent first; what does not fit into a window is left out.
fn fold(stacks: impl Iterator<Item = (Frames, u64)>) -> String {
    let mut counts: HashMap<String, u64> = HashMap::new();
    for (frames, count) in stacks {
        if frames.thread_name != THREAD {
            *counts.entry(fold_one(&frames)).or_default() += count;
        }
    }
    in_order(counts)
}

fn fold_one(frames: &Frames) -> String {
    let mut line = plain(&frames.thread_name_or_id());
    // pprof has the innermost frame first, and in a frame the innermost inlined function first.
    for symbol in frames.frames.iter().rev().flat_map(|symbols| symbols.iter().rev()) {
        line.push(';');
        line.push_str(&plain(&symbol.name()));
    }
    line
}

/// A name without what has a meaning in the format: `;` between frames, line ends between stacks.
fn plain(name: &str) -> String {
    name.chars()
        .map(|char| match char {
            ';' => ',',
            char if char.is_control() => ' ',
            char => char,
        })
        .collect()
}

fn in_order(counts: HashMap<String, u64>) -> String {
    let mut lines: Vec<(String, u64)> = counts.into_iter().collect();
    lines.sort_unstable_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then(a.cmp(b)));
    let mut text = String::new();
    for (stack, count) in lines {
        let used = text.len();
        // Writing to a String cannot fail.
        writeln!(text, "{stack} {count}").ok();
        if text.len() > WINDOW_BYTES_MAX {
            text.truncate(used);
        }
    }
    text
}

/// The folder of this process.
#[derive(Debug)]
struct Spool {
    folder: PathBuf,
}

impl Spool {
    fn create(folder: PathBuf) -> Result<Self, ProfileError> {
        let make = || {
            remove_folder(&folder)?;
            // Fails if anything has appeared there in between.
            DirBuilder::new().mode(0o755).create(&folder)?;
            fs::set_permissions(&folder, Permissions::from_mode(0o755))
        };
        match make() {
            Ok(()) => Ok(Self { folder }),
            Err(source) => Err(ProfileError::Folder { path: folder, source }),
        }
    }

    /// Writes a window so that a reader sees all of it or nothing, and makes room for it first.
    fn write(&self, name: &WindowName, text: &str) -> io::Result<()> {
        self.make_room()?;
        let unfinished = self.folder.join("unfinished");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        drop(file);
        fs::rename(&unfinished, self.folder.join(name.to_string()))
    }

    fn make_room(&self) -> io::Result<()> {
        let mut windows: Vec<WindowName> = fs::read_dir(&self.folder)?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        windows.sort_unstable();
        let surplus = (windows.len() + 1).saturating_sub(WINDOWS_MAX);
        for window in &windows[..surplus] {
            fs::remove_file(self.folder.join(window.to_string()))?;
        }
        Ok(())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // Nothing to do about a failure: the next server clears orphans away.
        remove_folder(&self.folder).ok();
    }
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::symlink_metadata(folder) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(folder),
        Ok(_) => fs::remove_file(folder),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes the spools of processes that are gone. Those of other users stay: removing them fails.
fn remove_orphans() {
    let Ok(entries) = fs::read_dir(stallscope_probes::heartbeat::FOLDER) else { return };
    for entry in entries.flatten() {
        let pid = entry.file_name().to_str().and_then(spool::pid_of_folder);
        if let Some(pid) = pid
            && !Path::new("/proc").join(pid.to_string()).exists()
        {
            remove_folder(&entry.path()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use stallscope_probes::Reading;
    use stallscope_probes::spool::SpoolReader;

    use super::*;

    fn name(begin_ns: u64) -> WindowName {
        WindowName { begin_ns, end_ns: begin_ns + 1, hz: SAMPLES_HZ }
    }

    #[test]
    fn the_newest_windows_are_kept_and_the_folder_goes() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("spool");
        let spool = Spool::create(folder.clone()).unwrap();
        let count = WINDOWS_MAX as u64 + 5;
        for begin_ns in 1..=count {
            spool.write(&name(begin_ns), "").unwrap();
        }
        let reader = SpoolReader::open(&folder).unwrap();
        let expected: Vec<_> = (6..=count).map(name).collect();
        assert_eq!(reader.newer_than(0), Reading::Got(expected));
        let files = fs::read_dir(&folder).unwrap().count();
        assert_eq!(files, WINDOWS_MAX, "nothing unfinished is left");
        drop(spool);
        assert!(!folder.exists());
    }

    #[test]
    fn a_link_in_the_place_of_the_folder_is_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let precious = parent.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("file"), "x").unwrap();
        let folder = parent.path().join("spool");
        std::os::unix::fs::symlink(&precious, &folder).unwrap();
        drop(Spool::create(folder).unwrap());
        assert!(precious.join("file").exists());
    }

    #[test]
    fn stacks_are_ordered_bounded_and_cannot_break_the_format() {
        assert_eq!(plain("<[u8; 4] as\nTrait>::f\u{1b}"), "<[u8, 4] as Trait>::f ");
        let counts = [("a;b", 1), ("a;c", 7), ("a;a", 1)];
        let counts = counts.map(|(stack, count)| (stack.to_owned(), count)).into();
        assert_eq!(in_order(counts), "a;c 7\na;a 1\na;b 1\n");
        let long = "x".repeat(WINDOW_BYTES_MAX);
        let counts = [(long, 9), ("a;b".to_owned(), 1)].into();
        assert_eq!(in_order(counts), "a;b 1\n", "what does not fit is left out, the rest stays");
        assert_eq!(in_order(HashMap::new()), "", "an idle window is an empty file");
    }
}
