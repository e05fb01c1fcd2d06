//! Rings that keep a socket of their own, and rings that come and go.

use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};

use crate::{Outcome, await_line, listen, monotonic_ns, say, send_back, serve};

const ACCEPTED: u64 = 1;
const LINE: u64 = 2;

fn push(ring: &mut IoUring, entry: &squeue::Entry) -> Outcome {
    // SAFETY: no entry of this program refers to memory.
    unsafe { ring.submission().push(entry) }?;
    Ok(())
}

fn accept() -> squeue::Entry {
    opcode::Accept::new(types::Fixed(0), std::ptr::null_mut(), std::ptr::null_mut())
        .build()
        .user_data(ACCEPTED)
}

/// A server whose listening socket is registered with the ring as a fixed file, and has no fd: the
/// socket lives as long as the ring does. With `closes`, a line on stdin closes the ring.
pub fn fixed_listener(closes: bool) -> Outcome {
    let mut ring = IoUring::new(8)?;
    let (listener, port) = listen()?;
    ring.submitter().register_files(&[listener.as_raw_fd()])?;
    drop(listener);
    push(&mut ring, &accept())?;
    if closes {
        let stdin = types::Fd(0);
        push(&mut ring, &opcode::PollAdd::new(stdin, libc::POLLIN as u32).build().user_data(LINE))?;
    }
    ring.submit()?;
    say(&format!("listening {port}"))?;
    loop {
        // After a signal (SIGSTOP too) the kernel says EINTR, and there may be nothing yet.
        match ring.submit_and_wait(1) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let Some(done) = ring.completion().next() else { continue };
        match done.user_data() {
            ACCEPTED if done.result() >= 0 => {
                // SAFETY: the kernel has just made this fd for the accepted connection.
                let stream = unsafe { TcpStream::from_raw_fd(done.result()) };
                std::thread::spawn(move || send_back(stream));
                push(&mut ring, &accept())?;
            }
            LINE => {
                await_line();
                drop(ring);
                say(&format!("closed {}", monotonic_ns()))?;
                loop {
                    std::thread::park();
                }
            }
            _ => return Err(format!("accept failed: {}", done.result()).into()),
        }
    }
}

/// Two rings: the first comes back under the same fd, the second under another one every other
/// time. Their size changes, so whoever still looks at the old ones sees other counters.
pub fn recreate() -> Outcome {
    std::thread::spawn(|| {
        if let Err(error) = recreate_for_ever() {
            eprintln!("victim: {error}");
            std::process::exit(1);
        }
    });
    serve(std::thread::park)
}

fn recreate_for_ever() -> Outcome {
    for round in 0_u32.. {
        let entries = 4 << (round % 4);
        let mut first = IoUring::new(entries)?;
        // Takes the fd that the second ring had.
        let filler = if round % 2 == 0 { Some(rustix::io::dup(std::io::stdin())?) } else { None };
        let mut second = IoUring::new(entries * 2)?;
        for ring in [&mut first, &mut second] {
            for _ in 0..=round % 4 {
                push(ring, &opcode::Nop::new().build())?;
            }
            ring.submit()?;
        }
        std::thread::sleep(Duration::from_millis(200));
        drop(filler);
    }
    Ok(())
}
