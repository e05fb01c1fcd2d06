//! Servers whose Kafka is the trouble.

use super::Scenario;

/// By name.
pub(super) const SCENARIOS: &[Scenario] = &[];
