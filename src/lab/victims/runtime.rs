//! Servers whose runtime, ring or accept loop is the trouble.

use super::Run;

/// By name.
pub(super) const VICTIMS: &[(&str, Run)] = &[];
