//! Connections of the target's own making. The target is this process.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, listen, socket_with};
use stallscope_probes::sample::{PEERS_MAX, PeerRaw, TcpState};
use stallscope_probes::sockets::{Diag, Peers, Wanted, local_port_range};

use crate::sockets::inode_of;
use crate::ss::ss;
use crate::{got, own_pid, proc_root, until};

struct Watcher {
    diag: Diag,
    range: (u16, u16),
    peers: Peers,
}

impl Watcher {
    fn new() -> Self {
        Self {
            diag: got(Diag::open(proc_root(), own_pid())),
            range: got(local_port_range(proc_root(), own_pid())),
            peers: Peers::default(),
        }
    }

    /// Looks for those of these inodes, as if the process had no other sockets: the other tests
    /// of this process have some.
    fn finds(&mut self, inodes: &[u32]) -> Vec<PeerRaw> {
        let own: BTreeSet<u64> = inodes.iter().map(|inode| u64::from(*inode)).collect();
        let wanted = Wanted { own_inodes: Some(&own), ..Wanted::new(&[], self.range) };
        self.peers.found(&got(self.diag.connections(&wanted)));
        self.sees()
    }

    fn sees(&mut self) -> Vec<PeerRaw> {
        got(self.peers.refresh(&self.diag))
    }
}

/// Writes until nothing more fits.
pub fn fill(stream: &mut TcpStream) {
    stream.set_nonblocking(true).unwrap();
    loop {
        match stream.write(&[0; 4_096]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A listener whose accept queue is full, the connection that fills it, and one that is tried.
pub fn connecting() -> (TcpListener, TcpStream, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Room for one more than said (`sk_acceptq_is_full`, include/net/sock.h).
    listen(&listener, 0).unwrap();
    let first = TcpStream::connect(address).unwrap();
    let flags = SocketFlags::NONBLOCK;
    let tried = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    assert_eq!(connect(&tried, &address), Err(Errno::INPROGRESS));
    (listener, first, tried)
}

#[test]
fn a_peer_that_does_not_read_is_seen_by_what_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    let mut watcher = Watcher::new();
    let idle = watcher.finds(&[inode_of(&client)]);
    let expected = PeerRaw {
        remote: listener.local_addr().unwrap(),
        local_port: client.local_addr().unwrap().port(),
        inode: inode_of(&client),
        state: TcpState::Established,
        unread_bytes: 0,
        unsent_bytes: 0,
        info: idle[0].info,
    };
    assert_eq!(idle, [expected]);
    let info = idle[0].info.unwrap();
    assert!(info.rtt_us > 0 && info.retransmits == 0 && info.unacked == 0, "{info:?}");

    fill(&mut client);
    // The window closes when the other side's buffer is full: then it stays as it is.
    let local = client.local_addr().unwrap();
    let (stuck, rows) = until("what ss sees", || {
        let before = watcher.sees();
        let rows = ss(None, &["-tn", &format!("src {local}")]);
        (before[0].unsent_bytes > 0 && before == rest_of(watcher.sees(), &before))
            .then_some((before[0], rows))
    });
    if let Some(rows) = rows {
        assert_eq!((rows.len(), rows[0].sent), (1, stuck.unsent_bytes), "{rows:?}");
    }
    assert!(stuck.info.unwrap().last_sent_ms < 60_000, "{stuck:?}");

    accepted.set_nonblocking(true).unwrap();
    let mut buffer = vec![0; 1 << 20];
    until("all read", || {
        while accepted.read(&mut buffer).is_ok() {}
        (watcher.sees()[0].unsent_bytes == 0).then_some(())
    });
    accepted.write_all(b"answer").unwrap();
    until("unread", || (watcher.sees()[0].unread_bytes == 6).then_some(()));
    drop(client);
    // A child that another test is just starting holds copies of all fds until its exec.
    until("gone", || watcher.sees().is_empty().then_some(()));
}

/// `seen` with the times of `before`, which go on.
fn rest_of(mut seen: Vec<PeerRaw>, before: &[PeerRaw]) -> Vec<PeerRaw> {
    for (peer, before) in seen.iter_mut().zip(before) {
        peer.info = before.info;
    }
    seen
}

#[test]
fn a_peer_that_does_not_answer_is_seen_while_connecting() {
    let (listener, first, tried) = connecting();
    let mut watcher = Watcher::new();
    let seen = watcher.finds(&[inode_of(&first), inode_of(&tried)]);
    let of = |inode| *seen.iter().find(|peer| peer.inode == inode).unwrap();
    assert_eq!(of(inode_of(&first)).state, TcpState::Established);
    let tried_as = of(inode_of(&tried));
    assert_eq!((tried_as.state, tried_as.unsent_bytes), (TcpState::SynSent, 1));
    assert_eq!((tried_as.remote, tried_as.info), (listener.local_addr().unwrap(), None));
}

#[test]
fn a_peer_that_has_closed_is_seen_until_the_target_closes_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    drop(listener.accept().unwrap());
    let mut watcher = Watcher::new();
    let inode = inode_of(&client);
    until("CLOSE_WAIT", || (watcher.finds(&[inode])[0].state == TcpState::CloseWait).then_some(()));
    assert_eq!(watcher.sees()[0].state, TcpState::CloseWait);
}

#[test]
fn both_ip_versions_and_ipv4_within_ipv6() {
    let Ok(listener) = TcpListener::bind("[::]:0") else {
        println!("did not run: no IPv6 here");
        return;
    };
    let port = listener.local_addr().unwrap().port();
    for (ip, shown) in
        [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::ffff:127.0.0.1", "127.0.0.1")]
    {
        let to: SocketAddr = (ip.parse::<std::net::IpAddr>().unwrap(), port).into();
        let client = TcpStream::connect(to).unwrap();
        let seen = Watcher::new().finds(&[inode_of(&client)]);
        let remote = (shown.parse::<std::net::IpAddr>().unwrap(), port).into();
        assert_eq!((seen.len(), seen[0].remote, seen[0].info.is_some()), (1, remote, true), "{ip}");
    }
}

#[test]
fn no_more_are_followed_than_the_bound_and_those_with_unsent_bytes_first() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut clients: Vec<_> =
        (0..PEERS_MAX + 8).map(|_| TcpStream::connect(address).unwrap()).collect();
    let accepted: Vec<_> = clients.iter().map(|_| listener.accept().unwrap()).collect();
    let inodes: Vec<u32> = clients.iter().map(inode_of).collect();
    fill(clients.last_mut().unwrap());
    let mut watcher = Watcher::new();
    let stuck = *inodes.last().unwrap();
    let seen = watcher.finds(&inodes);
    assert_eq!(seen.len(), PEERS_MAX);
    let unsent: Vec<u32> =
        seen.iter().filter(|peer| peer.unsent_bytes > 0).map(|peer| peer.inode).collect();
    assert_eq!(unsent, [stuck]);
    drop(accepted);
}
