//! Addresses in, names out.
//!
//! [`Names`] is the table that the rest of the agent reads, and that ends a recording; [`Resolver`] fills it from the
//! kernel's and the processes' own symbols. What has no name keeps `module+0xoffset`.

pub mod names;
pub mod resolver;

pub use names::{Names, Space};
pub use resolver::Resolver;
