//! Which listeners an epoll instance of this process watches.

use std::net::TcpListener;
use std::os::fd::AsRawFd;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use stallscope_probes::{Why, epolls, fds};

use crate::sockets::inode_of;
use crate::{got, own_pid, proc_root};

#[test]
fn a_listener_is_seen_as_long_as_it_is_watched_and_readiness_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let set = epoll::create(CreateFlags::CLOEXEC).unwrap();
    let fd = set.as_raw_fd();
    let (inode, other_inode) = (inode_of(&listener), inode_of(&other));
    let seen = || {
        let found = got(epolls::read(proc_root(), own_pid(), &[fd], &[inode, other_inode]));
        assert_eq!((found.len(), found[0].fd), (1, fd));
        (found[0].watched, found[0].listeners.clone())
    };
    assert_eq!(seen(), (0, vec![]));
    let (data, edge) = (EventData::new_u64(1), EventFlags::IN | EventFlags::ET);
    epoll::add(&set, &listener, data, edge).unwrap();
    assert_eq!(seen(), (1, vec![(inode, true)]));
    // An interest that has fired and was not renewed.
    epoll::modify(&set, &listener, data, EventFlags::ONESHOT).unwrap();
    assert_eq!(seen(), (1, vec![(inode, false)]));
    epoll::add(&set, &other, data, edge).unwrap();
    epoll::delete(&set, &listener).unwrap();
    assert_eq!(seen(), (1, vec![(other_inode, true)]));

    assert!(got(fds::census(proc_root(), own_pid())).epolls.contains(&fd));
    drop(set);
    let closed = epolls::read(proc_root(), own_pid(), &[fd], &[inode]);
    // Another test may have opened something else there since.
    assert!(closed.absence().is_none_or(|absence| absence.why == Why::Unsupported), "{closed:?}");
}
