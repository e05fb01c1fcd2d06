//! Network namespaces: whose the target's is, and doing something within it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::files;
use crate::reading::{Reading, Why};

/// The network namespace of the target, as seen from here.
#[derive(Debug)]
pub enum Namespace {
    /// The same as this process's.
    Own,
    /// Another one, held open: it can be entered even after the target has exited.
    Foreign(OwnedFd),
}

impl Namespace {
    /// The namespace of process `pid`.
    pub fn of(proc_root: &Path, pid: i32) -> Reading<Self> {
        let folder = files::process(proc_root, pid);
        match files::open(&folder.join("ns/net")) {
            Reading::Got(theirs) => files::open(Path::new("/proc/thread-self/ns/net"))
                .and_then(|ours| Reading::from(same_file(&theirs, &ours)))
                .map(|same| if same { Self::Own } else { Self::Foreign(theirs) }),
            Reading::Absent(absence) if absence.why == Why::NotPermitted => {
                // The link needs ptrace rights, the files of `net/` do not. Their inode numbers
                // are the namespace's own (proc_alloc_inum for each namespace, fs/proc/generic.c).
                let inode = |path: &Path| rustix::fs::stat(path).map(|stat| stat.st_ino);
                let theirs = inode(&folder.join("net/dev"));
                if theirs.is_ok() && theirs == inode(Path::new("/proc/thread-self/net/dev")) {
                    return Reading::Got(Self::Own);
                }
                Reading::Absent(absence)
            }
            Reading::Absent(absence) => Reading::Absent(absence),
        }
    }

    /// Does something within the namespace. A foreign one is entered by a thread of its own, which
    /// ends with it: setns(2) holds for one thread.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Reading<T> + Send) -> Reading<T> {
        let theirs = match self {
            Self::Own => return work(),
            Self::Foreign(theirs) => theirs,
        };
        let entered = || {
            let network = Some(LinkNameSpaceType::Network);
            match move_into_link_name_space(theirs.as_fd(), network) {
                Ok(()) => work(),
                Err(errno) => Reading::from(Err(io::Error::from(errno))).or_detail(
                    "cannot enter the process's network namespace; \
                     run as root (CAP_SYS_ADMIN there), or inside it (nsenter --net)",
                ),
            }
        };
        thread::scope(|scope| {
            let spawned =
                thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, entered);
            match spawned {
                Ok(thread) => thread.join().unwrap_or_else(|_| {
                    Reading::absent(Why::Failed, "the thread in the network namespace panicked")
                }),
                Err(error) => Reading::from(Err(error))
                    .or_detail("cannot start a thread for the process's network namespace"),
            }
        })
    }
}

impl<T> Reading<T> {
    /// Puts a sentence before the detail of an absence.
    fn or_detail(self, sentence: &str) -> Self {
        match self {
            Self::Absent(absence) => {
                Self::absent(absence.why, format!("{sentence}: {}", absence.detail))
            }
            got @ Self::Got(_) => got,
        }
    }
}

fn same_file(a: &OwnedFd, b: &OwnedFd) -> io::Result<bool> {
    let (a, b) = (rustix::fs::fstat(a)?, rustix::fs::fstat(b)?);
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Tree;

    #[test]
    fn this_process_lives_in_its_own_namespace_and_a_missing_one_in_none() {
        let own = Namespace::of(Path::new("/proc"), std::process::id() as i32);
        assert!(matches!(own, Reading::Got(Namespace::Own)));
        let none = Namespace::of(Tree::new().root(), 42);
        assert_eq!(none.absence().unwrap().why, Why::Gone);
    }

    #[test]
    fn a_file_that_is_no_namespace_cannot_be_entered() {
        let tree = Tree::new();
        tree.file("42/ns/net", "");
        let odd = Namespace::of(tree.root(), 42);
        let entered = odd.got().unwrap().within(|| Reading::Got(()));
        assert!(entered.absence().unwrap().detail.starts_with("cannot enter"), "{entered:?}");
    }
}
