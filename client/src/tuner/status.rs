//! Where a pipeline's tuning stands, in words that a log line can carry.

use std::fmt;
use std::sync::Arc;

use crate::contact::ContactError;
use crate::page::PageError;

/// Where the tuning stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whose settings are in force.
    pub state: State,
    /// Their generation, 0 for the pipeline's own.
    pub generation: u64,
    /// How the last talk with the agent went: the cause, when the state is not `Connected`.
    pub contact: Contact,
}

/// Whose settings are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The agent's, under a lease that it keeps renewing.
    Connected,
    /// The agent's last ones: the lease has lapsed, the hold has not.
    Held,
    /// The pipeline's own.
    Default,
}

/// How the last talk with the agent went.
#[derive(Clone, Debug)]
pub enum Contact {
    /// The first talk is not over.
    Starting,
    /// Registered, and the settings page is open.
    Registered,
    /// Registered before, but the lease is no longer renewed; registering anew.
    Silent,
    /// No agent, or it said no.
    Failed(Arc<ContactError>),
    /// The agent named a page that cannot be used.
    BadPage(Arc<PageError>),
    /// The agent named values among which a knob is missing.
    MissingKnob(Vec<String>),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connected => "connected",
            Self::Held => "held",
            Self::Default => "default",
        })
    }
}

impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("not registered yet"),
            Self::Registered => f.write_str("registered"),
            Self::Silent => f.write_str("agent no longer renews the lease"),
            Self::Failed(error) => error.fmt(f),
            Self::BadPage(error) => error.fmt(f),
            Self::MissingKnob(names) => write!(f, "agent's values {names:?} lack a knob (bring both to one version)"),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, generation {}: {}", self.state, self.generation, self.contact)
    }
}
