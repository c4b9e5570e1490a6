//! What the preflight finds, as the socket and the command line show it. Holds no probing: `doctor` does that.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// One capability of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Short name, stable.
    pub name: &'static str,
    /// How it stands.
    pub status: Status,
    /// What was found.
    pub cause: String,
    /// What to do about it; absent when there is nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// How a capability stands, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As wanted.
    Ok,
    /// Something works less well.
    Degraded,
    /// Something does not work at all.
    Missing,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        })
    }
}

/// Runs the preflight: the serving layer asks, the layer above does it.
#[derive(Clone)]
pub struct Preflight(Arc<dyn Fn() -> Vec<Check> + Send + Sync>);

impl Preflight {
    /// From whatever runs the checks.
    pub fn new(run: impl Fn() -> Vec<Check> + Send + Sync + 'static) -> Self {
        Self(Arc::new(run))
    }

    /// The checks, now.
    pub fn run(&self) -> Vec<Check> {
        (self.0)()
    }
}

impl fmt::Debug for Preflight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Preflight")
    }
}
