//! Clients whose packets are enough: a flood of handshakes that never end, and connections that
//! fill the table of connection tracking.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rustix::process::getpid;
use stallscope_probes::netstat;

use super::super::{Options, say_ready};
use super::clients::{Teller, server};
use super::packets::{ACK, SYN, Segment, Sender};
use super::server::FaultAt;

/// The made up addresses: nobody has them, and what is sent to them over loopback is dropped
/// there. Without a route the kernel would not even begin an answer.
const NOWHERE: &str = "10.99.0.0/16";
/// Their number, and the first of them.
const NOWHERE_COUNT: u32 = 1 << 16;
const NOWHERE_FIRST: u32 = 0x0a63_0000;

/// Handshakes begun between two looks at the counters.
const SYNS_AT_ONCE: u32 = 4;
/// Between them: 800 SYN/s until the queue is full, and to keep it so.
const SYN_PAUSE: Duration = Duration::from_millis(5);

/// Runs a program with a script on its stdin.
fn run(program: &str, args: &[&str], script: &str) -> anyhow::Result<()> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).with_context(|| format!("{program} does not listen"))?;
    }
    let status = child.wait().with_context(|| format!("{program} does not end"))?;
    if !status.success() {
        bail!("{program} {} failed: {status}", args.join(" "));
    }
    Ok(())
}

fn route_nowhere() -> anyhow::Result<()> {
    run("ip", &["route", "replace", NOWHERE, "dev", "lo"], "")
}

fn nowhere(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(NOWHERE_FIRST + number % NOWHERE_COUNT)
}

/// Begins handshakes and never ends them. The answers go to addresses that nobody has.
pub(super) fn handshakes(options: &Options) -> anyhow::Result<()> {
    let SocketAddr::V4(server) = server(options)? else { bail!("the flood is of IPv4 only") };
    let mut teller = Teller::open(SocketAddr::V4(server))?;
    route_nowhere()?;
    let sender = Sender::open().context("cannot open a raw socket")?;
    let before = dropped()?;
    say_ready(None)?;
    FaultAt::of(options).wait();
    let mut number = options.seed as u32;
    let mut full = false;
    loop {
        for _ in 0..SYNS_AT_ONCE {
            number = number.wrapping_add(1);
            let from = SocketAddrV4::new(nowhere(number), 1024 + (number % 60_000) as u16);
            let seq = number.wrapping_mul(0x9e37_79b9);
            sender.send(&Segment { from, to: server, flags: SYN, seq, ack: 0 })?;
        }
        if !full && dropped()? > before {
            full = true;
            teller.fault_begins("syn-backlog-full");
        }
        std::thread::sleep(SYN_PAUSE);
    }
}

/// SYNs of this namespace that found no room (`TCPReqQFullDrop`).
fn dropped() -> anyhow::Result<u64> {
    let read = netstat::read(Path::new("/proc"), getpid().as_raw_nonzero().get());
    read.got()
        .and_then(|tcp| tcp.req_q_full_drops)
        .ok_or_else(|| anyhow!("TCPReqQFullDrop cannot be read: {read:?}"))
}

/// Any rule that asks for the state of a connection switches tracking on in its namespace.
const TRACKING: &str = "table ip stallscope_lab { chain out { \
    type filter hook output priority 0; ct state new counter accept; }; }";
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
/// Room left in the table until the time of the fault, for the server's own clients.
const ROOM_BEFORE: u64 = 4_000;
/// Connections begun between two looks at the count.
const TRACKED_AT_ONCE: u64 = 500;
/// Between two looks once the table is full: entries that end are replaced at once.
const REFILL_PAUSE: Duration = Duration::from_millis(2);

/// Fills the table of connection tracking: nearly before the time of the fault, then wholly, and
/// keeps it full. The entries are of whole handshakes, for others give way to new connections
/// when the table is full (`nf_conntrack_core.c`, `early_drop`: not `IPS_ASSURED`).
pub(super) fn tracked(options: &Options) -> anyhow::Result<()> {
    route_nowhere()?;
    run("nft", &["-f", "-"], TRACKING)?;
    // After that: the table is to know this connection.
    let mut teller = Teller::open(server(options)?)?;
    let max = number(MAX)?;
    let mut handshakes = Handshakes { sender: Sender::open()?, number: options.seed as u32 };
    say_ready(None)?;
    let due = FaultAt::of(options);
    loop {
        let room = max.saturating_sub(ROOM_BEFORE).saturating_sub(number(COUNT)?);
        if room == 0 {
            break;
        }
        handshakes.make(room.min(TRACKED_AT_ONCE));
    }
    due.wait();
    let mut full = false;
    loop {
        let room = max.saturating_sub(number(COUNT)?);
        if room == 0 && !full {
            full = true;
            teller.fault_begins("conntrack-full");
        }
        handshakes.make(room.min(TRACKED_AT_ONCE));
        if full {
            std::thread::sleep(REFILL_PAUSE);
        }
    }
}

fn number(path: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    text.trim().parse().with_context(|| format!("{path} says {text}"))
}

/// Connections between two made up addresses.
struct Handshakes {
    sender: Sender,
    number: u32,
}

impl Handshakes {
    fn make(&mut self, count: u64) {
        for _ in 0..count {
            self.number = self.number.wrapping_add(1);
            let low = self.number % 50_000;
            let client = SocketAddrV4::new(nowhere(2 + self.number / 50_000), 10_000 + low as u16);
            let server = SocketAddrV4::new(nowhere(1), 80);
            let (flags, seq, ack) = (SYN, 1, 0);
            let begun = Segment { from: client, to: server, flags, seq, ack };
            let met = Segment { from: server, to: client, flags: SYN | ACK, seq: 100, ack: 2 };
            let made = Segment { flags: ACK, seq: 2, ack: 101, ..begun };
            // The firewall refuses what the table has no room for.
            for segment in [begun, met, made] {
                if self.sender.send(&segment).is_err() {
                    break;
                }
            }
        }
    }
}
