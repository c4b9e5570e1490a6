//! Attaching one family to see whether it can be: for the preflight, which wants to tell what this kernel lacks from what
//! it refuses. Family in, shortfall out; leaves detaching to `apply`.

use super::EbpfSource;
use crate::kernel::{Family, LoadError};

/// Why a family does not do all that it does elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shortfall {
    /// This kernel does not have what it needs.
    Absent(Lack),
    /// This kernel has it and refuses the probe: a fault of the probe, or of the rights.
    Refused(Lack),
}

/// What is not there, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What was found.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

impl EbpfSource {
    /// Attaches `family`, whether it is wanted or not.
    pub fn try_family(&mut self, family: Family) -> Result<(), Shortfall> {
        self.attach(family).map_err(|error| match &error {
            LoadError::NoTracepoint { tracepoint, remedy, .. } => Shortfall::Absent(Lack {
                cause: format!("this kernel has no tracepoint {tracepoint}"),
                remedy: (*remedy).to_owned(),
            }),
            LoadError::NoField { field, .. } => Shortfall::Absent(Lack {
                cause: format!("this kernel has no field {field}"),
                remedy: "report this kernel's version: its layout is not known to this version of tidegate".to_owned(),
            }),
            _ => Shortfall::Refused(Lack {
                cause: error.to_string(),
                remedy: "check the rights (`privilege`); if they are there, report this kernel's version and this line"
                    .to_owned(),
            }),
        })
    }
}
