//! Which connections wait for an answer: data came in, and nothing went out since. Pure.
//!
//! The kernel keeps the jiffy in which data last came in and that in which data last went out
//! (`lrcvtime`, `lsndtime`; 1 to 10 ms, by `CONFIG_HZ`). Of a connection made from outside both begin
//! with the jiffy of its making (`tcp_create_openreq_child`, `net/ipv4/tcp_minisocks.c`), so the bytes
//! are asked too.
//!
//! Both in one jiffy say nothing of the order: an answer within the jiffy, as it should be, or a
//! client on the same machine that asked again at once and waits since. The latter is told only by
//! bytes that the target has not read. A connection whose request was read and never answered, and
//! that came within a jiffy after the answer before, is therefore not counted.

use super::wire::{Socket, TcpState, Traffic};
use crate::sample::AnswersRaw;

/// Adds an accepted connection; `None` if nothing tells what went over it.
pub fn with(mut answers: AnswersRaw, socket: &Socket) -> Option<AnswersRaw> {
    let traffic = socket.traffic?;
    // A FIN takes a number in the sequence, and so counts as a byte received, and as one unread
    // until the end of the stream has been read.
    let fin = u32::from(socket.state == Some(TcpState::CloseWait));
    let unread_bytes = socket.received.saturating_sub(fin);
    let has_received = traffic.received_bytes > u64::from(fin);
    let has_sent = traffic.sent_bytes > 0;
    // All that ever came still lies there, and nothing was ever said.
    if !has_sent && socket.received > 0 && u64::from(socket.received) >= traffic.received_bytes {
        answers.neglected += 1;
        let since_ms = Some(traffic.last_received_ms);
        answers.neglected_oldest_ms = answers.neglected_oldest_ms.max(since_ms);
    }
    if has_received {
        answers.last_received_ms = Some(least(answers.last_received_ms, traffic.last_received_ms));
    }
    if has_sent {
        answers.last_sent_ms = Some(least(answers.last_sent_ms, traffic.last_sent_ms));
    }
    if has_received && (!has_sent || waits(&traffic, unread_bytes)) {
        answers.awaiting += 1;
        answers.awaiting_unread += u32::from(unread_bytes > 0);
        answers.never_answered += u32::from(!has_sent);
        answers.oldest_ms = answers.oldest_ms.max(Some(traffic.last_received_ms));
    } else if has_sent && has_received {
        if may_wait(&traffic) {
            answers.perhaps += 1;
            let since_ms = Some(traffic.last_received_ms);
            answers.perhaps_oldest_ms = answers.perhaps_oldest_ms.max(since_ms);
        } else {
            answers.answered += 1;
        }
    }
    Some(answers)
}

/// Adds a connection that waits to be accepted.
///
/// Of one that has sent nothing `lrcvtime` is the jiffy of its making (`tcp_create_openreq_child`).
pub fn with_queued(mut answers: AnswersRaw, socket: &Socket) -> AnswersRaw {
    let since_ms = socket.traffic.map(|traffic| traffic.last_received_ms);
    answers.queued_oldest_ms = answers.queued_oldest_ms.max(since_ms);
    answers
}

/// Whether data came in after data last went out.
const fn waits(traffic: &Traffic, unread_bytes: u32) -> bool {
    traffic.last_received_ms < traffic.last_sent_ms
        || (traffic.last_received_ms == traffic.last_sent_ms && unread_bytes > 0)
}

/// Answers that a connection must have had before its segments are compared: with fewer, a request
/// of two segments looks the same.
const SEGMENTS_OUT_MIN: u32 = 2;

/// Whether the last segment in may have come after the last one out, within the same jiffy.
const fn may_wait(traffic: &Traffic) -> bool {
    traffic.last_received_ms == traffic.last_sent_ms
        && traffic.segments_out >= SEGMENTS_OUT_MIN
        && traffic.segments_in == traffic.segments_out + 1
}

fn least(known_ms: Option<u32>, ms: u32) -> u32 {
    known_ms.map_or(ms, |known_ms| known_ms.min(ms))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn socket(state: TcpState, unread_bytes: u32, traffic: Option<Traffic>) -> Socket {
        Socket {
            state: Some(state),
            local: ([127, 0, 0, 1], 80).into(),
            remote: ([127, 0, 0, 1], 40_000).into(),
            received: unread_bytes,
            sent: 0,
            inode: 1,
            interface: 0,
            drops: None,
            info: None,
            traffic,
        }
    }

    /// Bytes received and sent; since when, ms.
    const fn traffic(bytes: (u64, u64), since_ms: (u32, u32)) -> Traffic {
        Traffic {
            received_bytes: bytes.0,
            sent_bytes: bytes.1,
            last_received_ms: since_ms.0,
            last_sent_ms: since_ms.1,
            segments_in: 0,
            segments_out: 0,
        }
    }

    fn of(sockets: &[Socket]) -> Option<AnswersRaw> {
        sockets.iter().try_fold(AnswersRaw::default(), with)
    }

    #[test]
    fn connections_by_what_went_over_them() {
        use TcpState::{CloseWait, Established};
        // State, unread bytes, (received, sent) bytes, (received, sent) ms ago: whether it waits.
        let cases = [
            ("nothing was asked", Established, 0, (0, 0), (500, 500), false),
            ("answered", Established, 0, (9, 9), (500, 400), false),
            ("answered within a jiffy", Established, 0, (9, 9), (500, 500), false),
            ("asked again", Established, 0, (9, 9), (400, 500), true),
            ("asked again, not read", Established, 9, (9, 9), (400, 500), true),
            ("asked again at once, not read", Established, 9, (18, 9), (500, 500), true),
            ("more came while it answered", Established, 9, (18, 9), (500, 400), false),
            ("asked as soon as it was made", Established, 0, (9, 0), (500, 500), true),
            ("greeted, and nothing was asked", Established, 0, (0, 9), (600, 500), false),
            ("closed without a word", CloseWait, 1, (1, 0), (500, 500), false),
            ("asked and closed", CloseWait, 10, (10, 0), (500, 500), true),
            ("asked, and half of it read", Established, 4, (9, 0), (500, 500), true),
            ("asked, and not read at all", Established, 9, (9, 0), (500, 500), true),
            ("answered and closed", CloseWait, 1, (10, 9), (500, 500), false),
            ("answered and closed, the end read", CloseWait, 0, (10, 9), (500, 400), false),
        ];
        for (name, state, unread, bytes, since_ms, expected) in cases {
            let found = of(&[socket(state, unread, Some(traffic(bytes, since_ms)))]).unwrap();
            assert_eq!(found.awaiting, u32::from(expected), "{name}");
            assert_eq!(found.never_answered, u32::from(expected && bytes.1 == 0), "{name}");
            let fin = u32::from(state == CloseWait);
            assert_eq!(found.awaiting_unread, u32::from(expected && unread > fin), "{name}");
            assert_eq!(found.oldest_ms, expected.then_some(since_ms.0), "{name}");
            let spoke = bytes.0 > u64::from(fin);
            assert_eq!(found.last_received_ms, spoke.then_some(since_ms.0), "{name}");
            assert_eq!(found.last_sent_ms, (bytes.1 > 0).then_some(since_ms.1), "{name}");
            let neglected = bytes.1 == 0 && unread > 0 && u64::from(unread) == bytes.0;
            assert_eq!(found.neglected, u32::from(neglected), "{name}");
            assert_eq!(found.neglected_oldest_ms, neglected.then_some(since_ms.0), "{name}");
        }
    }

    #[test]
    fn the_longest_wait_and_the_latest_traffic_of_all() {
        let open = |traffic| socket(TcpState::Established, 0, Some(traffic));
        let all = [
            open(traffic((9, 9), (700, 900))),
            open(traffic((9, 0), (800, 950))),
            open(traffic((9, 9), (600, 300))),
            open(traffic((0, 0), (10, 10))),
        ];
        let expected = AnswersRaw {
            awaiting: 2,
            awaiting_unread: 0,
            never_answered: 1,
            oldest_ms: Some(800),
            last_sent_ms: Some(300),
            last_received_ms: Some(600),
            answered: 1,
            ..AnswersRaw::default()
        };
        assert_eq!(of(&all), Some(expected));
        assert_eq!(of(&[]), Some(AnswersRaw::default()));
    }

    #[test]
    fn within_a_jiffy_the_segments_may_tell() {
        let open = |since_ms, segments: (u32, u32)| {
            let (segments_in, segments_out) = segments;
            let traffic = Traffic { segments_in, segments_out, ..traffic((9, 9), since_ms) };
            socket(TcpState::Established, 0, Some(traffic))
        };
        for (since_ms, segments, expected) in [
            ((500, 500), (8, 7), (1, 0)),
            ((500, 500), (7, 7), (0, 1)),
            ((500, 500), (2, 1), (0, 1)),
            ((500, 500), (14, 7), (0, 1)),
            ((500, 400), (8, 7), (0, 1)),
            ((400, 500), (8, 7), (0, 0)),
        ] {
            let found = of(&[open(since_ms, segments)]).unwrap();
            assert_eq!((found.perhaps, found.answered), expected, "{since_ms:?} {segments:?}");
        }
    }

    #[test]
    fn one_connection_that_does_not_tell_leaves_no_count() {
        let told = socket(TcpState::Established, 0, Some(traffic((9, 0), (1, 1))));
        let mute = socket(TcpState::Established, 0, None);
        for sockets in [[told, mute], [mute, told]] {
            assert_eq!(of(&sockets), None);
        }
    }

    proptest! {
        #[test]
        fn parts_are_never_more_than_the_whole(
            sockets in proptest::collection::vec(
                (any::<bool>(), 0_u32..3, 0_u64..3, 0_u64..3, 0_u32..3, 0_u32..3), 0..30),
        ) {
            let socket = |(closed, unread, received, sent, received_ms, sent_ms)| {
                let state = if closed { TcpState::CloseWait } else { TcpState::Established };
                socket(state, unread, Some(traffic((received, sent), (received_ms, sent_ms))))
            };
            let sockets: Vec<Socket> = sockets.into_iter().map(socket).collect();
            let found = of(&sockets).unwrap();
            prop_assert!(found.awaiting as usize <= sockets.len());
            prop_assert!(found.awaiting_unread.max(found.never_answered) <= found.awaiting);
            prop_assert_eq!(found.oldest_ms.is_some(), found.awaiting > 0);
            let least = sockets.iter().filter_map(|it| it.traffic).map(|it| it.last_received_ms);
            prop_assert!(found.last_received_ms >= least.min() || found.last_received_ms.is_none());
        }
    }
}
