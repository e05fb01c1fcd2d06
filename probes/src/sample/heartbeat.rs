//! What an instrumented server says of itself.

use serde::{Deserialize, Serialize};

/// The heartbeat page as read from outside. Times are `CLOCK_MONOTONIC` ns; 0 on the page means
/// "never", and becomes `None` here. The byte layout is in `docs/heartbeat.md`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatRaw {
    /// Which server wrote it (`tokio`, `tokio-uring`): hostile text.
    pub stack: String,
    /// Thread that runs the runtime.
    pub runtime_tid: Option<i32>,
    /// Thread that polls the Kafka producer.
    pub kafka_tid: Option<i32>,
    /// Last beat of the runtime's thread.
    pub beat_ns: Option<u64>,
    /// Interval at which that thread means to beat, ns.
    pub beat_every_ns: u64,
    /// Port it serves on.
    pub listen_port: Option<u16>,
    /// Last successful accept.
    pub last_accept_ns: Option<u64>,
    /// Last response written.
    pub last_response_ns: Option<u64>,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections open now.
    pub open: u64,
    /// Requests parsed.
    pub requests: u64,
    /// Responses written.
    pub responses: u64,
    /// Accept calls that failed.
    pub accept_errors: u64,
    /// errno of the last one.
    pub accept_errno: Option<i32>,
    /// Events queued to the producer.
    pub queued: u64,
    /// Last beat of the Kafka thread.
    pub kafka_beat_ns: Option<u64>,
    /// Events the broker acknowledged.
    pub delivered: u64,
    /// Events that could not be delivered.
    pub failed: u64,
    /// Messages in the producer's queue.
    pub producer_queue: u64,
    /// Most messages that queue holds (`queue.buffering.max.messages`); `None` when not said.
    pub producer_queue_max: Option<u64>,
    /// Events that the producer refused because its queue was full.
    pub queue_full: u64,
    /// A fault made on purpose: which, and when.
    pub fault: Option<FaultRaw>,
}

/// A fault made on purpose, recorded by the process that made it at the instant it took hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultRaw {
    /// Which.
    pub fault: Fault,
    /// When it took hold.
    pub begin_ns: u64,
    /// When it was undone.
    pub end_ns: Option<u64>,
}

/// Faults the instrumented servers can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// An always-ready task on the tokio-uring runtime.
    SqNotFlushed,
    /// A low fd limit and connections that are never closed.
    FdExhausted,
    /// The runtime's thread in a blocking call.
    RuntimeBlocked,
    /// SIGSTOP to itself.
    ProcessStopped,
    /// A broker that is down, and a small producer's queue that fills up.
    KafkaQueueFull,
    /// A broker that is down.
    KafkaUnreachable,
    /// A broker that answers late.
    KafkaSlow,
    /// A producer that nobody polls.
    KafkaNotPolled,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::SqNotFlushed,
        Self::FdExhausted,
        Self::RuntimeBlocked,
        Self::ProcessStopped,
        Self::KafkaQueueFull,
        Self::KafkaUnreachable,
        Self::KafkaSlow,
        Self::KafkaNotPolled,
    ];

    /// The number on the heartbeat page (0 means none).
    pub const fn code(self) -> u64 {
        match self {
            Self::SqNotFlushed => 1,
            Self::FdExhausted => 2,
            Self::RuntimeBlocked => 3,
            Self::ProcessStopped => 4,
            Self::KafkaQueueFull => 5,
            Self::KafkaUnreachable => 6,
            Self::KafkaSlow => 7,
            Self::KafkaNotPolled => 8,
        }
    }

    /// From the number on the heartbeat page.
    pub const fn from_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::SqNotFlushed),
            2 => Some(Self::FdExhausted),
            3 => Some(Self::RuntimeBlocked),
            4 => Some(Self::ProcessStopped),
            5 => Some(Self::KafkaQueueFull),
            6 => Some(Self::KafkaUnreachable),
            7 => Some(Self::KafkaSlow),
            8 => Some(Self::KafkaNotPolled),
            _ => None,
        }
    }

    /// The id, as on the command line and in verdicts.
    pub const fn id(self) -> &'static str {
        match self {
            Self::SqNotFlushed => "sq-not-flushed",
            Self::FdExhausted => "fd-exhausted",
            Self::RuntimeBlocked => "runtime-blocked",
            Self::ProcessStopped => "process-stopped",
            Self::KafkaQueueFull => "kafka-queue-full",
            Self::KafkaUnreachable => "kafka-unreachable",
            Self::KafkaSlow => "kafka-slow",
            Self::KafkaNotPolled => "kafka-not-polled",
        }
    }

    /// Whether it is made with the Kafka broker or producer of the server.
    pub const fn is_of_kafka(self) -> bool {
        matches!(
            self,
            Self::KafkaQueueFull | Self::KafkaUnreachable | Self::KafkaSlow | Self::KafkaNotPolled
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_number_and_a_name_of_its_own() {
        for fault in Fault::ALL {
            assert_eq!(Fault::from_code(fault.code()), Some(fault));
            let same = |other: &&Fault| other.id() == fault.id();
            assert_eq!(Fault::ALL.iter().filter(same).count(), 1);
        }
        assert_eq!(Fault::from_code(0), None);
    }
}
