//! What is read again and again, against single reads and plain files.

use std::fs::File;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child as Process, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use stallscope_probes::fds::{CensusWalk, LISTED_PER_READ_MAX};
use stallscope_probes::sample::{
    FdKindsRaw, PressureScope, SyscallRaw, THREADS_MAX, TaskState, ThreadRaw,
};
use stallscope_probes::threads::Ask;
use stallscope_probes::{Reading, Why, cgroup, fds, netstat, own, pressure, process, threads};

use crate::child::{Child, say_and_wait};
use crate::{got, own_pid, proc_root, until};

/// So seldom that a test which sees a change has not seen it by turns.
const SELDOM: u32 = 1_000_000;
const ASK: Ask<'static> =
    Ask { threads: None, important: &[], full_within: SELDOM, stacks: false, switches: false };

/// A process that sleeps; it is killed and reaped with the value.
struct Sleeper(Process);

impl Sleeper {
    /// One that sleeps by now.
    fn start() -> Self {
        let sleeper = Self(Command::new("sleep").arg("600").spawn().unwrap());
        until("a process that sleeps", || {
            let main = got(threads::read(proc_root(), sleeper.pid(), false)).remove(0);
            main.wchan.got().is_some_and(|wchan| wchan.contains("nanosleep")).then_some(())
        });
        sleeper
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn count(pid: i32) -> Option<u64> {
    process::read(proc_root(), pid).got().map(|process| process.threads)
}

fn task_tids(pid: i32) -> Vec<i32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let tid = |name: std::ffi::OsString| name.to_str().unwrap().parse().unwrap();
    let mut tids: Vec<i32> = entries.map(|entry| tid(entry.unwrap().file_name())).collect();
    tids.sort_unstable();
    tids
}

fn tids(threads: &[ThreadRaw]) -> Vec<i32> {
    threads.iter().map(|thread| thread.tid).collect()
}

fn waiting_thread() -> (Sender<()>, thread::JoinHandle<()>) {
    let (sender, receiver): (Sender<()>, Receiver<()>) = channel();
    // The first word makes it sleep elsewhere, the end of the channel ends it.
    let work = move || {
        while receiver.recv().is_ok() {
            thread::sleep(Duration::from_hours(1));
        }
    };
    (sender, thread::Builder::new().name(AWKWARD.to_owned()).spawn(work).unwrap())
}

/// 15 bytes, which is all the kernel keeps.
const AWKWARD: &str = "a) R 1 (b\n\\\u{1b}[0m";

const FEW: usize = 10;

#[test]
#[ignore = "run as a child by the tests below"]
fn child_with_threads() {
    let mut waiting: Vec<_> = (0..FEW).map(|_| waiting_thread()).collect();
    say_and_wait("some");
    let (last, handle) = waiting.pop().unwrap();
    drop(last);
    handle.join().unwrap();
    waiting.push(waiting_thread());
    say_and_wait("another");
    waiting[0].0.send(()).unwrap();
    say_and_wait("moved");
    waiting.extend((0..THREADS_MAX).map(|_| waiting_thread()));
    say_and_wait("many");
}

/// Waits until all threads of a child sleep in a system call.
fn quiet(pid: i32) -> Vec<ThreadRaw> {
    until("a process all of whose threads sleep", || {
        let threads = got(threads::read(proc_root(), pid, false));
        let asleep = |thread: &ThreadRaw| {
            thread.state == TaskState::Sleeping
                && matches!(thread.syscall.got(), Some(SyscallRaw::In { .. }))
        };
        threads.iter().all(asleep).then_some(threads)
    })
}

#[test]
fn threads_that_are_followed_are_those_of_a_single_read() {
    let mut child = Child::start("watch::child_with_threads", None);
    let pid = child.pid();
    assert_eq!(child.hears(), "some");
    let mut watch = threads::Watch::new(proc_root(), pid);
    let once = quiet(pid);
    assert_eq!(tids(&once), task_tids(pid));
    // Raw: it is made harmless where it is shown.
    assert_eq!(once.iter().filter(|thread| thread.comm == AWKWARD).count(), FEW);
    let ask = Ask { threads: count(pid), ..ASK };
    for _ in 0..3 {
        assert_eq!(got(watch.read(&ask)), once);
    }

    // As many as before, but not the same.
    child.go_on();
    assert_eq!(child.hears(), "another");
    let exchanged = quiet(pid);
    assert_eq!(count(pid), ask.threads);
    assert_ne!(tids(&exchanged), tids(&once));
    assert_eq!(got(watch.read(&ask)), exchanged);

    // One that was woken and sleeps again is read in full though it is nobody's turn.
    child.go_on();
    assert_eq!(child.hears(), "moved");
    let moved = until("a thread in another system call", || {
        let threads = quiet(pid);
        let sleeps = |thread: &ThreadRaw| {
            thread.wchan.got().is_some_and(|wchan| wchan.contains("nanosleep"))
        };
        threads.iter().any(sleeps).then_some(threads)
    });
    assert_eq!(got(watch.read(&ask)), moved);

    // More than are read: the oldest, and those that matter.
    child.go_on();
    assert_eq!(child.hears(), "many");
    quiet(pid);
    let all = task_tids(pid);
    assert!(all.len() > THREADS_MAX);
    let last = *all.last().unwrap();
    let ask = Ask { threads: count(pid), ..ask };
    assert_eq!(got(watch.read(&ask)), got(threads::read(proc_root(), pid, false)));
    assert!(!tids(&got(watch.read(&ask))).contains(&last));
    let important = [last];
    let read = got(watch.read(&Ask { important: &important, ..ask }));
    assert_eq!(read.len(), THREADS_MAX);
    assert!(tids(&read).contains(&last) && tids(&read).contains(&pid));
}

#[test]
fn context_switches_are_those_of_the_file() {
    let sleeper = Sleeper::start();
    let text = std::fs::read_to_string(format!("/proc/{}/status", sleeper.pid())).unwrap();
    let told = |key: &str| -> u64 {
        text.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().parse().unwrap()
    };
    let ask = Ask { switches: true, stacks: true, ..ASK };
    let read = got(threads::Watch::new(proc_root(), sleeper.pid()).read(&ask));
    let switches = *read[0].switches.got().unwrap();
    assert_eq!(switches.voluntary, told("voluntary_ctxt_switches:"));
    assert_eq!(switches.involuntary, told("nonvoluntary_ctxt_switches:"));
    match (read[0].kernel_stack.got(), read[0].kernel_stack.absence()) {
        (Some(frames), _) => assert!(frames.iter().any(|frame| frame.contains("nanosleep"))),
        (_, absence) => assert_eq!(absence.unwrap().why, Why::NotPermitted),
    }
}

#[test]
fn a_stop_is_noticed_without_turns() {
    let sleeper = Sleeper::start();
    let mut watch = threads::Watch::new(proc_root(), sleeper.pid());
    let ask = Ask { threads: Some(1), ..ASK };
    assert_eq!(got(watch.read(&ask))[0].state, TaskState::Sleeping);
    sleeper.signal(Signal::STOP);
    until("a stopped process", || {
        let once = process::read(proc_root(), sleeper.pid());
        (got(once).state == TaskState::Stopped).then_some(())
    });
    let main = got(watch.read(&ask)).remove(0);
    assert_eq!(main.state, TaskState::Stopped);
    assert!(main.wchan.got().unwrap().contains("signal_stop"), "{main:?}");
    sleeper.signal(Signal::CONT);
    until("a process that goes on", || {
        (got(watch.read(&ask))[0].state == TaskState::Sleeping).then_some(())
    });
}

#[test]
fn everything_is_gone_once_the_process_is_reaped_and_stays_so() {
    let mut sleeper = Sleeper::start();
    let (pid, cgroups) = (sleeper.pid(), Path::new("/sys/fs/cgroup"));
    let mut process = process::Watch::new(proc_root(), pid);
    let mut fds = fds::Watch::new(proc_root(), pid);
    let mut walk = CensusWalk::new(proc_root(), pid);
    let mut threads = threads::Watch::new(proc_root(), pid);
    let mut cgroup = cgroup::Watch::new(proc_root(), cgroups, pid);
    let mut pressure = pressure::Watch::new(proc_root(), cgroups, pid);
    let ask = Ask { threads: Some(1), ..ASK };
    got(process.read());
    got(fds.read());
    // In the midst of a pass.
    assert_eq!(walk.advance(1, || true), Reading::Got(None));
    got(threads.read(&ask));
    cgroup.read();
    got(pressure.read());
    sleeper.0.kill().unwrap();
    sleeper.0.wait().unwrap();
    for _ in 0..2 {
        assert_eq!(why(&process.read()), Some(Why::Gone));
        assert_eq!(why(&fds.read()), Some(Why::Gone));
        assert_eq!(why(&walk.advance(1, || true)), Some(Why::Gone));
        assert_eq!(why(&threads.read(&ask)), Some(Why::Gone));
        assert_eq!(why(&cgroup.read()), Some(Why::Gone));
        assert_eq!(why(&pressure.read()), Some(Why::Gone));
    }
}

fn why<T>(reading: &Reading<T>) -> Option<Why> {
    reading.absence().map(|absence| absence.why)
}

const MANY: usize = 2 * LISTED_PER_READ_MAX;

#[test]
#[ignore = "run as a child by the test below"]
fn child_with_fds_of_each_kind() {
    say_and_wait("plain");
    let sockets = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let pipes = [(); 2].map(|()| std::io::pipe().unwrap());
    let files: Vec<_> = (0..MANY).map_while(|_| File::open("/dev/null").ok()).collect();
    say_and_wait(&files.len().to_string());
    drop(files);
    say_and_wait("closed");
    drop((sockets, pipes));
}

#[test]
fn a_census_in_slices_counts_what_was_opened() {
    let mut child = Child::start("watch::child_with_fds_of_each_kind", None);
    let pid = child.pid();
    assert_eq!(child.hears(), "plain");
    let mut watch = fds::Watch::new(proc_root(), pid);
    assert_eq!(got(watch.read()), got(fds::read(proc_root(), pid)));
    let before = got(fds::census(proc_root(), pid));
    child.go_on();
    let files: u32 = child.hears().parse().unwrap();
    let mut walk = CensusWalk::new(proc_root(), pid);
    let mut whole = || {
        until("the end of a pass", || match walk.advance(100, || true) {
            Reading::Got(census) => census,
            Reading::Absent(absence) => panic!("{absence:?}"),
        })
    };
    let census = whole();
    let expected = FdKindsRaw {
        sockets: before.kinds.sockets + 3,
        pipes: before.kinds.pipes + 4,
        files: before.kinds.files + files,
        looked_at: before.kinds.looked_at + 7 + files,
        ..before.kinds
    };
    assert_eq!(census.kinds, expected);
    assert_eq!(census, got(fds::census(proc_root(), pid)));
    let listed = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert_eq!(got(watch.read()).open, listed as u64);
    assert_eq!(got(watch.read()), got(fds::read(proc_root(), pid)));

    // Closed in the midst of a pass: an end comes all the same, and the next pass is right.
    let mut walk = CensusWalk::new(proc_root(), pid);
    assert_eq!(walk.advance(files as usize / 2, || true), Reading::Got(None));
    child.go_on();
    assert_eq!(child.hears(), "closed");
    let cut = until("the end of a pass", || got(walk.advance(100, || true)));
    assert!(cut.entries < census.entries && cut.entries >= files / 2, "{}", cut.entries);
    let after = until("the end of a pass", || got(walk.advance(100, || true)));
    assert_eq!(after.kinds.files, before.kinds.files);
}

/// A cgroup of version 2 that is removed with the value.
struct Cgroup(std::path::PathBuf);

impl Cgroup {
    fn make(name: &str) -> Option<Self> {
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let root = roots.into_iter().find(|root| root.join("cgroup.controllers").exists())?;
        let path = root.join(format!("stallscope-{}-{name}", own_pid()));
        std::fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.0.join(file), text).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        std::fs::remove_dir(&self.0).ok();
    }
}

#[test]
fn a_cgroup_that_is_frozen_and_left() {
    let (Some(first), Some(second)) = (Cgroup::make("first"), Cgroup::make("second")) else {
        println!("did not run: needs root and a cgroup of version 2 that can be written");
        return;
    };
    let sleeper = Sleeper::start();
    let (pid, cgroups) = (sleeper.pid(), Path::new("/sys/fs/cgroup"));
    first.write("cgroup.procs", &pid.to_string());
    let mut watch = cgroup::Watch::new(proc_root(), cgroups, pid);
    let mut stalls = pressure::Watch::new(proc_root(), cgroups, pid);
    let mut threads = threads::Watch::new(proc_root(), pid);
    let ask = Ask { threads: Some(1), ..ASK };
    got(threads.read(&ask));
    assert_eq!(got(watch.read()).frozen, Some(false));
    if first.0.join("cpu.pressure").exists() {
        assert_eq!(got(stalls.read()).scope, PressureScope::Cgroup);
    }
    first.write("cgroup.freeze", "1");
    until("a frozen cgroup", || (got(watch.read()).frozen == Some(true)).then_some(()));
    let frozen = got(threads.read(&ask)).remove(0);
    // No longer in its nanosleep: to be frozen it had to run (`do_freezer_trap`, kernel/signal.c).
    assert!(!frozen.wchan.got().unwrap().contains("nanosleep"), "{frozen:?}");
    assert_eq!(got(watch.read()), got(cgroup::read(proc_root(), cgroups, pid)));

    second.write("cgroup.procs", &pid.to_string());
    until("a process that goes on", || (got(watch.read()).frozen == Some(false)).then_some(()));
    // Nothing here holds the cgroup that was left.
    std::fs::remove_dir(&first.0).unwrap();
    assert_eq!(got(watch.read()), got(cgroup::read(proc_root(), cgroups, pid)));
    got(stalls.read());
}

#[test]
fn pressure_of_the_machine_lies_between_two_looks_at_its_file() {
    // In no cgroup here: only the machine's figures are left.
    let none = Path::new("/nowhere");
    let total = || -> Option<u64> {
        let text = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
        let line = text.lines().find(|line| line.starts_with("some"))?;
        line.rsplit_once("total=")?.1.parse().ok()
    };
    let before = total();
    let read = pressure::read(proc_root(), none, own_pid());
    let (Some(before), Some(after)) = (before, total()) else {
        assert_eq!(read.absence().unwrap().why, Why::Unsupported);
        return;
    };
    let read = got(read);
    assert_eq!(read.scope, PressureScope::Machine);
    let some_us = read.cpu.unwrap().some_us;
    assert!((before..=after).contains(&some_us), "{before} {some_us} {after}");
}

#[test]
fn own_memory_is_that_of_the_status_file() {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    let usage = own::usage();
    let rss_bytes = *usage.rss_bytes.got().unwrap();
    // Other tests run in this process meanwhile.
    assert!(rss_bytes.abs_diff(kib * 1024) < 64 << 20, "{rss_bytes} {kib} KiB");
    assert!(*usage.open_fds.got().unwrap() >= 3);
}

#[test]
fn counters_of_the_namespace_grow_in_a_kept_file() {
    let mut watch = netstat::Watch::new(proc_root(), own_pid());
    let opens = |reading: Reading<stallscope_probes::sample::TcpRaw>| got(reading).active_opens;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let before = opens(watch.read()).unwrap();
    let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert!(opens(watch.read()).unwrap() > before);
}
