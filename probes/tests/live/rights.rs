//! Looking at a process of another user. Needs root, to become nobody.

use std::process::Command;
use std::thread;

use rustix::process::Uid;
use stallscope_probes::sockets::Diag;
use stallscope_probes::{Why, discover, fds, process, ring, threads};

use crate::{got, proc_root};

struct Sleeper(std::process::Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Runs `work` on a thread whose user is nobody: uids are the thread's own to the kernel.
pub fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let nobody = Uid::from_raw(65_534);
        let worker = scope.spawn(move || {
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            work()
        });
        worker.join().unwrap()
    })
}

#[test]
fn what_needs_rights_says_so_and_the_rest_is_read() {
    if !rustix::process::geteuid().is_root() {
        println!("did not run: needs root, to look as another user");
        return;
    }
    let sleeper = Sleeper(Command::new("sleep").arg("600").spawn().unwrap());
    let pid = sleeper.0.id() as i32;
    as_nobody(|| {
        assert!(process::read(proc_root(), pid).got().is_some());
        assert_eq!(got(process::identity(proc_root(), pid)).exe, None);

        // The count needs no rights where the kernel gives it as a size (6.2 and later).
        let count = fds::read(proc_root(), pid);
        match count.absence() {
            None => assert!(count.got().unwrap().from_st_size),
            Some(absence) => assert_eq!(absence.why, Why::NotPermitted),
        }
        let census = fds::census(proc_root(), pid);
        let refusal = census.absence().unwrap();
        assert_eq!(refusal.why, Why::NotPermitted);
        assert!(refusal.detail.contains("CAP_SYS_PTRACE"), "{refusal:?}");
        let state = ring::read_fdinfo(proc_root(), pid, 0);
        assert_eq!(state.absence().unwrap().why, Why::NotPermitted);

        let threads = got(threads::read(proc_root(), pid, true));
        assert_eq!(threads.len(), 1);
        assert_eq!(threads[0].syscall.absence().unwrap().why, Why::NotPermitted);
        assert!(threads[0].kernel_stack.got().is_none());
        assert!(threads[0].sched.got().is_some());

        // The namespace is the same one, which can be told without rights.
        let diag = got(Diag::open(proc_root(), pid));
        assert!(!diag.foreign());
        assert!(diag.listeners().got().is_some());
    });
}

#[test]
fn processes_that_cannot_be_searched_are_counted() {
    if !rustix::process::geteuid().is_root() {
        println!("did not run: needs root, to look as another user");
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let _sleeper = Sleeper(Command::new("sleep").arg("600").spawn().unwrap());
    let holders = as_nobody(|| {
        let diag = got(Diag::open(proc_root(), crate::own_pid()));
        got(discover::holders_of_port(proc_root(), &diag, port))
    });
    assert!(holders.unreadable >= 1, "{holders:?}");
}
