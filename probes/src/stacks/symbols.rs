//! Addresses to names: functions, inlined functions, lines of source, demangled.
//!
//! blazesym does the work: symbol tables and DWARF of the files behind mappings, `perf-PID.map` of
//! code written at run time, kallsyms of the kernel. It maps the files it reads; drop this once the
//! names are had.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use blazesym::helper::read_elf_build_id;
use blazesym::symbolize::source::{Elf, Kernel, Process, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer};
use blazesym::{MaybeDefault, Pid};

use super::code::{self, Code, Mapping};
use crate::reading::Reading;

/// Addresses whose names are remembered.
const NAMES_MAX: usize = 200_000;
/// Longest name kept, bytes; those of generic closures reach kilobytes.
const NAME_BYTES_MAX: usize = 1_024;

/// Files of which it is remembered why they gave no names.
const UNNAMED_MAX: usize = 64;

/// One function at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its name; hostile text, as all of these.
    pub function: String,
    /// Source file.
    pub file: Option<String>,
    /// Line.
    pub line: Option<u32>,
    /// It was merged into the one before.
    pub inlined: bool,
}

/// What is known of an address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// File that the code is of, `[vdso]`, `[kernel]`; none for code written at run time.
    pub module: Option<String>,
    /// Address within that file, as its symbols have it; the absolute one without.
    pub address: u64,
    /// Functions there, the outer ones first; empty where there is no symbol.
    pub functions: Vec<Named>,
}

/// Finds names for the addresses of one process.
#[derive(Debug)]
pub struct Symbols {
    proc_root: PathBuf,
    pid: i32,
    symbolizer: Symbolizer,
    known: HashMap<u64, Place>,
    kernel: HashMap<u64, Place>,
    /// GNU build ids of files, by the path that the target sees.
    build_ids: HashMap<String, Option<String>>,
    unnamed: BTreeMap<String, String>,
}

impl Symbols {
    /// For process `pid`.
    pub fn new(proc_root: &Path, pid: i32) -> Self {
        Self {
            proc_root: proc_root.to_owned(),
            pid,
            // Reloading would stat(2) each file at each call: the files of a mapping do not change.
            symbolizer: Symbolizer::builder().enable_auto_reload(false).build(),
            known: HashMap::new(),
            kernel: HashMap::new(),
            build_ids: HashMap::new(),
            unnamed: BTreeMap::new(),
        }
    }

    /// Files in which no names could be looked for, and why; `[kernel]` for the kernel's.
    pub const fn unnamed(&self) -> &BTreeMap<String, String> {
        &self.unnamed
    }

    /// Finds what is not known yet of these addresses of the program.
    pub fn learn_user(&mut self, code: &Code, addresses: impl IntoIterator<Item = u64>) {
        let mut by_start: HashMap<u64, Vec<u64>> = HashMap::new();
        for address in addresses {
            if !self.known.contains_key(&address) && self.known.len() < NAMES_MAX {
                let start = code.at(address).map_or(0, |mapping| mapping.start);
                self.known.insert(address, Place { address, ..Place::default() });
                by_start.entry(start).or_default().push(address);
            }
        }
        for (start, addresses) in by_start {
            let places = match code.at(start) {
                Some(mapping) if mapping.has_file() => self.in_file(mapping, &addresses),
                mapping => self.in_process(mapping, &addresses),
            };
            self.known.extend(addresses.into_iter().zip(places));
        }
    }

    /// Finds what is not known yet of these addresses of the kernel.
    pub fn learn_kernel(&mut self, addresses: impl IntoIterator<Item = u64>) {
        let new: Vec<u64> =
            addresses.into_iter().filter(|address| !self.kernel.contains_key(address)).collect();
        if new.is_empty() || self.kernel.len() >= NAMES_MAX {
            return;
        }
        // kallsyms only: it is the running kernel's own, and there is no image to look for.
        let source = Source::Kernel(Kernel { vmlinux: MaybeDefault::None, ..Kernel::default() });
        let named = self.symbolizer.symbolize(&source, Input::AbsAddr(&new));
        let named = found(&mut self.unnamed, "[kernel]", named);
        for (nth, address) in new.iter().enumerate() {
            let functions = named.get(nth).and_then(Symbolized::as_sym).map(functions);
            let place = Place {
                module: Some(String::from("[kernel]")),
                address: *address,
                functions: functions.unwrap_or_default(),
            };
            self.kernel.insert(*address, place);
        }
    }

    /// What is known of an address of the program.
    pub fn user(&self, address: u64) -> Option<&Place> {
        self.known.get(&address)
    }

    /// What is known of an address of the kernel.
    pub fn kernel(&self, address: u64) -> Option<&Place> {
        self.kernel.get(&address)
    }

    /// The GNU build id of a file in which names were looked for, hexadecimal.
    pub fn build_id(&self, module: &str) -> Option<&str> {
        self.build_ids.get(module)?.as_deref()
    }

    fn in_file(&mut self, mapping: &Mapping, addresses: &[u64]) -> Vec<Place> {
        let offsets: Vec<u64> =
            addresses.iter().map(|address| address - mapping.start + mapping.offset).collect();
        let path = code::path_to_open(&self.proc_root, self.pid, mapping);
        if let (Reading::Got(path), false) = (&path, self.build_ids.contains_key(mapping.name())) {
            let id = read_elf_build_id(path).ok().flatten();
            let id = id.map(|id| hexadecimal(&id));
            self.build_ids.insert(mapping.name().to_owned(), id);
        }
        let source = path.map(|path| Source::Elf(Elf::new(path)));
        let named = match &source {
            Reading::Got(source) => {
                let named = self.symbolizer.symbolize(source, Input::FileOffset(&offsets));
                found(&mut self.unnamed, mapping.name(), named)
            }
            Reading::Absent(absence) => {
                note(&mut self.unnamed, mapping.name(), &absence.detail);
                Vec::new()
            }
        };
        let place = |(nth, offset): (usize, &u64)| {
            let sym = named.get(nth).and_then(Symbolized::as_sym);
            Place {
                module: Some(mapping.name().to_owned()),
                address: sym.map_or(*offset, |sym| sym.addr.wrapping_add(sym.offset as u64)),
                functions: sym.map(functions).unwrap_or_default(),
            }
        };
        offsets.iter().enumerate().map(place).collect()
    }

    /// Code without a file: the vDSO, or written at run time.
    fn in_process(&mut self, mapping: Option<&Mapping>, addresses: &[u64]) -> Vec<Place> {
        let module =
            mapping.map(|mapping| mapping.name().to_owned()).filter(|name| !name.is_empty());
        let pid = u32::try_from(self.pid).ok().map(Pid::from);
        let named = pid.map_or_else(Vec::new, |pid| {
            let source = Source::Process(Process::new(pid));
            let named = self.symbolizer.symbolize(&source, Input::AbsAddr(addresses));
            found(&mut self.unnamed, module.as_deref().unwrap_or("code without a file"), named)
        });
        let place = |(nth, address): (usize, &u64)| Place {
            module: module.clone(),
            address: *address,
            functions: named
                .get(nth)
                .and_then(Symbolized::as_sym)
                .map(functions)
                .unwrap_or_default(),
        };
        addresses.iter().enumerate().map(place).collect()
    }
}

/// What was found, or nothing and why.
fn found<T>(
    unnamed: &mut BTreeMap<String, String>,
    file: &str,
    found: Result<Vec<T>, blazesym::Error>,
) -> Vec<T> {
    found.unwrap_or_else(|error| {
        // With its sources: the outer words only say what was tried.
        note(unnamed, file, &format!("{error:#}"));
        Vec::new()
    })
}

fn note(unnamed: &mut BTreeMap<String, String>, file: &str, why: &str) {
    if unnamed.len() < UNNAMED_MAX {
        unnamed.insert(file.to_owned(), cut(why));
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The functions at an address, the outer ones first. Each is given the line that is executed in
/// it: for all but the innermost that of the call to the next.
fn functions(sym: &Sym<'_>) -> Vec<Named> {
    let named = |name: &str, at: Option<&CodeInfo<'_>>, inlined: bool| Named {
        function: cut(name),
        file: at.map(|at| cut(&at.to_path().to_string_lossy())),
        line: at.and_then(|at| at.line),
        inlined,
    };
    let mut functions = vec![named(&sym.name, sym.code_info.as_deref(), false)];
    functions.extend(
        sym.inlined.iter().map(|inlined| named(&inlined.name, inlined.code_info.as_ref(), true)),
    );
    functions
}

fn cut(text: &str) -> String {
    if text.len() <= NAME_BYTES_MAX {
        return text.to_owned();
    }
    let mut end = NAME_BYTES_MAX;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}
