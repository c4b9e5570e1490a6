//! The command line: arguments as typed, then one file a command.

pub mod simulate;
pub mod sockets;
pub mod syscalls;
pub mod table;
pub mod watching;
