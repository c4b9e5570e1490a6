//! Signals in, decisions out: pure functions of state, signals and time.
//!
//! The only thing that sees a pipeline's numbers here is [`Signals`](crate::signal::Signals); bounds, mode and what a
//! human asked for are state. Nothing here reads a clock, waits, or writes a page.

pub mod bounds;
pub mod breaker;
pub mod budget;
pub mod decide;
pub mod decision;
pub mod demand;
pub mod governor;
pub mod load;
pub mod log;
#[cfg(test)]
mod lots;
pub mod manual;
pub mod policy;
pub mod share;
pub mod state;
pub mod trial;
pub mod trim;

pub use bounds::{Bounds, initial};
pub use decide::{State, decide};
pub use decision::{Decision, Reason};
