//! Where a process's code lies: its executable mappings, and the files behind them.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use framehop::ExplicitModuleSectionInfo;
use object::read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _};
use object::{Endianness, Object as _, ObjectSection as _, ReadCache};

use crate::files;
use crate::reading::{Reading, Why};

/// Bytes read of `/proc/PID/maps`.
const MAPS_MAX_BYTES: u64 = 8 << 20;
/// Executable mappings kept.
pub const MAPPINGS_MAX: usize = 4_096;
/// Largest section of unwind tables that is read; a browser's is 15 MiB.
const SECTION_BYTES_MAX: u64 = 64 << 20;

/// One executable mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// Where in the file it begins.
    pub offset: u64,
    /// Device and inode of the file; zeros for memory without one.
    pub file: (u32, u32, u64),
    /// Its path as the target sees it, or `[vdso]`, or empty.
    pub path: String,
}

impl Mapping {
    /// Whether a file stands behind it.
    pub const fn has_file(&self) -> bool {
        self.file.2 != 0
    }

    /// The path without the kernel's remark that the file has been removed.
    pub fn name(&self) -> &str {
        self.path.strip_suffix(" (deleted)").unwrap_or(&self.path)
    }
}

/// All executable mappings of a process, by address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Code {
    mappings: Vec<Mapping>,
}

impl Code {
    /// Reads `/proc/PID/maps`. Holds nothing of the target's afterwards.
    ///
    /// # Errors
    /// As for `fd/`: ptrace read rights are needed (proc(5)).
    pub fn read(proc_root: &Path, pid: i32) -> Reading<Self> {
        files::read(&files::process(proc_root, pid).join("maps"), MAPS_MAX_BYTES)
            .map(|bytes| Self::parse(&bytes))
    }

    /// The executable mappings in the text of `maps`; lines that are none are left out.
    pub fn parse(text: &[u8]) -> Self {
        let lines = text.split(|byte| *byte == b'\n').filter_map(|line| {
            let line = String::from_utf8_lossy(line);
            parse_line(&line)
        });
        let mut mappings: Vec<Mapping> = lines.take(MAPPINGS_MAX).collect();
        mappings.sort_by_key(|mapping| mapping.start);
        Self { mappings }
    }

    /// The mapping that holds an address.
    pub fn at(&self, address: u64) -> Option<&Mapping> {
        let next = self.mappings.partition_point(|mapping| mapping.start <= address);
        self.mappings.get(next.checked_sub(1)?).filter(|mapping| address < mapping.end)
    }

    /// By address.
    pub fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }
}

/// `start-end perms offset major:minor inode path` (proc(5)), if it is executable.
fn parse_line(line: &str) -> Option<Mapping> {
    let mut rest = line;
    let mut field = || {
        let text = rest.trim_start();
        let (field, after) = text.split_once(' ').unwrap_or((text, ""));
        rest = after;
        field.to_owned()
    };
    let (range, permissions, offset, device, inode) = (field(), field(), field(), field(), field());
    if permissions.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = range.split_once('-')?;
    let (major, minor) = device.split_once(':')?;
    let (major, minor) = (hex(major)? as u32, hex(minor)? as u32);
    let (start, end) = (hex(start)?, hex(end)?);
    let file = (major, minor, inode.parse().ok()?);
    let offset = hex(&offset)?;
    (start < end).then(|| Mapping { start, end, offset, file, path: rest.trim_start().to_owned() })
}

/// A path by which the watcher can open the file behind a mapping: the target's own view of its
/// path, if that is still the same file, or the mapping itself (`map_files`, which needs more rights
/// but also reaches a file that was removed or replaced).
pub fn path_to_open(proc_root: &Path, pid: i32, mapping: &Mapping) -> Reading<PathBuf> {
    let process = files::process(proc_root, pid);
    let seen = process.join("root").join(mapping.name().trim_start_matches('/'));
    let mapped = process.join(format!("map_files/{:x}-{:x}", mapping.start, mapping.end));
    let is_it = |path: &Path| {
        rustix::fs::stat(path).is_ok_and(|stat| {
            // Of overlay file systems `maps` tells another device than stat(2) does.
            stat.st_ino == mapping.file.2
        })
    };
    if is_it(&seen) {
        Reading::Got(seen)
    } else if rustix::fs::stat(&mapped).is_ok() {
        Reading::Got(mapped)
    } else {
        Reading::absent(
            Why::Gone,
            format!(
                "{} is no longer the file that was mapped, and its mapping may not be opened \
                 (CAP_SYS_ADMIN would permit it)",
                mapping.name()
            ),
        )
    }
}

/// What unwinding needs of a file.
#[derive(Debug)]
pub struct Tables {
    /// For framehop.
    pub sections: ExplicitModuleSectionInfo<Vec<u8>>,
    /// What is added to an address of the file to get one of the process.
    pub bias: u64,
}

/// Reads the unwind tables of the file behind `mapping`. The file is read, not mapped: one that is
/// cut short meanwhile is an error and not a SIGBUS.
pub fn tables(path: &Path, mapping: &Mapping) -> Reading<Tables> {
    let file = match files::open_file(path) {
        Reading::Got(file) => file,
        Reading::Absent(absence) => return Reading::Absent(absence),
    };
    match parse_tables(file, mapping) {
        Ok(Some(tables)) => Reading::Got(tables),
        Ok(None) => Reading::absent(
            Why::Malformed,
            format!("{}: no segment with code lies where it is mapped", mapping.name()),
        ),
        Err(error) => Reading::absent(Why::Malformed, format!("{}: {error}", mapping.name())),
    }
}

/// `None`: the file is not the one that was mapped, or its headers lie.
fn parse_tables(file: File, mapping: &Mapping) -> Result<Option<Tables>, object::Error> {
    let cache = ReadCache::new(BufReader::new(file));
    let elf = ElfFile64::<Endianness, _>::parse(&cache)?;
    let endian = elf.endian();
    let headers = elf.elf_header().program_headers(endian, &cache)?;
    let bias = headers
        .iter()
        .filter(|header| header.p_type(endian) == object::elf::PT_LOAD)
        .find_map(|header| {
            let (offset, bytes) = (header.p_offset(endian), header.p_filesz(endian));
            // Mappings begin at whole pages, segments where they like.
            let end = mapping.offset.saturating_add(mapping.end - mapping.start);
            let overlaps = offset < end && mapping.offset < offset.saturating_add(bytes);
            let executable = header.p_flags(endian).0 & object::elf::PF_X.0 != 0;
            (overlaps && executable).then(|| {
                let address =
                    header.p_vaddr(endian).wrapping_add(mapping.offset).wrapping_sub(offset);
                mapping.start.wrapping_sub(address)
            })
        });
    let Some(bias) = bias else { return Ok(None) };
    let section = |name: &str| elf.section_by_name(name);
    let range = |name: &str| {
        section(name).map(|section| section.address()..section.address() + section.size())
    };
    let data = |name: &str| {
        let section = section(name).filter(|section| section.size() <= SECTION_BYTES_MAX)?;
        section.data().ok().map(<[u8]>::to_vec)
    };
    Ok(Some(Tables {
        sections: ExplicitModuleSectionInfo {
            base_svma: 0,
            text_svma: range(".text"),
            got_svma: range(".got"),
            eh_frame_svma: range(".eh_frame"),
            eh_frame: data(".eh_frame"),
            eh_frame_hdr_svma: range(".eh_frame_hdr"),
            eh_frame_hdr: data(".eh_frame_hdr"),
            ..ExplicitModuleSectionInfo::default()
        },
        bias,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0c8a00000-55d0c8a20000 r--p 00000000 fe:00 1234 /usr/bin/server
55d0c8a20000-55d0c8b00000 r-xp 00020000 fe:00 1234 /usr/bin/server (deleted)
7f0000000000-7f0000001000 rwxp 00000000 00:00 0
7fff00000000-7fff00002000 r-xp 00000000 00:00 0                          [vdso]
7fff10000000-7fff10021000 rw-p 00000000 00:00 0                          [stack]
nonsense
";

    #[test]
    fn only_code_is_kept_and_found_by_address() {
        let code = Code::parse(MAPS.as_bytes());
        assert_eq!(code.mappings().len(), 3);
        let server = code.at(0x55d0_c8a2_0000).expect("the first byte");
        assert_eq!((server.name(), server.offset), ("/usr/bin/server", 0x20000));
        assert!(server.has_file());
        assert!(code.at(0x55d0_c8b0_0000).is_none(), "one past the end");
        assert!(code.at(0x55d0_c8a0_0000).is_none(), "not executable");
        assert!(!code.at(0x7f00_0000_0800).expect("written at run time").has_file());
        assert_eq!(code.at(0x7fff_0000_1000).map(Mapping::name), Some("[vdso]"));
        assert!(code.at(0).is_none() && code.at(u64::MAX).is_none());
    }

    #[test]
    fn a_path_may_hold_blanks() {
        let code = Code::parse(b"1000-2000 r-xp 00000000 fe:00 7 /opt/my app/server\n");
        assert_eq!(code.mappings()[0].name(), "/opt/my app/server");
    }
}
