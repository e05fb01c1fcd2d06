//! Processes that become another, multiply, or are not what they are called.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::{Outcome, await_line, say, serve};

/// Clears a terminal, breaks lines, ends a script, and is no UTF-8.
const HOSTILE: &[u8] = b"\x1b[2J\x1b]0;x\x07\n</script><b>\"'\\\xff\xfe";
/// What of it a file name may hold.
const HOSTILE_FILE: &[u8] = b"\x1b[2J\n<script>\"'\\\xff";

/// Serves until a line comes, then is /bin/sleep, under the same pid.
pub fn exec() -> Outcome {
    serve(|| {
        await_line();
        let error = Command::new("/bin/sleep").arg("60").exec();
        eprintln!("victim: cannot be /bin/sleep: {error}");
    })
}

/// Forks all the time; each child holds the listening socket too, for a while.
pub fn fork() -> Outcome {
    serve(|| {
        loop {
            // SAFETY: the child calls nothing but nanosleep and _exit, which are
            // async-signal-safe.
            match unsafe { libc::fork() } {
                0 => {
                    let life = rustix::time::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
                    let _ = rustix::thread::nanosleep(&life);
                    // SAFETY: ends the child at once.
                    unsafe { libc::_exit(0) };
                }
                -1 => eprintln!("victim: cannot fork: {}", io::Error::last_os_error()),
                _ => {}
            }
            std::thread::sleep(Duration::from_millis(50));
            let reap = rustix::process::WaitOptions::NOHANG;
            while matches!(rustix::process::wait(reap), Ok(Some(_))) {}
        }
    })
}

/// Copies this program to a file of that name, and becomes that.
fn become_copy(name: &[u8], arg0: &[u8], args: &[&OsStr]) -> Outcome {
    let copy: PathBuf = std::env::temp_dir().join(OsStr::from_bytes(name));
    std::fs::copy(std::env::current_exe()?, &copy)?;
    Err(Command::new(&copy).arg0(OsStr::from_bytes(arg0)).args(args).exec().into())
}

/// Hostile names of the file, the process and its arguments.
pub fn names() -> Outcome {
    become_copy(HOSTILE_FILE, HOSTILE, &[OsStr::new("named"), OsStr::from_bytes(HOSTILE)])
}

/// And of its threads.
pub fn named() -> Outcome {
    // The last one is a control sequence in one character (U+009B), and a DEL.
    let names: [&[u8]; 4] =
        [&HOSTILE[..15], b"\n\n\n</script>\n", b"a) R 1 1 (\xff", b"\xc2\x9b2J\x7f"];
    for name in names {
        std::thread::spawn(move || {
            let name = std::ffi::CString::new(name).unwrap_or_default();
            rustix::thread::set_name(&name).ok();
            loop {
                std::thread::park();
            }
        });
    }
    serve(std::thread::park)
}

/// Runs a copy of this program.
pub fn deleted() -> Outcome {
    let name = format!("victim-{}", std::process::id());
    become_copy(name.as_bytes(), b"victim", &[OsStr::new("unlink")])
}

/// Which deletes its own file.
pub fn unlink() -> Outcome {
    std::fs::remove_file(std::env::current_exe()?)?;
    say("deleted")?;
    serve(std::thread::park)
}
