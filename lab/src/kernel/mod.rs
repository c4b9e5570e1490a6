//! Known amounts of work for the kernel to see: the truth that the agent's counts are held against.

pub(crate) mod sockets;
pub(crate) mod switches;
pub(crate) mod syscalls;
