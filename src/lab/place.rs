//! Where a run takes place: on the host, or in a network namespace of its own.
#![expect(clippy::disallowed_methods, reason = "this is where namespaces are made")]

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::catalogue::Place;
use super::needs::find_program;

/// Where `ip netns` keeps its names (ip-netns(8)).
const NAMES: &str = "/run/netns";
/// Where cgroups are.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Hierarchies in which victims make cgroups of their own, v1 and v2.
const HIERARCHIES: [&str; 4] = ["cpu", "freezer", "unified", "."];

/// Where a run takes place.
///
/// Its namespace has no name and no owner but this value and the processes in it: with them it is
/// gone, also when the runner is killed.
#[derive(Debug)]
pub(super) struct Room {
    namespace: Option<File>,
}

impl Room {
    /// Makes the place ready.
    ///
    /// # Errors
    /// When a namespace cannot be had, or a sysctl in it not be set.
    pub(super) fn make(place: Place) -> anyhow::Result<Self> {
        let Place::Netns(sysctls) = place else { return Ok(Self { namespace: None }) };
        let ip = find_program("ip").ok_or_else(|| anyhow!("the program ip is missing"))?;
        let room = Self { namespace: Some(namespace(&ip)?) };
        room.within(|| {
            tool(Command::new(&ip).args(["link", "set", "lo", "up"]))?;
            sysctls.iter().try_for_each(|setting| set(setting))
        })?;
        Ok(room)
    }

    /// Starts a process there.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn spawn(&self, command: &mut Command) -> anyhow::Result<Child> {
        self.within(|| command.spawn().context("cannot start a process"))
    }

    /// Does something there: on a thread of its own, since a thread cannot be trusted to find its
    /// way back. setns(2) moves a thread alone, and a child is born where the thread is.
    fn within<T: Send>(&self, act: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        let Some(namespace) = &self.namespace else { return act() };
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .context("cannot enter the network namespace")?;
                act()
            });
            inside.join().map_err(|_| anyhow!("a thread of the lab failed"))?
        })
    }
}

/// A new network namespace. It is given a name because that is how ip(8) makes one; the name is
/// taken away at once, so that none can be left behind.
fn namespace(ip: &Path) -> anyhow::Result<File> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("stallscope-lab-{}-{count}", std::process::id());
    tool(Command::new(ip).args(["netns", "add", &name]))?;
    let opened = File::open(Path::new(NAMES).join(&name));
    let removed = tool(Command::new(ip).args(["netns", "del", &name]));
    let namespace = opened.context("cannot open the network namespace")?;
    removed.map(|()| namespace)
}

/// `net.ipv4.tcp_syncookies=0`, in the namespace of this thread: /proc/sys/net shows that of whoever
/// looks (proc(5)).
fn set(setting: &str) -> anyhow::Result<()> {
    let (key, value) =
        setting.split_once('=').ok_or_else(|| anyhow!("'{setting}' is no sysctl setting"))?;
    std::fs::write(sysctl(key), value).with_context(|| format!("cannot set {setting}"))
}

fn sysctl(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key.replace('.', "/"))
}

fn tool(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let name = command.get_program().to_string_lossy().into_owned();
    let output = output.with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// A limit of the whole host, put back to what it was when this is dropped.
#[derive(Debug)]
pub(super) struct HostLimit {
    path: PathBuf,
    before: String,
}

impl HostLimit {
    /// Remembers `key` when it is a sysctl that is there.
    pub(super) fn remember(key: &str) -> Option<Self> {
        let path = sysctl(key);
        let before = std::fs::read_to_string(&path).ok()?;
        Some(Self { path, before })
    }
}

impl Drop for HostLimit {
    fn drop(&mut self) {
        let now = std::fs::read_to_string(&self.path).unwrap_or_default();
        if now != self.before
            && let Err(error) = std::fs::write(&self.path, &self.before)
        {
            eprintln!(
                "stallscope: {} is not what it was, {}: {error}",
                self.path.display(),
                self.before.trim()
            );
        }
    }
}

/// Lets a victim out of the cgroups it has made for itself: a frozen process cannot die (v1), and a
/// throttled one takes its time.
pub(super) fn thaw(pid: i32) {
    for folder in cgroups(pid) {
        for (file, value) in [
            ("freezer.state", "THAWED"),
            ("cgroup.freeze", "0"),
            ("cpu.cfs_quota_us", "-1"),
            ("cpu.max", "max"),
        ] {
            let file = folder.join(file);
            if file.exists() {
                std::fs::write(file, value).ok();
            }
        }
    }
}

fn cgroups(pid: i32) -> impl Iterator<Item = PathBuf> {
    HIERARCHIES
        .into_iter()
        .map(move |hierarchy| {
            Path::new(CGROUPS).join(hierarchy).join(format!("stallscope-lab-{pid}"))
        })
        .filter(|folder| folder.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `command` prints, started in `room`.
    fn output(room: &Room, command: &str) -> String {
        let mut command_line = Command::new("sh");
        command_line.args(["-c", command]).stdout(Stdio::piped()).stdin(Stdio::null());
        let output = room.spawn(&mut command_line).unwrap().wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_namespace_is_its_own_keeps_its_sysctls_and_leaves_no_name() {
        if !rustix::process::geteuid().is_root() || find_program("ip").is_none() {
            eprintln!("NOT TESTED: takes root and ip");
            return;
        }
        let host = Room::make(Place::Host).unwrap();
        let room = Room::make(Place::Netns(&["net.ipv4.ip_local_port_range=40000 40099"])).unwrap();
        let inode = "readlink /proc/self/ns/net";
        assert_ne!(output(&room, inode), output(&host, inode));
        assert_eq!(output(&room, inode), output(&room, inode));
        let range = "cat /proc/sys/net/ipv4/ip_local_port_range";
        assert_eq!(output(&room, range), "40000\t40099\n");
        assert_ne!(output(&host, range), "40000\t40099\n");
        assert!(output(&room, "ip link show lo").contains("UP"));
        let prefix = format!("stallscope-lab-{}-", std::process::id());
        let names = std::fs::read_dir(NAMES).unwrap().flatten();
        let left = names.filter(|name| name.file_name().to_string_lossy().starts_with(&prefix));
        assert_eq!(left.count(), 0);
        let wrong = Room::make(Place::Netns(&["net.ipv4.no_such_thing=1"])).unwrap_err();
        assert!(wrong.to_string().contains("no_such_thing"), "{wrong}");
    }
}
