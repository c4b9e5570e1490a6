//! Whose a stack is: a sample's own words and the paths of cgroups in, an owner out.

use std::sync::Arc;

use crate::aggregate::stacks::{StackCounts, StackKey};
use crate::event::Comm;
use crate::profile::container::container_of;
use crate::profile::model::Owner;
use crate::source::cgroups::Cgroups;
use crate::symbolize::names::clean;
use crate::units::{CgroupId, Pid, Uid};

/// Gives stacks their owners.
#[derive(Debug)]
pub(super) struct Labels {
    cgroups: Cgroups,
}

impl Labels {
    /// Of this host.
    pub(super) fn here() -> Self {
        Self { cgroups: Cgroups::here() }
    }

    /// Looks up what a slice needs while its processes live.
    pub(super) fn note(&mut self, slice: &StackCounts) {
        for key in slice.counts.keys() {
            self.cgroups.path(key.cgroup, key.pid);
        }
    }

    /// A window has been named: the next one may look again for what was not found.
    pub(super) fn refresh(&mut self) {
        self.cgroups.refresh();
    }

    /// The owner of a stack.
    pub(super) fn of(&mut self, key: &StackKey) -> Owner {
        self.owner(key.pid, Some(key.uid), key.comm, key.cgroup)
    }

    /// The owner of what a thread did.
    pub(super) fn owner(&mut self, pid: Pid, uid: Option<Uid>, comm: Comm, cgroup: CgroupId) -> Owner {
        // Whoever makes a container chooses its name.
        let path = self.cgroups.path(cgroup, pid).map(|path| Arc::<str>::from(clean(&path)));
        let container = path.as_deref().and_then(container_of).map(Arc::from);
        let uid = uid.map(|uid| uid.0);
        Owner { pid: Some(pid), uid, comm: Arc::from(clean(&comm.to_text())), cgroup: path, container }
    }
}
