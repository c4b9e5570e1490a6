//! Join a batching pipeline to tidegate in at most ten lines.
//!
//! Without an agent everything here runs on the pipeline's own defaults and connects when an agent appears.

pub mod abi;
pub mod clock;
pub mod page;
pub mod report;
pub mod rule;
pub mod units;
