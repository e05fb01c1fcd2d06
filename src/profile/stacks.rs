//! Stacks with names: what was caught, before it is folded, drawn or written in somebody's format.
//!
//! A [`Profile`] keeps what folded lines lose: instants, threads, modules, addresses, lines of
//! source. Frames and stacks are stored once; a sample names its stack by number. Names stem from
//! the observed process: hostile text.

use serde::{Deserialize, Serialize};

/// What is counted, and in what unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Threads that run, in samples.
    Cpu,
    /// Threads that wait, by how long, in microseconds.
    OffCpu,
    /// All threads, whatever they do, in microseconds.
    Wall,
}

impl Kind {
    /// What a count in folded text of this kind is.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Cpu => "samples",
            Self::OffCpu | Self::Wall => "µs",
        }
    }
}

/// Who made a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Maker {
    /// The process itself (pprof: `ITIMER_PROF`), handed over in shared memory.
    Itself,
    /// The watcher, from outside (`perf_event_open`, procfs).
    Watcher,
}

/// Where a frame's code runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Space {
    /// In the program.
    User,
    /// In the kernel.
    Kernel,
}

/// One function in a stack.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Frame {
    /// Its name, demangled; `module+0x1f` where there is no symbol.
    pub function: String,
    /// Source file, where the binary tells.
    pub file: Option<String>,
    /// Line in it.
    pub line: Option<u32>,
    /// Index into [`Profile::modules`].
    pub module: Option<u32>,
    /// Address within the module's file (its virtual address, as symbols have it), or the absolute
    /// one of a frame without module.
    pub address: u64,
    /// Kernel or program.
    pub space: Space,
    /// The compiler merged it into its caller.
    pub inlined: bool,
    /// Found by searching the stack for what looks like a frame, not by following it.
    pub guessed: bool,
}

/// A file with code in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Module {
    /// Its path as the target sees it, `[vdso]` or `[kernel]`.
    pub path: String,
    /// GNU build id, hexadecimal.
    pub build_id: Option<String>,
}

/// A thread.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Thread {
    /// Thread id.
    pub tid: i32,
    /// Its name.
    pub name: String,
}

/// A stack as a node of a tree: its innermost frame and the stack below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stack {
    /// Index of the caller's stack in [`Profile::stacks`], always lower than this one's; `None` for
    /// the outermost frame.
    pub parent: Option<u32>,
    /// Index into [`Profile::frames`].
    pub frame: u32,
}

/// A thread caught at an instant, or waiting until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sample {
    /// When, `CLOCK_MONOTONIC` ns; of a wait, its end.
    pub at_ns: u64,
    /// Index into [`Profile::threads`].
    pub thread: u32,
    /// Index into [`Profile::stacks`]; `None`: no frame could be had.
    pub stack: Option<u32>,
    /// The time it stands for, ns.
    pub weight_ns: u64,
    /// The time it stands for was spent on a CPU.
    pub on_cpu: bool,
}

/// Stacks of one process over one stretch of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// What is counted.
    pub kind: Kind,
    /// Who made it.
    pub maker: Maker,
    /// Process id.
    pub pid: i32,
    /// Its name.
    pub comm: String,
    /// Begin, `CLOCK_MONOTONIC` ns.
    pub begin_ns: u64,
    /// End, ns.
    pub end_ns: u64,
    /// Samples taken a second of CPU time; of [`Kind::OffCpu`], at most so many a second and thread.
    pub hz: u32,
    /// Threads, by tid.
    pub threads: Vec<Thread>,
    /// Files.
    pub modules: Vec<Module>,
    /// Frames, each once.
    pub frames: Vec<Frame>,
    /// Stacks, each once, callers first.
    pub stacks: Vec<Stack>,
    /// Samples, oldest first.
    pub samples: Vec<Sample>,
    /// What it could not see, one sentence each.
    pub notes: Vec<String>,
}

impl Profile {
    /// The frames of a stack, outermost first. An index out of range ends it.
    pub fn frames_of(&self, stack: Option<u32>) -> Vec<&Frame> {
        let mut frames = Vec::new();
        let mut next = stack;
        while let Some(stack) = next.and_then(|index| self.stacks.get(index as usize)) {
            frames.extend(self.frames.get(stack.frame as usize));
            // Callers stand before what they called: the walk ends even in a damaged table.
            next = stack.parent.filter(|parent| Some(*parent) < next);
        }
        frames.reverse();
        frames
    }

    /// Its length, ns.
    pub const fn length_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.begin_ns)
    }
}

/// The whole stacks of a process's threads at one instant, as far as they could be read without
/// stopping any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadStacks {
    /// When, `CLOCK_MONOTONIC` ns.
    pub at_ns: u64,
    /// By tid.
    pub threads: Vec<ThreadStack>,
    /// What could not be read, one sentence each.
    pub notes: Vec<String>,
}

/// One thread's stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadStack {
    /// Thread id.
    pub tid: i32,
    /// Its name.
    pub name: String,
    /// The state's letter in `/proc/PID/task/TID/stat`.
    pub state: char,
    /// The system call with its arguments, as far as known: `futex(0x7f…, FUTEX_WAIT_PRIVATE, …)`.
    pub syscall: Option<String>,
    /// How long it has waited there, ms; absent where its beginning was not seen.
    pub waited_ms: Option<u64>,
    /// Innermost first: the kernel's frames, then the program's.
    pub frames: Vec<StackFrame>,
    /// How the program's frames were had, and why they end where they end: one sentence.
    pub how: String,
}

/// One frame of a [`ThreadStack`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackFrame {
    /// Function, demangled.
    pub function: String,
    /// File of the code.
    pub module: Option<String>,
    /// `file:line` of the source.
    pub place: Option<String>,
    /// Kernel or program.
    pub space: Space,
    /// The compiler merged it into its caller.
    pub inlined: bool,
    /// Found by searching, not by following.
    pub guessed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str) -> Frame {
        Frame {
            function: function.to_owned(),
            file: None,
            line: None,
            module: None,
            address: 0,
            space: Space::User,
            inlined: false,
            guessed: false,
        }
    }

    #[test]
    fn a_stack_is_read_from_the_outside_in_and_a_damaged_table_ends() {
        let mut profile = Profile {
            kind: Kind::Cpu,
            maker: Maker::Watcher,
            pid: 1,
            comm: String::new(),
            begin_ns: 5,
            end_ns: 3,
            hz: 99,
            threads: Vec::new(),
            modules: Vec::new(),
            frames: vec![frame("main"), frame("run"), frame("poll")],
            stacks: vec![
                Stack { parent: None, frame: 0 },
                Stack { parent: Some(0), frame: 1 },
                Stack { parent: Some(1), frame: 2 },
            ],
            samples: Vec::new(),
            notes: Vec::new(),
        };
        let names = |profile: &Profile, stack| -> Vec<String> {
            profile.frames_of(stack).iter().map(|frame| frame.function.clone()).collect()
        };
        assert_eq!(names(&profile, Some(2)), ["main", "run", "poll"]);
        assert!(names(&profile, None).is_empty());
        assert!(names(&profile, Some(9)).is_empty());
        assert_eq!(profile.length_ns(), 0);
        profile.stacks[0].parent = Some(2);
        assert_eq!(names(&profile, Some(2)), ["main", "run", "poll"], "a loop ends");
    }
}
