//! The lanes of the time line: which lines each has, and where a tick says them.

use stallscope_probes::Reading;
use stallscope_probes::sample::{ActiveOutcome, RingState, TaskState};

use super::text::{count, shown};
use crate::model::{Model, PeerModel};

/// What one tick says of one chart: a value or a reason per line, or one reason for all.
pub(super) type Row = Reading<Vec<(String, Reading<f64>)>>;

/// One lane: what it is called, and how it is read from a tick.
pub(super) struct Spec {
    pub title: &'static str,
    pub unit: &'static str,
    pub hint: &'static str,
    pub none: &'static str,
    pub read: fn(&Model) -> Row,
    pub limit: fn(&Model) -> Option<(String, f64)>,
}

/// The lanes, in the order in which they are shown.
pub(super) const SPECS: [Spec; 13] = [
    Spec {
        title: "Throughput",
        unit: "per second",
        hint: "As counted by the server on its heartbeat page.",
        none: "The server keeps no heartbeat page.",
        read: throughput,
        limit: |_| None,
    },
    Spec {
        title: "Requests without a response",
        unit: "requests",
        hint: "Read and not answered. Level and above zero while nothing else moves: they wait for what stalled.",
        none: "The server keeps no heartbeat page.",
        read: in_flight,
        limit: |_| None,
    },
    Spec {
        title: "Latency",
        unit: "ms",
        hint: "Of the watcher’s own connections: until one is made, and until the first byte of its answer.",
        none: "The watcher was not asked to make connections of its own (--probe).",
        read: latency,
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
        title: "io_uring: submission queue",
        unit: "entries not submitted",
        hint: "Prepared by the application and not handed to the kernel. Flat and above zero: nobody flushes.",
        none: "The process has no io_uring instance.",
        read: |model| rings(model, RingState::sq_pending),
        limit: |_| None,
    },
    Spec {
        title: "io_uring: completion queue",
        unit: "entries not reaped",
        hint: "Posted by the kernel and not taken by the application. Flat and above zero: nobody looks.",
        none: "The process has no io_uring instance.",
        read: |model| rings(model, RingState::cq_pending),
        limit: |_| None,
    },
    Spec {
        title: "Threads",
        unit: "threads",
        hint: "“On a CPU” are those that run or want to, of the threads that were looked at.",
        none: "Not counted.",
        read: threads,
        limit: |_| None,
    },
    Spec {
        title: "CPU of the runtime",
        unit: "% of one core",
        hint: "Near 100: spinning. Near 0 while clients wait: blocked.",
        none: "No thread of the process was recognised as a runtime’s.",
        read: runtime_cpu,
        limit: |_| None,
    },
    Spec {
        title: "Age of the last beat",
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
    Spec {
        title: "Kafka: producer’s queue",
        unit: "messages",
        hint: "Handed to the producer and not acknowledged by a broker. At the limit it refuses more.",
        none: "The server keeps no heartbeat page.",
        read: |model| {
            model.app.as_ref().map(|app| vec![line("in the queue", app.raw.producer_queue as f64)])
        },
        limit: |model| {
            let max = model.app.got()?.raw.producer_queue_max?;
            Some((String::from("holds at most"), max as f64))
        },
    },
    Spec {
        title: "Kafka: not acknowledged",
        unit: "bytes, by TCP",
        hint: "Sent to a broker, or waiting to be. Level and above zero: the broker or the way to it is gone.",
        none: "No connection to a broker was seen.",
        read: brokers,
        limit: |_| None,
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
            (String::from("delivered to Kafka"), app.delivered_per_s.clone()),
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

fn in_flight(model: &Model) -> Row {
    model.app.as_ref().map(|app| {
        let without = app.raw.requests.saturating_sub(app.raw.responses);
        vec![line("requests", without as f64)]
    })
}

/// Of an attempt that got no answer there is no latency: a gap, not a zero.
fn latency(model: &Model) -> Row {
    model.active.as_ref().map(|active| {
        let ms = |us: u32| f64::from(us) / 1e3;
        match active.outcome {
            ActiveOutcome::Answered { connect_us, answer_us } => {
                let answer = answer_us.map(|us| line("first byte", ms(us)));
                std::iter::once(line("connected", ms(connect_us))).chain(answer).collect()
            }
            ActiveOutcome::NoAnswer { connect_us } => vec![line("connected", ms(connect_us))],
            _ => Vec::new(),
        }
    })
}

fn threads(model: &Model) -> Row {
    let alive = model.process.as_ref().map(|process| process.threads as f64);
    let on_cpu = model.threads.as_ref().map(|threads| {
        threads.iter().filter(|thread| thread.state == TaskState::Running).count() as f64
    });
    Reading::Got(vec![(String::from("alive"), alive), (String::from("on a CPU"), on_cpu)])
}

fn brokers(model: &Model) -> Row {
    model.peers.as_ref().map(|peers| {
        let mut unsent: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
        for PeerModel { raw, .. } in peers.iter().filter(|peer| peer.kafka) {
            let sum = unsent.entry(raw.remote.to_string()).or_default();
            *sum = sum.saturating_add(u64::from(raw.unsent_bytes));
        }
        unsent.into_iter().map(|(broker, bytes)| (broker, Reading::Got(bytes as f64))).collect()
    })
}
