//! Roles of threads.
