//! Stack counts and names in; folded text, flame graphs, comparisons and exports out. Pure: files and sockets are
//! somebody else's.

mod builder;
pub mod container;
pub mod diff;
mod firefox;
pub mod flame;
pub mod folded;
pub mod format;
mod frames;
pub mod heading;
pub mod hotspots;
pub mod import;
mod json;
mod labels;
pub mod model;
pub mod naming;
pub mod noise;
mod otlp;
pub mod packed;
mod palette;
mod path;
mod paths;
mod pprof;
pub mod shares;
mod speedscope;
mod strings;
pub mod times;
pub mod tree;
mod unpacked;

pub use diff::{Base, Diff, diff, diff_svg, diff_text};
pub use flame::{FlameError, flame_svg};
pub use folded::folded_text;
pub use format::{About, Format, FormatError, write};
pub use hotspots::{Baseline, Hotspot, Hotspots};
pub use model::Profile;
pub use naming::{name_stacks, name_stacks_and, plain_owner};
pub use packed::{Packed, Plain};
pub use times::Idle;

#[cfg(test)]
mod tests;
