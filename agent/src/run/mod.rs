//! Wiring: source, core and socket into a running agent.

pub mod core;
pub mod oneshot;
pub mod replay;
pub mod simulate;
