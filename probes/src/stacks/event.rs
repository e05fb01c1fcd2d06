//! Opening events of `perf_event_open(2)` on the threads of another process.
//!
//! Nothing is stopped or signalled: the kernel adds an event to the thread's context, and takes a
//! sample when its clock has run out or when the thread is switched out. An event goes when its fd
//! is closed, and with the watcher when that dies.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use perf_event_open_sys as sys;
use sys::bindings::{
    PERF_COUNT_SW_CONTEXT_SWITCHES, PERF_COUNT_SW_CPU_CLOCK, PERF_FLAG_FD_CLOEXEC,
    PERF_SAMPLE_CALLCHAIN, PERF_SAMPLE_IDENTIFIER, PERF_SAMPLE_PERIOD, PERF_SAMPLE_REGS_USER,
    PERF_SAMPLE_STACK_USER, PERF_SAMPLE_TID, PERF_SAMPLE_TIME, PERF_TYPE_SOFTWARE, perf_event_attr,
};

/// Bits of `enum perf_event_x86_regs`: BP, SP, IP (`asm/perf_regs.h`).
#[cfg(target_arch = "x86_64")]
const REGISTERS: u64 = 1 << 6 | 1 << 7 | 1 << 8;
/// x29, SP, PC of `enum perf_event_arm_regs`.
#[cfg(not(target_arch = "x86_64"))]
const REGISTERS: u64 = 1 << 29 | 1 << 31 | 1 << 32;

/// What an event counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// Time on a CPU: a sample each `period_ns` of it.
    CpuClock {
        /// Time between samples, ns.
        period_ns: u64,
    },
    /// The same of a whole CPU that is not idle, whoever runs on it: nothing is bound to a thread.
    CpuClockOfAll {
        /// Time between samples, ns.
        period_ns: u64,
    },
    /// Switches away from the thread: a sample at each, but at `hz` a second about at most.
    Switches {
        /// Samples a second, of each thread on each CPU.
        hz: u64,
    },
}

/// How much may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Frames of the kernel too.
    pub kernel: bool,
    /// Bytes copied of the program's stack at each sample, a multiple of 8; 0 for none.
    pub stack_bytes: u32,
    /// Threads that the thread makes, but not processes (Linux 5.13).
    pub threads_only: bool,
}

/// An open event and its number, by which samples name it.
#[derive(Debug)]
pub struct Event {
    /// The event.
    pub fd: OwnedFd,
    /// `PERF_EVENT_IOC_ID`.
    pub id: u64,
}

/// Every thread, for [`open`]; needs `CAP_PERFMON` or `kernel.perf_event_paranoid` 0 or less.
pub const ALL_THREADS: i32 = -1;

/// Opens an event on thread `tid` while it is on `cpu`, not yet counting. It is inherited by
/// threads that this one makes.
///
/// # Errors
/// EACCES or EPERM: `kernel.perf_event_paranoid`, or another user's process; ESRCH: the thread has
/// ended; EINVAL: the kernel does not know what was asked; EMFILE: too many fds.
pub fn open(tid: i32, cpu: i32, counts: Counts, extent: Extent) -> io::Result<Event> {
    let mut attr = attr(counts, extent);
    // SAFETY: `attr` is a whole, initialised attribute of the size it states, and outlives the
    // call; the event only counts and copies, it does not act on the thread.
    let fd =
        unsafe { sys::perf_event_open(&raw mut attr, tid, cpu, -1, PERF_FLAG_FD_CLOEXEC.into()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this fd, and nobody else knows of it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut id = 0;
    // SAFETY: the ioctl writes one u64 to where it is pointed.
    check(unsafe { sys::ioctls::ID(fd.as_raw_fd(), &raw mut id) })?;
    Ok(Event { fd, id })
}

/// Sends an event's records into the ring of another, which must be of the same CPU.
pub fn send_to(event: &Event, ring: &Event) -> io::Result<()> {
    // SAFETY: both are fds of events that live through the call.
    check(unsafe { sys::ioctls::SET_OUTPUT(event.fd.as_raw_fd(), ring.fd.as_raw_fd()) })
}

/// Begins to count.
pub fn enable(event: &Event) -> io::Result<()> {
    // SAFETY: an fd of an event.
    check(unsafe { sys::ioctls::ENABLE(event.fd.as_raw_fd(), 0) })
}

/// Ceases to count.
pub fn disable(event: &Event) -> io::Result<()> {
    // SAFETY: an fd of an event.
    check(unsafe { sys::ioctls::DISABLE(event.fd.as_raw_fd(), 0) })
}

fn check(answer: i32) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn attr(counts: Counts, extent: Extent) -> perf_event_attr {
    let mut attr = perf_event_attr {
        type_: PERF_TYPE_SOFTWARE,
        size: size_of::<perf_event_attr>() as u32,
        ..perf_event_attr::default()
    };
    attr.sample_type = (PERF_SAMPLE_IDENTIFIER
        | PERF_SAMPLE_TID
        | PERF_SAMPLE_TIME
        | PERF_SAMPLE_PERIOD
        | PERF_SAMPLE_CALLCHAIN
        | PERF_SAMPLE_REGS_USER
        | PERF_SAMPLE_STACK_USER)
        .into();
    attr.sample_regs_user = REGISTERS;
    attr.sample_stack_user = extent.stack_bytes;
    attr.set_disabled(1);
    attr.set_inherit(1);
    attr.set_inherit_thread(extent.threads_only.into());
    attr.set_sample_id_all(1);
    attr.set_exclude_hv(1);
    attr.set_exclude_kernel((!extent.kernel).into());
    attr.set_exclude_callchain_kernel((!extent.kernel).into());
    // The watcher's own clock, so that nothing has to be converted.
    attr.set_use_clockid(1);
    attr.clockid = libc::CLOCK_MONOTONIC;
    match counts {
        Counts::CpuClock { period_ns } => {
            attr.config = PERF_COUNT_SW_CPU_CLOCK.into();
            attr.__bindgen_anon_1.sample_period = period_ns;
            attr.set_mmap(1);
            attr.set_mmap2(1);
            attr.set_comm(1);
            attr.set_task(1);
        }
        Counts::CpuClockOfAll { period_ns } => {
            attr.config = PERF_COUNT_SW_CPU_CLOCK.into();
            attr.__bindgen_anon_1.sample_period = period_ns;
            attr.set_exclude_idle(1);
            attr.set_inherit(0);
            attr.set_inherit_thread(0);
        }
        Counts::Switches { hz } => {
            attr.config = PERF_COUNT_SW_CONTEXT_SWITCHES.into();
            // A switch happens in the kernel: without rights for that, no sample is taken, but the
            // switches themselves are still recorded (kernel/events/core.c, perf_exclude_event).
            attr.set_context_switch(1);
            attr.set_freq(1);
            attr.__bindgen_anon_1.sample_freq = hz;
        }
    }
    attr
}
