//! One connection of the watcher's own to the target, as any client makes it: the socket, and what
//! its errors mean. Opt-in: all other probes only read.
//!
//! The socket is made within the target's network namespace (a socket stays in the namespace in
//! which it was made, `network_namespaces(7)`), by a thread that lives no longer than that; nothing
//! of the namespace is held between two connections. Nothing here waits longer than it is told to,
//! and nothing here asks for the time: patience is the caller's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};

use crate::reading::Reading;
use crate::sample::ActiveOutcome;
use crate::sockets::netns::Namespace;

/// Longest path that [`request`] takes, bytes: with it the request still fits the send buffer.
pub const PATH_BYTES_MAX: usize = 1024;

/// One connection, under way or made.
#[derive(Debug)]
pub struct Call {
    socket: OwnedFd,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The connection is made, or has failed.
    Connected,
    /// Something has come in, or the other side has closed.
    Readable,
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// What was waited for is there.
    Ready,
    /// It is not, and the time is up.
    TimedOut,
    /// The caller's other fd became readable.
    Cancelled,
    /// A signal came in: wait again for what is left of the time.
    Interrupted,
}

impl Call {
    /// Begins a connection to `to` from within the network namespace of process `pid`, without
    /// waiting for it. An `Err` is the errno of socket(2) or connect(2); absent when the namespace
    /// cannot be entered.
    pub fn begin(proc_root: &Path, pid: i32, to: SocketAddr) -> Reading<Result<Self, i32>> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let make = || {
            let tcp = Some(ipproto::TCP);
            Reading::Got(rustix::net::socket_with(family, SocketType::STREAM, flags, tcp))
        };
        let made = Namespace::of(proc_root, pid).and_then(|namespace| namespace.within(make));
        made.map(|socket| {
            let socket = socket.map_err(Errno::raw_os_error)?;
            match rustix::net::connect(&socket, &to) {
                Ok(()) | Err(Errno::INPROGRESS) => Ok(Self { socket }),
                Err(errno) => Err(errno.raw_os_error()),
            }
        })
    }

    /// Waits for at most `patience`, or until `cancel` becomes readable.
    pub fn wait(&self, until: Until, patience: Duration, cancel: BorrowedFd<'_>) -> Waited {
        let events = match until {
            Until::Connected => PollFlags::OUT,
            Until::Readable => PollFlags::IN,
        };
        let mut fds =
            [PollFd::new(&self.socket, events), PollFd::from_borrowed_fd(cancel, PollFlags::IN)];
        // It fits: patience is a matter of seconds.
        let timeout = Timespec::try_from(patience).ok();
        match poll(&mut fds, timeout.as_ref()) {
            Err(Errno::INTR) => Waited::Interrupted,
            // None of the other errors can be (poll(2)); if one is, waiting on is of no use.
            Err(_) => Waited::Cancelled,
            Ok(0) => Waited::TimedOut,
            Ok(_) if !fds[1].revents().is_empty() => Waited::Cancelled,
            Ok(_) => Waited::Ready,
        }
    }

    /// Once [`Until::Connected`] is there: whether the connection was made, or why not (errno).
    ///
    /// # Errors
    /// `SO_ERROR` of the socket (socket(7)).
    pub fn connected(&self) -> Result<(), i32> {
        let error = rustix::net::sockopt::socket_error(&self.socket);
        error.and_then(|error| error).map_err(Errno::raw_os_error)
    }

    /// Sends all of `bytes`; they are few and the send buffer is empty, so they fit.
    ///
    /// # Errors
    /// errno of send(2), or `EMSGSIZE` when they did not fit after all.
    pub fn send(&self, bytes: &[u8]) -> Result<(), i32> {
        match rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(Errno::MSGSIZE.raw_os_error()),
            Err(errno) => Err(errno.raw_os_error()),
        }
    }

    /// Takes what has come in: how many bytes, 0 at the end of the stream, `None` when there is
    /// nothing yet.
    ///
    /// # Errors
    /// errno of recv(2).
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Option<usize>, i32> {
        match rustix::net::recv(self.socket.as_fd(), buffer, RecvFlags::empty()) {
            Ok((taken, _)) => Ok(Some(taken)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.raw_os_error()),
        }
    }
}

/// What an errno of connect(2) or socket(2) says.
pub const fn outcome_of(errno: i32) -> ActiveOutcome {
    match Errno::from_raw_os_error(errno) {
        // A RST in place of the SYN-ACK (connect(2)).
        Errno::CONNREFUSED | Errno::CONNRESET => ActiveOutcome::Refused,
        Errno::TIMEDOUT => ActiveOutcome::ConnectTimeout,
        _ => ActiveOutcome::NotMade { errno },
    }
}

/// Where a client of the same namespace reaches a socket that listens on `local`, the likelier
/// address first. A socket on `::` as a rule takes IPv4 too (`IPV6_V6ONLY`, ipv6(7)): that is the
/// way in where the namespace has no IPv6.
pub fn reachable(local: SocketAddr) -> Vec<SocketAddr> {
    let at = |address: IpAddr| SocketAddr::new(address, local.port());
    match local.ip() {
        IpAddr::V4(address) if address.is_unspecified() => vec![at(Ipv4Addr::LOCALHOST.into())],
        IpAddr::V6(address) if address.is_unspecified() => {
            vec![at(Ipv6Addr::LOCALHOST.into()), at(Ipv4Addr::LOCALHOST.into())]
        }
        _ => vec![local],
    }
}

/// Whether `path` can stand in a request line: it begins with `/` and is visible ASCII (RFC 9112,
/// section 3), so that it can neither end the line nor add a header.
pub fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && path.len() <= PATH_BYTES_MAX
        && path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The request for `path` at `to`. It names its sender, so that it is known in the target's logs.
pub fn request(to: SocketAddr, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: {to}\r\nuser-agent: stallscope-probe\r\nconnection: close\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn errors_of_the_watcher_say_nothing_of_the_target() {
        let cases = [
            (Errno::CONNREFUSED, ActiveOutcome::Refused),
            (Errno::TIMEDOUT, ActiveOutcome::ConnectTimeout),
            (Errno::ADDRNOTAVAIL, ActiveOutcome::NotMade { errno: 99 }),
            (Errno::NETUNREACH, ActiveOutcome::NotMade { errno: 101 }),
            (Errno::MFILE, ActiveOutcome::NotMade { errno: 24 }),
        ];
        for (errno, outcome) in cases {
            assert_eq!(outcome_of(errno.raw_os_error()), outcome);
        }
    }

    #[test]
    fn a_listener_on_every_address_is_reached_by_loopback() {
        let reached = |local: &str| -> Vec<String> {
            reachable(local.parse().unwrap()).iter().map(ToString::to_string).collect()
        };
        assert_eq!(reached("0.0.0.0:80"), ["127.0.0.1:80"]);
        assert_eq!(reached("[::]:80"), ["[::1]:80", "127.0.0.1:80"]);
        assert_eq!(reached("10.0.0.1:80"), ["10.0.0.1:80"]);
        assert_eq!(reached("[fe80::1]:80"), ["[fe80::1]:80"]);
    }

    #[test]
    fn a_path_cannot_become_a_header() {
        for path in ["/", "/health?full=1", "/a%20b"] {
            assert!(is_path(path), "{path}");
        }
        let long = format!("/{}", "a".repeat(PATH_BYTES_MAX));
        for path in ["", "health", "/a b", "/\r\nx: y", "/\u{e9}", "/\0", &long] {
            assert!(!is_path(path), "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn a_request_has_its_four_lines_whatever_the_path(path in "/[!-~]{0,40}") {
            prop_assert!(is_path(&path));
            let text = request("[::1]:80".parse().unwrap(), &path);
            prop_assert_eq!(text.matches("\r\n").count(), 5);
            prop_assert!(text.ends_with("\r\nconnection: close\r\n\r\n"));
        }
    }
}
