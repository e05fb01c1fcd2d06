//! Queues, tables and quotas that are full: new clients are turned away, however well the others
//! are served.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use stallscope_probes::Reading;
use stallscope_probes::sample::{ActiveOutcome, TablesRaw};

use super::condition;
use super::runtime::oldest_request_ns;
use crate::detect::thresholds::{REQUEST_YOUNG_MS, Thresholds};
use crate::detect::track::{Look, Progress};
use crate::model::answers::all_wait_ms;
use crate::model::{ListenerModel, Model, RingModel, ServedModel};

/// Drops at a listener; `dropping`: some were of late, `overflowing`: some accept queue was found full
/// of late. Where handshakes pile up, and no accept queue is full, they are why. `None` before there
/// are two counts to compare.
pub fn overflow(
    listener: &ListenerModel,
    dropping: bool,
    overflowing: bool,
    now: &Model,
) -> Option<Look> {
    listener.drops_new.got()?;
    let of_handshakes =
        handshakes(now) >= HANDSHAKES_FEW && !is_nearly_full(listener) && !overflowing;
    let demand = (dropping && !of_handshakes)
        .then(|| format!("connections are dropped at the accept queue of {}", listener.local));
    Some(condition(now.at_ns, demand))
}

fn is_nearly_full(listener: &ListenerModel) -> bool {
    listener.limit.is_some_and(|limit| listener.queued >= limit)
}

fn handshakes(now: &Model) -> u32 {
    now.all_served().iter().map(|served| served.raw.syn_recv).fold(0, u32::saturating_add)
}

/// Handshakes under way that are no flood: a burst of clients, each with its own round trip.
const HANDSHAKES_FEW: u32 = 16;

/// Handshakes dropped for want of room; `dropping`: some were of late, and no accept queue was found
/// full. (Behind a round trip of 50 ms and at 2,000 connections a second a hundred are under way at any
/// time: they show nothing by themselves.)
///
/// Without SYN cookies the kernel drops from three quarters of `tcp_max_syn_backlog` on, and counts
/// that at the listener alone (`tcp_input.c tcp_conn_request`).
pub fn syn(dropping: bool, now: &Model) -> Option<Look> {
    now.tcp.got()?;
    let under_way = handshakes(now);
    let dropping = dropping && !now.own_listeners().any(is_nearly_full);
    let demand = (dropping && under_way >= HANDSHAKES_FEW)
        .then(|| format!("{under_way} handshakes are under way, and further SYNs are dropped"));
    Some(condition(now.at_ns, demand))
}

/// The limit of fds; `refusing`: resets were sent of late, again and again.
///
/// Some event loops keep an fd in reserve: where no other is left they give it up, accept with it, and
/// close the connection at once (libuv, `uv__emfile_trick`). The accept queue stays empty then.
pub fn no_fd(now: &Model, refusing: bool) -> Option<Look> {
    let fds = now.fds.got()?;
    let limit = fds.soft_limit()?;
    // Now and then the one in reserve is not there.
    let demand = (fds.open.saturating_add(1) >= limit).then(|| {
        format!("new connections are reset while {} fds are open, of {limit} at most", fds.open)
    });
    let look = condition(now.at_ns, demand);
    // A server may well live at its limit.
    let is_told = look.demand.is_none() || refusing;
    let progress = if is_told { look.progress } else { Progress::Unknown };
    Some(Look { progress, ..look })
}

/// The connection tracking table; `dropping`: the kernel has dropped packets for want of room of late.
/// A table that is nearly full, or in which old entries make room for new ones, turns nobody away.
pub fn conntrack(now: &Model, dropping: bool, thresholds: &Thresholds) -> Option<Look> {
    let table = now.tables.got().and_then(|tables: &TablesRaw| tables.conntrack.got())?;
    let full = table.max > 0
        && f64::from(table.entries) >= f64::from(table.max) * thresholds.conntrack_full_ratio;
    let demand = full.then(|| {
        format!("the connection tracking table is full ({} of {})", table.entries, table.max)
    });
    let look = condition(now.at_ns, demand);
    let progress = if full && !dropping { Progress::Unknown } else { look.progress };
    Some(Look { progress, ..look })
}

/// Ephemeral ports towards a destination that matters to the target: itself, or one it connects to.
///
/// Which those are is remembered (`connected_to`), since with no port left there is no connection
/// left to see it by. A watcher that came too late for that has only the target's own clients: where
/// all of them wait, what they wait for is taken to be a connection that cannot be made.
pub fn ports(
    now: &Model,
    connected_to: &BTreeSet<SocketAddr>,
    thresholds: &Thresholds,
) -> Option<Look> {
    let ports = now.ports.got()?;
    let all_wait = now.all_served().iter().any(|served| all_wait_since_ns(served).is_some());
    let matters = |address: &SocketAddr| {
        all_wait
            || connected_to.contains(address)
            || now.own_listeners().any(|listener| listener.local.port() == address.port())
            || now.all_peers().iter().any(|peer| peer.raw.remote == *address)
    };
    let full = f64::from(ports.size) * thresholds.ports_full_ratio;
    let used_up = ports
        .top
        .iter()
        .find(|(address, used)| ports.size > 0 && f64::from(*used) >= full && matters(address));
    let demand = used_up.map(|(address, used)| {
        format!("{used} of {} ephemeral ports to {address} are in use", ports.size)
    });
    Some(condition(now.at_ns, demand))
}

/// Since when every client of a port has waited for its answer, ns; `None` when some do not, or have
/// only begun to.
pub fn all_wait_since_ns(served: &ServedModel) -> Option<u64> {
    all_wait_ms(&served.raw.answers?).filter(|oldest_ms| *oldest_ms >= REQUEST_YOUNG_MS)?;
    oldest_request_ns(served)
}

/// The CPU quota of the cgroup.
pub fn throttled(now: &Model, thresholds: &Thresholds) -> Option<Look> {
    let cgroup = now.cgroup.got()?;
    // Without a quota, or without anything that runs, no period goes by.
    let none_went_by = cgroup.throttled_ratio.is_none() && cgroup.throttled_new == Some(0);
    let periods = if none_went_by { 0.0 } else { cgroup.throttled_ratio? };
    let long = cgroup.throttled_ms_new.is_none_or(|ms| ms >= thresholds.throttled_ms);
    let demand = (periods >= thresholds.throttled_periods_ratio && long)
        .then(|| format!("its cgroup was throttled in {:.0} % of the periods", periods * 100.0));
    Some(condition(now.at_ns, demand))
}

/// Of the completions looked at, so many may be good in a storm.
const GOOD_MAX: u32 = 4;

/// Completions of nothing but errors, at a rate that only a loop without back-off makes; `None`
/// when the ring was not read.
pub fn storm(ring: &RingModel, thresholds: &Thresholds) -> Option<Look> {
    let state = ring.state.got()?;
    let Reading::Got(recent) = &state.recent else { return None };
    let errors = recent.iter().filter(|(errno, _)| AGAIN_AND_NO_FD.contains(errno));
    let errors = errors.fold(0_u32, |sum, (_, count)| sum.saturating_add(*count));
    let looked_at = stallscope_probes::sample::RECENT_COMPLETIONS_MAX.min(state.cq_entries);
    let rate = ring.completions_per_s.got().copied()?;
    let all_fail = looked_at > 0 && errors.saturating_add(GOOD_MAX) >= looked_at;
    let demand = (all_fail && rate >= thresholds.storm_completions_per_s)
        .then(|| format!("ring {} completes {rate:.0} operations a second, all errors", ring.fd));
    Some(condition(ring.at_ns, demand))
}

/// EAGAIN, EMFILE, ENFILE of errno(3).
const AGAIN_AND_NO_FD: [i32; 3] = [11, 24, 23];

/// The watcher's own connections.
pub fn probe(now: &Model, thresholds: &Thresholds) -> Option<Look> {
    let active = now.active.got()?;
    let failing = active.failures_in_a_row >= thresholds.probe_failures_min;
    let demand = failing.then(|| {
        let what = match active.outcome {
            ActiveOutcome::Refused => "was refused",
            ActiveOutcome::ConnectTimeout => "got no connection",
            _ => "got no answer",
        };
        format!("the active probe {what} {} times in a row", active.failures_in_a_row)
    });
    let progress = match (active.last_success_ns, &demand) {
        (_, Some(_)) => Progress::None,
        (Some(at_ns), None) => Progress::Made { at_ns, within_ns: 0 },
        (None, None) => Progress::Unknown,
    };
    Some(Look { at_ns: now.at_ns, demand, progress, since_ns: None })
}
