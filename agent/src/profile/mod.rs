//! Stack counts and names in; folded text, flame graphs and JSON out. Pure: files and sockets are somebody else's.

pub mod container;
pub mod flame;
pub mod folded;
pub mod json;
pub mod model;
pub mod naming;
pub mod packed;

pub use flame::{FlameError, flame_svg};
pub use folded::folded_text;
pub use json::profile_json;
pub use model::Profile;
pub use naming::{name_stacks, plain_owner};
pub use packed::Packed;
