//! Signals in, decisions out: pure functions of state, signals and time.
//!
//! The only thing that sees a pipeline's numbers here is [`Signals`](crate::signal::Signals); bounds, mode and what a
//! human asked for are state. Nothing here reads a clock, waits, or writes a page.

pub mod bounds;
pub mod budget;
pub mod decide;
pub mod decision;
pub mod demand;
pub mod governor;
pub mod log;
pub mod manual;
pub mod policy;

pub use bounds::{Bounds, initial};
pub use decide::{State, decide};
pub use decision::{Decision, Reason};
