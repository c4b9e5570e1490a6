//! The command line: arguments as typed, then one file a command.

pub mod simulate;
