//! The live kernel: the only files that name `aya`, with `source/ebpf.rs`.
