//! Which process to watch, and what is known of it at the start.

use std::path::Path;

use stallscope_probes::discover::{self, Holding};
use stallscope_probes::sockets::Diag;
use stallscope_probes::{Reading, fds, process};

use super::event::{Environment, Target};

/// How the user named the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// By process id.
    Pid(i32),
    /// By the port it listens on, in the watcher's network namespace.
    Port(u16),
}

impl Selection {
    /// The port, if that is how it was named.
    pub const fn port(self) -> Option<u16> {
        match self {
            Self::Pid(_) => None,
            Self::Port(port) => Some(port),
        }
    }
}

/// Why a target cannot be watched.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// No process has this pid.
    #[error("there is no process {0}")]
    NoSuchProcess(i32),
    /// The id is that of a thread other than the first of its process.
    #[error("{tid} is a thread of process {pid}: name the process")]
    Thread {
        /// The thread.
        tid: i32,
        /// Its process.
        pid: i32,
    },
    /// The pid names this program itself.
    #[error("process {0} is stallscope itself: it cannot watch its own stall")]
    Oneself(i32),
    /// Nothing listens on the port.
    #[error("no process listens on TCP port {0} in this network namespace")]
    NothingListens(u16),
    /// Somebody listens, but whose fds cannot be listed.
    #[error(
        "something listens on TCP port {port}, but the fds of {unreadable} processes may not be listed by this user: run as root, or as the server's own user"
    )]
    HolderHidden {
        /// The port.
        port: u16,
        /// Processes whose fds could not be read.
        unreadable: u32,
    },
    /// The process is there, but not even its state may be read.
    #[error("process {pid} cannot be read: {detail}; run as root, or as the process's own user")]
    Unreadable {
        /// The process.
        pid: i32,
        /// What was refused.
        detail: String,
    },
}

/// Finds the target and describes it.
///
/// # Errors
/// When there is none, or it may not be looked at.
pub fn resolve(selection: Selection) -> Result<Target, TargetError> {
    let proc_root = Path::new("/proc");
    let (pid, siblings) = match selection {
        Selection::Pid(pid) => (pid, Vec::new()),
        Selection::Port(port) => holder_of(proc_root, port)?,
    };
    if pid == rustix::process::getpid().as_raw_nonzero().get() {
        return Err(TargetError::Oneself(pid));
    }
    if let Some(&leader) = process::leader(proc_root, pid).got()
        && leader != pid
    {
        return Err(TargetError::Thread { tid: pid, pid: leader });
    }
    let identity = match process::identity(proc_root, pid) {
        Reading::Got(identity) => identity,
        Reading::Absent(absence) if absence.why == stallscope_probes::Why::Gone => {
            return Err(TargetError::NoSuchProcess(pid));
        }
        Reading::Absent(absence) => {
            return Err(TargetError::Unreadable { pid, detail: absence.detail });
        }
    };
    Ok(Target {
        pid,
        comm: identity.comm,
        cmdline: identity.cmdline,
        // Not every path is UTF-8, and JSON and recordings hold nothing else.
        exe: identity.exe.map(|exe| exe.to_string_lossy().into_owned().into()),
        start_time_ticks: identity.start_time_ticks,
        foreign_netns: false,
        siblings,
    })
}

/// The process to watch among those that hold a listening socket on `port`, and the others.
///
/// A prefork server's parent only holds the socket for its children: a child is the better
/// target. Among several children the first is taken, and the others are named.
fn holder_of(proc_root: &Path, port: u16) -> Result<(i32, Vec<i32>), TargetError> {
    let own_pid = rustix::process::getpid().as_raw_nonzero().get();
    let holders = match Diag::open(proc_root, own_pid) {
        Reading::Got(diag) => discover::holders_of_port(proc_root, &diag, port),
        Reading::Absent(absence) => Reading::Absent(absence),
    };
    let holders = match holders {
        Reading::Got(holders) => holders,
        Reading::Absent(_) => return Err(TargetError::NothingListens(port)),
    };
    let chosen = choose(&holders.found);
    let Some(pid) = chosen else {
        return Err(match holders.unreadable {
            0 => TargetError::NothingListens(port),
            unreadable => TargetError::HolderHidden { port, unreadable },
        });
    };
    let mut others: Vec<i32> =
        holders.found.iter().map(|holding| holding.pid).filter(|other| *other != pid).collect();
    others.sort_unstable();
    others.dedup();
    Ok((pid, others))
}

fn choose(found: &[Holding]) -> Option<i32> {
    let is_holder = |pid: i32| found.iter().any(|holding| holding.pid == pid);
    let mut pids: Vec<(bool, i32)> =
        found.iter().map(|holding| (!is_holder(holding.ppid), holding.pid)).collect();
    pids.sort_unstable();
    pids.first().map(|(_, pid)| *pid)
}

/// The conditions of a run.
pub fn environment(target: &Target, interval_ms: u64) -> Environment {
    let uname = rustix::system::uname();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let limits = fds::read(Path::new("/proc"), target.pid);
    Environment {
        kernel: format!(
            "{} {}",
            uname.sysname().to_string_lossy(),
            uname.release().to_string_lossy()
        ),
        cpus,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        interval_ms,
        ticks_per_s: rustix::param::clock_ticks_per_second(),
        fd_limits: limits.and_then(|fds| fds.limit),
        limits: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(pid: i32, ppid: i32) -> Holding {
        Holding { pid, ppid, comm: String::from("server"), inode: 1 }
    }

    #[test]
    fn a_worker_is_preferred_to_the_parent_that_only_holds_its_socket() {
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&[holding(10, 1)]), Some(10));
        assert_eq!(choose(&[holding(10, 1), holding(12, 10), holding(11, 10)]), Some(11));
        assert_eq!(choose(&[holding(20, 1), holding(10, 1)]), Some(10));
    }

    #[test]
    fn a_thread_is_not_taken_for_a_process() {
        let (tid_sender, tid) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tid_sender.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            ended.recv().ok();
        });
        let tid = tid.recv().unwrap();
        let pid = std::process::id() as i32;
        assert_eq!(resolve(Selection::Pid(tid)), Err(TargetError::Thread { tid, pid }));
        drop(end);
        thread.join().unwrap();
    }

    #[test]
    fn errors_say_what_to_do() {
        assert_eq!(resolve(Selection::Pid(i32::MAX)), Err(TargetError::NoSuchProcess(i32::MAX)));
        let own = std::process::id() as i32;
        assert_eq!(resolve(Selection::Pid(own)), Err(TargetError::Oneself(own)));
    }
}
