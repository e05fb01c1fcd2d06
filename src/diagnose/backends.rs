//! Other services that the process waits for: databases, caches, other servers. There is no cause of
//! its own for each; that one of them owes answers is evidence all the same.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::case::{Case, number};
use super::kafka::owed_ms;
use super::listener_gone;
use super::verdict::Evidence;
use crate::model::tiers::Tier;

/// Another service that has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// Where it is.
    pub remote: SocketAddr,
    /// Connections on which data was sent to it and none came back.
    pub unanswered: usize,
    /// For how long at least the oldest of those has waited, ms.
    pub longest_ms: u32,
    /// When that was seen, ns.
    at_ns: u64,
}

/// The services that owe answers for longer than any ordinary one takes, most connections first.
pub fn awaited(case: &Case<'_>) -> Vec<Backend> {
    let Some(last) = case.last() else { return Vec::new() };
    let accepted_on = listener_gone::accepted_on(case);
    let own = last.all_peers().iter().filter(|peer| !accepted_on.contains(&peer.raw.local_port));
    let mut backends: BTreeMap<SocketAddr, Backend> = BTreeMap::new();
    for peer in own {
        let Some(ms) = owed_ms(peer).filter(|ms| *ms >= case.weights.kafka_owed_ms_min) else {
            continue;
        };
        let remote = peer.raw.remote;
        let none = Backend { remote, unanswered: 0, longest_ms: 0, at_ns: peer.at_ns };
        let backend = backends.entry(remote).or_insert(none);
        backend.unanswered += 1;
        backend.longest_ms = backend.longest_ms.max(ms);
    }
    let mut backends: Vec<Backend> = backends.into_values().collect();
    backends.sort_by_key(|backend| std::cmp::Reverse(backend.unanswered));
    backends
}

impl Backend {
    /// As evidence.
    pub fn evidence(&self) -> Evidence {
        let Self { remote, longest_ms: ms, .. } = self;
        let signal = format!("connections to {remote} without an answer, for {ms} ms at least");
        let since_ns = self.at_ns.saturating_sub(u64::from(*ms) * 1_000_000);
        number(Tier::Peers, signal, self.unanswered as f64, "connections", Some(since_ns))
    }

    /// In words.
    pub fn words(&self) -> String {
        let Self { remote, unanswered, longest_ms, .. } = self;
        let (connections, have) =
            if *unanswered == 1 { ("connection", "has") } else { ("connections", "have") };
        let s = f64::from(*longest_ms) / 1e3;
        format!("{unanswered} {connections} to {remote} {have} got no answer for up to {s:.1} s")
    }
}

#[cfg(test)]
mod tests {
    use stallscope_probes::Reading::Got;
    use stallscope_probes::sample::TcpState;

    use super::super::fixtures::{Story, kafka_peer};
    use super::super::verdict::Cause;
    use crate::detect::StallKind;
    use crate::model::PeerModel;

    fn never_answered(mut peer: PeerModel) -> PeerModel {
        peer.raw.info.as_mut().unwrap().received_bytes = Some(0);
        peer
    }

    fn peer(to: u16, state: TcpState, since_ms: (u32, u32)) -> PeerModel {
        let mut peer = kafka_peer(9_000_000_000);
        peer.kafka = false;
        peer.raw.remote = ([10, 0, 0, 9], to).into();
        peer.raw.state = state;
        if let Some(info) = &mut peer.raw.info {
            (info.last_sent_ms, info.last_received_ms) = since_ms;
        }
        peer
    }

    #[test]
    fn who_owes_answers_is_told_and_who_is_at_rest_is_not() {
        use TcpState::{Established, SynSent};
        let peers: Vec<PeerModel> = vec![
            peer(5432, Established, (4_000, 4_100)),
            peer(5432, Established, (5_000, 5_100)),
            // Asked within the jiffy of its making, and answered within one.
            never_answered(peer(5432, Established, (3_000, 3_000))),
            peer(5432, Established, (3_000, 3_000)),
            // At rest, and only just asked.
            peer(5432, Established, (5_100, 5_000)),
            peer(5432, Established, (20, 900)),
            // Shown one by one, as what is not acknowledged is.
            peer(6379, SynSent, (5_000, 5_100)),
        ];
        let story = Story::new(StallKind::Answers)
            .throughout(move |_, model| model.peers = Got(peers.clone().into()));
        let told = story.verdict();
        assert_eq!(told.cause, Cause::Unknown);
        let words = "3 connections to 10.0.0.9:5432 have got no answer for up to 5.0 s";
        assert!(told.summary.contains(words), "{}", told.summary);
        let evidence = told.evidence.iter().find(|one| one.signal.contains("without an answer"));
        let signal = "connections to 10.0.0.9:5432 without an answer, for 5000 ms at least";
        assert_eq!(evidence.map(|one| one.signal.as_str()), Some(signal));
    }
}
