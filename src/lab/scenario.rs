//! Starts an instrumented server and load on it, as processes of this same binary, and ends them.
#![expect(
    clippy::disallowed_methods,
    reason = "this is where processes are started and their logs made"
)]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

/// What to start.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which server: `tokio` or `tokio-uring`.
    pub stack: &'static str,
    /// `--fault`, as on its command line; `None` for a healthy server.
    pub fault: Option<String>,
    /// How long the load goes on.
    pub load_for: Duration,
    /// Connections of the load.
    pub connections: u32,
    /// Whether each request takes a connection of its own.
    pub close: bool,
    /// Folder for the logs.
    pub out: PathBuf,
}

/// A started server and its load. Dropping it ends both.
#[derive(Debug)]
pub struct Running {
    server: Child,
    load: Option<Child>,
    /// The server's pid.
    pub pid: i32,
    /// Where it listens.
    pub url: String,
    server_log: PathBuf,
}

/// A server that is not up by then never will be.
const READY_MAX: Duration = Duration::from_secs(20);
/// A stalled server cannot end in order; it gets this long all the same.
const END_PATIENCE: Duration = Duration::from_millis(500);

impl Running {
    /// Starts the server, and returns once it listens.
    ///
    /// # Errors
    /// When it cannot be started, or does not get ready.
    pub fn start(plan: &Plan) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let server_log = plan.out.join("server.log");
        let log = File::create(&server_log)
            .with_context(|| format!("cannot write {}", server_log.display()))?;
        let mut command = Command::new(program);
        command.args(["serve", plan.stack, "--listen", "127.0.0.1:0", "--kafka", "embedded"]);
        command.args(["--json", "--profile"]);
        if let Some(fault) = &plan.fault {
            command.args(["--fault", fault]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut server = command.spawn().context("cannot start the server")?;
        let stdout = server.stdout.take();
        let pid = i32::try_from(server.id()).unwrap_or(-1);
        let mut running = Self { server, load: None, pid, url: String::new(), server_log };
        let stdout = stdout.ok_or_else(|| anyhow!("the server has no stdout"))?;
        running.url = running.await_ready(stdout)?;
        Ok(running)
    }

    fn await_ready(&mut self, stdout: ChildStdout) -> anyhow::Result<String> {
        let (lines, ready) = channel();
        // The rest of the server's output is read too, so that it never waits for a reader.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                lines.send(line).ok();
            }
        });
        let log = self.server_log.display();
        let line = match ready.recv_timeout(READY_MAX) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => bail!("the server ended at once; see {log}"),
            Err(RecvTimeoutError::Timeout) => {
                bail!("the server was not ready within {} s; see {log}", READY_MAX.as_secs())
            }
        };
        let ready: serde_json::Value =
            serde_json::from_str(&line).with_context(|| format!("the server said: {line}"))?;
        let url = ready.get("url").and_then(serde_json::Value::as_str);
        url.map(str::to_owned)
            .ok_or_else(|| anyhow!("the server did not say where it listens: {line}"))
    }

    /// Puts load on the server.
    ///
    /// # Errors
    /// When the load generator cannot be started.
    pub fn load(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let result = File::create(plan.out.join("load.json")).context("cannot write load.json")?;
        let log = File::create(plan.out.join("load.log")).context("cannot write load.log")?;
        let mut command = Command::new(program);
        command.arg("load").arg(&self.url).arg("--json");
        command.args(["--connections", &plan.connections.to_string()]);
        command.args(["--for", &format!("{}ms", plan.load_for.as_millis())]);
        if plan.close {
            command.arg("--close");
        }
        command.stdin(Stdio::null()).stdout(result).stderr(log);
        self.load = Some(command.spawn().context("cannot start the load")?);
        Ok(())
    }

    /// Ends both, the load first.
    pub fn end(&mut self) {
        if let Some(load) = &mut self.load {
            end(load);
        }
        end(&mut self.server);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Asks a child to end, and kills it when it does not: a stopped or stuck one cannot.
fn end(child: &mut Child) {
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // SIGCONT, so that a stopped child gets to see the SIGTERM.
        kill_process(pid, Signal::TERM).ok();
        kill_process(pid, Signal::CONT).ok();
    }
    let deadline = Instant::now() + END_PATIENCE;
    while Instant::now() < deadline {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().ok();
    child.wait().ok();
}

/// Makes the folder for a run's files.
///
/// # Errors
/// When it cannot be made.
pub fn folder(path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path)
        .with_context(|| format!("cannot make the folder {}", path.display()))
}
