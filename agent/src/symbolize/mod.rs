//! Addresses in, names out.
//!
//! [`Names`] is the table that the rest of the agent reads, and that ends a recording; [`Resolver`] fills it: names of the
//! kernel by itself, names of everything else through a symbolizer, a process of its own that is shown checked files and
//! can do nothing else ([`child`]). What has no name keeps `module+0xoffset`.

pub mod child;
mod files;
pub mod keeper;
pub mod kernel;
pub mod names;
mod places;
pub mod resolver;
mod spaces;
pub mod stats;
pub mod wire;

pub use keeper::set_program;
pub use names::{Names, Space};
pub use resolver::Resolver;
pub use stats::Stats;
