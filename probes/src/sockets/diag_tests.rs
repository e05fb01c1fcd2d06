use std::net::TcpListener;

use super::*;

fn own() -> Diag {
    match Diag::open(Path::new("/proc"), std::process::id() as i32) {
        Reading::Got(diag) => diag,
        Reading::Absent(absence) => panic!("{absence:?}"),
    }
}

fn sees(diag: &Diag, listener: &TcpListener) -> bool {
    let local = listener.local_addr().unwrap();
    diag.listeners().got().unwrap().iter().any(|listener| listener.local == local)
}

#[test]
fn after_a_dump_that_was_given_up_the_next_is_whole() {
    let (first, second) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let diag = own();
    let cut = diag.dump(
        Which::Listening,
        &[],
        || 0,
        |seen, _| {
            *seen += 1;
            Take::Enough
        },
    );
    assert_eq!(cut, Reading::Got(1));
    assert!(sees(&diag, &first) && sees(&diag, &second));
}

#[test]
fn a_datagram_that_does_not_fit_is_noticed_and_not_mixed_with_the_next_dump() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let diag = own();
    diag.session.lock().unwrap().buffer.truncate(100);
    let cut = diag.listeners();
    assert_eq!(cut.absence().unwrap().why, Why::Malformed, "{cut:?}");
    diag.session.lock().unwrap().buffer.resize(DATAGRAM_MAX_BYTES, 0);
    assert!(sees(&diag, &listener));
}

#[test]
fn a_filter_that_the_kernel_refuses_is_a_failure_and_not_an_empty_table() {
    let _listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let diag = own();
    let refused =
        diag.dump(Which::Others { info: false }, &[99, 4, 4, 0], || (), |(), _| Take::More);
    assert_eq!(refused.absence().unwrap().why, Why::Failed, "{refused:?}");
    assert!(diag.connections(&Wanted::new(&[80], (1, 1))).got().is_some());
}

#[test]
fn both_families_in_one_walk_are_those_of_two() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let Ok(wide) = TcpListener::bind("[::]:0") else {
        println!("did not run: no IPv6 here");
        return;
    };
    let wide_client = std::net::TcpStream::connect((
        std::net::Ipv6Addr::LOCALHOST,
        wide.local_addr().unwrap().port(),
    ));
    let ports: Vec<u16> = [&listener, &wide].map(|it| it.local_addr().unwrap().port()).into();
    let filter = filter::local_ports(&ports, &[]);
    let diag = own();
    let seen = |families: &[Family]| {
        let mut seen = Vec::new();
        let mut take = |socket: &Socket| {
            seen.push(*socket);
            Take::More
        };
        let mut session = diag.session.lock().unwrap();
        session
            .dump_each(&diag.namespace, families, Which::Others { info: false }, &filter, &mut take)
            .unwrap();
        seen.sort_unstable_by_key(|socket| (socket.local, socket.remote));
        seen
    };
    let both = seen(&[Family::Both]);
    assert_eq!(both, seen(&[Family::V4, Family::V6]));
    assert_eq!(both.len(), 1 + usize::from(wide_client.is_ok()));
    drop(client);
}

#[test]
fn a_kernel_that_does_not_answer_is_not_waited_for() {
    let socket = open_socket(&Namespace::Own);
    let mut buffer = [0; 100];
    let silence = receive(socket.got().unwrap(), &mut buffer);
    assert!(matches!(silence, Err(DumpError::Silent)), "{silence:?}");
}

#[test]
fn refusals_by_errno() {
    let cases = [
        (Errno::NOENT, Why::Unsupported),
        (Errno::PERM, Why::NotPermitted),
        (Errno::INVAL, Why::Failed),
        (Errno::SRCH, Why::Failed),
    ];
    for (errno, why) in cases {
        assert_eq!(refusal(errno.raw_os_error()).why(), why, "{errno}");
    }
}

#[test]
fn the_kernel_sends_only_the_ports_asked_for_and_no_more_than_the_bound() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let port = address.port();
    let clients = [0; 5].map(|_| std::net::TcpStream::connect(address).unwrap());
    let seen = |ports: &[u16], ranges: &[(u16, u16)]| {
        let filter = filter::local_ports(ports, ranges);
        let seen = own().dump(Which::Others { info: false }, &filter, Vec::new, |seen, socket| {
            let (local, remote) = (socket.local.port(), socket.remote.port());
            assert!(ports.contains(&local) || ranges.contains(&(local, local)));
            // A port of a client may be another connection's, to elsewhere, at the same time.
            if [local, remote].contains(&port) {
                seen.push(local);
            }
            Take::More
        });
        let mut seen = seen.got().unwrap().clone();
        seen.sort_unstable();
        seen
    };
    assert_eq!(seen(&[port], &[]), [port; 5]);
    // A dozen clauses, the jump of each taken and not taken by the kernel itself.
    let mut both: Vec<u16> = clients.iter().map(|it| it.local_addr().unwrap().port()).collect();
    both.push(port);
    let others: Vec<u16> = (1..7).collect();
    let mut expected = both.clone();
    expected.extend([port; 4]);
    expected.sort_unstable();
    assert_eq!(seen(&[both, others].concat(), &[(9, 9)]), expected);

    let ports = [port];
    let wanted = Wanted { sockets_max: 5, ..Wanted::new(&ports, (1, 1)) };
    let whole = own().connections(&wanted);
    assert!(!whole.got().unwrap().alive.truncated);
    let wanted = Wanted { sockets_max: 4, ..wanted };
    for alive in
        [own().connections(&wanted).map(|census| census.alive), own().connections_alive(&wanted)]
    {
        let alive = alive.got().unwrap();
        assert_eq!((alive.total, alive.truncated), (4, true));
    }
}
