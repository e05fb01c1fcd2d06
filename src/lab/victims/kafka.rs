//! Servers whose Kafka is the trouble.

use super::Run;

/// By name.
pub(super) const VICTIMS: &[(&str, Run)] = &[];
