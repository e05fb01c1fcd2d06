use std::fs::File;

use stallscope_probes::fds;

use crate::child::{Child, say_and_wait};
use crate::{got, proc_root};

const STEP: usize = 150;

#[test]
#[ignore = "run as a child by the tests below"]
fn child_that_opens_files() {
    let mut files = Vec::new();
    while say_and_wait(&files.len().to_string()) {
        files.extend((0..STEP).map(|_| File::open("/dev/null").unwrap()));
    }
}

#[test]
fn the_count_agrees_with_a_listing_while_files_are_opened() {
    let mut child = Child::start("fds::child_that_opens_files", None);
    let pid = child.pid();
    let mut before = None;
    for step in 0..4 {
        assert_eq!(child.hears(), (step * STEP).to_string());
        let fds = got(fds::read(proc_root(), pid));
        let listed = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
        assert_eq!(fds.open, listed);
        assert_eq!(u64::from(got(fds::census(proc_root(), pid)).entries), listed);
        if let Some(before) = before {
            assert_eq!(fds.open, before + STEP as u64);
        }
        before = Some(fds.open);
        child.go_on();
    }
}

#[test]
fn the_limits_are_those_the_kernel_gives_the_process_itself() {
    let own = got(fds::read(proc_root(), crate::own_pid()));
    let limit = own.limit.got().unwrap();
    let told = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    assert_eq!((limit.soft, limit.hard), (told.current, told.maximum));
}
