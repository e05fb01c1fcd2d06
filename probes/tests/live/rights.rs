//! Looking at a process of another user. Needs root, to become nobody.

use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::process::Uid;
use stallscope_probes::sample::TaskState;
use stallscope_probes::sockets::Diag;
use stallscope_probes::threads::Ask;
use stallscope_probes::{Absence, Why, discover, fds, pressure, process, ring, threads};

use crate::{got, proc_root, until};

/// A process that does not outlive its test.
pub struct Killed(pub std::process::Child);

impl Drop for Killed {
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
    let sleeper = Killed(Command::new("sleep").arg("600").spawn().unwrap());
    let pid = sleeper.0.id() as i32;
    until("a process that sleeps", || {
        (got(process::read(proc_root(), pid)).state == TaskState::Sleeping).then_some(())
    });
    as_nobody(|| {
        assert!(process::read(proc_root(), pid).got().is_some());
        assert_eq!(got(process::identity(proc_root(), pid)).exe, None);

        // The count needs no rights where the kernel gives it as a size (6.2 and later).
        let count = fds::read(proc_root(), pid);
        match count.absence() {
            None => assert!(count.got().unwrap().from_st_size),
            Some(absence) => assert_eq!(absence.why, Why::NotPermitted),
        }
        // What is kept open needs no more rights than what is opened anew.
        assert_eq!(fds::Watch::new(proc_root(), pid).read(), count);
        got(process::Watch::new(proc_root(), pid).read());
        let mut walk = fds::CensusWalk::new(proc_root(), pid);
        let refusal = walk.advance(1, || true);
        assert_eq!(refusal.absence().unwrap().why, Why::NotPermitted);
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

        let ask =
            Ask { threads: None, important: &[], full_within: 1, stacks: true, switches: true };
        let watched = got(threads::Watch::new(proc_root(), pid).read(&ask)).remove(0);
        assert_eq!(watched.syscall, threads[0].syscall);
        assert_eq!(watched.wchan.absence().unwrap().why, Why::NotPermitted);
        assert!(watched.kernel_stack.got().is_none() && watched.switches.got().is_some());

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
    let _sleeper = Killed(Command::new("sleep").arg("600").spawn().unwrap());
    let holders = as_nobody(|| {
        let diag = got(Diag::open(proc_root(), crate::own_pid()));
        got(discover::holders_of_port(proc_root(), &diag, port))
    });
    assert!(holders.unreadable >= 1, "{holders:?}");
}

const HIDDEN_PROC: &str = "STALLSCOPE_TEST_HIDDEN_PROC";

#[test]
#[ignore = "run in a mount namespace of its own by the test below"]
fn child_that_looks_through_a_hidden_proc() {
    let root = std::env::var(HIDDEN_PROC).unwrap();
    let root = Path::new(&root);
    let sleeper = Killed(Command::new("sleep").arg("600").spawn().unwrap());
    let pid = sleeper.0.id() as i32;
    let expected = if root.ends_with("invisible") { Why::Gone } else { Why::NotPermitted };
    assert!(process::read(root, pid).got().is_some());
    as_nobody(|| {
        let why = |absence: Option<&Absence>| absence.map(|absence| absence.why);
        let process = process::Watch::new(root, pid).read();
        assert_eq!(why(process.absence()), Some(expected), "{process:?}");
        assert_eq!(why(fds::Watch::new(root, pid).read().absence()), Some(expected));
        let census = fds::CensusWalk::new(root, pid).advance(1, || true);
        assert_eq!(why(census.absence()), Some(expected));
        let ask =
            Ask { threads: None, important: &[], full_within: 1, stacks: false, switches: false };
        let threads = threads::Watch::new(root, pid).read(&ask);
        assert_eq!(why(threads.absence()), Some(expected));
        let pressure = pressure::read(root, Path::new("/nowhere"), pid);
        if expected == Why::Gone {
            assert_eq!(why(pressure.absence()), Some(expected));
        }
    });
    println!("looked");
}

/// With `hidepid` (proc(5)) a process of another user is not there, or may not be looked at.
#[test]
fn a_hidden_process_is_gone_or_not_permitted() {
    let folder = tempfile::tempdir().unwrap();
    for option in ["invisible", "noaccess"] {
        let root = folder.path().join(option);
        std::fs::create_dir(&root).unwrap();
        // Anybody must reach the folder itself; whoever is in group `gid` sees everything, as
        // root's own group would without it.
        let script = r#"chmod 755 "$0"/.. && mount -t proc -o hidepid="$1",gid=65533 proc "$0" && exec "$2" \
            --ignored --exact --nocapture rights::child_that_looks_through_a_hidden_proc"#;
        let output = Command::new("unshare")
            .args(["-m", "sh", "-c", script])
            .args([root.as_os_str(), option.as_ref()])
            .arg(std::env::current_exe().unwrap())
            .env(HIDDEN_PROC, &root)
            .output();
        let Some(output) = output.ok().filter(|output| !output.stdout.is_empty()) else {
            println!("did not run: needs root, `unshare` and hidepid by name (5.8)");
            return;
        };
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("looked"), "{option}: {output:?}");
    }
}
