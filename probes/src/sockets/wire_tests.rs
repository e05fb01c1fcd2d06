use proptest::prelude::*;

use super::*;

const LISTEN_V4: &[u8] = include_bytes!("../../fixtures/sock-diag-6.18/listen-v4");
const LISTEN_V6: &[u8] = include_bytes!("../../fixtures/sock-diag-6.18/listen-v6");

fn sockets(bytes: &[u8]) -> Vec<Socket> {
    messages(bytes)
        .filter_map(|numbered| match numbered.unwrap().message {
            Message::Socket(socket) => Some(socket),
            Message::Done(0) => None,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn captured_listeners_with_queue_limit_and_drops() {
    let nobody = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 0);
    let narrow = Socket {
        state: Some(TcpState::Listen),
        local: "127.0.0.1:8080".parse().unwrap(),
        remote: nobody("0.0.0.0"),
        received: 5,
        sent: 4,
        inode: 49_243,
        interface: 0,
        drops: Some(8),
        info: None,
        traffic: None,
    };
    assert_eq!(sockets(LISTEN_V4), [narrow]);
    let dual_stack = Socket {
        local: "[::]:8081".parse().unwrap(),
        remote: nobody("::"),
        received: 1,
        sent: 16,
        inode: 49_244,
        drops: Some(0),
        ..narrow
    };
    assert_eq!(sockets(LISTEN_V6), [dual_stack]);
}

#[test]
fn captured_connections_of_a_dual_stack_listener_come_as_plain_ipv4() {
    let found = sockets(include_bytes!("../../fixtures/sock-diag-6.18/connections-v6"));
    let mapped: Vec<_> = found.iter().filter(|socket| socket.local.is_ipv4()).collect();
    assert_eq!((found.len(), mapped.len()), (4, 2));
    assert!(mapped.iter().all(|socket| socket.local == "127.0.0.1:8081".parse().unwrap()));
    let with_data = mapped.iter().find(|socket| socket.inode == 49_255).unwrap();
    assert_eq!((with_data.received, with_data.state), (5, Some(TcpState::Established)));
    assert_eq!(with_data.drops, None, "not asked for");
}

#[test]
fn every_message_of_a_dump_carries_the_number_of_its_request() {
    assert!(messages(LISTEN_V4).all(|numbered| numbered.unwrap().seq == 1));
    let last = messages(LISTEN_V4).last().unwrap().unwrap();
    assert_eq!((last.message, last.interrupted), (Message::Done(0), false));
}

#[test]
fn a_message_cut_anywhere_is_malformed_not_misread() {
    let whole = &LISTEN_V4[..LISTEN_V4.len() - 20];
    for cut in 1..whole.len() {
        let last = messages(&whole[..cut]).last().unwrap();
        assert_eq!(last, Err(Malformed { at: cut }), "{cut}");
    }
    assert_eq!(messages(&[]).count(), 0);
}

fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = ((HEADER_BYTES + payload.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn ends_refusals_and_interruptions() {
    let cases = [
        (NLMSG_DONE, 0, 0_i32, Message::Done(0)),
        (NLMSG_DONE, 0, -12, Message::Done(12)),
        (NLMSG_ERROR, 0, -2, Message::Error(2)),
        (NLMSG_ERROR, 0, 0, Message::Error(0)),
        (NLMSG_DONE, NLM_F_DUMP_INTR, 0, Message::Done(0)),
        (1, 0, 0, Message::Other),
    ];
    for (kind, flags, errno, expected) in cases {
        let bytes = message(kind, flags, &errno.to_ne_bytes());
        let numbered = messages(&bytes).next().unwrap().unwrap();
        assert_eq!(numbered.message, expected);
        assert_eq!(numbered.interrupted, flags != 0);
    }
    for kind in [NLMSG_DONE, NLMSG_ERROR] {
        assert!(messages(&message(kind, 0, &[])).next().unwrap().is_err());
        let lowest = message(kind, 0, &i32::MIN.to_ne_bytes());
        assert!(messages(&lowest).next().unwrap().is_err());
    }
}

#[test]
fn a_request_asks_for_what_it_says() {
    let listening = Request { family: Family::V6, which: Which::Listening }.encode(7, &[]);
    assert_eq!((u32_at(&listening, 0), u32_at(&listening, 8)), (Some(72), Some(7)));
    assert_eq!((listening[16], listening[17], listening[18]), (10, 6, 1 << 6));
    assert_eq!((u16_at(&listening, 6), u32_at(&listening, 20)), (Some(0x301), Some(1 << 10)));
    let others =
        Request { family: Family::V4, which: Which::Others { info: false } }.encode(7, &[]);
    assert_eq!((others.len(), others[16], others[18]), (72, 2, 0));
    assert_eq!(u32_at(&others, 20), Some(0b1_1011_1111_1110));
    let alive = Request { family: Family::V4, which: Which::OthersAlive { info: false } }
        .encode(7, &[9; 8]);
    assert_eq!(u32_at(&alive, 20), Some(0b1_1011_1011_1110));
    assert_eq!((u32_at(&alive, 0), alive.len()), (Some(84), 84));
    assert_eq!((u16_at(&alive, 72), u16_at(&alive, 74)), (Some(12), Some(1)));
    assert_eq!(alive[76..], [9; 8]);
    for which in [Which::Others { info: true }, Which::OthersAlive { info: true }] {
        assert_eq!(Request { family: Family::V4, which }.encode(7, &[])[18], 1 << 1);
        assert_eq!(Request { family: Family::Both, which }.encode(7, &[])[19], 1 << 1);
    }
    let both =
        Request { family: Family::Both, which: Which::Others { info: false } }.encode(7, &[9; 4]);
    assert_eq!((u32_at(&both, 0), u16_at(&both, 4)), (Some(84), Some(18)));
    assert_eq!((&both[16..20], u32_at(&both, 68)), (&[0; 4][..], Some(0b1_1011_1111_1110)));
    assert_eq!((u16_at(&both, 76), &both[80..]), (Some(8), &[9; 4][..]));
}

#[test]
fn an_exact_request_names_both_ends() {
    let exact = |local: &str, remote: &str| {
        let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
        Exact { local, remote, interface: 3 }.encode(7, Detail::Info)
    };
    let narrow = exact("127.0.0.2:258", "127.0.0.1:772");
    assert_eq!((narrow.len(), u16_at(&narrow, 6), narrow[16]), (72, Some(1), 2));
    assert_eq!(narrow[18], 1 << 1, "with its tcp_info");
    assert_eq!(narrow[24..28], [1, 2, 3, 4]);
    assert_eq!((&narrow[28..32], &narrow[44..48]), (&[127, 0, 0, 2][..], &[127, 0, 0, 1][..]));
    assert_eq!((u32_at(&narrow, 60), &narrow[64..]), (Some(3), &[0xff; 8][..]));
    let wide = exact("[::1]:258", "[fe80::5]:772");
    assert_eq!((wide[16], wide[43], wide[44], wide[59]), (10, 1, 0xfe, 5));
    let mixed = exact("127.0.0.1:1", "[::1]:2");
    assert_eq!((mixed[16], &mixed[38..44]), (10, &[0xff, 0xff, 127, 0, 0, 1][..]));
}

#[test]
fn tcp_info_of_older_and_newer_kernels() {
    let mut bytes: Vec<u8> = (0..232).collect();
    let word = |at: u8| u32::from_ne_bytes([at, at + 1, at + 2, at + 3]);
    let double = |at: u8| u64::from_ne_bytes(std::array::from_fn(|byte| at + byte as u8));
    let expected = PeerInfoRaw {
        retransmits: 2,
        unacked: word(24),
        last_sent_ms: word(44),
        last_received_ms: word(52),
        rtt_us: word(68),
        retransmitted: word(100),
        sent_bytes: Some(double(200)),
        received_bytes: Some(double(128)),
    };
    assert_eq!(tcp_info(&bytes), Some(expected));
    bytes.truncate(192);
    assert_eq!(tcp_info(&bytes), Some(PeerInfoRaw { sent_bytes: None, ..expected }));
    bytes.truncate(104);
    let old = PeerInfoRaw { sent_bytes: None, received_bytes: None, ..expected };
    assert_eq!(tcp_info(&bytes), Some(old));
    assert_eq!(tcp_info(&bytes[..103]), None);
}

#[test]
fn traffic_of_older_and_newer_kernels() {
    let mut bytes: Vec<u8> = (0..=u8::MAX).collect();
    let word = |at: u8| u32::from_ne_bytes(std::array::from_fn(|byte| at + byte as u8));
    let double = |at: u8| u64::from_ne_bytes(std::array::from_fn(|byte| at + byte as u8));
    let expected = Traffic {
        received_bytes: double(128),
        sent_bytes: double(200),
        last_sent_ms: word(44),
        last_received_ms: word(52),
        segments_in: word(152),
        segments_out: word(156),
    };
    for bytes_long in [256, 232, 208] {
        bytes.truncate(bytes_long);
        assert_eq!(traffic(&bytes), Some(expected), "{bytes_long}");
    }
    assert_eq!(traffic(&bytes[..207]), None);
}

proptest! {
    #[test]
    fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        messages(&bytes).for_each(drop);
        tcp_info(&bytes);
        traffic(&bytes);
    }

    #[test]
    fn parsing_a_damaged_dump_never_panics_and_ends(
        at in 0..LISTEN_V4.len(), value in any::<u8>(), cut in 0..LISTEN_V4.len(),
    ) {
        let mut bytes = LISTEN_V4.to_vec();
        bytes[at] = value;
        bytes.truncate(cut);
        prop_assert!(messages(&bytes).count() <= bytes.len());
    }
}
