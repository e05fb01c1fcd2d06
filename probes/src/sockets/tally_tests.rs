use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::sockets::wire::{Message, messages};

const PORT: u16 = 8080;
const RANGE: (u16, u16) = (32_768, 60_999);

fn to(local_port: u16, remote_port: u16, state: TcpState) -> Socket {
    Socket {
        state: Some(state),
        local: ([127, 0, 0, 1], local_port).into(),
        remote: ([127, 0, 0, 1], remote_port).into(),
        received: 0,
        sent: 0,
        inode: 1,
        interface: 0,
        drops: None,
        info: None,
        traffic: None,
    }
}

fn served(inode: u32) -> Socket {
    Socket { inode, ..to(PORT, 40_000, TcpState::Established) }
}

fn census_of(sockets: &[Socket], wanted: &Wanted<'_>) -> Census {
    let mut count = CensusCount::new(wanted);
    for socket in sockets {
        if count.take(socket) == Take::Enough {
            break;
        }
    }
    count.finish()
}

fn served_of(sockets: &[Socket]) -> ServedRaw {
    let census = census_of(sockets, &Wanted::new(&[PORT], RANGE));
    census.alive.served[0].counts
}

fn captured() -> Vec<Socket> {
    let files: [&[u8]; 2] = [
        include_bytes!("../../fixtures/sock-diag-6.18/connections-v4"),
        include_bytes!("../../fixtures/sock-diag-6.18/connections-v6"),
    ];
    files
        .into_iter()
        .flat_map(messages)
        .filter_map(|numbered| match numbered.unwrap().message {
            Message::Socket(socket) => Some(socket),
            _ => None,
        })
        .collect()
}

#[test]
fn a_captured_dump_counts_as_ss_does() {
    // Four clients, two of them in SYN_SENT, and an accepted connection.
    let own = BTreeSet::from([49_245, 49_250, 49_251, 49_252, 49_255]);
    let wanted = Wanted { own_inodes: Some(&own), ..Wanted::new(&[8081, 8080], RANGE) };
    let census = census_of(&captured(), &wanted);
    let [narrow, wide] = &census.alive.served[..] else { panic!("{census:?}") };
    let expected = ServedRaw { port: 8080, queued: 5, ..ServedRaw::default() };
    assert_eq!((narrow.counts, &narrow.inodes), (expected, &Vec::new()));
    let dual_stack = ServedRaw {
        port: 8081,
        accepted_open: 2,
        // Its client has given up: CLOSE_WAIT, still in the accept queue.
        queued: 1,
        unread_sockets: 1,
        unread_bytes: 5,
        fingerprint: wide.counts.fingerprint,
        ..ServedRaw::default()
    };
    assert_eq!((wide.counts, &wide.inodes), (dual_stack, &vec![49_255, 49_256]));
    let top = vec![
        ("127.0.0.1:8080".parse().unwrap(), 7),
        ("127.0.0.1:8081".parse().unwrap(), 2),
        ("[::1]:8081".parse().unwrap(), 1),
    ];
    assert_eq!(census.ports, PortsRaw { range: RANGE, in_use: 10, time_wait: 0, top });
    assert_eq!((census.alive.total, census.alive.truncated), (18, false));
    let outgoing: Vec<_> = census.outgoing.iter().map(|one| (one.inode, one.unsent)).collect();
    assert_eq!(outgoing, [(49_250, 1), (49_251, 1), (49_245, 0), (49_252, 0)]);
}

#[test]
fn a_captured_dump_with_info_tells_who_waits() {
    let dump = include_bytes!("../../fixtures/sock-diag-6.18/connections-info-v4");
    let sockets: Vec<Socket> = messages(dump)
        .filter_map(|numbered| match numbered.unwrap().message {
            Message::Socket(socket) => Some(socket),
            _ => None,
        })
        .collect();
    let served = |answers| {
        let wanted = Wanted { answers, ..Wanted::new(&[PORT], RANGE) };
        census_of(&sockets, &wanted).alive.served[0].counts
    };
    let expected = AnswersRaw {
        awaiting: 4,
        awaiting_unread: 2,
        never_answered: 2,
        oldest_ms: Some(736),
        last_sent_ms: Some(416),
        last_received_ms: Some(368),
        neglected: 2,
        neglected_oldest_ms: Some(684),
        answered: 1,
        queued_oldest_ms: Some(308),
        ..AnswersRaw::default()
    };
    let counts = served(true);
    assert_eq!((counts.accepted_open, counts.queued, counts.close_wait), (7, 1, 2));
    assert_eq!(counts.answers, Some(expected));
    assert_eq!(served(false).answers, None, "not asked for");
}

#[test]
fn without_info_nothing_is_said_of_answers() {
    let wanted = Wanted { answers: true, ..Wanted::new(&[PORT], RANGE) };
    let answers = |sockets: &[Socket]| census_of(sockets, &wanted).alive.served[0].counts.answers;
    assert_eq!(answers(&[served(0)]), Some(AnswersRaw::default()), "not accepted");
    assert_eq!(answers(&[served(1)]), None);
}

#[test]
fn states_by_what_they_count_as() {
    let base = ServedRaw { port: PORT, ..ServedRaw::default() };
    let cases = [
        (TcpState::Established, 0, ServedRaw { queued: 1, ..base }),
        (TcpState::CloseWait, 0, ServedRaw { queued: 1, ..base }),
        (TcpState::SynRecv, 0, ServedRaw { syn_recv: 1, ..base }),
        (TcpState::NewSynRecv, 0, ServedRaw { syn_recv: 1, ..base }),
        (TcpState::FinWait2, 7, base),
        (TcpState::TimeWait, 0, ServedRaw { time_wait: 1, ..base }),
    ];
    for (state, inode, expected) in cases {
        let one = Socket { state: Some(state), ..served(inode) };
        assert_eq!(served_of(&[one]), expected, "{state:?}");
    }
    let half_closed = Socket { state: Some(TcpState::CloseWait), sent: 9, ..served(7) };
    let raw = served_of(&[half_closed]);
    assert_eq!((raw.accepted_open, raw.close_wait, raw.unsent_bytes), (1, 1, 9));
    assert_eq!(served_of(&[Socket { state: None, ..served(7) }]), base);
}

#[test]
fn ephemeral_ports_are_counted_once_and_destinations_ranked() {
    let mut sockets = vec![
        to(32_768, 9092, TcpState::Established),
        to(32_768, 9093, TcpState::TimeWait),
        to(60_999, 9093, TcpState::TimeWait),
        to(32_767, 9093, TcpState::Established),
        to(61_000, 9093, TcpState::TimeWait),
        to(40_000, 0, TcpState::Close),
    ];
    sockets.extend((0..20).map(|n| to(50_000 + n, 1000 + n, TcpState::Established)));
    let ports = census_of(&sockets, &Wanted::new(&[PORT], RANGE)).ports;
    assert_eq!((ports.in_use, ports.time_wait), (23, 2));
    assert_eq!(ports.top.len(), DESTINATIONS_MAX);
    assert_eq!(ports.top[0], ("127.0.0.1:9093".parse().unwrap(), 2));
    assert_eq!(ports.top[1], ("127.0.0.1:1000".parse().unwrap(), 1));
}

#[test]
fn time_wait_belongs_to_the_side_that_closed_first() {
    let sockets = [
        to(PORT, 40_000, TcpState::TimeWait),
        to(40_001, PORT, TcpState::TimeWait),
        to(40_002, PORT, TcpState::TimeWait),
        // A served port within the range.
        to(40_003, 9, TcpState::TimeWait),
    ];
    let census = census_of(&sockets, &Wanted::new(&[PORT, 40_003], RANGE));
    let served: Vec<_> = census.alive.served.iter().map(|it| it.counts.time_wait).collect();
    assert_eq!((served, census.ports.time_wait, census.ports.in_use), (vec![1, 1], 2, 3));
    assert_eq!(census.ports.top, [("127.0.0.1:8080".parse().unwrap(), 2)]);
}

#[test]
fn own_connections_are_those_to_a_port_that_is_not_served_here() {
    let own = BTreeSet::from([5, 6, 7]);
    let wanted = Wanted { own_inodes: Some(&own), ..Wanted::new(&[PORT], RANGE) };
    let sockets = [
        Socket { inode: 5, ..to(PORT, 40_000, TcpState::Established) },
        Socket { inode: 6, ..to(40_001, 9092, TcpState::CloseWait) },
        Socket { inode: 7, ..to(40_002, 0, TcpState::Close) },
        Socket { inode: 8, ..to(40_003, 9092, TcpState::Established) },
        Socket { inode: 0, ..to(40_004, 9092, TcpState::TimeWait) },
    ];
    let census = census_of(&sockets, &wanted);
    assert_eq!(census.outgoing.iter().map(|one| one.inode).collect::<Vec<_>>(), [6]);
    assert_eq!(census_of(&sockets, &Wanted::new(&[PORT], RANGE)).outgoing, []);
}

#[test]
fn what_the_other_side_has_closed_or_not_answered_comes_before_the_rest() {
    let inodes = 1..=PEERS_MAX as u32 + 10;
    let own: BTreeSet<u64> = inodes.clone().map(u64::from).collect();
    let wanted = Wanted { own_inodes: Some(&own), ..Wanted::new(&[PORT], RANGE) };
    let sockets: Vec<Socket> = inodes
        .map(|inode| match inode {
            40 => Socket { inode, ..to(40_001, 9092, TcpState::CloseWait) },
            41 => Socket { inode, sent: 1, ..to(40_001, 9092, TcpState::SynSent) },
            _ => Socket { inode, ..to(40_001, 9092, TcpState::Established) },
        })
        .collect();
    let outgoing = census_of(&sockets, &wanted).outgoing;
    let first: Vec<u32> = outgoing.iter().take(4).map(|one| one.inode).collect();
    assert_eq!((outgoing.len(), first), (PEERS_MAX, vec![40, 41, 1, 2]));
}

#[test]
fn a_count_is_cut_at_its_bound_and_not_before() {
    for (sockets_max, total, truncated) in [(3, 3, false), (2, 2, true), (0, 0, true)] {
        let wanted = Wanted { sockets_max, ..Wanted::new(&[PORT], RANGE) };
        let alive = census_of(&[served(1), served(2), served(3)], &wanted).alive;
        assert_eq!((alive.total, alive.truncated), (total, truncated));
    }
    let wanted = Wanted { sockets_max: usize::MAX, ..Wanted::new(&[PORT], RANGE) };
    assert_eq!(ServedCount::new(&wanted).sockets_max, DUMP_MAX);
}

proptest! {
    #[test]
    fn the_fingerprint_ignores_order_and_notices_change(
        mut inodes in proptest::collection::hash_set(1_u32.., 1..20), bytes in 1_u32..,
    ) {
        let print = |sockets: &[Socket]| served_of(sockets).fingerprint;
        let forward: Vec<Socket> = inodes.drain().map(served).collect();
        let backward: Vec<Socket> = forward.iter().rev().copied().collect();
        let before = print(&forward);
        prop_assert_eq!(before, print(&backward));
        let mut read = forward.clone();
        read[0].received = bytes;
        prop_assert_ne!(before, print(&read));
        read[0].received = 0;
        read[0].sent = bytes;
        prop_assert_ne!(before, print(&read));
        prop_assert_ne!(before, print(&forward[1..]));
    }

    #[test]
    fn the_destinations_are_those_of_a_plain_count(
        remotes in proptest::collection::vec(1_u16..6, 0..60),
    ) {
        let sockets: Vec<Socket> = remotes
            .iter()
            .zip(RANGE.0..)
            .map(|(remote, local)| to(local, *remote, TcpState::Established))
            .collect();
        let ports = census_of(&sockets, &Wanted::new(&[], RANGE)).ports;
        for (destination, count) in &ports.top {
            let expected = remotes.iter().filter(|port| **port == destination.port()).count();
            prop_assert_eq!(*count as usize, expected);
        }
        let distinct: BTreeSet<&u16> = remotes.iter().collect();
        prop_assert_eq!(ports.top.len(), distinct.len());
    }
}
