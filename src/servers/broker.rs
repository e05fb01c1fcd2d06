//! A Kafka broker inside the server's own process: librdkafka's mock cluster.

use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::sink::SinkError;

/// Partitions of the topic.
const PARTITIONS: i32 = 4;
/// The broker's id: librdkafka numbers those of a mock cluster from 1.
const ID: i32 = 1;

/// A Kafka broker inside this process. It lives as long as this handle.
pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    /// One broker, with the topic made. It keeps the last 5 MiB of each partition.
    pub fn start(topic: &str) -> Result<Self, SinkError> {
        let cluster = MockCluster::new(1).map_err(SinkError::Embedded)?;
        cluster.create_topic(topic, PARTITIONS, 1).map_err(SinkError::Embedded)?;
        Ok(Self { cluster })
    }

    /// Its address.
    pub fn bootstrap(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Closes its connections, and refuses others until it is up again.
    pub fn goes_down(&self) -> Result<(), KafkaError> {
        self.cluster.broker_down(ID)
    }

    /// Accepts connections again.
    pub fn comes_up(&self) -> Result<(), KafkaError> {
        self.cluster.broker_up(ID)
    }

    /// Lets it answer each request this long after it came.
    pub fn answers_after(&self, delay: Duration) -> Result<(), KafkaError> {
        self.cluster.broker_round_trip_time(ID, delay)
    }
}
