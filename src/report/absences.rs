//! What could not be read, counted by class of reason.

use std::collections::BTreeMap;
use std::sync::Arc;

use stallscope_probes::{Absence, Reading, Why};

use super::text::{plural, sentence, why};
use crate::model::Model;

/// Rows kept.
const ROWS_MAX: usize = 200;

/// One kind of absence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// What was not read.
    pub what: &'static str,
    /// Class of the reason, in words.
    pub why: &'static str,
    /// How often.
    pub times: u64,
    /// The first reason in full, made printable.
    pub detail: String,
}

/// Counted absences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Absences {
    rows: BTreeMap<(&'static str, &'static str), (u64, String)>,
}

impl Absences {
    /// Counts one.
    pub fn add(&mut self, what: &'static str, absence: &Absence) {
        let key = (what, why(absence.why));
        if let Some((times, _)) = self.rows.get_mut(&key) {
            *times += 1;
        } else if self.rows.len() < ROWS_MAX {
            self.rows.insert(key, (1, sentence(&absence.detail)));
        }
    }

    fn reading<T>(&mut self, what: &'static str, reading: &Reading<T>) {
        if let Some(absence) = reading.absence() {
            self.add(what, absence);
        }
    }

    /// All of them, by what and class.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.rows.iter().map(|((what, why), (times, detail))| Row {
            what,
            why,
            times: *times,
            detail: detail.clone(),
        })
    }

    /// `12 readings not permitted: …`, one sentence per class.
    pub fn sentences(&self) -> Vec<String> {
        self.rows()
            .map(|row| {
                let times = plural(row.times, "reading", "readings");
                format!("{times} {}: {}", row.why, row.detail)
            })
            .collect()
    }
}

/// Every absence of a run.
pub(super) fn of_run(models: &[Arc<Model>]) -> Absences {
    let mut absences = Absences::default();
    for model in models {
        of_tick(&mut absences, model);
    }
    absences
}

fn of_tick(absences: &mut Absences, model: &Model) {
    absences.reading("process", &model.process);
    absences.reading("threads", &model.threads);
    absences.reading("fds", &model.fds);
    absences.reading("listeners", &model.listeners);
    absences.reading("connections", &model.served);
    absences.reading("ephemeral ports", &model.ports);
    absences.reading("rings", &model.rings);
    absences.reading("TCP counters", &model.tcp);
    absences.reading("heartbeat page", &model.app);
    absences.reading("cgroup", &model.frozen);
    absences.reading("cgroup limits", &model.cgroup);
    absences.reading("pressure", &model.pressure);
    absences.reading("fd census", &model.fd_kinds);
    absences.reading("outgoing connections", &model.peers);
    absences.reading("shared tables", &model.tables);
    if let Some(tables) = model.tables.got() {
        absences.reading("file table", &tables.files);
        absences.reading("connection tracking", &tables.conntrack);
    }
    // Read on suspicion only, and made only where it was asked for: to lack these is no finding.
    if model.epolls.absence().is_some_and(|absence| absence.why != Why::NotSampled) {
        absences.reading("epoll sets", &model.epolls);
    }
    if model.active.absence().is_some_and(|absence| absence.why != Why::Unsupported) {
        absences.reading("active probe", &model.active);
    }
    for ring in model.all_rings() {
        absences.reading("ring counters", &ring.state);
        // fdinfo is read seldom where the ring's memory can be.
        if ring.armed.absence().is_some_and(|absence| absence.why != Why::NotSampled) {
            absences.reading("armed operations of a ring", &ring.armed);
        }
    }
    for thread in model.all_threads() {
        absences.reading("system call of a thread", &thread.syscall);
        absences.reading("wait channel of a thread", &thread.wchan);
        absences.reading("CPU time of a thread", &thread.cpu_ratio);
        // Kernel stacks are read on suspicion only: that most ticks lack them is no finding.
        if thread.kernel_stack.absence().is_some_and(|absence| absence.why != Why::NotSampled) {
            absences.reading("kernel stack of a thread", &thread.kernel_stack);
        }
    }
}
