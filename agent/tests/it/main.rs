//! Integration tests.

mod control;
mod replay;
mod simulate;
