//! What the target's fds are: taken in slices, when something has changed.

use std::path::Path;

use stallscope_probes::fds::{Census, CensusWalk};
use stallscope_probes::sample::{FdKindsRaw, ProbeId};
use stallscope_probes::{Probe, Reading};

use super::costs::{Ask, Paces, costed};
use crate::watch::clock::{now_ns, thread_cpu_ns};

const MS: u64 = 1_000_000;

/// CPU time of one slice while all is calm: a process with 10,000 fds is gone through in two
/// seconds.
const SLICE_NS: u64 = MS / 2;
/// CPU time of one slice when the census decides something: at the start, or on suspicion.
const SLICE_NOW_NS: u64 = 50 * MS;
/// Without a sign of change a census is taken anew after this long: an fd may have been closed and
/// another opened between two ticks.
const AT_LEAST_EVERY_NS: u64 = 10_000 * MS;
/// The same on suspicion: a client that tries again and again to connect has a socket of another
/// inode each time, and as many fds as before.
const AT_LEAST_NOW_EVERY_NS: u64 = 1_000 * MS;

/// The last census, and the next one under way.
#[derive(Debug)]
pub(super) struct FdCensus {
    walk: CensusWalk,
    pub(super) last: Reading<Census>,
    pub(super) kinds: Probe<FdKindsRaw>,
    /// How many fds were open when the last one began.
    open: Option<u64>,
    begin_ns: u64,
    cost_ns: u64,
}

impl FdCensus {
    pub(super) fn new(proc_root: &Path, pid: i32) -> Self {
        Self {
            walk: CensusWalk::new(proc_root, pid),
            last: Reading::absent(stallscope_probes::Why::NotSampled, "not read yet"),
            kinds: Probe::not_sampled("not read yet"),
            open: None,
            begin_ns: 0,
            cost_ns: 0,
        }
    }

    /// Goes on with the census under way, or begins one when that is due: `open` fds are open now,
    /// and `changed` says that a ring or a listener came or went. True when one has ended.
    pub(super) fn advance(
        &mut self,
        open: Option<u64>,
        changed: bool,
        paces: &mut Paces,
        ask: Ask<'_>,
    ) -> bool {
        let first = self.begin_ns == 0;
        let hurry = first || changed || ask.suspicious;
        if !self.walk.under_way() {
            let now_ns = now_ns();
            let every_ns = if ask.suspicious { AT_LEAST_NOW_EVERY_NS } else { AT_LEAST_EVERY_NS };
            let old = now_ns.saturating_sub(self.begin_ns) >= every_ns;
            let stale = first || changed || old || open.is_none() || open != self.open;
            let ask = Ask { suspicious: hurry, ..ask };
            if !stale || !paces.is_due(ProbeId::FdCensus, ask) {
                return false;
            }
            (self.begin_ns, self.cost_ns, self.open) = (now_ns, 0, open);
        }
        let slice_ns = if hurry { SLICE_NOW_NS } else { SLICE_NS };
        let until_ns = thread_cpu_ns().saturating_add(slice_ns);
        let walk = &mut self.walk;
        let (slice, cost_ns) = costed(|| walk.advance(usize::MAX, || thread_cpu_ns() < until_ns));
        self.cost_ns = self.cost_ns.saturating_add(cost_ns);
        paces.pay(cost_ns);
        let census = match slice {
            Reading::Got(None) => return false,
            Reading::Got(Some(census)) => Reading::Got(census),
            Reading::Absent(absence) => Reading::Absent(absence),
        };
        paces.was_read(ProbeId::FdCensus, ask, self.begin_ns, self.cost_ns);
        self.kinds = Probe {
            begin_ns: self.begin_ns,
            end_ns: now_ns(),
            reading: census.as_ref().map(|census| census.kinds),
        };
        self.last = census;
        true
    }
}
