//! Many of something.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{Outcome, say, serve};

/// Fds beside those asked for: three standard ones, the listener, a few connections.
const SPARE_FDS: u64 = 100;

/// `count` open fds beside those of a server, or as many as this process may have: more than the
/// hard limit takes `CAP_SYS_RESOURCE` (getrlimit(2)).
pub fn fds(count: u64) -> Outcome {
    let wanted = count.saturating_add(SPARE_FDS);
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let maximum = limit.maximum.map(|maximum| maximum.max(wanted));
        if setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).is_err() {
            let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
            setrlimit(Resource::Nofile, raised)?;
        }
    }
    let permitted = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = count.min(permitted.saturating_sub(SPARE_FDS));
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(rustix::io::dup(std::io::stderr())?);
    }
    say(&format!("fds {count}"))?;
    serve(std::thread::park)
}

/// `count` threads at a time, each of which ends within a tenth of a second.
pub fn threads(count: u64) -> Outcome {
    for number in 0..count {
        std::thread::spawn(move || {
            let life = Duration::from_millis(20 + number % 80);
            loop {
                let short = std::thread::spawn(move || std::thread::sleep(life));
                short.join().ok();
            }
        });
    }
    serve(std::thread::park)
}
