//! A simulated host as a source.

pub mod page;
pub mod random;
