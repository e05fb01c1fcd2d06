//! Asking the kernel: the netlink socket and its dumps.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use super::netns::Namespace;
use super::tally::{CensusCount, ServedCount, Take};
use super::wire::{self, Detail, Exact, Family, Message, Request, Socket, TcpState, Which};
use super::{Alive, Census, Wanted, filter};
use crate::reading::{Absence, Reading, Why};
use crate::sample::{Holder, ListenerRaw};

/// Sockets taken from one dump of connections.
pub const DUMP_MAX: usize = 400_000;
/// Listeners taken from one dump. More than a sample keeps
/// ([`LISTENERS_MAX`](crate::sample::LISTENERS_MAX)): the caller keeps the target's first.
pub const LISTENERS_DUMPED_MAX: usize = 16_384;
/// How long the kernel may take for one datagram of an answer.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// The kernel sends dumps in datagrams of at most 32 KiB (`netlink_dump`, `af_netlink.c`).
const DATAGRAM_MAX_BYTES: usize = 64 * 1024;
/// Times a dump is taken anew when the kernel says the table changed under it.
const ATTEMPTS_MAX: usize = 3;

/// A `NETLINK_SOCK_DIAG` socket in the network namespace of a process.
#[derive(Debug)]
pub struct Diag {
    namespace: Namespace,
    session: Mutex<Session>,
}

/// One conversation at a time. After a dump that did not end well the socket may hold the rest of
/// it, so it is dropped and made anew.
#[derive(Debug)]
struct Session {
    socket: Option<OwnedFd>,
    seq: u32,
    buffer: Vec<u8>,
}

/// Why a dump did not end well.
#[derive(Debug, thiserror::Error)]
enum DumpError {
    #[error("cannot {action} the kernel's socket table (sock_diag): {errno}")]
    System { action: &'static str, errno: Errno },
    #[error(
        "this kernel does not list TCP sockets over netlink; load the modules inet_diag and tcp_diag"
    )]
    NoDiag,
    #[error("the kernel refused to list its TCP sockets: {0}")]
    Refused(Errno),
    #[error("the kernel gave no answer about its sockets within a second")]
    Silent,
    #[error(transparent)]
    Malformed(#[from] wire::Malformed),
    #[error("a datagram of {0} bytes from the kernel was cut")]
    Cut(usize),
    #[error("the socket table kept changing while it was read")]
    Interrupted,
    #[error("no socket in the process's network namespace: {}", .0.detail)]
    NoSocket(Absence),
}

impl DumpError {
    fn why(&self) -> Why {
        match self {
            Self::System { errno, .. } | Self::Refused(errno) => {
                match Absence::from(&std::io::Error::from(*errno)).why {
                    // ENOENT here is about a kernel module, never about a process.
                    Why::Gone => Why::Failed,
                    why => why,
                }
            }
            Self::NoDiag => Why::Unsupported,
            Self::Malformed(_) | Self::Cut(_) => Why::Malformed,
            Self::Silent | Self::Interrupted => Why::Failed,
            Self::NoSocket(absence) => absence.why,
        }
    }
}

impl Diag {
    /// Opens a socket in the network namespace of process `pid`. It can be used from anywhere
    /// afterwards.
    pub fn open(proc_root: &Path, pid: i32) -> Reading<Self> {
        Namespace::of(proc_root, pid).and_then(|namespace| {
            open_socket(&namespace).map(|socket| {
                let buffer = vec![0; DATAGRAM_MAX_BYTES];
                let session = Mutex::new(Session { socket: Some(socket), seq: 0, buffer });
                Self { namespace, session }
            })
        })
    }

    /// Whether that is another namespace than the caller's.
    pub const fn foreign(&self) -> bool {
        matches!(self.namespace, Namespace::Foreign(_))
    }

    /// Every listening TCP socket of the namespace (at most [`LISTENERS_DUMPED_MAX`]), its holder
    /// [`Holder::Unknown`].
    pub fn listeners(&self) -> Reading<Vec<ListenerRaw>> {
        self.dump(Which::Listening, &[], Vec::new, |found: &mut Vec<ListenerRaw>, socket| {
            if found.len() == LISTENERS_DUMPED_MAX {
                return Take::Enough;
            }
            if socket.state == Some(TcpState::Listen) {
                found.push(ListenerRaw {
                    local: socket.local,
                    inode: socket.inode,
                    queued: socket.received,
                    limit: Some(socket.sent),
                    drops: socket.drops,
                    holder: Holder::Unknown,
                });
            }
            Take::More
        })
    }

    /// These listeners as they are now, each asked for by its address: a few microseconds a
    /// listener, where a dump goes through all 65,536 buckets of the listeners' table. `None` for
    /// one that is not found in its place: it is closed, or shares its address with another one
    /// (`SO_REUSEPORT`), of which the kernel gives any.
    pub fn listeners_again(&self, known: &[ListenerRaw]) -> Reading<Vec<Option<ListenerRaw>>> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let again = |listener: &ListenerRaw| {
            let nobody: IpAddr = match listener.local {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let remote = SocketAddr::new(nobody, 0);
            let one = Exact { local: listener.local, remote, interface: 0 };
            let socket = session.ask_one(&self.namespace, one, Detail::Drops)?;
            let same = |socket: &Socket| {
                socket.state == Some(TcpState::Listen) && socket.inode == listener.inode
            };
            Ok(socket.filter(same).map(|socket| ListenerRaw {
                queued: socket.received,
                limit: Some(socket.sent),
                drops: socket.drops,
                ..listener.clone()
            }))
        };
        let found: Result<_, DumpError> = known.iter().map(again).collect();
        reading(found)
    }

    /// Counts every other TCP socket of the namespace that has a served port or a port of the
    /// ephemeral range, in one pass. The kernel sends no others.
    pub fn connections(&self, wanted: &Wanted<'_>) -> Reading<Census> {
        let filter = filter::local_ports(wanted.served_ports, &[wanted.range]);
        let empty = || CensusCount::new(wanted);
        let which = Which::Others { info: wanted.answers };
        self.dump(which, &filter, empty, CensusCount::take).map(CensusCount::finish)
    }

    /// Counts the connections to served ports that are not in TIME_WAIT: what changes while a
    /// server works, without their other ends on this machine and the tens of thousands of sockets
    /// that only wait to be forgotten. Of `wanted` the range and the own inodes do not matter.
    pub fn connections_alive(&self, wanted: &Wanted<'_>) -> Reading<Alive> {
        let empty = || ServedCount::new(wanted);
        if wanted.served_ports.is_empty() {
            return Reading::Got(empty().finish());
        }
        let filter = filter::local_ports(wanted.served_ports, &[]);
        let which = Which::OthersAlive { info: wanted.answers };
        self.dump(which, &filter, empty, ServedCount::take).map(ServedCount::finish)
    }

    /// Each connection as it is now, with its `tcp_info`; `None` for one that is no more.
    pub(super) fn exact(&self, wanted: &[Exact]) -> Reading<Vec<Option<Socket>>> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let found: Result<_, DumpError> =
            wanted.iter().map(|one| session.ask_one(&self.namespace, *one, Detail::Info)).collect();
        reading(found)
    }

    fn dump<T>(
        &self,
        which: Which,
        filter: &[u8],
        empty: impl Fn() -> T,
        mut take: impl FnMut(&mut T, &Socket) -> Take,
    ) -> Reading<T> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let mut result = Err(DumpError::Interrupted);
        // Listeners have a small table of their own. That of the connections has hundreds of
        // thousands of buckets: one walk instead of two is half the cost of a small dump.
        let one_by_one: &[Family] = &[Family::V4, Family::V6];
        let mut families: &[Family] =
            if which == Which::Listening { one_by_one } else { &[Family::Both] };
        for _ in 0..ATTEMPTS_MAX {
            let mut found = empty();
            let mut take = |socket: &Socket| take(&mut found, socket);
            result = session
                .dump_each(&self.namespace, families, which, filter, &mut take)
                .map(|()| found);
            match result {
                Err(DumpError::Interrupted) => {}
                // Whatever answers for the kernel may not know the older request.
                Err(DumpError::Refused(_) | DumpError::NoDiag) if families != one_by_one => {
                    families = one_by_one;
                }
                _ => break,
            }
        }
        reading(result)
    }
}

fn reading<T>(result: Result<T, DumpError>) -> Reading<T> {
    result.map_or_else(|error| Reading::absent(error.why(), error.to_string()), Reading::Got)
}

impl Session {
    fn dump_each(
        &mut self,
        namespace: &Namespace,
        families: &[Family],
        which: Which,
        filter: &[u8],
        take: &mut dyn FnMut(&Socket) -> Take,
    ) -> Result<(), DumpError> {
        for family in families {
            let request = Request { family: *family, which };
            if let Take::Enough = self.dump_one(namespace, request, filter, take)? {
                break;
            }
        }
        Ok(())
    }

    fn dump_one(
        &mut self,
        namespace: &Namespace,
        request: Request,
        filter: &[u8],
        take: &mut dyn FnMut(&Socket) -> Take,
    ) -> Result<Take, DumpError> {
        // Out of `self` until the dump has ended well.
        let socket = self.take_socket(namespace)?;
        send(&socket, &request.encode(self.seq, filter))?;
        let mut interrupted = false;
        loop {
            let bytes = receive(&socket, &mut self.buffer)?;
            for numbered in wire::messages(bytes) {
                let numbered = numbered?;
                if numbered.seq != self.seq {
                    continue;
                }
                interrupted |= numbered.interrupted;
                match numbered.message {
                    Message::Socket(described) => {
                        if let Take::Enough = take(&described) {
                            return Ok(Take::Enough);
                        }
                    }
                    Message::Done(0) => {
                        self.socket = Some(socket);
                        return if interrupted {
                            Err(DumpError::Interrupted)
                        } else {
                            Ok(Take::More)
                        };
                    }
                    Message::Done(errno) | Message::Error(errno) if errno != 0 => {
                        return Err(refusal(errno));
                    }
                    Message::Done(_) | Message::Error(_) | Message::Other => {}
                }
            }
        }
    }

    fn ask_one(
        &mut self,
        namespace: &Namespace,
        one: Exact,
        detail: Detail,
    ) -> Result<Option<Socket>, DumpError> {
        // Out of `self` until its answer was read: no other message follows.
        let socket = self.take_socket(namespace)?;
        send(&socket, &one.encode(self.seq, detail))?;
        loop {
            let bytes = receive(&socket, &mut self.buffer)?;
            for numbered in wire::messages(bytes) {
                let numbered = numbered?;
                if numbered.seq != self.seq {
                    continue;
                }
                let answer = match numbered.message {
                    Message::Socket(described) => Some(described),
                    // Of a single connection: there is none (`inet_diag_find_one_icsk`).
                    Message::Error(errno) if errno == Errno::NOENT.raw_os_error() => None,
                    Message::Error(errno) if errno != 0 => return Err(refusal(errno)),
                    Message::Error(_) | Message::Done(_) | Message::Other => continue,
                };
                self.socket = Some(socket);
                return Ok(answer);
            }
        }
    }

    /// The socket, and a number of its own for the next request.
    fn take_socket(&mut self, namespace: &Namespace) -> Result<OwnedFd, DumpError> {
        self.seq = self.seq.wrapping_add(1);
        match self.socket.take() {
            Some(socket) => Ok(socket),
            None => match open_socket(namespace) {
                Reading::Got(socket) => Ok(socket),
                Reading::Absent(absence) => Err(DumpError::NoSocket(absence)),
            },
        }
    }
}

/// Of a dump, ENOENT: no module answers for TCP (`sock_diag_lock_handler`, `net/core/sock_diag.c`, and
/// `inet_diag_lock_handler`).
fn refusal(errno: i32) -> DumpError {
    match Errno::from_raw_os_error(errno) {
        Errno::NOENT => DumpError::NoDiag,
        errno => DumpError::Refused(errno),
    }
}

fn open_socket(namespace: &Namespace) -> Reading<OwnedFd> {
    namespace.within(|| {
        let made = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )
        .and_then(|socket| {
            set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_MAX))?;
            Ok(socket)
        });
        made.map_or_else(
            |errno| {
                let error = DumpError::System { action: "open a socket to", errno };
                Reading::absent(error.why(), error.to_string())
            },
            Reading::Got,
        )
    })
}

fn send(socket: &OwnedFd, request: &[u8]) -> Result<(), DumpError> {
    rustix::io::retry_on_intr(|| rustix::net::send(socket, request, SendFlags::empty()))
        .map(drop)
        .map_err(|errno| DumpError::System { action: "ask for", errno })
}

fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> Result<&'a [u8], DumpError> {
    // With TRUNC the kernel gives the datagram's own length even if it was cut.
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recv(socket, &mut *buffer, RecvFlags::TRUNC).map(|(_, bytes)| bytes)
    });
    match received {
        Ok(bytes) => buffer.get(..bytes).ok_or(DumpError::Cut(bytes)),
        Err(Errno::AGAIN) => Err(DumpError::Silent),
        Err(errno) => Err(DumpError::System { action: "read", errno }),
    }
}

#[cfg(test)]
#[path = "diag_tests.rs"]
mod tests;
