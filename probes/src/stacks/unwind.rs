//! From registers and a copy of the stack to return addresses.
//!
//! Unwind tables (`.eh_frame`) where the code has them, frame pointers where it has not; framehop
//! does both. Where the copy of the stack ends too early, the kernel's own walk along the frame
//! pointers goes on, from the first address that both have found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use framehop::{
    CacheNative, Error, FrameAddress, MayAllocateDuringUnwind, Module, UnwindRegsNative,
    Unwinder as _, UnwinderNative,
};

use super::code::{self, Code, Mapping};
use super::functions::Functions;
use super::record::Registers;
use super::search::{self, Place};
use crate::reading::{Absence, Reading};

/// Frames kept of one stack, of the innermost.
pub const FRAMES_MAX: usize = 256;

/// Files of which it is remembered why they have no tables.
const UNREAD_MAX: usize = 256;

/// Stands for a frame pointer that is not known: no address of a stack, and not 0, which would mean
/// that the stack ends here.
const UNKNOWN_POINTER: u64 = 1;

/// Why a stack ends where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// At its outermost function.
    Root,
    /// What had been copied of the stack was too short.
    Cut,
    /// No rule leads further: neither unwind tables nor frame pointers.
    Lost,
    /// There are more than [`FRAMES_MAX`].
    Deep,
}

/// Addresses, innermost first; all but the first are return addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Walk {
    /// Addresses of the program.
    pub frames: Vec<u64>,
    /// From this frame on they were found by searching, not by following.
    pub guessed_from: Option<usize>,
    /// Why there are no more.
    pub end: End,
}

/// The code of one process, and the rules that lead from frame to frame.
pub struct Unwinder {
    proc_root: PathBuf,
    pid: i32,
    code: Code,
    inner: UnwinderNative<Vec<u8>, MayAllocateDuringUnwind>,
    cache: CacheNative<MayAllocateDuringUnwind>,
    functions: BTreeMap<u64, Functions>,
    /// Files whose tables could not be read.
    unread: BTreeMap<String, Absence>,
}

impl std::fmt::Debug for Unwinder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unwinder").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl Unwinder {
    /// For process `pid`: reads its mappings and the unwind tables of its files.
    pub fn new(proc_root: &Path, pid: i32) -> Reading<Self> {
        let mut unwinder = Self {
            proc_root: proc_root.to_owned(),
            pid,
            code: Code::default(),
            inner: UnwinderNative::new(),
            cache: CacheNative::new(),
            functions: BTreeMap::new(),
            unread: BTreeMap::new(),
        };
        unwinder.refresh().map(|()| unwinder)
    }

    /// Looks at the mappings again: something was loaded or unloaded.
    pub fn refresh(&mut self) -> Reading<()> {
        Code::read(&self.proc_root, self.pid).map(|code| {
            let gone: Vec<u64> = self
                .code
                .mappings()
                .iter()
                .filter(|old| !code.mappings().contains(old))
                .map(|old| old.start)
                .collect();
            for start in gone {
                self.inner.remove_module(start);
                self.functions.remove(&start);
            }
            let new: Vec<Mapping> = code
                .mappings()
                .iter()
                .filter(|mapping| mapping.has_file() && !self.code.mappings().contains(mapping))
                .cloned()
                .collect();
            for mapping in new {
                self.load(&mapping);
            }
            self.code = code;
        })
    }

    fn load(&mut self, mapping: &Mapping) {
        let tables = code::path_to_open(&self.proc_root, self.pid, mapping)
            .and_then(|path| code::tables(&path, mapping));
        match tables {
            Reading::Got(tables) => {
                self.functions.insert(mapping.start, Functions::of(&tables));
                let range = mapping.start..mapping.end;
                let name = mapping.name().to_owned();
                self.inner.add_module(Module::new(name, range, tables.bias, tables.sections));
            }
            Reading::Absent(absence) if self.unread.len() < UNREAD_MAX => {
                self.unread.insert(mapping.name().to_owned(), absence);
            }
            Reading::Absent(_) => {}
        }
    }

    /// The executable mappings.
    pub const fn code(&self) -> &Code {
        &self.code
    }

    /// Files whose unwind tables could not be read, with the reason.
    pub const fn unread(&self) -> &BTreeMap<String, Absence> {
        &self.unread
    }

    /// From a sample: registers, the copied stack, and the kernel's walk by frame pointers.
    pub fn walk(&mut self, registers: Registers, stack: &[u8], by_pointers: &[u64]) -> Walk {
        let copied = Copied { base: registers.sp, bytes: stack };
        let mut walk = self.follow(registers, &mut |address| copied.word(address).ok_or(()));
        if walk.end != End::Root && walk.end != End::Deep {
            self.continue_by_pointers(&mut walk, by_pointers);
        }
        walk
    }

    /// Follows the rules as far as they lead.
    fn follow(&mut self, start: Registers, word: &mut impl FnMut(u64) -> Result<u64, ()>) -> Walk {
        let mut registers = native(start);
        let mut frames = Vec::new();
        let mut address = FrameAddress::from_instruction_pointer(start.ip);
        let end = loop {
            frames.push(address.address());
            if frames.len() >= FRAMES_MAX {
                break End::Deep;
            }
            let next = self.inner.unwind_frame(address, &mut registers, &mut self.cache, word);
            match self.step(next) {
                Ok(next) => address = next,
                Err(end) => break end,
            }
        };
        Walk { frames, guessed_from: None, end }
    }

    /// Where the walk goes on, or why it ends.
    fn step(&self, next: Result<Option<u64>, Error>) -> Result<FrameAddress, End> {
        match next {
            Ok(None) | Err(Error::ReturnAddressIsNull) => Err(End::Root),
            Err(Error::CouldNotReadStack(_)) => Err(End::Cut),
            Err(_) => Err(End::Lost),
            // A return address that is no code is the way garbage looks.
            Ok(Some(back)) => FrameAddress::from_return_address(back)
                .filter(|next| self.is_code(next.address()))
                .ok_or(End::Lost),
        }
    }

    /// Appends what the kernel found beyond the last address that both know.
    fn continue_by_pointers(&self, walk: &mut Walk, by_pointers: &[u64]) {
        let is_code = |address: &&u64| self.code.at(**address).is_some();
        let joint = walk.frames.iter().enumerate().rev().find_map(|(ours, address)| {
            let theirs = by_pointers.iter().position(|other| other == address)?;
            (ours > 0 || theirs == 0).then_some((ours, theirs))
        });
        let Some((ours, theirs)) = joint else { return };
        let rest = by_pointers.get(theirs + 1..).unwrap_or_default();
        let whole = rest.len();
        let rest: Vec<u64> = rest.iter().take_while(is_code).copied().collect();
        // The kernel skips the caller of a function that has not yet made its frame: only a walk
        // that leads further is worth having.
        if ours + 1 + rest.len() > walk.frames.len() {
            walk.frames.truncate(ours + 1);
            walk.end = match rest.len() {
                known if ours + 1 + known > FRAMES_MAX => End::Deep,
                known if known < whole => End::Lost,
                _ => End::Root,
            };
            walk.frames.extend(rest);
            walk.frames.truncate(FRAMES_MAX);
        }
    }

    /// From what can be known of a thread that sleeps, without stopping it: where it is, its stack,
    /// and `memory`, which reads eight bytes of the process. The frame pointer is not known: where a
    /// rule needs it, the stack is searched for the frame ([`search`]).
    pub fn walk_asleep(
        &mut self,
        ip: u64,
        sp: u64,
        stack: &[u8],
        memory: &dyn Fn(u64) -> Option<[u8; 8]>,
    ) -> Walk {
        let copied = Copied { base: sp, bytes: stack };
        let mut registers = native(Registers { ip, sp, bp: UNKNOWN_POINTER });
        let mut frames = Vec::new();
        let mut searched = false;
        let mut guessed_from = None;
        let mut address = FrameAddress::from_instruction_pointer(ip);
        let end = loop {
            frames.push(address.address());
            if frames.len() >= FRAMES_MAX {
                break End::Deep;
            }
            let mut word = |address| copied.word(address).ok_or(());
            let before = registers;
            let mut next =
                self.inner.unwind_frame(address, &mut registers, &mut self.cache, &mut word);
            if next.is_err() && !searched {
                searched = true;
                registers = before;
                let place = Place {
                    function: self.function_of(address.address_for_lookup()),
                    sp: registers.sp(),
                    stack: &copied,
                    memory,
                };
                if let Some((pointer, sure)) = search::frame(self, &place) {
                    guessed_from = (!sure).then_some(frames.len());
                    registers.set_bp(pointer);
                    let (cache, inner) = (&mut self.cache, &self.inner);
                    next = inner.unwind_frame(address, &mut registers, cache, &mut word);
                }
            }
            match self.step(next) {
                Ok(next) => address = next,
                Err(end) => break end,
            }
        };
        // Found by searching, but nothing came of it.
        let guessed_from = guessed_from.filter(|from| *from < frames.len());
        Walk { frames, guessed_from, end }
    }

    /// Whether code lies there.
    pub(super) fn is_code(&self, address: u64) -> bool {
        self.code.at(address).is_some()
    }

    /// First address of the function at `address`, from the index of the unwind tables.
    pub(super) fn function_of(&self, address: u64) -> Option<u64> {
        let mapping = self.code.at(address)?;
        self.functions.get(&mapping.start)?.begin_of(address)
    }
}

/// What was copied of a stack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copied<'a> {
    /// Address of the first byte.
    pub base: u64,
    /// From there on.
    pub bytes: &'a [u8],
}

impl Copied<'_> {
    /// The word at an address of the process, if it was copied.
    pub fn word(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.wrapping_sub(self.base)).ok()?;
        let bytes = self.bytes.get(at..).and_then(|bytes| bytes.first_chunk())?;
        Some(u64::from_ne_bytes(*bytes))
    }
}

#[cfg(target_arch = "x86_64")]
fn native(registers: Registers) -> UnwindRegsNative {
    UnwindRegsNative::new(registers.ip, registers.sp, registers.bp)
}

/// The link register is not asked for: at a system call or in the middle of a function the frame
/// holds the return address.
#[cfg(target_arch = "aarch64")]
fn native(registers: Registers) -> UnwindRegsNative {
    UnwindRegsNative::new(0, registers.sp, registers.bp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unwinder() -> Unwinder {
        Unwinder {
            proc_root: PathBuf::new(),
            pid: 1,
            code: Code::parse(b"1000-9000 r-xp 00000000 00:00 0\n"),
            inner: UnwinderNative::new(),
            cache: CacheNative::new(),
            functions: BTreeMap::new(),
            unread: BTreeMap::new(),
        }
    }

    fn continued(frames: &[u64], by_pointers: &[u64]) -> Walk {
        let mut walk = Walk { frames: frames.to_vec(), guessed_from: None, end: End::Cut };
        unwinder().continue_by_pointers(&mut walk, by_pointers);
        walk
    }

    #[test]
    fn the_kernels_walk_goes_on_from_the_last_address_that_both_know() {
        type Frames = &'static [u64];
        // Ours, the kernel's, what comes of it, and why it ends.
        let cases: [(Frames, Frames, Frames, End); 9] = [
            (
                &[0x1000, 0x2000],
                &[0x1000, 0x2000, 0x3000, 0x4000],
                &[0x1000, 0x2000, 0x3000, 0x4000],
                End::Root,
            ),
            // The kernel has skipped the caller of a function without a frame of its own.
            (
                &[0x1000, 0x2000, 0x3000],
                &[0x1000, 0x3000, 0x4000],
                &[0x1000, 0x2000, 0x3000, 0x4000],
                End::Root,
            ),
            // What we found beyond the joint is not on its way: the longer way is believed.
            (
                &[0x1000, 0x2000, 0x2100],
                &[0x1000, 0x2000, 0x3000, 0x4000],
                &[0x1000, 0x2000, 0x3000, 0x4000],
                End::Root,
            ),
            (&[0x1000], &[0x1000, 0x2000], &[0x1000, 0x2000], End::Root),
            // The first address is where the thread is: as a return address it is another frame.
            (&[0x2000], &[0x1000, 0x2000, 0x3000], &[0x2000], End::Cut),
            (&[0x1000, 0x2000], &[0x3000, 0x4000], &[0x1000, 0x2000], End::Cut),
            (&[0x1000, 0x2000], &[], &[0x1000, 0x2000], End::Cut),
            // No gain.
            (&[0x1000, 0x2000, 0x3000], &[0x1000, 0x4000], &[0x1000, 0x2000, 0x3000], End::Cut),
            // A register that is used for something else leads to what is no code.
            (
                &[0x1000, 0x2000],
                &[0x1000, 0x2000, 0x3000, 0xdead_0000, 0x4000],
                &[0x1000, 0x2000, 0x3000],
                End::Lost,
            ),
        ];
        for (ours, theirs, frames, end) in cases {
            let walk = continued(ours, theirs);
            assert_eq!((walk.frames.as_slice(), walk.end), (frames, end), "{ours:x?} {theirs:x?}");
        }
    }

    #[test]
    fn a_continued_walk_keeps_to_the_bound_and_says_so() {
        let ours: Vec<u64> = (0..FRAMES_MAX as u64 - 1).map(|nth| 0x1000 + nth).collect();
        let theirs = [&ours[100..], &[0x8000, 0x8001]].concat();
        let walk = continued(&ours, &theirs);
        assert_eq!((walk.frames.len(), walk.end), (FRAMES_MAX, End::Deep));
        assert_eq!(walk.frames.last(), Some(&0x8000));
    }

    #[test]
    fn a_copied_stack_has_the_words_within_it_and_no_others() {
        let bytes: Vec<u8> = [7_u64, 9].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let copied = Copied { base: 0x1000, bytes: &bytes };
        assert_eq!((copied.word(0x1000), copied.word(0x1008)), (Some(7), Some(9)));
        for outside in [0, 0xff8, 0x1009, 0x1010, u64::MAX] {
            assert_eq!(copied.word(outside), None, "{outside:#x}");
        }
    }
}
