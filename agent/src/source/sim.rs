//! A simulated host as a source.
