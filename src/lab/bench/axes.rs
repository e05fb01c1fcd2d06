//! What cells can differ by. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Round-trip time of the broker that stands for one far away: between two regions of one continent.
pub const REMOTE_RTT: Duration = Duration::from_millis(20);

/// Where records go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kafka {
    /// Nowhere: HTTP alone.
    None,
    /// To a broker inside the server's own process, whose CPU time is in the server's.
    Embedded,
    /// To such a broker inside the lab's process.
    Mock,
    /// To the same, which answers [`REMOTE_RTT`] later: a stand-in for one that is far away.
    Remote,
    /// To these: `HOST:PORT`.
    Brokers(String),
}

impl Kafka {
    /// As on the command line.
    pub fn name(&self) -> &str {
        match self {
            Self::None => "none",
            Self::Embedded => "embedded",
            Self::Mock => "mock",
            Self::Remote => "remote",
            Self::Brokers(address) => address,
        }
    }
}

impl std::str::FromStr for Kafka {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_broker = |broker: &str| {
            broker.rsplit_once(':').is_some_and(|(host, port)| {
                let is_host = |char: char| char.is_ascii_alphanumeric() || "-._:[]".contains(char);
                !host.is_empty()
                    && host.chars().all(is_host)
                    && port.parse::<u16>().is_ok_and(|port| port > 0)
            })
        };
        match text {
            "none" => Ok(Self::None),
            "embedded" => Ok(Self::Embedded),
            "mock" => Ok(Self::Mock),
            "remote" => Ok(Self::Remote),
            broker if is_broker(broker) => Ok(Self::Brokers(broker.to_owned())),
            _ => Err(String::from("write it like none, embedded, mock, remote or host:9092")),
        }
    }
}

/// How clients use their connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Client {
    /// Request after request on the same connection
    KeepAlive,
    /// A new connection for each request
    Close,
}

impl Client {
    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive",
            Self::Close => "close",
        }
    }
}
