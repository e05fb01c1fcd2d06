//! What there is to count, and how it is read from a tick.

use std::sync::Arc;

use stallscope_probes::sample::{ActiveOutcome, HeartbeatRaw, RingState};
use stallscope_probes::{Reading, Why};

use crate::model::answers::waiting;
use crate::model::{Model, ServedModel, TcpModel, ThreadModel, ThreadRole};
use crate::report::text::number;

/// A rate from counters is taken over at least this long: over one tick it would be all or nothing.
const RATE_NS_MIN: u64 = 1_000_000_000;

/// One thing that is counted or measured.
#[derive(Debug)]
pub(in crate::report) struct Spec {
    /// As in JSON; named by its unit last.
    pub id: &'static str,
    /// For people.
    pub title: &'static str,
    /// For people; empty for a share or a plain number.
    pub unit: &'static str,
    /// A difference of medians that is smaller is not worth a word, in the unit.
    pub floor: f64,
    read: fn(At<'_>) -> Reading<f64>,
}

impl Spec {
    /// Its reading at one tick of a run.
    pub fn read(&self, models: &[Arc<Model>], index: usize) -> Reading<f64> {
        match models.get(index) {
            Some(now) => (self.read)(At { models, index, now }),
            None => Reading::absent(Why::NotSampled, "there is no such tick"),
        }
    }
}

impl Spec {
    /// The unit in which [`Self::shown`] shows it.
    pub fn shown_unit(&self) -> &'static str {
        if self.is_in_bytes() { "MiB" } else { self.unit }
    }

    /// A value of it, for people.
    pub fn shown(&self, value: f64) -> String {
        number(if self.is_in_bytes() { value / f64::from(1 << 20) } else { value })
    }

    fn is_in_bytes(&self) -> bool {
        self.unit == "bytes"
    }
}

/// A tick, and those before it.
#[derive(Clone, Copy)]
struct At<'a> {
    models: &'a [Arc<Model>],
    index: usize,
    now: &'a Model,
}

impl<'a> At<'a> {
    fn before(self) -> impl Iterator<Item = &'a Model> {
        let before = self.models.get(..self.index).unwrap_or_default();
        before.iter().rev().map(Arc::as_ref)
    }
}

const fn spec(
    id: &'static str,
    title: &'static str,
    unit: &'static str,
    floor: f64,
    read: fn(At<'_>) -> Reading<f64>,
) -> Spec {
    Spec { id, title, unit, floor, read }
}

/// All of them, in the order in which they are shown.
pub(in crate::report) static SPECS: [Spec; 27] = [
    spec("requests_per_s", "Requests", "per second", 5.0, |at| {
        at.now.app.as_ref().and_then(|app| app.requests_per_s.clone())
    }),
    spec("responses_per_s", "Responses", "per second", 5.0, |at| {
        at.now.app.as_ref().and_then(|app| app.responses_per_s.clone())
    }),
    spec("accepts_per_s", "Connections accepted", "per second", 1.0, |at| {
        at.now.app.as_ref().and_then(|app| app.accepts_per_s.clone())
    }),
    spec("cpu_us_per_response", "CPU time per response", "µs", 5.0, cpu_us_per_response),
    spec("cpu_cores", "CPU of the process", "cores", 0.02, |at| {
        at.now.process.as_ref().and_then(|process| process.cpu_cores.clone())
    }),
    spec("runtime_cpu_cores", "CPU of the runtime’s threads", "cores", 0.02, |at| {
        summed(at, Some(ThreadRole::Runtime), |thread| &thread.cpu_ratio)
    }),
    spec("kafka_cpu_cores", "CPU of the Kafka threads", "cores", 0.02, |at| {
        summed(at, Some(ThreadRole::Kafka), |thread| &thread.cpu_ratio)
    }),
    spec("runtime_delay_cores", "Runtime’s threads waiting for a CPU", "threads", 0.02, |at| {
        summed(at, Some(ThreadRole::Runtime), |thread| &thread.delay_ratio)
    }),
    spec("switches_per_s", "Context switches", "per second", 50.0, |at| {
        summed(at, None, |thread| &thread.switches_per_s)
    }),
    spec("accept_queue", "Accept queue", "connections", 4.0, |at| {
        at.now.listeners.as_ref().map(|_| at.now.queued().unwrap_or_default() as f64)
    }),
    spec("waiting_clients", "Clients waiting for an answer", "connections", 2.0, |at| {
        answers(at, |served| served.map(|(clients, _)| f64::from(clients)).sum())
    }),
    spec("waiting_oldest_ms", "The one that waits longest", "ms", 50.0, |at| {
        answers(at, |served| {
            served.filter_map(|(_, oldest_ms)| oldest_ms).map(f64::from).fold(0.0, f64::max)
        })
    }),
    spec("answer_ms", "Answer to the active probe", "ms", 0.2, answer_ms),
    spec("open_fds", "Open fds", "fds", 8.0, |at| at.now.fds.as_ref().map(|fds| fds.open as f64)),
    spec("rss_bytes", "Resident memory", "bytes", 1_048_576.0, |at| {
        at.now.process.as_ref().map(|process| process.rss_bytes as f64)
    }),
    spec("threads", "Threads", "threads", 1.0, |at| {
        at.now.process.as_ref().map(|process| process.threads as f64)
    }),
    spec("beat_age_ms", "Age of the runtime’s last beat", "ms", 20.0, beat_age_ms),
    spec("ring_unsubmitted", "io_uring: not submitted", "entries", 4.0, |at| {
        rings(at, RingState::sq_pending)
    }),
    spec("ring_unreaped", "io_uring: not reaped", "entries", 4.0, |at| {
        rings(at, RingState::cq_pending)
    }),
    spec("retransmits_per_s", "TCP segments sent again", "per second", 1.0, |at| {
        tcp(at, |tcp| tcp.retrans_segs_new)
    }),
    spec("overflows_per_s", "Accept queue overflows", "per second", 1.0, |at| {
        tcp(at, |tcp| tcp.listen_overflows_new)
    }),
    spec("throttled_ratio", "CPU quota used up", "of the periods", 0.02, throttled_ratio),
    spec("delivered_per_s", "Kafka: events acknowledged", "per second", 5.0, |at| {
        at.now.app.as_ref().and_then(|app| app.delivered_per_s.clone())
    }),
    spec("producer_queue", "Kafka: messages in the producer", "messages", 10.0, |at| {
        at.now.app.as_ref().map(|app| app.raw.producer_queue as f64)
    }),
    spec("undelivered_per_s", "Kafka: events not delivered", "per second", 1.0, |at| {
        counted(at, |page| page.failed)
    }),
    spec("refused_per_s", "Kafka: events refused, queue full", "per second", 1.0, |at| {
        counted(at, |page| page.queue_full)
    }),
    spec("kafka_rtt_ms", "Kafka: slowest round trip", "ms", 0.5, kafka_rtt_ms),
];

fn cpu_us_per_response(at: At<'_>) -> Reading<f64> {
    let cores = at.now.process.as_ref().and_then(|process| process.cpu_cores.clone());
    let responses = at.now.app.as_ref().and_then(|app| app.responses_per_s.clone());
    responses.and_then(|per_s| {
        if per_s <= 0.0 {
            return Reading::absent(Why::Unsupported, "no response was written");
        }
        cores.map(|cores| cores * 1e6 / per_s)
    })
}

/// Over the threads of one role, or over all; absent where one of them is.
fn summed(
    at: At<'_>,
    role: Option<ThreadRole>,
    read: fn(&ThreadModel) -> &Reading<f64>,
) -> Reading<f64> {
    at.now.threads.as_ref().and_then(|threads| {
        let (mut sum, mut counted) = (0.0, false);
        for thread in threads.iter().filter(|thread| role.is_none_or(|role| thread.role == role)) {
            match read(thread) {
                Reading::Got(value) => sum += value,
                absent @ Reading::Absent(_) => return absent.clone(),
            }
            counted = true;
        }
        if counted {
            Reading::Got(sum)
        } else {
            Reading::absent(Why::Unsupported, "no thread of this role was recognised")
        }
    })
}

/// Over the ports whose connections were asked who waits.
fn answers<'a>(
    at: At<'a>,
    sum: fn(&mut dyn Iterator<Item = (u32, Option<u32>)>) -> f64,
) -> Reading<f64> {
    at.now.served.as_ref().and_then(|served: &'a Arc<[ServedModel]>| {
        let mut asked = served.iter().filter_map(|port| port.raw.answers.as_ref()).peekable();
        if asked.peek().is_none() {
            return Reading::absent(Why::NotSampled, "the clients were not asked who waits");
        }
        Reading::Got(sum(&mut asked.map(waiting)))
    })
}

fn answer_ms(at: At<'_>) -> Reading<f64> {
    at.now.active.as_ref().and_then(|raw| {
        let told = at.before().next().and_then(|before| before.active.got());
        // An outcome is carried along from tick to tick: once is enough.
        if told.is_some_and(|told| told.attempts == raw.attempts && told.outcome == raw.outcome) {
            return Reading::absent(Why::NotSampled, "no attempt ended in this tick");
        }
        match raw.outcome {
            ActiveOutcome::Answered { connect_us, answer_us } => {
                Reading::Got(f64::from(answer_us.unwrap_or(connect_us)) / 1e3)
            }
            ActiveOutcome::Pending => Reading::absent(Why::NotSampled, "it had not ended"),
            _ => Reading::absent(Why::Failed, "there was no answer"),
        }
    })
}

fn beat_age_ms(at: At<'_>) -> Reading<f64> {
    at.now.app.as_ref().and_then(|app| match app.beat_age_ms {
        Some(age_ms) => Reading::Got(age_ms),
        None => Reading::absent(Why::Unsupported, "the runtime has not beaten yet"),
    })
}

fn rings(at: At<'_>, read: fn(&RingState) -> u32) -> Reading<f64> {
    at.now.rings.as_ref().and_then(|rings| {
        if rings.is_empty() {
            return Reading::absent(Why::Unsupported, "the process has no io_uring");
        }
        let mut sum = 0.0;
        for ring in rings.iter() {
            match &ring.state {
                Reading::Got(state) => sum += f64::from(read(state)),
                Reading::Absent(absence) => return Reading::Absent(absence.clone()),
            }
        }
        Reading::Got(sum)
    })
}

/// The counters are differences to their last reading, which lies some ticks back.
fn tcp(at: At<'_>, read: fn(&TcpModel) -> Option<u64>) -> Reading<f64> {
    at.now.tcp.as_ref().and_then(|tcp| {
        let Some(new) = read(tcp) else {
            return Reading::absent(Why::Unsupported, "the kernel does not tell it");
        };
        // Ticks that were thinned out took their differences with them.
        let mut seq = at.now.seq;
        let mut whole = at.before().take_while(|model| {
            let next = seq.checked_sub(1) == Some(model.seq);
            seq = model.seq;
            next
        });
        let last = whole.find(|model| model.tcp.got().is_some());
        rate(new as f64, last.map(|last| last.at_ns), at.now.at_ns)
    })
}

/// A counter of the heartbeat page.
fn counted(at: At<'_>, read: fn(&HeartbeatRaw) -> u64) -> Reading<f64> {
    at.now.app.as_ref().and_then(|app| {
        let until_ns = at.now.at_ns.saturating_sub(RATE_NS_MIN);
        let then = at.before().find(|model| model.at_ns <= until_ns && model.app.got().is_some());
        let Some((then_ns, then)) = then.and_then(|then| Some((then.at_ns, then.app.got()?)))
        else {
            return Reading::absent(Why::NoPrevious, "a rate needs two readings");
        };
        match read(&app.raw).checked_sub(read(&then.raw)) {
            Some(new) => rate(new as f64, Some(then_ns), at.now.at_ns),
            None => Reading::absent(Why::Restarted, "the counter went back"),
        }
    })
}

fn rate(new: f64, then_ns: Option<u64>, now_ns: u64) -> Reading<f64> {
    let s = then_ns.map_or(0.0, |then_ns| now_ns.saturating_sub(then_ns) as f64 / 1e9);
    if s > 0.0 {
        Reading::Got(new / s)
    } else {
        Reading::absent(Why::NoPrevious, "a rate needs two readings")
    }
}

fn throttled_ratio(at: At<'_>) -> Reading<f64> {
    at.now.cgroup.as_ref().and_then(|cgroup| match cgroup.throttled_ratio {
        Some(ratio) => Reading::Got(ratio),
        None => Reading::absent(Why::Unsupported, "no period of a CPU quota went by"),
    })
}

fn kafka_rtt_ms(at: At<'_>) -> Reading<f64> {
    at.now.peers.as_ref().and_then(|peers| {
        let brokers = peers.iter().filter(|peer| peer.kafka);
        let rtt_us = brokers.filter_map(|peer| peer.raw.info.as_ref()).map(|info| info.rtt_us);
        match rtt_us.max() {
            Some(us) => Reading::Got(f64::from(us) / 1e3),
            None => Reading::absent(Why::Unsupported, "no connection to a broker was seen"),
        }
    })
}
