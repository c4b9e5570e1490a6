//! Events in, windows out. Never reads a clock: windows are cut by `Tick` events.

pub mod histogram;
pub mod lost;
pub mod stacks;
pub mod window;
