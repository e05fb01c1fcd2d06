//! Records of `perf_event_open(2)`, as the kernel lays them into the ring. Pure.
//!
//! Every event of ours asks for the same fields ([`super::event`]), so one layout parses all:
//!
//! ```text
//! sample   u64 id | u32 pid, tid | u64 time | u64 period | u64 nr, u64 ips[nr]
//!          | u64 abi, u64 regs[3] (if abi) | u64 size, u8 stack[size], u64 used (if size)
//! others   their own fields | u32 pid, tid | u64 time | u64 id
//! ```

/// Length of a record's header: `u32 type, u16 misc, u16 size`.
pub const HEADER_BYTES: usize = 8;
/// What `sample_id_all` appends to records other than samples.
const TRAILER_BYTES: usize = 24;
/// Entries read of one call chain; the kernel stops at 127 and a few (`perf_event_max_stack`).
const CHAIN_MAX: usize = 512;

/// `enum perf_event_type` (`linux/perf_event.h`).
const LOST: u32 = 2;
const COMM: u32 = 3;
const EXIT: u32 = 4;
const THROTTLE: u32 = 5;
const SAMPLE: u32 = 9;
const MMAP2: u32 = 10;
const SWITCH: u32 = 14;
/// `PERF_RECORD_MISC_SWITCH_OUT`, `…_OUT_PREEMPT`.
const MISC_SWITCH_OUT: u16 = 1 << 13;
const MISC_SWITCH_OUT_PREEMPT: u16 = 1 << 14;
/// Marks in a call chain: what follows is the kernel's, or the program's
/// (`enum perf_callchain_context`).
const CONTEXT_KERNEL: u64 = -128_i64 as u64;
const CONTEXT_USER: u64 = -512_i64 as u64;
const CONTEXT_MAX: u64 = -4095_i64 as u64;

/// The program's registers at the moment of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registers {
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer, if the program uses it as one.
    pub bp: u64,
}

/// One sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleRecord<'a> {
    /// Of which event.
    pub id: u64,
    /// Thread group.
    pub pid: i32,
    /// Thread.
    pub tid: i32,
    /// `CLOCK_MONOTONIC`, ns.
    pub at_ns: u64,
    /// Events it stands for; of the CPU clock, ns.
    pub period: u64,
    /// The kernel's part of the call chain, innermost first.
    pub kernel: Vec<u64>,
    /// The program's part, by frame pointers, innermost first.
    pub user: Vec<u64>,
    /// The program's registers; none for a thread of the kernel.
    pub registers: Option<Registers>,
    /// What lay on the stack, from `registers.sp` on.
    pub stack: &'a [u8],
}

/// One record of the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// A thread was caught.
    Sample(SampleRecord<'a>),
    /// A thread got a CPU.
    SwitchIn {
        /// Thread.
        tid: i32,
        /// When, ns.
        at_ns: u64,
    },
    /// A thread lost its CPU.
    SwitchOut {
        /// Thread.
        tid: i32,
        /// When, ns.
        at_ns: u64,
        /// Another was given its place: it did not go to sleep.
        preempted: bool,
    },
    /// Code was mapped.
    Mapped,
    /// A thread has a new name.
    Renamed {
        /// Thread.
        tid: i32,
        /// Its name, at most 15 bytes.
        name: String,
    },
    /// A thread ended.
    Ended {
        /// Thread.
        tid: i32,
        /// When, ns.
        at_ns: u64,
    },
    /// The kernel held samples back because they came too fast.
    Throttled,
    /// The ring was full.
    Lost {
        /// Records that found no room.
        records: u64,
    },
    /// Nothing that matters here.
    Other,
}

/// Reads one record; `bytes` begins with its header and ends where it ends. `None`: it is not of
/// the shape that was asked for.
pub fn parse(bytes: &[u8]) -> Option<Record<'_>> {
    let mut header = Fields(bytes.get(..HEADER_BYTES)?);
    let kind = header.u32()?;
    let misc = header.u16()?;
    let body = bytes.get(HEADER_BYTES..)?;
    match kind {
        SAMPLE => sample(body).map(Record::Sample),
        SWITCH => {
            let (tid, at_ns) = trailer(body)?;
            Some(if misc & MISC_SWITCH_OUT == 0 {
                Record::SwitchIn { tid, at_ns }
            } else {
                let preempted = misc & MISC_SWITCH_OUT_PREEMPT != 0;
                Record::SwitchOut { tid, at_ns, preempted }
            })
        }
        MMAP2 => Some(Record::Mapped),
        COMM => {
            let mut fields = Fields(body);
            let (_pid, tid) = (fields.i32()?, fields.i32()?);
            let name = fields.0.split(|byte| *byte == 0).next().unwrap_or_default();
            let name = name.get(..name.len().min(15)).unwrap_or_default();
            Some(Record::Renamed { tid, name: String::from_utf8_lossy(name).into_owned() })
        }
        EXIT => {
            let mut fields = Fields(body);
            let (_pid, _ppid, tid, _ptid) =
                (fields.i32()?, fields.i32()?, fields.i32()?, fields.i32()?);
            Some(Record::Ended { tid, at_ns: fields.u64()? })
        }
        THROTTLE => Some(Record::Throttled),
        LOST => {
            let mut fields = Fields(body);
            let (_id, records) = (fields.u64()?, fields.u64()?);
            Some(Record::Lost { records })
        }
        _ => Some(Record::Other),
    }
}

/// The thread and instant at the end of a record that is no sample.
fn trailer(body: &[u8]) -> Option<(i32, u64)> {
    let mut fields = Fields(body.get(body.len().checked_sub(TRAILER_BYTES)?..)?);
    let (_pid, tid) = (fields.i32()?, fields.i32()?);
    Some((tid, fields.u64()?))
}

fn sample(body: &[u8]) -> Option<SampleRecord<'_>> {
    let mut fields = Fields(body);
    let id = fields.u64()?;
    let (pid, tid) = (fields.i32()?, fields.i32()?);
    let (at_ns, period) = (fields.u64()?, fields.u64()?);
    let entries = usize::try_from(fields.u64()?).ok().filter(|entries| *entries <= CHAIN_MAX)?;
    let (mut kernel, mut user) = (Vec::new(), Vec::new());
    let mut in_kernel = false;
    for _ in 0..entries {
        match fields.u64()? {
            CONTEXT_KERNEL => in_kernel = true,
            CONTEXT_USER => in_kernel = false,
            // Of a virtual machine, or a mark not known here.
            mark if mark >= CONTEXT_MAX => {}
            ip if in_kernel => kernel.push(ip),
            ip => user.push(ip),
        }
    }
    let abi = fields.u64()?;
    let registers = if abi == 0 {
        None
    } else {
        // In the order of the bits that were asked for.
        let (bp, sp, ip) = (fields.u64()?, fields.u64()?, fields.u64()?);
        Some(Registers { ip, sp, bp })
    };
    let size = usize::try_from(fields.u64()?).ok()?;
    let stack = if size == 0 {
        &[][..]
    } else {
        let stack = fields.bytes(size)?;
        let used = usize::try_from(fields.u64()?).ok()?;
        stack.get(..used.min(size))?
    };
    Some(SampleRecord { id, pid, tid, at_ns, period, kernel, user, registers, stack })
}

/// Little pieces from the front of a slice; the kernel writes in the byte order of the machine.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_ne_bytes(self.bytes(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.bytes(4)?.try_into().ok()?))
    }

    fn i32(&mut self) -> Option<i32> {
        Some(i32::from_ne_bytes(self.bytes(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_ne_bytes(self.bytes(8)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(kind: u32, misc: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_ne_bytes().to_vec();
        bytes.extend(misc.to_ne_bytes());
        bytes.extend((HEADER_BYTES as u16 + body.len() as u16).to_ne_bytes());
        bytes.extend(body);
        bytes
    }

    fn words(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// pid 7, tid 8 in one word.
    const WHO: u64 = if cfg!(target_endian = "little") { 8 << 32 | 7 } else { 7 << 32 | 8 };

    #[test]
    fn a_sample_has_its_chain_in_two_parts_its_registers_and_its_stack() {
        let chain = [CONTEXT_KERNEL, 0xffff_ffff_8000_0010, CONTEXT_USER, 0x1000, 0x2000];
        let mut body = words(&[3, WHO, 99, 10_101_010, chain.len() as u64]);
        body.extend(words(&chain));
        body.extend(words(&[2, 0xb, 0x5, 0x1000]));
        body.extend(words(&[16, 1, 2, 8]));
        let bytes = record(SAMPLE, 0, &body);
        let Some(Record::Sample(sample)) = parse(&bytes) else { panic!("no sample") };
        assert_eq!((sample.id, sample.pid, sample.tid, sample.at_ns), (3, 7, 8, 99));
        assert_eq!(sample.kernel, [0xffff_ffff_8000_0010]);
        assert_eq!(sample.user, [0x1000, 0x2000]);
        assert_eq!(sample.registers, Some(Registers { ip: 0x1000, sp: 0x5, bp: 0xb }));
        assert_eq!(sample.stack, words(&[1]), "only what was copied");
    }

    #[test]
    fn a_thread_of_the_kernel_has_neither_registers_nor_stack() {
        let body = words(&[3, WHO, 99, 1, 0, 0, 0]);
        let bytes = record(SAMPLE, 0, &body);
        let Some(Record::Sample(sample)) = parse(&bytes) else { panic!("no sample") };
        assert_eq!((sample.registers, sample.stack), (None, &[][..]));
    }

    #[test]
    fn switches_names_ends_and_losses() {
        let cases = [
            (SWITCH, 0, words(&[WHO, 5, 1]), Record::SwitchIn { tid: 8, at_ns: 5 }),
            (
                SWITCH,
                MISC_SWITCH_OUT,
                words(&[WHO, 5, 1]),
                Record::SwitchOut { tid: 8, at_ns: 5, preempted: false },
            ),
            (
                SWITCH,
                MISC_SWITCH_OUT | MISC_SWITCH_OUT_PREEMPT,
                words(&[WHO, 5, 1]),
                Record::SwitchOut { tid: 8, at_ns: 5, preempted: true },
            ),
            (LOST, 0, words(&[1, 12, WHO, 5, 1]), Record::Lost { records: 12 }),
            (EXIT, 0, words(&[WHO, WHO, 5, WHO, 5, 1]), Record::Ended { tid: 7, at_ns: 5 }),
            (THROTTLE, 0, words(&[5, 1, 1, WHO, 5, 1]), Record::Throttled),
            (1, 0, words(&[1]), Record::Other),
        ];
        for (kind, misc, body, expected) in cases {
            assert_eq!(parse(&record(kind, misc, &body)), Some(expected));
        }
        let mut body = words(&[WHO]);
        body.extend(b"rdk:main\0\0\0\0\0\0\0\0");
        body.extend(words(&[WHO, 5, 1]));
        let name = String::from("rdk:main");
        assert_eq!(parse(&record(COMM, 0, &body)), Some(Record::Renamed { tid: 8, name }));
    }

    #[test]
    fn what_is_cut_or_claims_too_much_is_refused() {
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&record(SWITCH, 0, &words(&[WHO]))), None);
        assert_eq!(parse(&record(SAMPLE, 0, &words(&[3, WHO, 99, 1, u64::MAX]))), None);
        assert_eq!(parse(&record(SAMPLE, 0, &words(&[3, WHO, 99, 1, 0, 0, u64::MAX]))), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0_u32..20) {
            parse(&bytes);
            parse(&record(kind, 0, &bytes));
        }
    }
}
