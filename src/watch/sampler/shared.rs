//! What the target shares: tables of the host and the namespace, and the epoll sets that its threads
//! wait on.

use std::path::{Path, PathBuf};

use stallscope_probes::sample::{EpollRaw, ProbeId, TablesRaw};
use stallscope_probes::{Probe, Reading, epolls, fds, tables};

use super::costs::{Ask, Paces, timed};
use crate::watch::clock::now_ns;

const MS: u64 = 1_000_000;

/// How often the capabilities of the target are read: a process sheds them when it starts, if at all.
const RIGHTS_EVERY_NS: u64 = 60_000 * MS;
/// A table that is fuller than this, percent, is looked at as if something were suspected.
const FILLING_PERCENT: u64 = 80;

/// The last readings.
#[derive(Debug)]
pub(super) struct Shared {
    proc_root: PathBuf,
    pid: i32,
    tables_watch: tables::Watch,
    /// When the capabilities were last read.
    rights_ns: Option<u64>,
    pub(super) tables: Probe<TablesRaw>,
    pub(super) epolls: Probe<Vec<EpollRaw>>,
}

impl Shared {
    pub(super) fn new(proc_root: &Path, pid: i32) -> Self {
        Self {
            tables_watch: tables::Watch::new(proc_root, pid),
            rights_ns: None,
            tables: Probe::not_sampled("not read yet"),
            epolls: Probe::not_sampled("epoll sets are read only on suspicion"),
            proc_root: proc_root.to_owned(),
            pid,
        }
    }

    /// Reads how full the tables are, when that is due.
    pub(super) fn read_tables(&mut self, paces: &mut Paces, ask: Ask<'_>) {
        let filling = self.tables.got().is_some_and(is_filling);
        let ask = Ask { suspicious: ask.suspicious || filling, ..ask };
        if !paces.is_due(ProbeId::Tables, ask) {
            return;
        }
        let now_ns = now_ns();
        let old = |then_ns| now_ns.saturating_sub(then_ns) >= RIGHTS_EVERY_NS;
        let rights = self.rights_ns.is_none_or(old);
        if rights {
            self.rights_ns = Some(now_ns);
        }
        let watch = &mut self.tables_watch;
        self.tables = paces.read(ProbeId::Tables, ask, || watch.read(rights));
    }

    /// Reads, on suspicion, which of the target's listeners its epoll instances watch. It takes a
    /// mutex that the event loop needs, so it is not done while all is calm.
    pub(super) fn read_epolls(
        &mut self,
        census: &Reading<fds::Census>,
        listeners: &[u32],
        paces: &mut Paces,
        ask: Ask<'_>,
    ) {
        if !ask.suspicious || !paces.is_due(ProbeId::Epolls, ask) {
            return;
        }
        let (proc_root, pid) = (&self.proc_root, self.pid);
        self.epolls = match census {
            Reading::Got(census) => paces.read(ProbeId::Epolls, ask, || {
                epolls::read(proc_root, pid, &census.epolls, listeners)
            }),
            Reading::Absent(absence) => timed(|| Reading::Absent(absence.clone())),
        };
    }
}

/// Whether one of them is about to be full.
fn is_filling(tables: &TablesRaw) -> bool {
    let beyond =
        |used: u64, max: u64| used.saturating_mul(100) > max.saturating_mul(FILLING_PERCENT);
    let files = tables.files.got().is_some_and(|files| beyond(files.open, files.max));
    let tracked = |table: &stallscope_probes::sample::ConntrackRaw| {
        beyond(table.entries.into(), table.max.into())
    };
    files || tables.conntrack.got().is_some_and(tracked)
}

#[cfg(test)]
mod tests {
    use stallscope_probes::Why;
    use stallscope_probes::sample::{ConntrackRaw, FileTableRaw};

    use super::*;

    #[test]
    fn either_table_beyond_four_fifths_is_filling() {
        fn none<T>() -> Reading<T> {
            Reading::absent(Why::Unsupported, "no")
        }
        let files = |open, max| Reading::Got(FileTableRaw { open, max, exempt: None });
        let conntrack = |entries, max| {
            let counts = ConntrackRaw { entries, max, drops: 0, early_drops: 0, insert_failed: 0 };
            Reading::Got(counts)
        };
        for (files, conntrack, expected) in [
            (files(80, 100), conntrack(80, 100), false),
            (files(81, 100), conntrack(0, 100), true),
            (files(0, 100), conntrack(81, 100), true),
            (files(0, u64::MAX), conntrack(0, u32::MAX), false),
            (files(1_000, u64::MAX), conntrack(1_000, u32::MAX), false),
            (none(), none(), false),
            (none(), conntrack(9, 10), true),
        ] {
            let tables = TablesRaw { files, conntrack };
            assert_eq!(is_filling(&tables), expected, "{tables:?}");
        }
    }
}
