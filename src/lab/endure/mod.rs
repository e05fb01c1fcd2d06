//! Soaks of the servers themselves: under full load for a long time, watched, and held to five
//! rules. No stall; answers in every second; no acknowledged event lost; memory flat; fds back to
//! where they were.
//!
//! ```text
//! one              one server: its processes, its samples
//! sample           looks at a process
//! series, judge    figures and rules; pure
//! record, table    what came of it; pure
//! ```

pub mod judge;
mod one;
pub mod record;
mod sample;
pub mod series;
pub mod table;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use record::Endured;

/// What a server takes to start and to end, for telling the time left.
const AROUND: Duration = Duration::from_secs(6);

/// How clients use their connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Client {
    /// Each keeps its connection
    KeepAlive,
    /// Each takes a new one for each request
    Close,
    /// Half and half
    Mixed,
}

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which stacks, as `serve` names them.
    pub stacks: Vec<String>,
    /// How long each is under load.
    pub time: Duration,
    /// How much of that is not looked at for memory.
    pub warm_up: Duration,
    /// Connections of the load.
    pub connections: u32,
    /// How they are used.
    pub client: Client,
    /// The server's `--kafka`.
    pub kafka: String,
    /// The server's `--ack`.
    pub ack: String,
    /// The server's `--producer`, if it is to be told one.
    pub producer: Option<String>,
    /// More arguments for the server.
    pub server_arguments: Vec<String>,
    /// All at the same time instead of one after another.
    pub together: bool,
    /// Folder for the files; a folder in it for each stack.
    pub out: PathBuf,
    /// Most that memory may change, as a share; `None`: by the time.
    pub rss_change_max: Option<f64>,
}

/// How far it is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The share that is over, 0 to 1.
    pub share: f64,
    /// About how long it still takes.
    pub left: Duration,
    /// What is under load.
    pub stack: &'a str,
    /// Alarms so far.
    pub alarms: u32,
}

/// Soaks all stacks. Whatever goes wrong is in the result; nothing is left running.
pub fn run(plan: &Plan, stop: &AtomicBool, show: impl Fn(&Progress<'_>) + Sync) -> Vec<Endured> {
    let alarms = AtomicU32::new(0);
    let soak = |number: usize, stack: &String| {
        let show = |at: Duration, more: u32| {
            let alarms = alarms.fetch_add(more, Ordering::Relaxed) + more;
            // Of those that run together the first shows the time of all.
            if !plan.together || number == 0 {
                let stack = if plan.together { "all stacks" } else { stack };
                show(&plan.progress(number, at, stack, alarms));
            }
        };
        one::soak(plan, stack, stop, &show)
            .unwrap_or_else(|error| Endured::failed(stack, format!("{error:#}")))
    };
    if !plan.together {
        return plan.stacks.iter().enumerate().map(|(number, stack)| soak(number, stack)).collect();
    }
    std::thread::scope(|scope| {
        let soak = &soak;
        let spawn = |(number, stack)| (stack, scope.spawn(move || soak(number, stack)));
        let soaks: Vec<_> = plan.stacks.iter().enumerate().map(spawn).collect();
        let failed = |stack: &String| Endured::failed(stack, String::from("its thread failed"));
        soaks
            .into_iter()
            .map(|(stack, soak)| soak.join().unwrap_or_else(|_| failed(stack)))
            .collect()
    })
}

impl Plan {
    fn progress<'a>(&self, done: usize, at: Duration, stack: &'a str, alarms: u32) -> Progress<'a> {
        let each = self.time + AROUND;
        let (done, all) = if self.together { (0, 1) } else { (done, self.stacks.len()) };
        let whole = each * all as u32;
        let over = (each * done as u32 + at).min(whole);
        let share = over.as_secs_f64() / whole.as_secs_f64();
        Progress { share, left: whole.saturating_sub(over), stack, alarms }
    }
}
