//! The kernel's description of its types, kept only as long as something is loaded by it: parsed, it takes more memory
//! than all the rest of the agent. What is asked all the time, the names of its tracepoints, stays.

use std::collections::BTreeSet;

use aya::Btf as AyaBtf;

use super::LoadError;
use super::memory::give_memory_back;

/// Types for the loader, parsed when they are needed.
#[derive(Debug, Default)]
pub(super) struct Types(Option<AyaBtf>);

impl Types {
    pub(super) fn get(&mut self) -> Result<&AyaBtf, LoadError> {
        let types = match self.0.take() {
            Some(types) => types,
            None => AyaBtf::from_sys_fs()?,
        };
        Ok(self.0.insert(types))
    }

    /// Gives the memory back, if any is held.
    pub(super) fn let_go(&mut self) {
        if self.0.take().is_some() {
            // Hundreds of thousands of small pieces were just given back.
            give_memory_back();
        }
    }
}

/// Names of the tracepoints that probes can attach to by type.
#[derive(Debug)]
pub(super) struct Tracepoints(pub(super) BTreeSet<Box<str>>);

impl Tracepoints {
    pub(super) fn has_tracepoint(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}
