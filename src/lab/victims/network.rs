//! Servers whose host, namespace or limits are the trouble.

use super::Run;

/// By name.
pub(super) const VICTIMS: &[(&str, Run)] = &[];
