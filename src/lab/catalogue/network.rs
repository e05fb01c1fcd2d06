//! Servers whose host, namespace or limits are the trouble.

use super::Scenario;

/// By name.
pub(super) const SCENARIOS: &[Scenario] = &[];
