//! Servers whose runtime, ring or accept loop is the trouble.

use super::Scenario;

/// By name.
pub(super) const SCENARIOS: &[Scenario] = &[];
