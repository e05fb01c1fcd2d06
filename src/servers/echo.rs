//! Next to nothing: the answer's bytes for whatever comes in one read. What the servers cost beside
//! their I/O is measured against this.

use std::net::Shutdown;
use std::rc::Rc;

use super::context::{Context, Socket, Stream};
use super::http::READ_BYTES;

/// As the servers answer an event that is queued.
const ANSWER: &[u8] = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";

/// Serves one connection to its end.
pub(super) async fn serve<S: Stream>(stream: S, context: Rc<Context>) {
    let stream = Rc::new(stream);
    let connection = context.enter(Rc::clone(&stream) as Rc<dyn Socket>);
    let mut received = Vec::with_capacity(READ_BYTES);
    let mut answer = ANSWER.to_vec();
    loop {
        connection.is_idle.set(true);
        let (outcome, buffer) = stream.read(received).await;
        connection.is_idle.set(false);
        received = buffer;
        if !matches!(outcome, Ok(bytes) if bytes > 0) {
            break;
        }
        received.clear();
        let (outcome, buffer) = stream.write_all(answer).await;
        answer = buffer;
        if outcome.is_err() {
            break;
        }
        context.heartbeat.responses(1);
    }
    stream.shut(Shutdown::Both);
    drop(stream);
    context.leave(connection);
}
