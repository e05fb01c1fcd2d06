//! Builds a model from two samples.

/// Makes models from a stream of samples.
#[derive(Debug, Default)]
pub struct ModelBuilder {}
