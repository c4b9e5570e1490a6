//! Unwind tables: files in, rows that the kernel side can follow out.
//!
//! Everything here is plain computation on bytes that somebody else opened, and all of those bytes are hostile: each
//! function returns a table or says why there is none, within stated limits of memory and time.

mod cfi;
mod compile;
mod elf;
mod expression;
mod files;
mod installed;
mod interest;
mod loader;
mod maps;
mod reader;
mod regions;
mod resume;
mod ring;
pub(super) mod shared;
mod sideband;
mod spaces;
mod standing;
mod store;
mod table;
mod tell;
mod tracker;
mod vdso;
mod wakeup;
mod walk;

pub use compile::compile;
pub use elf::{BuildId, Elf, FrameKind, FrameSection, Limits, Segment, TableError};
pub use interest::{Children, Interest};
pub use resume::Resumed;
pub use store::{Added, Missing, Store, TableIndex};
pub use table::{Skipped, Table, TableId, bias, row_at};
pub use tracker::Tracker;
pub use wakeup::Wakeup;
pub use walk::{Ip, Mapped, Registers, Space, caller, walk};

#[cfg(test)]
mod tests;
