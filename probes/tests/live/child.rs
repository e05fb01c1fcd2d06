//! Processes to look at: this test binary again, running one of its ignored tests.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};

/// Marks the lines that the child means for its parent, among those of the test harness.
const MARK: &str = "child: ";

/// A running child; it is killed and reaped with the value.
pub struct Child {
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Child {
    /// Runs the ignored test `name`, within the named network namespace if there is one.
    pub fn start(name: &str, netns: Option<&str>) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = match netns {
            None => Command::new(program),
            Some(netns) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", netns]).arg(program);
                command
            }
        };
        let mut process = command
            .args(["--ignored", "--exact", "--nocapture", "--test-threads=1", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, input, output }
    }

    pub fn pid(&self) -> i32 {
        self.process.id() as i32
    }

    /// Waits for the child's next line.
    pub fn hears(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the child has ended");
            // The harness prints the test's name before it, on the same line.
            if let Some((_, said)) = line.split_once(MARK) {
                return said.trim_end().to_owned();
            }
        }
    }

    /// Lets the child go on with its next step.
    pub fn go_on(&mut self) {
        self.input.write_all(b"\n").unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// In the child: says a line, then waits to go on; `false` when the parent is gone.
pub fn say_and_wait(line: &str) -> bool {
    println!("{MARK}{line}");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok_and(|bytes| bytes > 0)
}
