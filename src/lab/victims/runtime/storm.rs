//! A thread that accepts through a ring of its own and hands each connection to another thread; from
//! some time on its accepts do not wait, and it tries again at once.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;

use anyhow::Context;
use stallscope_probes::storm::{AcceptRing, Waits};

use super::super::{Options, say_ready};
use super::Stage;
use super::requests::{answers, parser};
use crate::diagnose::verdict::Cause;
use crate::kit::now_ns;

/// Serves one connection to its end.
fn serve(mut stream: TcpStream) {
    let mut parser = parser();
    loop {
        let mut buffer = parser.take_buffer();
        let filled = buffer.len();
        buffer.resize(filled + 4096, 0);
        let Ok(read @ 1..) = stream.read(&mut buffer[filled..]) else { return };
        buffer.truncate(filled + read);
        parser.put_buffer(buffer);
        let answers = answers(&mut parser);
        if stream.write_all(&answers.bytes).is_err() || answers.is_last {
            return;
        }
    }
}

/// Runs the server.
pub(super) fn accepts_without_waiting(options: &Options) -> anyhow::Result<()> {
    let stage = Stage::new(options)?;
    let listener = TcpListener::bind(options.listen).context("cannot listen")?;
    let mut ring = AcceptRing::new().context("cannot set up a ring")?;
    say_ready(Some(listener.local_addr()?))?;
    let due_ns = stage.due_ns();
    loop {
        let waits = if now_ns() < due_ns { Waits::Yes } else { Waits::No };
        match ring.accept(listener.as_fd(), waits) {
            Ok(stream) => {
                std::thread::spawn(move || serve(TcpStream::from(stream)));
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                stage.ground.fault_begins(Cause::AcceptEagainStorm.id());
            }
            Err(_) => {}
        }
    }
}
