//! Servers whose host, namespace or limits are the trouble.

use std::time::Duration;

use super::{Expected, Load, Need, Place, Scenario, Victim};
use crate::diagnose::verdict::Cause;

/// A load that goes on over connections of its own, at a rate that every healthy victim bears.
const KEPT: Load = Load::Http { connections: 16, rate: Some(200), close: false };
/// The same, with a connection for each request.
const ANEW: Load = Load::Http { connections: 16, rate: Some(50), close: true };

/// A hundred local ports, and none of them again within the minute.
const FEW_PORTS: Place =
    Place::Netns(&["net.ipv4.ip_local_port_range=40000 40099", "net.ipv4.tcp_tw_reuse=0"]);

const AT_ONCE: Duration = Duration::ZERO;
/// "Nobody was accepted for a second."
const A_SECOND: Duration = Duration::from_secs(1);

/// What each has unless it says otherwise.
const USUAL: Scenario = Scenario {
    name: "",
    what: "",
    expected: Expected::Healthy,
    victim: Victim::Lab("net-usual"),
    loads: &[KEPT, ANEW],
    place: Place::Host,
    needs: &[],
    definition: AT_ONCE,
};

/// By name.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "fd-spin",
        what: "tokio without an fd for another connection; its accept loop tries again at once",
        expected: Expected::Stall(Cause::FdExhausted),
        victim: Victim::Lab("fd-spin"),
        loads: &[KEPT, Load::Client("client-gather")],
        ..USUAL
    },
    Scenario {
        name: "fd-back-off",
        what: "tokio without an fd for another connection; its accept loop waits 50 ms between attempts",
        expected: Expected::Stall(Cause::FdExhausted),
        victim: Victim::Lab("fd-back-off"),
        loads: &[KEPT, Load::Client("client-gather")],
        definition: A_SECOND,
        ..USUAL
    },
    Scenario {
        name: "fd-turns-away",
        what: "tokio without an fd for another connection; it takes each with one in reserve and closes it",
        expected: Expected::Stall(Cause::FdExhausted),
        victim: Victim::Lab("fd-turns-away"),
        loads: &[KEPT, ANEW, Load::Client("client-gather")],
        definition: A_SECOND,
        ..USUAL
    },
    Scenario {
        name: "fd-uring",
        what: "tokio-uring without an fd for another connection; its accept loop tries again at once",
        expected: Expected::Stall(Cause::FdExhausted),
        victim: Victim::Lab("fd-uring"),
        loads: &[KEPT, Load::Client("client-gather")],
        ..USUAL
    },
    Scenario {
        name: "fd-epoll",
        what: "a bare epoll loop, edge-triggered, without an fd for another connection",
        expected: Expected::Stall(Cause::FdExhausted),
        victim: Victim::Lab("fd-epoll"),
        loads: &[KEPT, Load::Client("client-gather")],
        definition: A_SECOND,
        ..USUAL
    },
    Scenario {
        name: "file-table",
        what: "the host's table of open files is full: accepts fail with ENFILE",
        expected: Expected::Stall(Cause::FileTableFull),
        victim: Victim::Lab("file-table"),
        loads: &[KEPT, Load::Client("client-gather")],
        needs: &[Need::Root, Need::HostChange("fs.file-max")],
        definition: A_SECOND,
        ..USUAL
    },
    Scenario {
        name: "accept-slow",
        what: "an accept takes 20 ms and the backlog is 8: connections come faster",
        expected: Expected::Stall(Cause::AcceptQueueOverflow),
        victim: Victim::Lab("accept-slow"),
        loads: &[KEPT, Load::Http { connections: 128, rate: Some(200), close: true }],
        definition: A_SECOND,
        ..USUAL
    },
    Scenario {
        name: "handshakes",
        what: "handshakes that never end fill the SYN queue, and there are no SYN cookies",
        expected: Expected::Stall(Cause::SynBacklogFull),
        victim: Victim::Lab("net-few-handshakes"),
        loads: &[KEPT, ANEW, Load::Client("client-handshakes")],
        place: Place::Netns(&["net.ipv4.tcp_syncookies=0"]),
        needs: &[Need::Root, Need::Program("ip", "iproute2")],
        definition: A_SECOND,
    },
    Scenario {
        name: "ports-closed",
        what: "a client of the server closes first and has a TIME_WAIT on each of its 100 ports",
        expected: Expected::Stall(Cause::EphemeralPortsExhausted),
        loads: &[KEPT, Load::Client("client-ports-closed")],
        place: FEW_PORTS,
        needs: &[Need::Root],
        ..USUAL
    },
    Scenario {
        name: "ports-held",
        what: "a client of the server holds a connection on each of its 100 ports",
        expected: Expected::Stall(Cause::EphemeralPortsExhausted),
        loads: &[KEPT, Load::Client("client-ports-held")],
        place: FEW_PORTS,
        needs: &[Need::Root],
        ..USUAL
    },
    Scenario {
        name: "ports-backend",
        what: "the server connects to another one for each request, and has no local port left for it",
        expected: Expected::Stall(Cause::EphemeralPortsExhausted),
        victim: Victim::Lab("ports-backend"),
        loads: &[KEPT],
        place: FEW_PORTS,
        needs: &[Need::Root],
        ..USUAL
    },
    Scenario {
        name: "conntrack",
        what: "the table of connection tracking is full: new connections are dropped",
        expected: Expected::Stall(Cause::ConntrackFull),
        loads: &[KEPT, ANEW, Load::Client("client-tracked")],
        place: Place::Netns(&[]),
        needs: &[
            Need::Root,
            Need::Conntrack,
            Need::Program("nft", "nftables"),
            Need::Program("ip", "iproute2"),
        ],
        definition: A_SECOND,
        ..USUAL
    },
    Scenario {
        name: "quota-hard",
        what: "a quota of 1 % of a CPU: next to nothing runs",
        expected: Expected::Stall(Cause::CpuThrottled),
        victim: Victim::Lab("quota-hard"),
        loads: &[Load::Http { connections: 16, rate: Some(1_000), close: false }, ANEW],
        needs: &[Need::Root, Need::Cgroup("cpu")],
        definition: A_SECOND,
        ..USUAL
    },
    Scenario {
        name: "quota-moderate",
        what: "a quota of 10 % of a CPU under a load that asks for more: it crawls",
        expected: Expected::Stall(Cause::CpuThrottled),
        victim: Victim::Lab("quota-moderate"),
        loads: &[Load::Http { connections: 16, rate: Some(1_000), close: false }, ANEW],
        needs: &[Need::Root, Need::Cgroup("cpu")],
        definition: A_SECOND,
        ..USUAL
    },
    Scenario {
        name: "frozen",
        what: "the server's cgroup is frozen",
        expected: Expected::Stall(Cause::ProcessStopped),
        victim: Victim::Lab("frozen"),
        needs: &[Need::Root, Need::Cgroup("freezer")],
        ..USUAL
    },
    Scenario {
        name: "frozen-v2",
        what: "the server's cgroup is frozen, in the hierarchy of v2",
        expected: Expected::Stall(Cause::ProcessStopped),
        victim: Victim::Lab("frozen-v2"),
        needs: &[Need::Root, Need::Cgroup("freezer")],
        ..USUAL
    },
    Scenario {
        name: "one-of-two-listeners",
        what: "of two accept loops on two ports one ends; the other goes on",
        expected: Expected::Stall(Cause::AcceptNotArmed),
        victim: Victim::Lab("one-of-two-listeners"),
        loads: &[KEPT, ANEW, Load::Client("client-next-port")],
        definition: A_SECOND,
        ..USUAL
    },
    Scenario {
        name: "twin-accept-paced",
        what: "an accept loop that takes 200 connections a second and no more, of 100 that come",
        victim: Victim::Lab("accept-paced"),
        loads: &[Load::Http { connections: 64, rate: Some(100), close: true }],
        ..USUAL
    },
    Scenario {
        name: "twin-crowd-leaves",
        what: "5,000 connections close at one time",
        loads: &[KEPT, ANEW, Load::Client("client-crowd")],
        place: Place::Netns(&[]),
        needs: &[Need::Root],
        ..USUAL
    },
    Scenario {
        name: "twin-redeploy",
        what: "the listening socket is closed, and another one opened at its address within 100 ms",
        victim: Victim::Lab("listener-renewed"),
        ..USUAL
    },
    Scenario {
        name: "twin-quota-roomy",
        what: "a quota of 30 % of a CPU under a load that asks for a quarter of it",
        victim: Victim::Lab("quota-roomy"),
        needs: &[Need::Root, Need::Cgroup("cpu")],
        ..USUAL
    },
    Scenario {
        name: "twin-syn-cookies",
        what: "handshakes that never end, and SYN cookies, so that nobody is turned away",
        victim: Victim::Lab("net-few-handshakes"),
        loads: &[KEPT, ANEW, Load::Client("client-handshakes")],
        place: Place::Netns(&["net.ipv4.tcp_syncookies=1"]),
        needs: &[Need::Root, Need::Program("ip", "iproute2")],
        ..USUAL
    },
];
