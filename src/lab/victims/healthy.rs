//! Healthy servers that look ill: the twins of the faults.

use super::Run;

/// By name.
pub(super) const VICTIMS: &[(&str, Run)] = &[];
