//! Reads, from outside and without touching it, what a Linux process is doing.
//!
//! One module per probe. In each, *parsing* (bytes in, types out, pure, fuzzed) stands apart from
//! *reading* (the only code that opens files or sockets). No probe stops, signals or ptraces the
//! process it looks at. A value that could not be had is [`Reading::Absent`] with the reason;
//! it never becomes zero.
//!
//! This crate holds no clock: whoever calls a probe stamps the begin and end of the read
//! ([`Probe`]). It holds no rights either: each absence says which would permit the read.
//!
//! | module | reads | cost |
//! |---|---|---|
//! | [`process`] | `/proc/PID/stat`; once: name, command line, executable | one small file |
//! | [`threads`] | `/proc/PID/task/TID/{stat,schedstat,syscall,wchan,stack,status}` | one small file a thread, three more of those that ran |
//! | [`fds`] | their number against `RLIMIT_NOFILE`; a census of what they are | one stat(2) and a small file; one readlink(2) each, in slices |
//! | [`ring`] | an `io_uring`: its own memory, mapped read-only | loads from memory, no system call |
//! | | `/proc/PID/fdinfo/FD`: what the memory does not tell | grows with armed operations, takes the ring's lock |
//! | [`pidfd`] | whether the process has exited; its fds, for [`ring`] | a system call |
//! | [`sockets`] | accept queues, connections, ephemeral ports, over `sock_diag(7)` | listeners: cheap; connections: grows with the namespace |
//! | [`netstat`] | TCP counters of the namespace | two small files |
//! | [`tables`] | how full the file table and connection tracking are | three small files |
//! | [`epolls`] | which listening sockets an epoll instance watches | grows with the fds it watches, takes its mutex |
//! | [`cgroup`] | frozen, throttled, at its memory limits | four to seven small files |
//! | [`pressure`] | how long tasks waited for CPU, memory, disk | four small files |
//! | [`own`] | the watcher's own memory and fds | one small file and one stat(2) |
//! | [`heartbeat`] | what an instrumented server says of itself | 4 KiB of memory |
//! | [`spool`] | CPU profiles that an instrumented server makes of itself | a listing, then a file a second |
//! | [`stacks`] | stacks of threads that run, wait or sleep, and their names (opt-in) | microseconds a sample, paid by the target; see there |
//! | [`active`] | what a connection of the watcher's own meets with (opt-in) | a connection a second |
//! | [`discover`] | which processes listen on a port | a census of every process: once per run |
//!
//! What is read at every tick has a `Watch`, which keeps its files open and reads them with
//! pread(2), beside a `read` for once. It is for one process and one thread, and holds as many fds
//! as its documentation says.
//!
//! `proc_root` is `/proc` but for tests; the other names in a sample are in [`sample`].

pub mod active;
pub mod cgroup;
pub mod discover;
pub mod epolls;
#[cfg(test)]
mod fake;
pub mod fds;
mod files;
pub mod heartbeat;
pub mod netstat;
pub mod own;
pub mod pidfd;
pub mod pressure;
pub mod process;
pub mod reading;
pub mod ring;
pub mod sample;
pub mod sockets;
pub mod spool;
pub mod stacks;
#[cfg(any(test, feature = "storm"))]
pub mod storm;
#[cfg(any(test, feature = "storm"))]
pub mod submit;
pub mod tables;
pub mod threads;

pub use reading::{Absence, Probe, Reading, Why};
