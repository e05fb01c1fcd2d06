//! The command `ss` as a witness.

use std::process::Command;

/// One socket as `ss` shows it.
#[derive(Debug)]
pub struct Row {
    pub state: String,
    /// Recv-Q.
    pub received: u32,
    /// Send-Q.
    pub sent: u32,
    pub local: String,
}

/// What `ss -H` prints with these arguments, in a named network namespace if there is one; `None`
/// where it is not installed.
pub fn ss(netns: Option<&str>, arguments: &[&str]) -> Option<Vec<Row>> {
    let mut command = match netns {
        None => Command::new("ss"),
        Some(netns) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", netns, "ss"]);
            command
        }
    };
    let Ok(output) = command.arg("-H").args(arguments).output() else {
        println!("no witness: the command `ss` is missing");
        return None;
    };
    assert!(output.status.success(), "{output:?}");
    // Asked for one state, it leaves out the column.
    let no_state = arguments.contains(&"state");
    let rows = String::from_utf8(output.stdout).unwrap();
    Some(rows.lines().map(|line| row(line, no_state)).collect())
}

fn row(line: &str, no_state: bool) -> Row {
    let mut words = line.split_whitespace();
    let mut next = || words.next().unwrap();
    Row {
        state: if no_state { String::new() } else { next().to_owned() },
        received: next().parse().unwrap(),
        sent: next().parse().unwrap(),
        local: next().to_owned(),
    }
}
