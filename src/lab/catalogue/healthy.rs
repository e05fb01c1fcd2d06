//! Healthy servers that look ill: the twins of the faults.

use super::Scenario;

/// By name.
pub(super) const SCENARIOS: &[Scenario] = &[];
