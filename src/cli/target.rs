//! `--pid N | --port P`, shared by what looks at a process.

use crate::watch::target::Selection;

/// Which process.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct TargetArgs {
    /// Process id of the server
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// TCP port the server listens on
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
}

impl TargetArgs {
    /// As the watcher wants it.
    pub fn selection(&self) -> Selection {
        match (self.pid, self.port) {
            (_, Some(port)) => Selection::Port(port),
            (pid, None) => Selection::Pid(pid.unwrap_or(-1)),
        }
    }
}
