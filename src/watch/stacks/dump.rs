//! The stacks of all threads of a process now, without stopping any.
//!
//! A thread that sleeps is looked at from outside, or stands where it was sampled as it went to
//! sleep, if that was caught: then nothing has to be guessed. One that runs stands where the CPU
//! clock last caught it.

use std::collections::BTreeMap;
use std::path::Path;

use stallscope_probes::stacks::asleep::{self, Call};
use stallscope_probes::stacks::capture::{Capture, raw_of, threads};
use stallscope_probes::stacks::code::Code;
use stallscope_probes::stacks::follow::{StackId, Wait};
use stallscope_probes::stacks::unwind::{End, Unwinder};
use stallscope_probes::stacks::{RawStack, Stacks};
use stallscope_probes::{Reading, fds, threads as probe};

use super::naming::Namer;
use super::rolling::Rolling;
use crate::model::call;
use crate::profile::build;
use crate::profile::stacks::{Frame, StackFrame, ThreadStack, ThreadStacks};

/// Threads looked at in one dump.
pub const THREADS_MAX: usize = 256;
/// A thread that runs was caught in this stretch, ns.
const RECENT_NS: u64 = 2_000_000_000;

/// What was found, before it has names.
#[derive(Debug)]
pub struct Found {
    at_ns: u64,
    threads: Vec<FoundThread>,
    code: Code,
    notes: Vec<String>,
}

#[derive(Debug)]
struct FoundThread {
    tid: i32,
    name: String,
    state: char,
    syscall: Option<String>,
    waited_ms: Option<u64>,
    stack: Option<RawStack>,
    how: String,
}

/// With what threads are looked at.
#[derive(Debug)]
pub enum Eyes<'a> {
    /// They have been followed for a while.
    Following(&'a mut Capture, &'a Rolling),
    /// Only what can be seen of those that sleep.
    Sleepers(&'a mut Unwinder),
}

impl Eyes<'_> {
    const fn unwinder(&mut self) -> &mut Unwinder {
        match self {
            Self::Following(capture, _) => capture.unwinder(),
            Self::Sleepers(unwinder) => unwinder,
        }
    }

    /// The wait of a thread that goes on, and whether its beginning was seen.
    fn wait(&self, tid: i32, now_ns: u64) -> Option<(Wait, bool)> {
        let Self::Following(capture, _) = self else { return None };
        let wait = capture.away(now_ns).find(|wait| wait.tid == tid)?;
        Some((wait, wait.begin_ns > capture.begun_ns()))
    }

    fn stack(&self, id: StackId) -> Option<&RawStack> {
        match self {
            Self::Following(capture, _) => capture.stacks().get(id),
            Self::Sleepers(_) => None,
        }
    }
}

/// Looks at every thread of process `pid`.
pub fn find(pid: i32, mut eyes: Eyes<'_>, now_ns: u64) -> Found {
    let proc_root = Path::new("/proc");
    let mut notes = Vec::new();
    let tids = match threads(proc_root, pid) {
        Reading::Got(tids) => tids,
        Reading::Absent(absence) => {
            notes.push(absence.detail);
            Vec::new()
        }
    };
    if tids.len() > THREADS_MAX {
        notes.push(format!(
            "{} threads were left out: there are too many",
            tids.len() - THREADS_MAX
        ));
    }
    let ran = match &eyes {
        Eyes::Following(_, rolling) => rolling.last_ran(now_ns.saturating_sub(RECENT_NS)),
        Eyes::Sleepers(_) => BTreeMap::new(),
    };
    let mut found = Vec::new();
    for tid in tids.into_iter().take(THREADS_MAX) {
        let Reading::Got(thread) = probe::read_one_of(proc_root, pid, tid) else { continue };
        let mut one = FoundThread {
            tid,
            name: thread.comm,
            state: thread.state.letter(),
            syscall: None,
            waited_ms: None,
            stack: None,
            how: String::new(),
        };
        match asleep::look(eyes.unwinder(), proc_root, pid, tid) {
            Reading::Got(asleep) => sleeping(&mut one, pid, &asleep, &eyes, now_ns),
            Reading::Absent(absence) => {
                one.stack = ran.get(&tid).and_then(|id| eyes.stack(*id)).cloned();
                one.how = if one.stack.is_some() {
                    String::from("where the CPU clock caught it last")
                } else {
                    format!("no frames: {}", absence.detail)
                };
            }
        }
        found.push(one);
    }
    Found { at_ns: now_ns, threads: found, code: eyes.unwinder().code().clone(), notes }
}

fn sleeping(
    one: &mut FoundThread,
    pid: i32,
    asleep: &asleep::Asleep,
    eyes: &Eyes<'_>,
    now_ns: u64,
) {
    one.syscall = Some(describe(pid, &asleep.call));
    let wait = eyes.wait(one.tid, now_ns);
    // A thread that was asleep when watching began has waited since before.
    one.waited_ms = wait
        .filter(|(_, seen)| *seen)
        .map(|(wait, _)| wait.end_ns.saturating_sub(wait.begin_ns) / 1_000_000);
    let sampled = wait
        .and_then(|(wait, _)| wait.stack)
        .and_then(|id| eyes.stack(id))
        .filter(|stack| stack.guessed_from.is_none() && !stack.user.is_empty());
    if let Some(sampled) = sampled {
        one.stack = Some(sampled.clone());
        one.how = format!("as it was when it went to sleep{}", ending(sampled.end));
        return;
    }
    let stack = raw_of(asleep);
    one.how = match (&asleep.walk, stack.guessed_from) {
        (Reading::Absent(absence), _) => format!("no frames of the program: {}", absence.detail),
        (Reading::Got(walk), None) => {
            format!("read from outside, without stopping it{}", ending(walk.end))
        }
        (Reading::Got(walk), Some(_)) => format!(
            "read from outside, without stopping it; from where it is marked, a frame was searched for, since only the thread itself knows its frame pointer{}",
            ending(walk.end)
        ),
    };
    if let Reading::Absent(absence) = &asleep.kernel {
        one.how.push_str("; no frames of the kernel: ");
        one.how.push_str(&absence.detail);
    }
    one.stack = Some(stack);
}

const fn ending(end: End) -> &'static str {
    match end {
        End::Root => "",
        End::Cut => "; it goes on beyond what was copied of the stack",
        End::Lost => "; beyond this nothing leads further: no unwind table, no frame pointer",
        End::Deep => "; outer frames are cut",
    }
}

/// `read(7 → pipe:[123], …)`.
fn describe(pid: i32, syscall: &Call) -> String {
    if syscall.nr < 0 {
        return String::from("no system call (a page fault, or stopped)");
    }
    let fd = call::fd_of(syscall.nr, &syscall.args);
    let file = fd.and_then(|fd| fds::link_of(Path::new("/proc"), pid, fd).got().cloned());
    call::describe(syscall.nr, &syscall.args, file.as_deref())
}

/// Gives names to what was found.
pub fn name(found: &Found, namer: &mut Namer) -> ThreadStacks {
    namer.learn(&found.code, found.threads.iter().filter_map(|thread| thread.stack.as_ref()));
    let threads = found.threads.iter().map(|thread| ThreadStack {
        tid: thread.tid,
        name: thread.name.clone(),
        state: thread.state,
        syscall: thread.syscall.clone(),
        waited_ms: thread.waited_ms,
        frames: thread.stack.as_ref().map(|stack| frames(stack, namer)).unwrap_or_default(),
        how: thread.how.clone(),
    });
    ThreadStacks { at_ns: found.at_ns, threads: threads.collect(), notes: found.notes.clone() }
}

fn frames(stack: &RawStack, namer: &Namer) -> Vec<StackFrame> {
    let mut stacks = Stacks::default();
    let id = stacks.id_of(RawStack { end: End::Root, ..stack.clone() });
    let named = build::name_one(&stacks, id, namer.symbols());
    named
        .into_iter()
        .rev()
        .map(|(frame, module)| {
            let Frame { function, file, line, space, inlined, guessed, .. } = frame;
            let place = file.map(|file| match line {
                Some(line) => format!("{file}:{line}"),
                None => file,
            });
            StackFrame { function, module, place, space, inlined, guessed }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn every_end_but_the_root_says_what_is_missing() {
        assert_eq!(ending(End::Root), "");
        for end in [End::Cut, End::Lost, End::Deep] {
            assert!(ending(end).starts_with("; "), "{end:?}");
        }
    }

    #[test]
    fn who_waits_in_no_call_is_told_so() {
        let call = Call { nr: -1, args: [0; 6], sp: 0, ip: 0 };
        assert_eq!(describe(1, &call), "no system call (a page fault, or stopped)");
    }

    /// This very process: one thread that waits, and one that never does.
    #[test]
    fn who_sleeps_is_read_and_who_runs_says_why_not() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        let (go_on, wait) = channel::<()>();
        let (tell, told) = channel();
        let waiting =
            std::thread::Builder::new().name(String::from("waits-here")).spawn(move || {
                tell.send(rustix::thread::gettid()).expect("heard");
                wait.recv().ok();
            });
        let waiting = waiting.expect("a thread");
        let waiter = told.recv().expect("said").as_raw_nonzero().get();
        let (tell, told) = channel();
        let enough = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&enough);
        let running = std::thread::spawn(move || {
            tell.send(rustix::thread::gettid()).expect("heard");
            while !until.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let runner = told.recv().expect("said").as_raw_nonzero().get();
        let Reading::Got(mut unwinder) = Unwinder::new(Path::new("/proc"), own) else {
            panic!("its own mappings may be read")
        };
        let (sleeps, runs) = loop {
            let mut found = find(own, Eyes::Sleepers(&mut unwinder), 5);
            assert_eq!(found.at_ns, 5);
            let mut take = |tid| {
                let at = found.threads.iter().position(|thread| thread.tid == tid);
                found.threads.swap_remove(at.expect("it is there"))
            };
            let (sleeps, runs) = (take(waiter), take(runner));
            // Until the one sleeps, and the other has come out of telling its number.
            if sleeps.syscall.is_some() && runs.syscall.is_none() {
                break (sleeps, runs);
            }
        };
        enough.store(true, Ordering::Relaxed);
        running.join().expect("it ends");
        drop(go_on);
        waiting.join().expect("it ends");
        assert_eq!(
            (sleeps.name.as_str(), sleeps.state, sleeps.waited_ms),
            ("waits-here", 'S', None)
        );
        let call = sleeps.syscall.unwrap_or_default();
        assert!(call.starts_with("futex(0x") && call.contains("FUTEX_WAIT"), "{call}");
        assert_eq!(sleeps.how, "read from outside, without stopping it");
        let stack = sleeps.stack.expect("a stack");
        assert!(stack.user.len() > 3 && stack.guessed_from.is_none(), "{stack:x?}");
        assert_eq!(runs.stack, None);
        assert!(runs.how.starts_with("no frames: "), "{}", runs.how);
    }
}
