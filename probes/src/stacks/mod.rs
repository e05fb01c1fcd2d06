//! Stacks of another process: of threads that run, of threads that wait, and how long they do.
//!
//! ```text
//! event, buffer   open events on its threads, and take the kernel's records out of their rings
//! record          bytes to records                                                        (pure)
//! code, functions where its code lies, and the files' unwind tables
//! unwind          registers and a copy of the stack to return addresses
//! search          the frame of a function of which the frame pointer is not known
//! follow          records to stretches of running and waiting                             (pure)
//! burden          how often it switches: whether events of its threads would be felt
//! capture         all of these together, for one process
//! asleep          the stack of a thread that sleeps, for which no event will come
//! symbols         addresses to names
//! ```
//!
//! Nothing here stops, signals or attaches to the target. A sample costs the target's thread a few
//! microseconds (the kernel copies registers, the call chain and a piece of the stack); each switch of a
//! thread that has events about one, which is why there are none on threads that switch too often.

pub mod asleep;
mod buffer;
pub mod burden;
pub mod capture;
pub mod code;
mod cpus;
mod event;
pub mod follow;
mod functions;
pub mod record;
mod search;
pub mod symbols;
pub mod unwind;

use std::collections::HashMap;

use follow::StackId;
use unwind::End;

/// Distinct stacks kept.
pub const STACKS_MAX: usize = 50_000;

/// A stack before it has names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RawStack {
    /// The kernel's frames, innermost first.
    pub kernel: Vec<u64>,
    /// The kernel's frames where it told names only.
    pub kernel_names: Vec<String>,
    /// The program's frames, innermost first: the first an instruction, the others return addresses.
    pub user: Vec<u64>,
    /// From this one of `user` on they were found by searching.
    pub guessed_from: Option<usize>,
    /// Why there are no more.
    pub end: End,
}

/// Stacks, each once.
#[derive(Debug, Default)]
pub struct Stacks {
    by_id: Vec<RawStack>,
    ids: HashMap<RawStack, StackId>,
}

impl Stacks {
    /// The number of a stack; `None` when there are too many different ones.
    pub fn id_of(&mut self, stack: RawStack) -> Option<StackId> {
        if let Some(id) = self.ids.get(&stack) {
            return Some(*id);
        }
        let id =
            StackId::try_from(self.by_id.len()).ok().filter(|_| self.by_id.len() < STACKS_MAX)?;
        self.by_id.push(stack.clone());
        self.ids.insert(stack, id);
        Some(id)
    }

    /// The stack of that number.
    pub fn get(&self, id: StackId) -> Option<&RawStack> {
        self.by_id.get(id as usize)
    }

    /// Every stack, by number.
    pub fn iter(&self) -> impl Iterator<Item = &RawStack> {
        self.by_id.iter()
    }

    /// Only these stacks, and their new numbers by the old ones.
    pub fn part(
        &self,
        ids: impl IntoIterator<Item = StackId>,
    ) -> (Self, HashMap<StackId, StackId>) {
        let mut part = Self::default();
        let mut new = HashMap::new();
        for id in ids {
            if let Some(stack) = self.get(id).cloned()
                && let Some(number) = part.id_of(stack)
            {
                new.insert(id, number);
            }
        }
        (part, new)
    }

    /// Whether so many different ones were seen that it is time to begin anew.
    pub fn is_full(&self) -> bool {
        self.by_id.len() >= STACKS_MAX
    }
}
