//! Victims of limits and of the host, as their clients find them: each stalls as its cause says,
//! dates that by itself, and leaves nothing behind.
#![cfg(feature = "servers")]
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests run processes and read their files, and fail by panicking"
)]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use stallscope::lab::victims::{Truth, network};
use support::victim::until;
use support::{Killed, STALLSCOPE};
use tempfile::TempDir;

/// Nothing here takes so long, however busy the machine is.
const AT_MOST: Duration = Duration::from_secs(30);
/// A connection is not answered: a server that lives takes some milliseconds.
const SILENCE: Duration = Duration::from_millis(300);

#[derive(Debug)]
struct Victim {
    process: Killed,
    address: SocketAddr,
    folder: TempDir,
}

impl Victim {
    fn start(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(STALLSCOPE);
        command.args(["lab-victim", name, "--after", "200ms", "--truth"]);
        command.arg(folder.path().join("truth"));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let process = Killed(child);
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = ready["url"].as_str().unwrap().trim_start_matches("http://");
        let address = address.trim_end_matches('/').parse().unwrap();
        Self { process, address, folder }
    }

    fn truth(&self) -> Option<Truth> {
        let text = std::fs::read_to_string(self.folder.path().join("truth")).ok()?;
        serde_json::from_str(&text).ok()
    }

    fn client(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        stream
    }
}

fn answered(mut client: &TcpStream) -> bool {
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    client.read(&mut [0; 256]).is_ok_and(|bytes| bytes > 0)
}

/// The fd of the client that is turned away is the client's own: this process has enough of them.
fn runs_out_of_fds(name: &str) {
    let victim = Victim::start(name);
    let first = victim.client();
    assert!(answered(&first));
    let mut held = Vec::new();
    until("no fd is left", AT_MOST, || {
        held.push(victim.client());
        std::thread::sleep(Duration::from_millis(5));
        victim.truth().is_some()
    });
    assert_eq!(victim.truth().unwrap().cause, "fd-exhausted");
    assert!(!answered(&victim.client()), "{name}: somebody new got an answer");
    // A loop that spins serves the others late, if at all: only those that wait are asked.
    if name != "fd-spin" {
        assert!(answered(&first), "{name}: a connection that was accepted is not served");
    }
}

#[test]
fn a_loop_that_tries_again_at_once_runs_out_of_fds() {
    runs_out_of_fds("fd-spin");
}

#[test]
fn a_loop_that_backs_off_runs_out_of_fds() {
    runs_out_of_fds("fd-back-off");
}

#[test]
fn a_ring_runs_out_of_fds() {
    runs_out_of_fds("fd-uring");
}

#[test]
fn a_bare_epoll_loop_runs_out_of_fds() {
    runs_out_of_fds("fd-epoll");
}

#[test]
fn of_two_listeners_one_is_forgotten() {
    let victim = Victim::start("one-of-two-listeners");
    let kept = victim.client();
    assert!(answered(&kept));
    until("an accept loop has ended", AT_MOST, || victim.truth().is_some());
    assert_eq!(victim.truth().unwrap().cause, "accept-not-armed");
    assert!(!answered(&victim.client()), "the first port still accepts");
    assert!(answered(&kept), "connections of the first port are not served");
    let mut second = victim.address;
    second.set_port(second.port() + 1);
    assert!(answered(&TcpStream::connect(second).unwrap()), "the second port does not serve");
}

#[test]
fn a_client_s_fault_is_dated_by_the_client() {
    let victim = Victim::start("net-usual");
    let client = victim.client();
    (&client).write_all(b"GET /fault/conntrack-full/17 HTTP/1.1\r\n\r\n").unwrap();
    until("it is written down", AT_MOST, || victim.truth().is_some());
    let expected = Truth { cause: String::from("conntrack-full"), begin_ns: 17 };
    assert_eq!(victim.truth(), Some(expected));
}

fn freezers(pid: u32) -> Vec<PathBuf> {
    let roots = ["freezer", "unified", "."].map(|root| Path::new("/sys/fs/cgroup").join(root));
    let folders = roots.map(|root| root.join(format!("stallscope-lab-{pid}")));
    folders.into_iter().filter(|folder| folder.exists()).collect()
}

/// A process that is killed while it is frozen (v1) does not end before it is thawed.
#[test]
fn a_frozen_server_can_be_killed_and_leaves_no_cgroup() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: a cgroup takes root");
        return;
    }
    let mut victim = Victim::start("frozen");
    let pid = u32::try_from(victim.process.pid()).unwrap();
    until("it is frozen", AT_MOST, || victim.truth().is_some());
    assert_eq!(victim.truth().unwrap().cause, "process-stopped");
    assert!(!answered(&victim.client()), "a frozen server answers");
    assert_eq!(freezers(pid).len(), 1);
    victim.process.0.kill().unwrap();
    victim.process.ended(AT_MOST);
    until("its cgroup is gone", AT_MOST, || freezers(pid).is_empty());
}

/// Nobody removes the cgroup of a throttled server but who started it.
#[test]
fn what_a_throttled_server_leaves_is_cleaned_up() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: a cgroup takes root");
        return;
    }
    let victim = Victim::start("quota-hard");
    let pid = victim.process.0.id();
    until("it is throttled", AT_MOST, || victim.truth().is_some());
    assert_eq!(victim.truth().unwrap().cause, "cpu-throttled");
    drop(victim);
    let left = || {
        let roots = ["cpu", "."].map(|root| Path::new("/sys/fs/cgroup").join(root));
        roots.into_iter().any(|root| root.join(format!("stallscope-lab-{pid}")).exists())
    };
    assert!(left());
    network::clean_up(pid).unwrap();
    assert!(!left());
}
