//! Which processes listen on a port.

use std::collections::BTreeSet;
use std::path::Path;

use crate::fds;
use crate::files;
use crate::process::read_stat;
use crate::reading::{Reading, Why};
use crate::sockets::Diag;

/// Processes looked at.
pub const PROCESSES_MAX: usize = 100_000;
/// Holders returned.
pub const HOLDERS_MAX: usize = 1_024;

/// A process that holds a listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The process.
    pub pid: i32,
    /// Its parent: a server that forks shares one socket with its children.
    pub ppid: i32,
    /// Its name: hostile text.
    pub comm: String,
    /// The inode of the socket: the same for processes that share it, another for `SO_REUSEPORT`.
    pub inode: u32,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders {
    /// One for each process and socket, by pid (at most [`HOLDERS_MAX`]).
    pub found: Vec<Holding>,
    /// Processes whose fds could not be listed, and one for those beyond [`PROCESSES_MAX`]: the
    /// holder may be among them.
    pub unreadable: u32,
}

/// Finds the processes that hold a listening TCP socket on `port` in the namespace of `diag`.
pub fn holders_of_port(proc_root: &Path, diag: &Diag, port: u16) -> Reading<Holders> {
    diag.listeners().and_then(|listeners| {
        let inodes: BTreeSet<u32> = listeners
            .iter()
            .filter(|listener| listener.local.port() == port)
            .map(|listener| listener.inode)
            .collect();
        if inodes.is_empty() {
            return Reading::Got(Holders::default());
        }
        holders_of_inodes(proc_root, &inodes)
    })
}

fn holders_of_inodes(proc_root: &Path, inodes: &BTreeSet<u32>) -> Reading<Holders> {
    files::numbers(proc_root, PROCESSES_MAX).map(|(pids, more)| {
        let mut holders = Holders { unreadable: u32::from(more), ..Holders::default() };
        for pid in pids {
            match fds::census(proc_root, pid) {
                Reading::Got(census) => {
                    let held = inodes
                        .iter()
                        .filter(|inode| census.socket_inodes.contains(&u64::from(**inode)));
                    for inode in held {
                        holders.add(proc_root, pid, *inode);
                    }
                }
                // Exited since it was listed.
                Reading::Absent(absence) if absence.why == Why::Gone => {}
                Reading::Absent(_) => holders.unreadable += 1,
            }
        }
        holders
    })
}

impl Holders {
    fn add(&mut self, proc_root: &Path, pid: i32, inode: u32) {
        if let Reading::Got(stat) = read_stat(&files::process(proc_root, pid))
            && self.found.len() < HOLDERS_MAX
        {
            self.found.push(Holding { pid, ppid: stat.ppid, comm: stat.comm, inode });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Tree;

    fn process(tree: &Tree, pid: i32, ppid: i32) {
        let zeros = " 0".repeat(50);
        tree.file(&format!("{pid}/stat"), &format!("{pid} (srv) S {ppid}{zeros}"));
    }

    #[test]
    fn parents_children_and_strangers() {
        let tree = Tree::new();
        for (pid, ppid, inode) in [(5, 1, 70), (6, 5, 70), (7, 1, 71), (8, 1, 99)] {
            process(&tree, pid, ppid);
            tree.link(&format!("{pid}/fd/3"), &format!("socket:[{inode}]"));
        }
        // Unreadable: here because the folder is a file, in life for want of rights.
        process(&tree, 9, 1);
        tree.file("9/fd", "");
        // Gone between the listing and the look.
        tree.folder("10");
        let holders = holders_of_inodes(tree.root(), &BTreeSet::from([70, 71]));
        let holders = holders.got().unwrap();
        let found: Vec<_> =
            holders.found.iter().map(|held| (held.pid, held.ppid, held.inode)).collect();
        assert_eq!(found, [(5, 1, 70), (6, 5, 70), (7, 1, 71)]);
        assert_eq!(holders.found[0].comm, "srv");
        assert_eq!(holders.unreadable, 1);
    }
}
