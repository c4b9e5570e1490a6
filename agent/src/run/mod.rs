//! Wiring: source, core and socket into a running agent.

mod archive;
pub mod core;
mod kinds;
pub mod live;
mod live_source;
mod liveness;
pub mod oneshot;
mod overhead;
mod own_cost;
mod recorder;
pub mod replay;
pub mod simulate;
