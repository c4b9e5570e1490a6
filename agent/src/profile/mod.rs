//! Stack counts and names in; folded text, flame graphs, comparisons and exports out. Pure: files and sockets are
//! somebody else's.

mod builder;
pub mod container;
pub mod diff;
pub mod flame;
pub mod folded;
pub mod heading;
pub mod json;
pub mod model;
pub mod naming;
pub mod noise;
pub mod packed;
mod palette;
pub mod shares;
pub mod tree;

pub use diff::{Base, Diff, diff, diff_svg, diff_text};
pub use flame::{FlameError, flame_svg};
pub use folded::folded_text;
pub use json::profile_json;
pub use model::Profile;
pub use naming::{name_stacks, plain_owner};
pub use packed::Packed;
