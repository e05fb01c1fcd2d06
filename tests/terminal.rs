//! The TUI in a real terminal (tmux): it draws at both sizes, answers keys, and gives the terminal
//! back however it ends.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests run processes")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const STALLSCOPE: &str = env!("CARGO_BIN_EXE_stallscope");
const PATIENCE: Duration = Duration::from_secs(20);

/// A tmux server of its own, so that no other session is touched.
struct Terminal {
    socket: String,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

impl Terminal {
    /// Opens a shell in a terminal of this size; `None` when there is no tmux.
    fn open(name: &str, columns: u16, rows: u16) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "tmux is missing: run scripts/setup --tests");
            eprintln!("NOT RUN: tmux is missing (scripts/setup --tests installs it)");
            return None;
        }
        let terminal = Self { socket: format!("stallscope-{}-{name}", std::process::id()) };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let made = terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &columns,
            "-y",
            &rows,
            "sh",
        ]);
        assert!(made.is_some(), "tmux opens no session");
        Some(terminal)
    }

    fn tmux(&self, args: &[&str]) -> Option<String> {
        let output = Command::new("tmux").args(["-L", &self.socket]).args(args).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn type_line(&self, line: &str) {
        self.tmux(&["send-keys", line, "Enter"]).unwrap();
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]).unwrap();
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"]).unwrap()
    }

    /// Waits until the screen shows `text`.
    fn shows(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if screen.contains(text) {
                return screen;
            }
            assert!(Instant::now() < deadline, "the screen does not show {text:?}:\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the shell has its terminal back: cooked, echoing, on the main screen.
    fn is_restored(&self, status: &str) {
        self.shows(&format!("ended-{status}."));
        let alternate = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        assert_eq!(alternate.unwrap().trim(), "0 1", "main screen, cursor shown");
        self.type_line("stty -a | tr ' ;' '\\n\\n' | grep -x -e icanon -e echo | tr '\\n' '.'");
        self.shows("icanon.echo.");
    }
}

/// Something to watch.
struct Target(Child);

impl Target {
    fn start() -> Self {
        Self(Command::new("sleep").arg("120").stdin(Stdio::null()).spawn().unwrap())
    }

    fn watch(&self, more: &str) -> String {
        format!("{STALLSCOPE} watch --pid {} {more}; echo ended-$?.", self.0.id())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn draws_at_both_sizes_and_answers_keys() {
    for (name, columns, rows) in [("small", 80, 24), ("large", 120, 40)] {
        let Some(terminal) = Terminal::open(name, columns, rows) else { return };
        let target = Target::start();
        terminal.type_line(&target.watch(""));
        let screen = terminal.shows("HEALTHY");
        assert!(screen.contains("LIVE") && screen.contains("sleep"), "{screen}");
        assert!(screen.lines().all(|line| line.chars().count() <= usize::from(columns)));
        terminal.press("?");
        terminal.shows("freeze");
        terminal.press("q");
        terminal.press("Space");
        terminal.shows("FROZEN");
        terminal.press("Space");
        terminal.press("q");
        terminal.is_restored("0");
    }
}

#[test]
fn gives_the_terminal_back_on_a_signal_and_when_the_target_ends() {
    let Some(terminal) = Terminal::open("ends", 80, 24) else { return };
    let mut target = Target::start();
    for signal in ["TERM", "HUP", "INT"] {
        terminal.type_line(&format!("clear; ({})", target.watch("")));
        terminal.shows("HEALTHY");
        let watcher = format!("{STALLSCOPE} watch --pid {}", target.0.id());
        signal_watcher(&watcher, signal);
        terminal.is_restored("0");
    }
    terminal.type_line(&format!("clear; {}", target.watch("")));
    terminal.shows("HEALTHY");
    target.0.kill().unwrap();
    target.0.wait().unwrap();
    terminal.shows("ENDED");
    terminal.press("q");
    terminal.is_restored("0");
}

/// A window that is closed, a connection that is lost: the watcher ends, and its recording is whole.
#[test]
fn ends_when_its_terminal_is_gone() {
    let Some(terminal) = Terminal::open("gone", 80, 24) else { return };
    let target = Target::start();
    let recording = tempfile::NamedTempFile::new().unwrap();
    let record = format!("--record {}", recording.path().display());
    terminal.type_line(&target.watch(&record));
    terminal.shows("HEALTHY");
    let watcher = format!("{STALLSCOPE} watch --pid {} {record}", target.0.id());
    let pid = watcher_pid(&watcher).unwrap();
    drop(terminal);
    let deadline = Instant::now() + PATIENCE;
    while watcher_pid(&watcher).as_deref() == Some(&pid) {
        assert!(Instant::now() < deadline, "the watcher outlives its terminal");
        std::thread::sleep(Duration::from_millis(50));
    }
    let incident = stallscope::watch::replay::load(recording.path()).unwrap();
    assert_eq!(incident.losses, [] as [&str; 0], "the recording has its end");
}

/// Sends `signal` to the process with exactly this command line.
fn signal_watcher(cmdline: &str, signal: &str) {
    let pid = watcher_pid(cmdline).unwrap_or_else(|| panic!("no process runs {cmdline}"));
    assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
}

/// The process with exactly this command line.
fn watcher_pid(cmdline: &str) -> Option<String> {
    std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let found = std::fs::read(entry.path().join("cmdline")).ok()?;
        let found = String::from_utf8_lossy(&found).trim_end_matches('\0').replace('\0', " ");
        (found == cmdline).then(|| entry.file_name().to_string_lossy().into_owned())
    })
}
