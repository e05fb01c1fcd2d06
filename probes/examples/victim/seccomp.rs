//! Lets another thread of the process decide on the system calls of this one: `seccomp_unotify(2)`.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A system call that waits for its fate.
#[derive(Debug)]
pub struct Call {
    id: u64,
    /// Its second argument.
    pub arg1: u64,
}

/// The end at which calls arrive.
#[derive(Debug)]
pub struct Supervisor(OwnedFd);

/// From now on every `nr` of this thread waits for the supervisor; other threads are not touched.
pub fn supervise(nr: libc::c_long) -> io::Result<Supervisor> {
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let jump_if_equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let answer = (libc::BPF_RET | libc::BPF_K) as u16;
    let filter = [
        instruction(load, 0, offset_of!(libc::seccomp_data, nr) as u32),
        instruction(jump_if_equal, 1, nr as u32),
        instruction(answer, 0, libc::SECCOMP_RET_ALLOW),
        instruction(answer, 0, libc::SECCOMP_RET_USER_NOTIF),
    ];
    // Without WAIT_KILLABLE_RECV the call is taken back when `io_uring`'s task_work interrupts the
    // wait for an answer, and comes again.
    let flags =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    rustix::thread::set_no_new_privs(true)?;
    // SAFETY: the kernel copies `program`, which outlives the call, and what it points to.
    let fd = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this fd, and nobody else knows it.
    Ok(Supervisor(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}

/// Skips `skip` instructions when it is a comparison that holds.
const fn instruction(code: u16, skip: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: skip, jf: 0, k }
}

impl Supervisor {
    /// Waits for the next call. `None`: it was taken back before it was received.
    pub fn next(&self) -> io::Result<Option<Call>> {
        // SAFETY: integers only, so all zeros is a value; the kernel asks for zeros.
        let mut notice: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: this request writes one `seccomp_notif`.
        let done = unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notice)
        };
        if done < 0 {
            let error = io::Error::last_os_error();
            let taken_back = error.raw_os_error() == Some(libc::ENOENT);
            return if taken_back { Ok(None) } else { Err(error) };
        }
        Ok(Some(Call { id: notice.id, arg1: notice.data.args[1] }))
    }

    /// Lets the call happen.
    pub fn permit(&self, call: &Call) -> io::Result<()> {
        self.answer(call, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32)
    }

    /// Lets the call fail without having happened.
    pub fn fail(&self, call: &Call, errno: i32) -> io::Result<()> {
        self.answer(call, -errno, 0)
    }

    fn answer(&self, call: &Call, error: i32, flags: u32) -> io::Result<()> {
        let answer = libc::seccomp_notif_resp { id: call.id, val: 0, error, flags };
        // SAFETY: this request reads one `seccomp_notif_resp`.
        let done = unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer)
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
