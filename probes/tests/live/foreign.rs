//! A server in another network namespace. Needs root and `ip`.

use std::net::{TcpListener, TcpStream};
use std::process::Command;

use stallscope_probes::sample::{ListenerRaw, PEERS_MAX, ServedRaw, TcpState};
use stallscope_probes::sockets::{Diag, Peers, Tracker, Wanted, local_port_range, procnet};
use stallscope_probes::{fds, netstat};

use crate::child::{Child, say_and_wait};
use crate::peers::{connecting, fill};
use crate::sockets::{connect_from, until_closed};
use crate::ss::ss;
use crate::{got, own_pid, proc_root, until};

const CLIENTS: u32 = 5;

#[test]
#[ignore = "run as a child by the test below"]
fn child_that_listens() {
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40099").unwrap();
    let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| TcpStream::connect("127.0.0.1:8080").unwrap()).collect();
    say_and_wait("ready");
    drop((listener, clients));
}

/// A named network namespace that is removed with the value.
pub struct Netns(pub String);

impl Netns {
    pub fn make(purpose: &str) -> Option<Self> {
        let name = format!("stallscope-{purpose}-{}", own_pid());
        let made = ip(&["netns", "add", &name]) && ip(&["-n", &name, "link", "set", "lo", "up"]);
        // Dropped, and so removed, also when only the second step failed.
        let netns = Self(name);
        made.then_some(netns)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.0]);
    }
}

pub fn ip(arguments: &[&str]) -> bool {
    let quiet = std::process::Stdio::null;
    let status = Command::new("ip").args(arguments).stdout(quiet()).stderr(quiet()).status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn a_server_in_another_network_namespace() {
    let Some(netns) = Netns::make("queue") else {
        println!("did not run: needs root and the command `ip`");
        return;
    };
    let mut child = Child::start("foreign::child_that_listens", Some(&netns.0));
    assert_eq!(child.hears(), "ready");
    let pid = child.pid();

    let diag = got(Diag::open(proc_root(), pid));
    assert!(diag.foreign());
    let range = got(local_port_range(proc_root(), pid));
    assert_eq!(range, (40_000, 40_099));
    assert_ne!(got(local_port_range(proc_root(), own_pid())), range);

    let listeners = got(diag.listeners());
    assert_eq!(listeners.len(), 1, "nobody else is there: {listeners:?}");
    assert_eq!((listeners[0].local.port(), listeners[0].queued), (8080, CLIENTS));
    let raw = Tracker::default().update(got(diag.connections(&Wanted::new(&[8080], range))));
    assert_eq!((raw.served[0].queued, raw.served[0].accepted_open), (CLIENTS, 0));
    assert_eq!((raw.ports.in_use, raw.total), (CLIENTS, 2 * CLIENTS));
    assert_eq!(raw.ports.top, [("127.0.0.1:8080".parse().unwrap(), CLIENTS)]);
    let tcp = got(netstat::read(proc_root(), pid));
    assert_eq!(tcp.passive_opens, Some(CLIENTS.into()));

    // Of a foreign namespace no file stays open: it would hold the namespace.
    let mut watch = netstat::Watch::new(proc_root(), pid);
    assert_eq!(got(watch.read()), tcp);
    let kept = format!("/proc/{pid}/net/");
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    for link in open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok()) {
        assert!(!link.starts_with(&kept), "{}", link.display());
    }

    // The namespace outlives its process for as long as it is looked at.
    drop(child);
    assert_eq!(got(diag.listeners()), []);
}

const HELD: u32 = 100;
const CLOSED_BY_CLIENT: u32 = 50;
const CLOSED_BY_SERVER: u32 = 30;

/// The server and its clients are one process here, so that its peers are those clients.
#[test]
#[ignore = "run as a child by the test below"]
fn child_with_connections_of_all_kinds() {
    let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
    let address = listener.local_addr().unwrap();
    let held: Vec<_> = (0..HELD)
        .map(|_| (TcpStream::connect(address).unwrap(), listener.accept().unwrap()))
        .collect();
    for last in 1..=CLOSED_BY_CLIENT as u8 {
        let client = connect_from([127, 0, 1, last], address);
        let (accepted, _) = listener.accept().unwrap();
        drop(client);
        until_closed(accepted);
    }
    for last in 1..=CLOSED_BY_SERVER as u8 {
        let client = connect_from([127, 0, 2, last], address);
        drop(listener.accept().unwrap());
        until_closed(client);
    }
    let broker = TcpListener::bind("127.0.0.1:9092").unwrap();
    let mut to_broker = TcpStream::connect(broker.local_addr().unwrap()).unwrap();
    fill(&mut to_broker);
    let slow = connecting();
    say_and_wait("ready");
    drop((held, broker, to_broker, slow));
}

#[test]
fn the_dump_the_text_and_ss_agree_on_another_namespace() {
    let Some(netns) = Netns::make("kinds") else {
        println!("did not run: needs root and the command `ip`");
        return;
    };
    let mut child = Child::start("foreign::child_with_connections_of_all_kinds", Some(&netns.0));
    assert_eq!(child.hears(), "ready");
    let pid = child.pid();
    let diag = got(Diag::open(proc_root(), pid));
    let own = got(fds::census(proc_root(), pid)).socket_inodes;
    let range = got(local_port_range(proc_root(), pid));
    let wanted = Wanted { own_inodes: Some(&own), ..Wanted::new(&[8080], range) };

    // The last FINs are on their way.
    let raw = until("all closed", || {
        let raw = Tracker::default().update(got(diag.connections(&wanted)));
        (raw.served[0].time_wait == CLOSED_BY_SERVER && raw.ports.time_wait == CLOSED_BY_CLIENT)
            .then_some(raw)
    });
    let expected = ServedRaw {
        port: 8080,
        accepted_open: HELD,
        time_wait: CLOSED_BY_SERVER,
        fingerprint: raw.served[0].fingerprint,
        ..ServedRaw::default()
    };
    assert_eq!(raw.served, [expected]);
    // Beside those: to the broker, and two to the listener whose queue is full.
    assert_eq!(raw.ports.top[0], ("127.0.0.1:8080".parse().unwrap(), HELD + CLOSED_BY_CLIENT));
    if let Some(rows) = ss(Some(&netns.0), &["-tan"]) {
        let port = |local: &str| local.rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
        let of = |state: &str, is_served: bool| {
            let is_it = |row: &&crate::ss::Row| {
                row.state == state && (port(&row.local) == 8080) == is_served
            };
            rows.iter().filter(is_it).count() as u32
        };
        assert_eq!(of("ESTAB", true), raw.served[0].accepted_open);
        assert_eq!(of("TIME-WAIT", true), raw.served[0].time_wait);
        assert_eq!(of("TIME-WAIT", false), raw.ports.time_wait);
        assert_eq!((of("SYN-SENT", false), of("LISTEN", true)), (1, 1));
        let mut used: Vec<u16> = rows
            .iter()
            .filter(|row| row.state != "LISTEN")
            .map(|row| port(&row.local))
            .filter(|port| (range.0..=range.1).contains(port))
            .collect();
        used.sort_unstable();
        used.dedup();
        assert_eq!(used.len() as u32, raw.ports.in_use);
    }

    // What was written to the broker is still on its way into the other end's buffer.
    until("the text agrees", || {
        let text = got(procnet::connections(proc_root(), pid, &wanted));
        (text == got(diag.connections(&wanted))).then_some(())
    });
    let mut listeners = got(diag.listeners());
    for listener in &mut listeners {
        assert!(listener.limit.take().is_some() && listener.drops.take().is_some());
    }
    let by_inode = |mut listeners: Vec<ListenerRaw>| {
        listeners.sort_unstable_by_key(|listener| listener.inode);
        listeners
    };
    assert_eq!(by_inode(got(procnet::listeners(proc_root(), pid))), by_inode(listeners));

    let mut peers = Peers::default();
    peers.found(&got(diag.connections(&wanted)));
    let seen = got(peers.refresh(&diag));
    assert_eq!(seen.len(), PEERS_MAX);
    let stuck = || seen.iter().filter(|peer| peer.unsent_bytes > 0);
    assert_eq!(stuck().count(), 2, "{seen:?}");
    let to_broker = stuck().find(|peer| peer.remote.port() == 9092).unwrap();
    assert_eq!((to_broker.state, to_broker.info.is_some()), (TcpState::Established, true));
    let connecting = stuck().find(|peer| peer.remote.port() != 9092).unwrap();
    assert_eq!((connecting.state, connecting.unsent_bytes), (TcpState::SynSent, 1));
    // The same addresses in the namespace of this process are none of the child's.
    let here = got(Diag::open(proc_root(), own_pid()));
    assert_eq!(got(peers.refresh(&here)), []);
}
