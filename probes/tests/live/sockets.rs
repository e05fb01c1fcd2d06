use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use stallscope_probes::sample::{Holder, ListenerRaw, ServedRaw, SocketsRaw};
use stallscope_probes::sockets::{Diag, Tracker, Wanted, local_port_range, procnet};
use stallscope_probes::{discover, fds, netstat};

use crate::child::{Child, say_and_wait};
use crate::ss::ss;
use crate::{got, own_pid, proc_root, until};

pub fn inode_of(socket: &impl AsRawFd) -> u32 {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
    let link = link.to_str().unwrap();
    link.trim_start_matches("socket:[").trim_end_matches(']').parse().unwrap()
}

fn listener_at(diag: &Diag, local: SocketAddr) -> ListenerRaw {
    let mut found = got(diag.listeners());
    found.retain(|listener| listener.local == local);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// A server that the test drives, and its clients.
struct Server {
    listener: TcpListener,
    address: SocketAddr,
    diag: Diag,
    range: (u16, u16),
    tracker: Tracker,
    clients: Vec<TcpStream>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            listener,
            diag: got(Diag::open(proc_root(), own_pid())),
            range: got(local_port_range(proc_root(), own_pid())),
            tracker: Tracker::default(),
            clients: Vec::new(),
        }
    }

    fn connect(&mut self, count: usize) {
        let address = self.address;
        self.clients.extend((0..count).map(|_| TcpStream::connect(address).unwrap()));
    }

    fn update(&mut self) -> SocketsRaw {
        let ports = [self.address.port()];
        self.tracker.update(got(self.diag.connections(&Wanted::new(&ports, self.range))))
    }

    fn served(&mut self) -> ServedRaw {
        self.update().served[0]
    }
}

#[test]
fn the_accept_queue_is_as_deep_as_there_are_connections_not_accepted() {
    let mut server = Server::start();
    assert!(!server.diag.foreign());
    let idle = listener_at(&server.diag, server.address);
    assert_eq!((idle.queued, idle.drops, idle.holder), (0, Some(0), Holder::Unknown));
    assert_eq!(idle.inode, inode_of(&server.listener));
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let limit = idle.limit.unwrap();
    assert!(limit > 0 && limit <= somaxconn.trim().parse().unwrap());

    server.connect(7);
    let address = server.address;
    until("7 queued", || (listener_at(&server.diag, address).queued == 7).then_some(()));
    let _accepted: Vec<_> = (0..3).map(|_| server.listener.accept().unwrap()).collect();
    let listener = listener_at(&server.diag, server.address);
    assert_eq!(listener.queued, 4);
    let again = got(server.diag.listeners_again(std::slice::from_ref(&listener)));
    assert_eq!(again, [Some(listener.clone())]);
    if let Some(rows) = ss(None, &["-ltn", &format!("src {}", server.address)]) {
        assert_eq!((rows.len(), rows[0].state.as_str()), (1, "LISTEN"), "{rows:?}");
        assert_eq!((rows[0].received, Some(rows[0].sent)), (listener.queued, listener.limit));
    }
    let text = got(procnet::listeners(proc_root(), own_pid()));
    let expected = ListenerRaw { limit: None, drops: None, ..listener };
    assert!(text.contains(&expected), "{text:?}");
}

#[test]
fn a_listener_is_found_again_by_its_address_unless_it_is_closed_or_not_alone() {
    for at in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
        let listener = TcpListener::bind(at).unwrap();
        let address = listener.local_addr().unwrap();
        let diag = got(Diag::open(proc_root(), own_pid()));
        let dumped = listener_at(&diag, address);
        let loopback = if address.is_ipv4() { "127.0.0.1" } else { "::1" };
        let client = TcpStream::connect((loopback, address.port())).unwrap();
        let again = || got(diag.listeners_again(std::slice::from_ref(&dumped))).remove(0);
        until("one queued", || again().filter(|listener| listener.queued == 1));
        assert_eq!(again(), Some(ListenerRaw { queued: 1, ..dumped.clone() }), "{at}");

        // What is in its place is another one.
        drop((listener, client));
        assert_eq!(again(), None, "{at}");
        let _next = TcpListener::bind(address);
        assert_eq!(again(), None, "{at}");
    }
}

#[test]
fn time_wait_stays_with_the_served_port_when_the_server_closes_first() {
    const CLOSED: u32 = 20;
    let mut server = Server::start();
    server.connect(5);
    let _held: Vec<_> = (0..5).map(|_| server.listener.accept().unwrap()).collect();
    for last in 1..=CLOSED as u8 {
        // An address of its own for each: a port that is taken again would end a TIME_WAIT.
        let client = connect_from([127, 0, 1, last], server.address);
        drop(server.listener.accept().unwrap());
        until_closed(client);
    }
    let served =
        until("TIME_WAIT", || Some(server.served()).filter(|served| served.time_wait == CLOSED));
    assert_eq!((served.accepted_open, served.queued), (5, 0));
    if let Some(rows) = ss(None, &["-tan", "state", "time-wait", &of_port(server.address)]) {
        assert_eq!(rows.len(), CLOSED as usize);
    }

    // The cheap look carries them on, and so does the text.
    let ports = [server.address.port()];
    let wanted = Wanted::new(&ports, server.range);
    let before = server.update();
    let alive = got(server.diag.connections_alive(&wanted));
    let after = server.tracker.update_alive(alive, &before);
    assert_eq!((&after.served, &after.ports), (&before.served, &before.ports));
    let text = got(procnet::connections(proc_root(), own_pid(), &wanted));
    let text = Tracker::default().update(text).served[0];
    assert_eq!(text, not_counted(&before));
    let text = got(procnet::connections_alive(proc_root(), own_pid(), &wanted));
    assert_eq!(text, got(server.diag.connections_alive(&wanted)), "neither has TIME_WAIT");
    assert_eq!(Tracker::default().update_alive(text, &after).served[0], not_counted(&after));
}

fn not_counted(raw: &SocketsRaw) -> ServedRaw {
    ServedRaw { accepted_seen: 0, closed_seen: 0, ..raw.served[0] }
}

fn of_port(address: SocketAddr) -> String {
    format!("sport = :{}", address.port())
}

/// A connection from this address of the loopback.
pub fn connect_from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let client = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&client, &SocketAddr::from((source, 0))).unwrap();
    connect(&client, &to).unwrap();
    client.into()
}

/// Waits until the other side has closed, then closes.
pub fn until_closed(mut stream: TcpStream) {
    use std::io::Read;
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

fn listen_shared(address: SocketAddr) -> TcpListener {
    use rustix::net::sockopt::set_socket_reuseport;
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    set_socket_reuseport(&listener, true).unwrap();
    bind(&listener, &address).unwrap();
    listen(&listener, 16).unwrap();
    listener.into()
}

#[test]
#[ignore = "run as a child by the test below"]
fn child_that_shares_its_port() {
    let listener = listen_shared("127.0.0.1:0".parse().unwrap());
    say_and_wait(&listener.local_addr().unwrap().to_string());
    drop(listener);
}

#[test]
fn siblings_on_one_port_are_told_apart_by_who_holds_them() {
    let mut child = Child::start("sockets::child_that_shares_its_port", None);
    let address: SocketAddr = child.hears().parse().unwrap();
    let own = listen_shared(address);
    let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    let diag = got(Diag::open(proc_root(), own_pid()));
    let mut found = until("20 queued", || {
        let mut found = got(diag.listeners());
        found.retain(|listener| listener.local == address);
        (found.iter().map(|one| one.queued).sum::<u32>() == 20).then_some(found)
    });
    found.sort_by_key(|listener| listener.inode != inode_of(&own));
    assert_eq!(found.len(), 2, "{found:?}");
    let holds = |pid, inode: u32| {
        got(fds::census(proc_root(), pid)).socket_inodes.contains(&u64::from(inode))
    };
    assert_eq!(found[0].inode, inode_of(&own));
    assert!(holds(own_pid(), found[0].inode) && !holds(own_pid(), found[1].inode));
    assert!(holds(child.pid(), found[1].inode) && !holds(child.pid(), found[0].inode));
    drop(clients);
}

#[test]
fn what_is_accepted_and_closed_is_counted() {
    let mut server = Server::start();
    server.connect(2);
    let mut accepted: Vec<_> = (0..2).map(|_| server.listener.accept().unwrap()).collect();
    let baseline = server.served();
    assert_eq!((baseline.accepted_open, baseline.queued), (2, 0));
    assert_eq!((baseline.accepted_seen, baseline.closed_seen), (0, 0));

    server.connect(5);
    accepted.extend((0..3).map(|_| server.listener.accept().unwrap()));
    let later = until("2 queued", || Some(server.served()).filter(|served| served.queued == 2));
    assert_eq!((later.accepted_open, later.accepted_seen, later.closed_seen), (5, 3, 0));
    assert_ne!(later.fingerprint, baseline.fingerprint);
    assert_eq!(server.served().fingerprint, later.fingerprint, "nothing happened in between");

    accepted.truncate(1);
    // A child that another test is just starting holds copies of all fds until its exec.
    let closed = until("4 closed", || Some(server.served()).filter(|it| it.closed_seen == 4));
    assert_eq!((closed.accepted_open, closed.accepted_seen, closed.closed_seen), (1, 3, 4));

    // A client that leaves: CLOSE_WAIT until the server closes too. The first client is accepted.
    drop(server.clients.remove(0));
    until("CLOSE_WAIT", || (server.served().close_wait == 1).then_some(()));
}

#[test]
fn unread_bytes_are_counted() {
    use std::io::Write;
    let mut server = Server::start();
    server.connect(1);
    let _accepted = server.listener.accept().unwrap();
    server.clients[0].write_all(b"twelve bytes").unwrap();
    let served =
        until("12 unread", || Some(server.served()).filter(|served| served.unread_bytes == 12));
    assert_eq!((served.unread_sockets, served.unsent_bytes), (1, 0));
}

#[test]
fn each_connection_takes_an_ephemeral_port() {
    let mut server = Server::start();
    server.connect(23);
    let ports: std::collections::HashSet<u16> =
        server.clients.iter().map(|client| client.local_addr().unwrap().port()).collect();
    let raw = server.update();
    // Everything else on this machine is in the counts too; how many go to this server is exact
    // unless others use the range harder.
    assert!(raw.ports.in_use as usize >= ports.len());
    let told = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let told: Vec<u16> = told.split_whitespace().map(|port| port.parse().unwrap()).collect();
    assert_eq!(raw.ports.range, (told[0], told[1]));
    let least = raw.ports.top.last().unwrap().1;
    match raw.ports.top.iter().find(|(destination, _)| *destination == server.address) {
        Some((_, count)) => assert_eq!(*count, 23),
        None => assert!(least >= 23, "{:?}", raw.ports.top),
    }
}

#[test]
fn a_dual_stack_listener_serves_ipv4_connections() {
    let Ok(listener) = TcpListener::bind("[::]:0") else {
        println!("did not run: no IPv6 here");
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let _accepted = listener.accept().unwrap();
    let diag = got(Diag::open(proc_root(), own_pid()));
    assert_eq!(listener_at(&diag, ([0_u16; 8], port).into()).queued, 0);
    let raw = Tracker::default().update(got(diag.connections(&Wanted::new(&[port], (1, 1)))));
    assert_eq!((raw.served[0].accepted_open, raw.served[0].queued), (1, 0));
}

#[test]
fn whoever_listens_on_a_port_is_found() {
    let server = Server::start();
    let holders = got(discover::holders_of_port(proc_root(), &server.diag, server.address.port()));
    let own: Vec<_> = holders.found.iter().filter(|holder| holder.pid == own_pid()).collect();
    assert_eq!(own.len(), 1, "{holders:?}");
    assert_eq!(own[0].inode, inode_of(&server.listener));
    let port = server.address.port();
    drop(server.listener);
    let left = got(discover::holders_of_port(proc_root(), &server.diag, port));
    assert!(left.found.iter().all(|holder| holder.pid != own_pid()), "{left:?}");
}

#[test]
fn connects_move_the_counters_of_the_namespace() {
    let mut server = Server::start();
    let before = got(netstat::read(proc_root(), own_pid()));
    server.connect(4);
    let after = got(netstat::read(proc_root(), own_pid()));
    let grown = |counter: fn(&stallscope_probes::sample::TcpRaw) -> Option<u64>| {
        counter(&after).unwrap() - counter(&before).unwrap()
    };
    // At least: other processes connect too.
    assert!(grown(|tcp| tcp.active_opens) >= 4);
    assert!(grown(|tcp| tcp.passive_opens) >= 4);
}
