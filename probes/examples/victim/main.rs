//! A process that stalls, or misbehaves, in one of the ways that a watcher has to cope with. Each
//! is real: nothing is pretended to the watcher.
//!
//! `victim MODE [N]` prints `listening PORT` once it can be connected to. Its server sends back
//! what it is sent. A mode that stalls prints `stalled NS` (`CLOCK_MONOTONIC`) when it has. A mode
//! that does something once does it when it reads a line on stdin.

use std::io::{self, BufRead, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

mod crowd;
mod lost_wake;
mod oddity;
mod rings;
mod seccomp;
mod submit_error;

const USAGE: &str = "\
usage: victim MODE [N]
  submit-error [N]     a tokio-uring server loses the submission after its Nth connection (1)
  lost-wake [N]        an epoll server never hears of its listener again after N connections (1)
  plain                a server that only serves
  ring-fixed-listener  its listening socket is kept by its ring alone
  ring-lost            the same; on a line it closes the ring and lives on
  ring-recreate        closes and makes its rings anew every 200 ms, under the same fds
  exec                 on a line it becomes /bin/sleep
  exit-soon            on a line it exits
  fork                 forks every 50 ms
  many-fds [N]         has N fds open, or all it may have (100000)
  threads [N]          has N threads, which come and go (50)
  names                hostile names of file, process, thread and arguments
  deleted              its program file is gone";

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() {
    let mut args = std::env::args_os().skip(1);
    let mode = args.next().unwrap_or_default();
    let number = args.next().and_then(|number| number.to_str()?.parse().ok());
    let outcome = match mode.to_str().unwrap_or_default() {
        "submit-error" => submit_error::run(number.unwrap_or(1)),
        "lost-wake" => lost_wake::run(number.unwrap_or(1)),
        "plain" => serve(std::thread::park),
        "ring-fixed-listener" => rings::fixed_listener(false),
        "ring-lost" => rings::fixed_listener(true),
        "ring-recreate" => rings::recreate(),
        "exec" => oddity::exec(),
        "exit-soon" => serve(await_line),
        "fork" => oddity::fork(),
        "many-fds" => crowd::fds(number.unwrap_or(100_000)),
        "threads" => crowd::threads(number.unwrap_or(50)),
        "names" => oddity::names(),
        "named" => oddity::named(),
        "deleted" => oddity::deleted(),
        "unlink" => oddity::unlink(),
        _ => {
            eprintln!("{USAGE}");
            std::process::exit(2);
        }
    };
    if let Err(error) = outcome {
        eprintln!("victim: {error}");
        std::process::exit(1);
    }
}

/// One line on stdout, at once.
fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

fn listen() -> io::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

fn monotonic_ns() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Serves with a thread per connection, meanwhile runs `meanwhile`, and exits after it.
fn serve(meanwhile: impl FnOnce()) -> Outcome {
    let (listener, port) = listen()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || send_back(stream));
        }
    });
    say(&format!("listening {port}"))?;
    meanwhile();
    Ok(())
}

fn send_back(mut stream: TcpStream) {
    let mut bytes = [0; 256];
    while let Ok(read @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..read]).is_err() {
            return;
        }
    }
}

/// Waits for a line on stdin; for ever when stdin has ended.
fn await_line() {
    let mut line = String::new();
    while io::stdin().lock().read_line(&mut line).is_ok_and(|read| read == 0) {
        std::thread::sleep(Duration::from_hours(1));
    }
}
