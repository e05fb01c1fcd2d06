//! Verdicts.
pub mod verdict;
