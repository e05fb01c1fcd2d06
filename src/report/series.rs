//! What the charts show: one line per thing measured, with every absent reading kept as a gap.

use std::collections::BTreeMap;
use std::sync::Arc;

use stallscope_probes::sample::RingState;
use stallscope_probes::{Absence, Reading};

use super::absences::Absences;
use super::chart::Point;
use super::text::{count, shown};
use crate::model::Model;
use crate::watch::event::Incident;

/// Lines followed per chart.
const SERIES_MAX: usize = 64;
/// Lines drawn per chart: the ones that reach highest.
pub(super) const SERIES_DRAWN_MAX: usize = 6;

/// One line.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Series {
    pub label: String,
    pub points: Vec<Point>,
}

impl Series {
    /// Greatest and last reading.
    pub fn max_and_last(&self) -> Option<(f64, f64)> {
        let mut got = self.points.iter().filter_map(|point| point.1);
        let first = got.next()?;
        Some(got.fold((first, first), |(max, _), value| (max.max(value), value)))
    }
}

/// One chart.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Panel {
    pub title: &'static str,
    pub unit: &'static str,
    /// What to look for, one sentence.
    pub hint: &'static str,
    pub series: Vec<Series>,
    /// Lines that are not drawn, because there are too many.
    pub undrawn: usize,
    /// The limit that the values may not pass: last reading.
    pub limit: Option<(String, f64)>,
    /// Why it was absent when it was.
    pub absences: Absences,
    /// What to say when there is nothing to draw and no reason was given.
    pub none: &'static str,
}

/// What one tick says of one chart: a value or a reason per line, or one reason for all.
type Row = Reading<Vec<(String, Reading<f64>)>>;

struct Spec {
    title: &'static str,
    unit: &'static str,
    hint: &'static str,
    none: &'static str,
    read: fn(&Model) -> Row,
    limit: fn(&Model) -> Option<(String, f64)>,
}

/// The charts, in the order in which they are shown.
pub(super) fn panels(incident: &Incident) -> Vec<Panel> {
    SPECS.iter().map(|spec| panel(spec, &incident.models)).collect()
}

const SPECS: [Spec; 8] = [
    Spec {
        title: "Throughput",
        unit: "per second",
        hint: "As counted by the server on its heartbeat page.",
        none: "The server keeps no heartbeat page.",
        read: throughput,
        limit: |_| None,
    },
    Spec {
        title: "Accept queue",
        unit: "connections",
        hint: "Established and not accepted yet; full at the limit + 1, then clients are dropped.",
        none: "The process listens on no TCP port.",
        read: accept_queue,
        limit: |model| {
            let widest = model.own_listeners().max_by_key(|listener| listener.limit)?;
            Some((format!("limit of {}", widest.local), f64::from(widest.limit?)))
        },
    },
    Spec {
        title: "Open file descriptors",
        unit: "fds",
        hint: "At the soft limit, accept fails with EMFILE.",
        none: "Not counted.",
        read: |model| model.fds.as_ref().map(|fds| vec![line("open fds", fds.open as f64)]),
        limit: |model| Some((String::from("soft limit"), model.fds.got()?.soft_limit()? as f64)),
    },
    Spec {
        title: "io_uring: submission queue, not submitted",
        unit: "entries",
        hint: "Prepared by the application and not handed to the kernel. Flat and above zero: nobody flushes.",
        none: "The process has no io_uring instance.",
        read: |model| rings(model, RingState::sq_pending),
        limit: |_| None,
    },
    Spec {
        title: "io_uring: completion queue, not reaped",
        unit: "entries",
        hint: "Posted by the kernel and not taken by the application. Flat and above zero: nobody looks.",
        none: "The process has no io_uring instance.",
        read: |model| rings(model, RingState::cq_pending),
        limit: |_| None,
    },
    Spec {
        title: "CPU of the runtime’s threads",
        unit: "% of one core",
        hint: "Near 100: spinning. Near 0 while clients wait: blocked.",
        none: "No thread of the process was recognised as a runtime’s.",
        read: runtime_cpu,
        limit: |_| None,
    },
    Spec {
        title: "Age of the runtime’s last beat",
        unit: "ms",
        hint: "Grows by one second per second while the runtime does not turn its loop.",
        none: "The server keeps no heartbeat page.",
        read: |model| {
            model
                .app
                .as_ref()
                .map(|app| app.beat_age_ms.map(|age| line("beat age", age)).into_iter().collect())
        },
        limit: |_| None,
    },
    Spec {
        title: "Ephemeral ports in use",
        unit: "ports",
        hint: "Only sockets to one and the same destination share the range.",
        none: "Not counted.",
        read: ports,
        limit: |model| Some((String::from("range"), f64::from(model.ports.got()?.size))),
    },
];

fn line(label: &str, value: f64) -> (String, Reading<f64>) {
    (label.to_owned(), Reading::Got(value))
}

fn throughput(model: &Model) -> Row {
    model.app.as_ref().map(|app| {
        vec![
            (String::from("requests"), app.requests_per_s.clone()),
            (String::from("responses"), app.responses_per_s.clone()),
            (String::from("accepts"), app.accepts_per_s.clone()),
        ]
    })
}

fn accept_queue(model: &Model) -> Row {
    model.listeners.as_ref().map(|_| {
        let several = model.own_listeners().count() > 1;
        model
            .own_listeners()
            .map(|listener| {
                let mut label = listener.local.to_string();
                if several {
                    // SO_REUSEPORT siblings differ by inode only.
                    label = format!("{label}, inode {}", listener.inode);
                    if let Some(limit) = listener.limit {
                        label = format!("{label} (limit {})", count(limit.into()));
                    }
                }
                (label, Reading::Got(f64::from(listener.queued)))
            })
            .collect()
    })
}

fn rings(model: &Model, value: fn(&RingState) -> u32) -> Row {
    model.rings.as_ref().map(|rings| {
        let line = |ring: &crate::model::RingModel| {
            let value = ring.state.as_ref().map(|state| f64::from(value(state)));
            (format!("ring fd {}", ring.fd), value)
        };
        rings.iter().map(line).collect()
    })
}

fn runtime_cpu(model: &Model) -> Row {
    model.threads.as_ref().map(|_| {
        model
            .runtime_threads()
            .map(|thread| {
                let label = format!("{} ({})", shown(&thread.comm), thread.tid);
                (label, thread.cpu_ratio.clone().map(|ratio| ratio * 100.0))
            })
            .collect()
    })
}

fn ports(model: &Model) -> Row {
    model.ports.as_ref().map(|ports| {
        let mut lines = vec![
            line("in use", f64::from(ports.in_use)),
            line("in TIME_WAIT", f64::from(ports.time_wait)),
        ];
        if let Some((_, used)) = ports.top.first() {
            lines.push(line("to the busiest destination", f64::from(*used)));
        }
        lines
    })
}

fn panel(spec: &Spec, models: &[Arc<Model>]) -> Panel {
    let mut lines: BTreeMap<String, Vec<Point>> = BTreeMap::new();
    let mut absences = Absences::default();
    let mut limit = None;
    for model in models {
        limit = (spec.limit)(model).or(limit);
        let row = match (spec.read)(model) {
            Reading::Got(row) => row,
            Reading::Absent(absence) => {
                absences.add(spec.title, &absence);
                Vec::new()
            }
        };
        add_row(&mut lines, model.at_ns, row, |absence| absences.add(spec.title, absence));
    }
    let mut series: Vec<Series> =
        lines.into_iter().map(|(label, points)| Series { label, points }).collect();
    let reach = |series: &Series| series.max_and_last().map_or(f64::NEG_INFINITY, |(max, _)| max);
    series.sort_by(|a, b| reach(b).total_cmp(&reach(a)));
    let undrawn = series.len().saturating_sub(SERIES_DRAWN_MAX);
    series.truncate(SERIES_DRAWN_MAX);
    let Spec { title, unit, hint, none, .. } = *spec;
    Panel { title, unit, hint, series, undrawn, limit, absences, none }
}

/// Adds one tick to every line; lines that it does not mention get a gap.
fn add_row(
    lines: &mut BTreeMap<String, Vec<Point>>,
    at_ns: u64,
    row: Vec<(String, Reading<f64>)>,
    mut absent: impl FnMut(&Absence),
) {
    for (label, reading) in row {
        if let Some(absence) = reading.absence() {
            absent(absence);
        }
        let value = reading.got().copied().filter(|value| value.is_finite());
        if let Some(points) = lines.get_mut(&label) {
            points.push((at_ns, value));
        } else if lines.len() < SERIES_MAX {
            lines.insert(label, vec![(at_ns, value)]);
        }
    }
    for points in lines.values_mut() {
        if points.last().is_some_and(|last| last.0 != at_ns) {
            points.push((at_ns, None));
        }
    }
}
