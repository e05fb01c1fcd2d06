//! What librdkafka is told.

use rdkafka::config::ClientConfig;

use super::{SinkOptions, Tuning};

/// Largest record. Kafka's own default for topics (`message.max.bytes`), 1 048 588, is the bound of a
/// batch with its header of 61 bytes, which librdkafka leaves out of account when it takes a record:
/// one between the two would be taken, acknowledged, and refused by the broker.
const RECORD_BYTES_MAX: &str = "1048527";
/// Longest pause between attempts to reach a broker that is gone, ms, as with Kafka's own clients.
/// librdkafka looks in such a pause for no events whose time is up: with its default, 10 s, they
/// fail that much too late, and Kafka that is back is found that much too late.
const RECONNECT_AFTER_MAX: &str = "1000";
/// How often the leaders of the partitions are asked for, ms. A broker that has come back may answer
/// that a partition has none yet; librdkafka 2.12 then does not always ask again before this
/// (default: 5 min, longer than an event is tried), and what is queued for it waits.
const LEADERS_EVERY: &str = "10000";

/// Most records in the producer's queue.
pub(super) fn queue_max(options: &SinkOptions) -> u64 {
    options.queue_max.unwrap_or(match options.tuning {
        Tuning::Default => 100_000,
        Tuning::Tuned => 1_000_000,
    })
}

/// The producer's settings.
pub(super) fn configuration(options: &SinkOptions, bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("client.id", "stallscope")
        .set("message.max.bytes", RECORD_BYTES_MAX)
        .set("reconnect.backoff.max.ms", RECONNECT_AFTER_MAX)
        .set("topic.metadata.refresh.interval.ms", LEADERS_EVERY)
        .set("message.timeout.ms", options.message_timeout.as_millis().to_string());
    config.set("queue.buffering.max.messages", queue_max(options).to_string());
    match options.tuning {
        Tuning::Default => config.set("queue.buffering.max.kbytes", "65536"),
        Tuning::Tuned => config
            .set("queue.buffering.max.kbytes", "262144")
            .set("linger.ms", "25")
            .set("batch.num.messages", "100000")
            .set("batch.size", "1000000")
            .set("compression.type", "lz4"),
    };
    config
}
