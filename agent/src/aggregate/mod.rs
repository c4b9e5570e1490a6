//! Events in, windows out. Never reads a clock: windows are cut by `Tick` events.

pub mod byte_counts;
pub mod flows;
pub mod histogram;
pub mod intake;
pub mod ledger;
pub mod lost;
pub mod profiles;
pub mod report;
mod reporter;
pub mod rows;
pub mod span;
pub mod stacks;
pub mod table;
pub mod threads;
pub mod usage;
pub mod window;
