//! The live kernel: BTF, loading and attaching of the probes. With `source/ebpf.rs` the only files that name `aya`.

pub mod attach;
pub mod btf;
mod diagnostics;
pub mod load;
mod memory;
pub mod offsets;
mod types;
pub mod unwind;
mod waits;
mod walk;

pub use attach::Family;
pub use load::{LoadError, LoadOptions, Probes};
pub use walk::Visit;
