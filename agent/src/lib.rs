//! tidegate: a host-level profiling and tuning agent.
//!
//! Data flows one way, top to bottom of this list; `ARCHITECTURE.md` draws it. A library, so that tests, benches and
//! fuzzing can import it; the binary only parses and calls.

pub mod units;

pub mod event;

pub mod source;

#[cfg(feature = "ebpf")]
pub mod kernel;

pub mod aggregate;

pub mod symbolize;

pub mod signal;

pub mod control;

pub mod profile;

pub mod history;

pub mod serve;

pub mod cli;
pub mod config;
pub mod doctor;
pub mod run;
