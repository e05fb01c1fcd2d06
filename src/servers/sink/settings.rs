//! What librdkafka is told.

use rdkafka::config::ClientConfig;

use super::{SinkOptions, Tuning};

/// Largest record, as Kafka's own default for topics (`message.max.bytes`).
const RECORD_BYTES_MAX: &str = "1048588";

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
