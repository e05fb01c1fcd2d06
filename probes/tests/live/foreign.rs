//! A server in another network namespace. Needs root and `ip`.

use std::net::{TcpListener, TcpStream};
use std::process::Command;

use stallscope_probes::netstat;
use stallscope_probes::sockets::{Diag, Tracker, local_port_range};

use crate::child::{Child, say_and_wait};
use crate::{got, own_pid, proc_root};

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
struct Netns(String);

impl Netns {
    fn make() -> Option<Self> {
        let name = format!("stallscope-{}", own_pid());
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

fn ip(arguments: &[&str]) -> bool {
    let quiet = std::process::Stdio::null;
    let status = Command::new("ip").args(arguments).stdout(quiet()).stderr(quiet()).status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn a_server_in_another_network_namespace() {
    let Some(netns) = Netns::make() else {
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
    let dump = got(diag.connections(&[8080], range));
    let raw = Tracker::default().update(&dump, &[8080], range);
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
