//! Topics for runs, and what is really in them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataPartition;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{Offset, TopicPartitionList};

/// Partitions of a topic, as many as `serve`'s own broker makes.
const PARTITIONS: i32 = 4;
/// A broker that has not answered by then is not there.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Partitions that are looked at.
const PARTITIONS_MAX: usize = 1_000;
/// How long one wait for records is.
const POLL: Duration = Duration::from_millis(200);
/// Bytes of records that wait to be counted.
const FETCHED_KIB_MAX: &str = "16384";

/// librdkafka says on stderr what goes wrong with connections, also when it is the end of a run that
/// has closed them.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!("librdkafka {facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("Kafka: {error}: {reason}");
    }
}

impl ConsumerContext for Quiet {}

/// A broker in this process. It lives as long as this handle.
pub(super) struct Mock {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Mock {
    /// One broker, with the topic made; it answers `rtt` after it was asked.
    ///
    /// # Errors
    /// When librdkafka cannot make it.
    pub(super) fn start(topic: &str, rtt: Option<Duration>) -> anyhow::Result<Self> {
        let cluster = MockCluster::new(1).context("cannot start a mock broker")?;
        cluster.create_topic(topic, PARTITIONS, 1).context("cannot make a topic")?;
        if let Some(rtt) = rtt {
            // librdkafka numbers the brokers of a mock cluster from 1.
            cluster.broker_round_trip_time(1, rtt).context("cannot slow a mock broker down")?;
        }
        Ok(Self { cluster })
    }

    /// Its address.
    pub(super) fn bootstrap(&self) -> String {
        self.cluster.bootstrap_servers()
    }
}

/// A topic of a real cluster that was made for one run. Dropping it deletes the topic.
pub(super) struct Topic {
    admin: AdminClient<DefaultClientContext>,
    name: String,
}

impl Topic {
    /// Makes it.
    ///
    /// # Errors
    /// When the cluster cannot be reached or refuses.
    pub(super) fn make(bootstrap: &str, name: &str) -> anyhow::Result<Self> {
        let admin: AdminClient<DefaultClientContext> =
            client(bootstrap).create().context("cannot make a Kafka client")?;
        let topic = NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1));
        let options = AdminOptions::new().request_timeout(Some(ANSWER_MAX));
        let made = futures_lite::future::block_on(admin.create_topics([&topic], &options))
            .with_context(|| format!("cannot reach Kafka at {bootstrap}"))?;
        for result in made {
            result.map_err(|(name, code)| anyhow!("cannot make the topic {name}: {code}"))?;
        }
        Ok(Self { admin, name: name.to_owned() })
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        let options = AdminOptions::new().request_timeout(Some(ANSWER_MAX));
        let deleting = self.admin.delete_topics(&[&self.name], &options);
        let left = |error: &dyn std::fmt::Display| {
            eprintln!("stallscope: the topic {} is left in Kafka: {error}", self.name);
        };
        match futures_lite::future::block_on(deleting) {
            Ok(results) => {
                results
                    .iter()
                    .filter_map(|one| one.as_ref().err())
                    .for_each(|(_, code)| left(code));
            }
            Err(error) => left(&error),
        }
    }
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("client.id", "stallscope-bench")
        .set("socket.timeout.ms", ANSWER_MAX.as_millis().to_string())
        .set_log_level(RDKafkaLogLevel::Error);
    config
}

/// Counts the records of a topic.
pub(super) struct Counter {
    consumer: BaseConsumer<Quiet>,
    topic: String,
    partitions: Vec<i32>,
}

impl Counter {
    /// A consumer of `topic`.
    ///
    /// # Errors
    /// When the brokers cannot be reached, or do not have the topic.
    pub(super) fn new(bootstrap: &str, topic: &str) -> anyhow::Result<Self> {
        let consumer: BaseConsumer<Quiet> = client(bootstrap)
            .set("group.id", "stallscope-bench")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("allow.auto.create.topics", "false")
            .set("queued.max.messages.kbytes", FETCHED_KIB_MAX)
            .create_with_context(Quiet)
            .context("cannot make a Kafka consumer")?;
        let metadata = consumer
            .fetch_metadata(Some(topic), ANSWER_MAX)
            .with_context(|| format!("cannot reach Kafka at {bootstrap}"))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let partitions = found.map(|found| found.partitions().iter().map(MetadataPartition::id));
        let partitions: Vec<i32> = partitions.into_iter().flatten().take(PARTITIONS_MAX).collect();
        ensure!(!partitions.is_empty(), "Kafka at {bootstrap} has no topic {topic}");
        Ok(Self { consumer, topic: topic.to_owned(), partitions })
    }

    /// Records that have come in, by the offsets of each partition: cheap, and right also where the
    /// oldest are thrown away meanwhile (a topic begins at 0, and nothing else writes to it).
    ///
    /// # Errors
    /// When the brokers do not answer.
    pub(super) fn offsets(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for partition in &self.partitions {
            let (_, high) = self
                .consumer
                .fetch_watermarks(&self.topic, *partition, ANSWER_MAX)
                .context("cannot ask Kafka for its offsets")?;
            sum += u64::try_from(high).with_context(|| {
                format!("Kafka says {high} of the end of partition {partition} of {}", self.topic)
            })?;
        }
        Ok(sum)
    }

    /// Records that can be read, one by one, from the first to the last: only where the brokers keep
    /// them all.
    ///
    /// # Errors
    /// When it takes longer than `patience`, or `stopped` says so.
    pub(super) fn read_all(
        &self,
        patience: Duration,
        stopped: impl Fn() -> bool,
    ) -> anyhow::Result<u64> {
        let mut list = TopicPartitionList::new();
        for partition in &self.partitions {
            list.add_partition_offset(&self.topic, *partition, Offset::Beginning)
                .context("cannot assign partitions")?;
        }
        self.consumer.assign(&list).context("cannot assign partitions")?;
        let mut open: BTreeSet<i32> = self.partitions.iter().copied().collect();
        let mut count = 0_u64;
        let deadline = deadline(patience);
        let mut trouble = String::new();
        while !open.is_empty() {
            ensure!(!stopped(), "interrupted");
            if is_past(deadline) {
                bail!("records could not be read within {} s{trouble}", patience.as_secs());
            }
            match self.consumer.poll(POLL) {
                None => {}
                Some(Ok(_)) => count += 1,
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                }
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                    return Err(error).context("cannot read the records");
                }
                // Such as a broker of several that cannot be reached: it is tried again.
                Some(Err(error)) => trouble = format!("; the last trouble: {error}"),
            }
        }
        Ok(count)
    }
}

#[expect(clippy::disallowed_methods, reason = "the lab has a clock of its own")]
fn deadline(patience: Duration) -> Instant {
    Instant::now() + patience
}

#[expect(clippy::disallowed_methods, reason = "the lab has a clock of its own")]
fn is_past(deadline: Instant) -> bool {
    Instant::now() > deadline
}

#[cfg(test)]
mod tests {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    use super::*;

    #[test]
    fn what_was_produced_is_counted_both_ways() {
        let mock = Mock::start("t", None).unwrap();
        let counter = Counter::new(&mock.bootstrap(), "t").unwrap();
        assert_eq!(counter.offsets().unwrap(), 0);
        let producer: BaseProducer = client(&mock.bootstrap()).create().unwrap();
        for _ in 0..250 {
            producer.send(BaseRecord::<(), str>::to("t").payload("x")).unwrap();
        }
        producer.flush(ANSWER_MAX).unwrap();
        assert_eq!(counter.offsets().unwrap(), 250);
        assert_eq!(counter.read_all(Duration::from_secs(20), || false).unwrap(), 250);
        let stopped = counter.read_all(Duration::from_secs(20), || true).unwrap_err();
        assert_eq!(stopped.to_string(), "interrupted");
    }

    #[test]
    fn a_topic_that_is_not_there_is_said() {
        let mock = Mock::start("t", None).unwrap();
        let error = Counter::new(&mock.bootstrap(), "u").err().unwrap();
        assert!(error.to_string().contains("has no topic u"), "{error}");
    }
}
