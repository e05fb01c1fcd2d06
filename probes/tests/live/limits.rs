//! Tables of the host, and cgroups of version 1. Most need root.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use stallscope_probes::sample::{CgroupRaw, ConntrackRaw};
use stallscope_probes::{cgroup, tables};

use crate::child::{Child as TestChild, say_and_wait};
use crate::foreign::{Netns, ip};
use crate::{got, own_pid, proc_root, until};

#[test]
fn the_file_table_is_that_of_the_host() {
    let read = || got(got(tables::read(proc_root(), own_pid())).files);
    let told = |name: &str| fs::read_to_string(format!("/proc/sys/fs/{name}")).unwrap();
    let files = read();
    assert_eq!(files.max, told("file-max").trim().parse().unwrap());
    assert!(files.open > 0 && files.open < files.max);
    assert!(files.exempt.is_some());
    // More files than anybody else closes in the meantime.
    let opened: Vec<_> = (0..500).map(|_| fs::File::open("/dev/null").unwrap()).collect();
    until("the open files count", || (read().open >= files.open + 100).then_some(()));
    drop(opened);
}

/// A process that is killed and reaped with the value.
struct Running(Child);

impl Running {
    fn start(program: &str, arguments: &[&str]) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Self)
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn all_capabilities_in_a_user_namespace_are_none_here() {
    let Ok(mut child) = Running::start("unshare", &["--user", "--map-root-user", "sleep", "1000"])
    else {
        println!("did not run: no command `unshare`");
        return;
    };
    let pid = child.pid();
    let map = format!("/proc/{pid}/uid_map");
    let mapped = || {
        let map = fs::read_to_string(&map);
        map.is_ok_and(|map| map.split_whitespace().last() == Some("1"))
    };
    until("the user namespace", || {
        let refused = child.0.try_wait().unwrap().is_some();
        (refused || mapped()).then_some(())
    });
    if child.0.try_wait().unwrap().is_some() {
        println!("did not run: no user namespaces here");
        return;
    }
    assert_eq!(got(got(tables::read(proc_root(), pid)).files).exempt, Some(false));
}

const TRACKED: u32 = 7;

#[test]
#[ignore = "run as a child by the test below"]
fn child_with_tracked_connections() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let clients: Vec<_> =
        (0..TRACKED).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    say_and_wait("ready");
    drop((listener, clients));
}

#[test]
fn connections_are_tracked_in_the_namespace_of_the_process() {
    let Some(netns) = Netns::make("track") else {
        println!("did not run: needs root and the command `ip`");
        return;
    };
    let rules = "add table inet t; add chain inet t c { type filter hook input priority 0; }; \
                 add rule inet t c ct state new accept";
    if !ip(&["netns", "exec", &netns.0, "nft", rules]) {
        println!("did not run: needs the command `nft` and nf_conntrack in the kernel");
        return;
    }
    let mut child = TestChild::start("limits::child_with_tracked_connections", Some(&netns.0));
    assert_eq!(child.hears(), "ready");
    let conntrack = got(got(tables::read(proc_root(), child.pid())).conntrack);
    let max = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").unwrap();
    let expected = ConntrackRaw {
        entries: TRACKED,
        max: max.trim().parse().unwrap(),
        drops: 0,
        early_drops: 0,
        insert_failed: 0,
    };
    assert_eq!(conntrack, expected);
}

/// A cgroup of version 1 that is removed with the value.
struct Group(PathBuf);

impl Group {
    fn make(controller: &str) -> Option<Self> {
        let path = Path::new("/sys/fs/cgroup").join(controller);
        // Of version 2 the root has this file, of version 1 no cgroup.
        let is_v1 = path.join("tasks").exists();
        let group = Self(path.join(format!("stallscope-test-{}", own_pid())));
        (is_v1 && fs::create_dir(&group.0).is_ok()).then_some(group)
    }

    fn write(&self, name: &str, value: &str) {
        fs::write(self.0.join(name), value).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A frozen process does not die.
        fs::write(self.0.join("freezer.state"), "THAWED").ok();
        // Its last process leaves it some time after it was reaped.
        for _ in 0..1_000 {
            match fs::remove_dir(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::yield_now();
                }
                _ => return,
            }
        }
    }
}

fn watch(pid: i32) -> cgroup::Watch {
    cgroup::Watch::new(proc_root(), Path::new("/sys/fs/cgroup"), pid)
}

#[test]
fn a_quota_of_version_1_throttles_and_is_seen() {
    let Some(group) = Group::make("cpu") else {
        println!("did not run: needs root and the controller `cpu` of cgroup version 1");
        return;
    };
    group.write("cpu.cfs_period_us", "10000");
    group.write("cpu.cfs_quota_us", "1000");
    let child = Running::start("sh", &["-c", "while :; do :; done"]).unwrap();
    let mut watch = watch(child.pid());
    let before = got(watch.read());
    group.write("cgroup.procs", &child.pid().to_string());
    // The time is added when a throttled period ends, the periods when they begin: the three agree
    // only in the end (`kernel/sched/fair.c`).
    let throttled = |raw: &CgroupRaw| {
        raw.nr_throttled.is_some_and(|periods| periods > 2)
            && raw.throttled_usec.is_some_and(|usec| usec > 0)
            && raw.nr_periods >= raw.nr_throttled
    };
    let after = until("throttled", || Some(got(watch.read())).filter(throttled));
    assert!(after.throttled_usec > before.throttled_usec);
    let told = fs::read_to_string(group.0.join("cpu.stat")).unwrap();
    let told_ns: u64 = told
        .lines()
        .find_map(|line| line.strip_prefix("throttled_time "))
        .and_then(|time| time.parse().ok())
        .unwrap();
    assert!(after.throttled_usec.unwrap() <= told_ns / 1_000, "{told}");
    drop(child);
}

#[test]
fn a_freezer_of_version_1_holds_and_is_seen() {
    // Dropped after the group, which thaws it.
    let child = Running::start("sleep", &["1000"]).unwrap();
    let Some(group) = Group::make("freezer") else {
        println!("did not run: needs root and the controller `freezer` of cgroup version 1");
        return;
    };
    let mut watch = watch(child.pid());
    group.write("cgroup.procs", &child.pid().to_string());
    assert_eq!(got(watch.read()).frozen, Some(false));
    group.write("freezer.state", "FROZEN");
    assert_eq!(got(watch.read()).frozen, Some(true));
    group.write("freezer.state", "THAWED");
    assert_eq!(got(watch.read()).frozen, Some(false));
    drop(child);
}
