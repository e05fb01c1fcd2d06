//! What stands around the process in the made-up incidents: connections to others, the watcher's
//! own cost, the tiers of evidence.

use std::net::SocketAddr;
use std::sync::Arc;

use stallscope::diagnose::verdict::Missing;
use stallscope::model::tiers::{Tier, TierModel, TierStatus};
use stallscope::model::{PeerModel, PressureModel, StallShare, WatcherModel};
use stallscope_probes::sample::{
    FdKindsRaw, FdLimitRaw, PeerInfoRaw, PeerRaw, PressureScope, ProbeCostRaw, ProbeId, TcpState,
};
use stallscope_probes::{Absence, Reading, Why};

use super::{INTERVAL_MS, MS, S, State, absent};

/// A broker that acknowledges, one that does not, a database that does not answer.
pub fn peers(at_ns: u64) -> Vec<PeerModel> {
    let peer = |last: u8, port: u16, state, unsent_bytes, connected: bool| PeerModel {
        raw: PeerRaw {
            remote: SocketAddr::from(([10, 0, 0, last], port)),
            local_port: 40_000 + u16::from(last),
            inode: u32::from(last),
            state,
            unread_bytes: 0,
            unsent_bytes,
            info: connected.then_some(PeerInfoRaw {
                retransmits: 0,
                retransmitted: 11,
                rtt_us: 420,
                unacked: 1,
                last_sent_ms: 4,
                last_received_ms: 4,
                sent_bytes: Some(12_000),
                received_bytes: Some(9_000),
            }),
        },
        at_ns,
        kafka: port == 9092,
        retransmitted_new: if connected {
            Reading::Got(u32::from(unsent_bytes > 0) * 3)
        } else {
            absent(Why::Unsupported, "not connected")
        },
    };
    vec![
        peer(7, 9092, TcpState::Established, 0, true),
        peer(8, 9092, TcpState::Established, 48_128, true),
        peer(9, 5432, TcpState::SynSent, 0, false),
    ]
}

pub fn watcher(seq: u64) -> WatcherModel {
    let cost = |probe, cost_ns, every_ns| ProbeCostRaw { probe, cost_ns, every_ns };
    WatcherModel {
        cpu_ratio: if seq < 20 {
            absent(Why::NoPrevious, "a rate needs two readings")
        } else {
            Reading::Got(0.008 + (seq % 5) as f64 / 1_000.0)
        },
        sampling_cpu_ratio: Reading::Got(0.006),
        rss_bytes: Some(9 << 20),
        open_fds: Some(14),
        interval_ms: if (60..80).contains(&seq) { 100.0 } else { INTERVAL_MS as f64 },
        interval_asked_ms: INTERVAL_MS as f64,
        budget_ratio: 0.01,
        ticks_missed: seq / 97,
        costs: [
            cost(ProbeId::Fast, 61_000, INTERVAL_MS * MS),
            cost(ProbeId::Threads, 240_000, 2 * INTERVAL_MS * MS),
            cost(ProbeId::Connections, 3_100_000, S),
        ]
        .into(),
    }
}

/// All active but stacks before the stall, TCP counters, and what a process without a ring or a
/// page has not; of one without a page, which is not ours, more could not be read.
pub fn tiers(state: &State) -> Arc<[TierModel]> {
    let status = |tier| {
        let (why, detail) = match tier {
            Tier::Heartbeat if !state.heartbeat => {
                (Why::Unsupported, "the process keeps no heartbeat page")
            }
            Tier::KernelStacks if state.stack.is_none() => {
                (Why::NotSampled, "read on suspicion only")
            }
            Tier::RingMemory | Tier::RingFdinfo if state.ring.is_none() => {
                return TierStatus::no_ring();
            }
            Tier::Counters => (Why::NotSampled, "not due"),
            Tier::Tables | Tier::Epolls => (Why::NotSampled, "not read yet"),
            Tier::ActiveProbe => (Why::Unsupported, "not asked for"),
            Tier::Pressure if !state.heartbeat => (Why::Failed, PRESSURE_ERROR),
            Tier::FdCensus if !state.heartbeat => (Why::NotPermitted, FD_ERROR),
            _ => return TierStatus::Active,
        };
        TierStatus::without(tier, &Absence { why, detail: detail.to_owned() })
    };
    Tier::ALL.map(|tier| TierModel { tier, status: status(tier) }).into()
}

pub const PRESSURE_ERROR: &str = "cpu.pressure: input/output error";
pub const FD_ERROR: &str = "/proc/4242/fd: permission denied";

/// A tier that was missing, and why.
pub fn missing(tier: Tier, why: &str) -> Missing {
    Missing { tier, why: why.to_owned() }
}

pub fn fd_limit() -> Reading<FdLimitRaw> {
    Reading::Got(FdLimitRaw { soft: Some(1_024), hard: Some(524_288) })
}

/// What the fds are.
pub fn fd_kinds(state: &State) -> Reading<FdKindsRaw> {
    if !state.heartbeat {
        return absent(Why::NotPermitted, FD_ERROR);
    }
    Reading::Got(FdKindsRaw {
        sockets: state.open_fds.saturating_sub(9) as u32,
        rings: u32::from(state.ring.is_some()),
        epolls: 1,
        anonymous: 3,
        pipes: 0,
        files: 5,
        looked_at: state.open_fds as u32,
        truncated: false,
    })
}

/// A machine whose CPUs are wanted.
pub fn pressure(state: &State) -> Reading<PressureModel> {
    if !state.heartbeat {
        return absent(Why::Failed, PRESSURE_ERROR);
    }
    Reading::Got(PressureModel {
        scope: PressureScope::Machine,
        cpu: Some(StallShare { some: 0.12, full: None }),
        memory: Some(StallShare { some: 0.0, full: Some(0.0) }),
        io: None,
    })
}
