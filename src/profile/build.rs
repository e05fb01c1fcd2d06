//! From what was caught of a process to a profile with names. Pure: the names have been learnt.
//!
//! Waits are weighed by how long they lasted. Not of every one is the place known, but its length is:
//! it is spread over those of the same thread of which the place is known, short ones over short
//! ones and long ones over long ones. Where there is none, a wait has no frames, and says so.

use std::collections::{BTreeMap, HashMap};

use stallscope_probes::stacks::follow::{Caught, StackId, Wait};
use stallscope_probes::stacks::symbols::{Place, Symbols};
use stallscope_probes::stacks::unwind::End;
use stallscope_probes::stacks::{RawStack, Stacks};

use super::qualify;
use super::stacks::{Frame, Kind, Maker, Module, Profile, Sample, Space, Stack, Thread};

/// Waits at least this long are not like shorter ones, ns.
const LONG_NS: u64 = 50_000_000;
/// Samples kept in one profile.
pub const SAMPLES_MAX: usize = 1_000_000;
/// Name of the innermost frame of a thread that would have run on.
pub const PREEMPTED: &str = "(waiting for a CPU)";
/// Name of the outermost frame where a stack could not be followed to its end.
pub const LOST: &str = "(the rest is not known)";

/// What is needed beside what was caught.
#[derive(Debug, Clone, Copy)]
pub struct Material<'a> {
    /// Stacks by number.
    pub stacks: &'a Stacks,
    /// Names, learnt before.
    pub symbols: &'a Symbols,
    /// Names of threads.
    pub threads: &'a BTreeMap<i32, String>,
    /// Process id.
    pub pid: i32,
    /// Its name.
    pub comm: &'a str,
    /// Samples a second of CPU time.
    pub hz: u32,
}

/// The profile of one kind between two instants (ns).
pub fn build(
    kind: Kind,
    begin_ns: u64,
    end_ns: u64,
    caught: &[Caught],
    material: &Material<'_>,
) -> Profile {
    let mut builder = Builder::new(material);
    let ran = kind != Kind::OffCpu;
    let waited = kind != Kind::Cpu;
    let spread = Spread::over(caught.iter().filter_map(|caught| clipped(caught, begin_ns, end_ns)));
    for caught in caught {
        match caught {
            Caught::Ran { at_ns, tid, stack, period_ns }
                if ran && (begin_ns..end_ns).contains(at_ns) =>
            {
                let stack = builder.stack(Some(*stack), false);
                builder.sample(*at_ns, *tid, stack, *period_ns, true);
            }
            Caught::Waited(_) if waited => {
                let Some(wait) = clipped(caught, begin_ns, end_ns) else { continue };
                let Some(weight_ns) = spread.weight_ns(&wait) else { continue };
                let stack = builder.stack(wait.stack, wait.preempted);
                builder.sample(wait.end_ns, wait.tid, stack, weight_ns, false);
            }
            Caught::Ran { .. } | Caught::Waited(_) => {}
        }
    }
    builder.finish(kind, begin_ns, end_ns)
}

/// The part of a wait that lies between two instants.
fn clipped(caught: &Caught, begin_ns: u64, end_ns: u64) -> Option<Wait> {
    let Caught::Waited(wait) = caught else { return None };
    let (begin_ns, end_ns) = (wait.begin_ns.max(begin_ns), wait.end_ns.min(end_ns));
    (begin_ns < end_ns).then_some(Wait { begin_ns, end_ns, ..*wait })
}

/// How much longer each thread's known waits count, for those of which the place is not known: short
/// ones for short ones, long ones for long ones.
struct Spread(HashMap<(i32, bool), (u64, u64)>);

impl Spread {
    fn over(waits: impl Iterator<Item = Wait>) -> Self {
        let mut sums: HashMap<(i32, bool), (u64, u64)> = HashMap::new();
        for wait in waits {
            let (known_ns, others_ns) = sums.entry(Self::class(&wait)).or_default();
            *(if wait.stack.is_some() { known_ns } else { others_ns }) += length_ns(&wait);
        }
        Self(sums)
    }

    const fn class(wait: &Wait) -> (i32, bool) {
        (wait.tid, length_ns(wait) >= LONG_NS)
    }

    /// What a wait counts, ns; `None` when it is spread over others.
    fn weight_ns(&self, wait: &Wait) -> Option<u64> {
        let (known_ns, others_ns) = self.0.get(&Self::class(wait)).copied().unwrap_or_default();
        let length_ns = length_ns(wait);
        if known_ns == 0 {
            return Some(length_ns);
        }
        wait.stack?;
        let total_ns = u128::from(known_ns) + u128::from(others_ns);
        u64::try_from(u128::from(length_ns) * total_ns / u128::from(known_ns)).ok()
    }
}

const fn length_ns(wait: &Wait) -> u64 {
    wait.end_ns.saturating_sub(wait.begin_ns)
}

struct Builder<'a> {
    material: &'a Material<'a>,
    modules: Vec<Module>,
    module_ids: HashMap<String, u32>,
    frames: Vec<Frame>,
    frame_ids: HashMap<Frame, u32>,
    stacks: Vec<Stack>,
    stack_ids: HashMap<Stack, u32>,
    threads: Vec<Thread>,
    thread_ids: HashMap<i32, u32>,
    named: HashMap<(StackId, bool), Option<u32>>,
    samples: Vec<Sample>,
    left_out: u64,
}

impl<'a> Builder<'a> {
    fn new(material: &'a Material<'a>) -> Self {
        Self {
            material,
            modules: Vec::new(),
            module_ids: HashMap::new(),
            frames: Vec::new(),
            frame_ids: HashMap::new(),
            stacks: Vec::new(),
            stack_ids: HashMap::new(),
            threads: Vec::new(),
            thread_ids: HashMap::new(),
            named: HashMap::new(),
            samples: Vec::new(),
            left_out: 0,
        }
    }

    fn sample(&mut self, at_ns: u64, tid: i32, stack: Option<u32>, weight_ns: u64, on_cpu: bool) {
        if self.samples.len() >= SAMPLES_MAX {
            self.left_out += 1;
            return;
        }
        let thread = self.thread(tid);
        self.samples.push(Sample { at_ns, thread, stack, weight_ns, on_cpu });
    }

    fn thread(&mut self, tid: i32) -> u32 {
        let names = self.material.threads;
        *self.thread_ids.entry(tid).or_insert_with(|| {
            let name = names.get(&tid).filter(|name| !name.is_empty());
            self.threads
                .push(Thread { tid, name: name.cloned().unwrap_or_else(|| tid.to_string()) });
            self.threads.len() as u32 - 1
        })
    }

    /// The named stack of a raw one.
    fn stack(&mut self, id: Option<StackId>, preempted: bool) -> Option<u32> {
        let id = id?;
        if let Some(known) = self.named.get(&(id, preempted)) {
            return *known;
        }
        let stack = self.material.stacks.get(id).and_then(|raw| self.name(raw, preempted));
        self.named.insert((id, preempted), stack);
        stack
    }

    fn name(&mut self, raw: &RawStack, preempted: bool) -> Option<u32> {
        let mut stack = None;
        if raw.end != End::Root && !raw.user.is_empty() {
            let frame = said(if raw.end == End::Deep { "(outer frames cut)" } else { LOST });
            stack = Some(self.push(stack, frame));
        }
        for (depth, address) in raw.user.iter().enumerate().rev() {
            let guessed = raw.guessed_from.is_some_and(|from| depth >= from);
            let lookup = lookup_address(*address, depth);
            let place = self.material.symbols.user(lookup).cloned();
            let place = place.unwrap_or_else(|| Place { address: lookup, ..Place::default() });
            stack = self.push_place(stack, &place, Space::User, guessed);
        }
        for (depth, address) in raw.kernel.iter().enumerate().rev() {
            let lookup = lookup_address(*address, depth);
            let place = self.material.symbols.kernel(lookup).cloned();
            let place = place.unwrap_or_else(|| Place { address: lookup, ..Place::default() });
            stack = self.push_place(stack, &place, Space::Kernel, false);
        }
        for name in raw.kernel_names.iter().rev() {
            stack = Some(self.push(stack, Frame { space: Space::Kernel, ..said(name) }));
        }
        if preempted {
            stack = Some(self.push(stack, Frame { space: Space::Kernel, ..said(PREEMPTED) }));
        }
        stack
    }

    fn push_place(
        &mut self,
        mut stack: Option<u32>,
        place: &Place,
        space: Space,
        guessed: bool,
    ) -> Option<u32> {
        let module = place.module.as_ref().map(|path| self.module(path));
        let frame = |function: String| Frame {
            module,
            address: place.address,
            space,
            guessed,
            ..said(&function)
        };
        if place.functions.is_empty() {
            return Some(self.push(stack, frame(unnamed(place))));
        }
        for named in &place.functions {
            let frame = Frame {
                file: named.file.clone(),
                line: named.line,
                inlined: named.inlined,
                ..frame(qualify::qualified(&named.function, named.file.as_deref()))
            };
            stack = Some(self.push(stack, frame));
        }
        stack
    }

    fn push(&mut self, parent: Option<u32>, frame: Frame) -> u32 {
        let frame = if let Some(id) = self.frame_ids.get(&frame) {
            *id
        } else {
            let id = self.frames.len() as u32;
            self.frames.push(frame.clone());
            self.frame_ids.insert(frame, id);
            id
        };
        let stack = Stack { parent, frame };
        *self.stack_ids.entry(stack).or_insert_with(|| {
            self.stacks.push(stack);
            self.stacks.len() as u32 - 1
        })
    }

    fn module(&mut self, path: &str) -> u32 {
        if let Some(id) = self.module_ids.get(path) {
            return *id;
        }
        let id = self.modules.len() as u32;
        let build_id = self.material.symbols.build_id(path).map(str::to_owned);
        self.modules.push(Module { path: path.to_owned(), build_id });
        self.module_ids.insert(path.to_owned(), id);
        id
    }

    fn finish(mut self, kind: Kind, begin_ns: u64, end_ns: u64) -> Profile {
        self.samples.sort_by_key(|sample| sample.at_ns);
        let mut notes = Vec::new();
        if self.left_out > 0 {
            notes.push(format!("{} samples beyond {SAMPLES_MAX} were left out", self.left_out));
        }
        Profile {
            kind,
            maker: Maker::Watcher,
            pid: self.material.pid,
            comm: self.material.comm.to_owned(),
            begin_ns,
            end_ns,
            hz: self.material.hz,
            threads: self.threads,
            modules: self.modules,
            frames: self.frames,
            stacks: self.stacks,
            samples: self.samples,
            notes,
        }
    }
}

/// The frames of one stack with their modules, outermost first.
pub fn name_one(
    stacks: &Stacks,
    id: Option<StackId>,
    symbols: &Symbols,
) -> Vec<(Frame, Option<String>)> {
    let threads = BTreeMap::new();
    let material = Material { stacks, symbols, threads: &threads, pid: 0, comm: "", hz: 0 };
    let mut builder = Builder::new(&material);
    let stack = builder.stack(id, false);
    let profile = builder.finish(Kind::Wall, 0, 0);
    let module = |frame: &Frame| {
        let module = frame.module.and_then(|module| profile.modules.get(module as usize));
        module.map(|module| module.path.clone())
    };
    let frames = profile.frames_of(stack).into_iter();
    frames.map(|frame| (frame.clone(), module(frame))).collect()
}

/// The address to look a frame's name up by: that of a return address lies within the call before
/// it. Only the innermost frame has the address of what is executed next.
pub const fn lookup_address(address: u64, depth: usize) -> u64 {
    if depth == 0 { address } else { address.wrapping_sub(1) }
}

/// Addresses to learn the names of, of the program and of the kernel.
pub fn addresses(stack: &RawStack) -> (Vec<u64>, Vec<u64>) {
    let lookups = |addresses: &[u64]| {
        addresses
            .iter()
            .enumerate()
            .map(|(depth, address)| lookup_address(*address, depth))
            .collect()
    };
    (lookups(&stack.user), lookups(&stack.kernel))
}

/// A frame that is only a name.
fn said(function: &str) -> Frame {
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

/// `file+0x1f` or `0x7f001f`.
fn unnamed(place: &Place) -> String {
    place.module.as_ref().map_or_else(
        || format!("{:#x}", place.address),
        |path| {
            let file = path.rsplit('/').next().unwrap_or(path);
            format!("{file}+{:#x}", place.address)
        },
    )
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
