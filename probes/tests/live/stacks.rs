//! Stacks of a child whose threads stand where they say they do.

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::gettid;
use rustix::time::{ClockId, clock_gettime};
use stallscope_probes::stacks::capture::{Ask, Capture, Waits, name_of};
use stallscope_probes::stacks::follow::{Caught, StackId, Wait};
use stallscope_probes::stacks::symbols::Symbols;
use stallscope_probes::stacks::unwind::{End, Unwinder};
use stallscope_probes::stacks::{RawStack, asleep};
use stallscope_probes::{Reading, Why, threads};

use crate::child::{Child, say_and_wait};
use crate::rights::{Killed, as_nobody};
use crate::{got, proc_root, until};

#[cfg(target_arch = "x86_64")]
const READ: i64 = 0;
#[cfg(target_arch = "aarch64")]
const READ: i64 = 63;

/// The upper half of all addresses is the kernel's, on both machines.
const KERNEL_BEGIN: u64 = 1 << 63;
/// No function of this file is longer.
const FUNCTION_BYTES_MAX: u64 = 512;
const NAP: Duration = Duration::from_millis(20);

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[inline(never)]
fn spins_in_a_known_place() -> ! {
    loop {
        // Into the kernel now and then: a thread that runs may stand there too.
        black_box(rustix::process::getppid());
    }
}

#[inline(never)]
fn reads_in_a_known_place(pipe: &mut std::io::PipeReader) {
    pipe.read_exact(black_box(&mut [0])).unwrap();
}

#[inline(never)]
fn naps_in_a_known_place() -> ! {
    loop {
        thread::sleep(black_box(NAP));
    }
}

fn tid() -> i32 {
    gettid().as_raw_nonzero().get()
}

/// In the child: says the tid of a new thread and where its function begins, waits to go on.
fn says_where<T>(name: &str, place: *const (), work: impl FnOnce() -> T + Send + 'static) -> bool {
    let (send, receive) = std::sync::mpsc::channel();
    let work = move || {
        send.send(tid()).unwrap();
        work();
    };
    thread::Builder::new().name(name.to_owned()).spawn(work).unwrap();
    say_and_wait(&format!("{} {}", receive.recv().unwrap(), place.addr()))
}

#[test]
#[ignore = "the child of tests below"]
fn child_that_spins() {
    while says_where("spins", spins_in_a_known_place as *const (), || spins_in_a_known_place()) {}
}

#[test]
#[ignore = "the child of a test below"]
fn child_that_reads() {
    let (mut pipe, _writer) = std::io::pipe().unwrap();
    let fd = pipe.as_raw_fd();
    let place = reads_in_a_known_place as *const ();
    if says_where("reads", place, move || reads_in_a_known_place(&mut pipe)) {
        say_and_wait(&fd.to_string());
    }
}

#[test]
#[ignore = "the child of a test below"]
fn child_that_naps() {
    says_where("naps", naps_in_a_known_place as *const (), || naps_in_a_known_place());
}

#[inline(never)]
fn answers_in_a_known_place(asked: &mut std::io::PipeReader, answer: &mut std::io::PipeWriter) {
    let mut byte = [0];
    while asked.read_exact(&mut byte).is_ok() && answer.write_all(black_box(&byte)).is_ok() {}
}

/// Two threads that hand a byte to and fro until told to cease.
#[test]
#[ignore = "the child of a test below"]
fn child_that_switches() {
    let (mut asked, mut ask) = std::io::pipe().unwrap();
    let (mut answered, mut answer) = std::io::pipe().unwrap();
    let ceased = Arc::new(AtomicBool::new(false));
    let (until, place) = (Arc::clone(&ceased), answers_in_a_known_place as *const ());
    thread::spawn(move || {
        while !until.load(Ordering::Relaxed) {
            ask.write_all(&[0]).unwrap();
            answered.read_exact(&mut [0]).unwrap();
        }
        // Not closed: the other goes on waiting.
        thread::park();
    });
    says_where("answers", place, move || answers_in_a_known_place(&mut asked, &mut answer));
    ceased.store(true, Ordering::Relaxed);
    say_and_wait("ceased");
}

/// What `says_where` said: thread and place.
fn heard(child: &mut Child) -> (i32, u64) {
    let line = child.hears();
    let (tid, place) = line.split_once(' ').unwrap();
    (tid.parse().unwrap(), place.parse().unwrap())
}

/// Root may; else what refuses must say so, and the test cannot run.
fn begin(pid: i32, waits: Waits) -> Option<Capture> {
    match Capture::begin(proc_root(), pid, Ask { hz: 199, waits }, now_ns()) {
        Reading::Got(capture) => Some(capture),
        Reading::Absent(absence) => {
            let root = rustix::process::geteuid().is_root();
            assert!(!root && absence.why == Why::NotPermitted, "{absence:?}");
            println!("did not run: {}", absence.detail);
            None
        }
    }
}

fn ran(caught: &Caught, of: i32) -> Option<StackId> {
    match caught {
        Caught::Ran { tid, stack, .. } if *tid == of => Some(*stack),
        Caught::Ran { .. } | Caught::Waited(_) => None,
    }
}

/// The functions of a stack of the program, innermost first.
fn functions(pid: i32, unwinder: &Unwinder, user: &[u64]) -> Vec<String> {
    let mut symbols = Symbols::new(proc_root(), pid);
    // A return address lies behind the call, and may be another function's.
    let addresses: Vec<u64> =
        user.iter().enumerate().map(|(depth, address)| address - u64::from(depth > 0)).collect();
    symbols.learn_user(unwinder.code(), addresses.iter().copied());
    let places = addresses.iter().filter_map(|address| symbols.user(*address));
    places.flat_map(|place| &place.functions).map(|named| named.function.clone()).collect()
}

#[track_caller]
fn stands_in(pid: i32, unwinder: &Unwinder, user: &[u64], place: u64, name: &str) {
    let within = place..place + FUNCTION_BYTES_MAX;
    assert!(user.iter().any(|address| within.contains(address)), "{place:#x}: {user:#x?}");
    let functions = functions(pid, unwinder, user);
    assert!(functions.iter().any(|function| function.contains(name)), "{name}: {functions:#?}");
}

fn is_split(stack: &RawStack) -> bool {
    stack.kernel.iter().all(|address| *address >= KERNEL_BEGIN)
        && stack.user.iter().all(|address| *address < KERNEL_BEGIN)
}

#[test]
fn a_thread_that_runs_is_caught_in_its_function_and_so_is_one_made_later() {
    let mut child = Child::start("stacks::child_that_spins", None);
    let (first, place) = heard(&mut child);
    let pid = child.pid();
    let Some(mut capture) = begin(pid, Waits::No) else { return };
    let stacks: Vec<RawStack> = until("a thread that spins", || {
        let caught = capture.drain(now_ns());
        let stacks = caught.iter().filter_map(|caught| ran(caught, first));
        let stacks: Vec<_> = stacks.filter_map(|id| capture.stacks().get(id).cloned()).collect();
        (!stacks.is_empty()).then_some(stacks)
    });
    for stack in stacks {
        assert!(is_split(&stack), "{stack:#x?}");
        assert_eq!((stack.end, stack.guessed_from), (End::Root, None), "{stack:#x?}");
        stands_in(pid, capture.unwinder(), &stack.user, place, "spins_in_a_known_place");
    }
    assert_eq!(capture.names().get(&first).map(String::as_str), Some("spins"));

    // Threads made from now on inherit the events of the thread that makes them.
    let before = capture.events();
    child.go_on();
    let (later, _) = heard(&mut child);
    assert!(!capture.names().contains_key(&later));
    let stack = until("a thread that was made later", || {
        let caught = capture.drain(now_ns());
        let id = caught.iter().find_map(|caught| ran(caught, later))?;
        capture.stacks().get(id).cloned()
    });
    stands_in(pid, capture.unwinder(), &stack.user, place, "spins_in_a_known_place");
    assert_eq!(capture.names().get(&later).map(String::as_str), Some("spins"));
    assert_eq!(capture.events(), before);
    assert_eq!(capture.losses().records, 0);
}

#[test]
fn a_thread_that_sleeps_is_read_without_waking_it() {
    let mut child = Child::start("stacks::child_that_reads", None);
    let (tid, place) = heard(&mut child);
    child.go_on();
    let fd: u64 = child.hears().parse().unwrap();
    let pid = child.pid();
    let mut unwinder = got(Unwinder::new(proc_root(), pid));
    let look = |unwinder: &mut Unwinder| asleep::look(unwinder, proc_root(), pid, tid);
    let first = until("a thread in read(2)", || {
        look(&mut unwinder).got().filter(|asleep| asleep.call.nr == READ).cloned()
    });
    assert_eq!((first.call.args[0], first.call.args[2]), (fd, 1), "{first:x?}");
    let walk = got(first.walk.clone());
    assert_eq!((walk.end, walk.guessed_from), (End::Root, None), "{walk:x?}");
    stands_in(pid, &unwinder, &walk.frames, place, "reads_in_a_known_place");
    match &first.kernel {
        Reading::Got(kernel) => {
            assert!(kernel.iter().any(|name| name.contains("pipe_read")), "{kernel:?}");
        }
        // The kernel's frames need CAP_SYS_ADMIN.
        Reading::Absent(absence) => assert_eq!(absence.why, Why::NotPermitted),
    }

    for _ in 0..20 {
        assert_eq!(got(look(&mut unwinder)), first, "the same stack, and the same wait");
    }
    let thread = got(threads::read_one_of(proc_root(), pid, tid));
    assert_eq!(thread.sched.got().map(|sched| sched.timeslices), Some(first.timeslices));
    let status = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).unwrap();
    assert!(status.contains("State:\tS (sleeping)"), "{status}");
    assert!(status.contains("TracerPid:\t0\n"), "{status}");
}

/// The part of a wait between two instants, ns.
fn part_ns(wait: &Wait, begin_ns: u64, end_ns: u64) -> u64 {
    wait.end_ns.min(end_ns).saturating_sub(wait.begin_ns.max(begin_ns))
}

#[test]
fn waits_are_as_long_as_the_thread_was_away_and_their_place_is_known() {
    const LENGTH_NS: u64 = 1_000_000_000;
    let mut child = Child::start("stacks::child_that_naps", None);
    let (tid, place) = heard(&mut child);
    let pid = child.pid();
    let Some(mut capture) = begin(pid, Waits::All) else { return };
    let on_cpu_ns = || {
        let thread = got(threads::read_one_of(proc_root(), pid, tid));
        thread.sched.got().unwrap().run_ns
    };
    let (begin_ns, ran_before_ns) = (now_ns(), on_cpu_ns());
    let mut waits: Vec<Wait> = Vec::new();
    let end_ns = until("a second", || {
        let now_ns = now_ns();
        waits.extend(capture.drain(now_ns).into_iter().filter_map(|caught| match caught {
            Caught::Waited(wait) if wait.tid == tid => Some(wait),
            Caught::Waited(_) | Caught::Ran { .. } => None,
        }));
        (now_ns >= begin_ns + LENGTH_NS).then_some(now_ns)
    });
    waits.extend(capture.away(end_ns).filter(|wait| wait.tid == tid));
    let away_ns = (end_ns - begin_ns).saturating_sub(on_cpu_ns() - ran_before_ns);
    let waited_ns: u64 = waits.iter().map(|wait| part_ns(wait, begin_ns, end_ns)).sum();
    assert!(waited_ns.abs_diff(away_ns) < away_ns / 10, "{waited_ns} of {away_ns} ns");
    let naps = waits.iter().filter(|wait| wait.end_ns - wait.begin_ns >= NAP.as_nanos() as u64);
    assert!(naps.count() > 10, "{waits:?}");

    // The kernel begins to sample switches after a few.
    let known: Vec<&Wait> = waits.iter().filter(|wait| wait.stack.is_some()).collect();
    if capture.losses().no_kernel {
        assert!(known.is_empty(), "a switch is the kernel's own");
        return;
    }
    let known_ns: u64 = known.iter().map(|wait| part_ns(wait, begin_ns, end_ns)).sum();
    assert!(known_ns > waited_ns / 2, "{known_ns} of {waited_ns} ns: {waits:?}");
    for wait in known {
        let stack = capture.stacks().get(wait.stack.unwrap()).unwrap().clone();
        assert!(is_split(&stack) && !stack.kernel.is_empty(), "{stack:#x?}");
        if !wait.preempted {
            stands_in(pid, capture.unwinder(), &stack.user, place, "naps_in_a_known_place");
        }
    }
}

#[test]
fn a_process_that_switches_very_often_is_caught_without_events_of_its_threads() {
    let mut child = Child::start("stacks::child_that_switches", None);
    let (tid, place) = heard(&mut child);
    let pid = child.pid();
    if !rustix::process::geteuid().is_root() {
        return println!("did not run: only root may sample whole CPUs");
    }
    let mut capture = begin(pid, Waits::Cheaply).unwrap();
    let bound = capture.events();
    until("events taken off its threads", || {
        capture.drain(now_ns());
        (capture.events() < bound).then_some(())
    });
    assert!(matches!(capture.losses().blind[..], [(_, u64::MAX)]), "{:?}", capture.losses());
    let id = until("a thread that is caught all the same", || {
        capture.drain(now_ns()).iter().find_map(|caught| ran(caught, tid))
    });
    let stack = capture.stacks().get(id).cloned().unwrap();
    stands_in(pid, capture.unwinder(), &stack.user, place, "answers_in_a_known_place");
    assert_eq!(capture.losses().unsampled, []);

    child.go_on();
    assert_eq!(child.hears(), "ceased");
    until("events put back", || {
        capture.drain(now_ns());
        (capture.events() == bound).then_some(())
    });
    assert!(capture.losses().blind.iter().all(|(_, end_ns)| *end_ns < now_ns()));
}

#[test]
fn a_process_of_another_user_is_refused_with_what_would_permit_it() {
    if !rustix::process::geteuid().is_root() {
        println!("did not run: needs root, to look as another user");
        return;
    }
    let sleeper = Killed(Command::new("sleep").arg("600").spawn().unwrap());
    let pid = sleeper.0.id() as i32;
    as_nobody(|| {
        let ask = Ask { hz: 99, waits: Waits::All };
        let refusal = Capture::begin(proc_root(), pid, ask, now_ns());
        let refusal = refusal.absence().unwrap();
        assert_eq!(refusal.why, Why::NotPermitted);
        assert!(refusal.detail.contains("CAP_SYS_PTRACE"), "{refusal:?}");
        let mut of_self = got(Unwinder::new(proc_root(), std::process::id() as i32));
        let look = asleep::look(&mut of_self, proc_root(), pid, pid);
        assert_eq!(look.absence().map(|absence| absence.why), Some(Why::NotPermitted));
    });
}

/// With `kernel.perf_event_paranoid` 2 without the kernel's frames; from 3 on, which Debian's kernels
/// have added, not at all.
#[test]
fn of_ones_own_processes_as_much_is_caught_as_the_setting_permits() {
    if !rustix::process::geteuid().is_root() {
        println!("did not run: needs root, to become another user");
        return;
    }
    let paranoid = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap();
    let paranoid: i32 = paranoid.trim().parse().unwrap();
    let mut spinner = Command::new("sh");
    spinner.args(["-c", "while :; do :; done"]).uid(65_534);
    let spinner = Killed(spinner.spawn().unwrap());
    let pid = spinner.0.id() as i32;
    until("the shell runs", || (name_of(proc_root(), pid, pid) == "sh").then_some(()));
    as_nobody(|| {
        let ask = Ask { hz: 199, waits: Waits::No };
        let begun = Capture::begin(proc_root(), pid, ask, now_ns());
        if paranoid > 2 {
            let refusal = begun.absence().unwrap();
            assert_eq!(refusal.why, Why::NotPermitted);
            assert!(refusal.detail.contains("kernel.perf_event_paranoid 2"), "{refusal:?}");
            return;
        }
        let Reading::Got(mut capture) = begun else { panic!("{begun:?}") };
        assert_eq!(capture.losses().no_kernel, paranoid == 2);
        let stack = until("the shell is caught", || {
            let id = capture.drain(now_ns()).iter().find_map(|caught| ran(caught, pid))?;
            capture.stacks().get(id).cloned()
        });
        assert!(!stack.user.is_empty(), "{stack:x?}");
        assert!(paranoid < 2 || stack.kernel.is_empty(), "{stack:x?}");
    });
}
