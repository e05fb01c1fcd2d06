//! Which connections wait for an answer. Server and clients are this process.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use stallscope_probes::sample::AnswersRaw;
use stallscope_probes::sockets::{Diag, Tracker, Wanted};

use crate::{got, own_pid, proc_root, until};

struct Server {
    listener: TcpListener,
    diag: Diag,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { listener, diag: got(Diag::open(proc_root(), own_pid())) }
    }

    fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        (client, self.listener.accept().unwrap().0)
    }

    /// By both kinds of census.
    fn answers(&self) -> AnswersRaw {
        let ports = [self.listener.local_addr().unwrap().port()];
        let wanted = Wanted { answers: true, ..Wanted::new(&ports, (1, 1)) };
        let alive = got(self.diag.connections_alive(&wanted));
        let before = Tracker::default().update(got(self.diag.connections(&wanted)));
        let whole = before.served[0].answers.unwrap();
        let alive = Tracker::default().update_alive(alive, &before).served[0].answers.unwrap();
        let counts = |answers: AnswersRaw| {
            (answers.awaiting, answers.awaiting_unread, answers.never_answered)
        };
        assert_eq!(counts(alive), counts(whole));
        whole
    }
}

/// Longer than a jiffy (10 ms at most), in which the order of data in and out is not told.
const LATER_MS: u32 = 30;

#[test]
fn who_waits_for_an_answer_is_told_from_who_had_one() {
    let server = Server::start();
    let _idle = server.connect();
    let (mut client, mut accepted) = server.connect();
    assert_eq!(server.answers(), AnswersRaw::default());

    client.write_all(b"question").unwrap();
    let first = until("an unread question", || {
        Some(server.answers()).filter(|answers| answers.awaiting_unread == 1)
    });
    assert_eq!((first.awaiting, first.never_answered, first.last_sent_ms), (1, 1, None));
    assert_eq!(first.oldest_ms, first.last_received_ms);

    let mut buffer = [0; 100];
    assert_eq!(accepted.read(&mut buffer).unwrap(), 8);
    let read = server.answers();
    assert_eq!((read.awaiting, read.awaiting_unread, read.never_answered), (1, 0, 1));

    accepted.write_all(b"answer").unwrap();
    let answered = server.answers();
    assert_eq!((answered.awaiting, answered.oldest_ms), (0, None));
    assert!(answered.last_sent_ms.is_some() && answered.last_received_ms.is_some());

    // Asked again when the answer is some time ago: read or not, it waits.
    until("the answer is old", || {
        server.answers().last_sent_ms.filter(|ms| *ms >= LATER_MS).map(drop)
    });
    client.write_all(b"another").unwrap();
    until("another unread question", || (server.answers().awaiting_unread == 1).then_some(()));
    assert_eq!(accepted.read(&mut buffer).unwrap(), 7);
    let again = server.answers();
    assert_eq!((again.awaiting, again.awaiting_unread, again.never_answered), (1, 0, 0));
    assert!(again.last_received_ms < again.last_sent_ms, "{again:?}");

    // The client gives up; nobody has answered it.
    client.shutdown(Shutdown::Write).unwrap();
    let closed = server.answers();
    assert_eq!((closed.awaiting, closed.awaiting_unread), (1, 0));
    drop(accepted);
    until("none is left waiting", || (server.answers().awaiting == 0).then_some(()));
}

#[test]
fn a_client_that_leaves_without_a_word_waits_for_nothing() {
    let server = Server::start();
    let (client, mut accepted) = server.connect();
    client.shutdown(Shutdown::Write).unwrap();
    let ports = [server.listener.local_addr().unwrap().port()];
    let wanted = Wanted { answers: true, ..Wanted::new(&ports, (1, 1)) };
    until("CLOSE_WAIT", || {
        let raw = Tracker::default().update(got(server.diag.connections(&wanted))).served[0];
        (raw.close_wait == 1).then_some(())
    });
    // Its end has not been read: that is neglect, and none that waits.
    let left = server.answers();
    assert_eq!((left.awaiting, left.last_received_ms, left.neglected), (0, None, 1), "{left:?}");
    assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
    assert_eq!(server.answers(), AnswersRaw::default());
}
