//! The kernel side's watch list: what is wanted in, a byte for each process and a word for the whole host out. Never says
//! what is done about whom it lists: that is the probes'.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use agent_common::{
    SCOPE_CGROUPS, WATCH_CPU, WATCH_FLOWS, WATCH_QUEUES, WATCH_SCHED, WATCH_SOCKETS, WATCH_SYSCALLS, WITH_OFFSPRING,
    WITH_SOCKET_STACKS,
};

use super::{EbpfSource, cgroups};
use crate::kernel::LoadError;
use crate::source::{Offspring, Scope, Wanted};
use crate::units::CgroupId;

impl EbpfSource {
    /// Brings the kernel's watch list in line.
    pub(super) fn watch(&mut self, wanted: &Wanted) -> Result<(), LoadError> {
        let mut scope = 0;
        let mut bits: HashMap<u32, u32> = HashMap::new();
        let mut cgroups: BTreeMap<CgroupId, u32> = BTreeMap::new();
        let mut add = |wish: Option<&Scope>, bit: u32| match wish {
            Some(Scope::Host) => scope |= bit,
            Some(Scope::Pids(pids)) => {
                for pid in pids {
                    *bits.entry(pid.0).or_insert(0) |= bit;
                }
            }
            Some(Scope::Cgroups(ids)) => {
                scope |= bit << SCOPE_CGROUPS;
                for id in ids {
                    *cgroups.entry(*id).or_insert(0) |= bit;
                }
            }
            None => {}
        };
        add(wanted.cpu.as_ref(), WATCH_CPU);
        add(wanted.syscalls.as_ref(), WATCH_SYSCALLS);
        add(wanted.sched.as_ref(), WATCH_SCHED);
        if let Some(pids) = &wanted.sockets {
            add(Some(&Scope::Pids(pids.clone())), WATCH_SOCKETS);
        }
        add(Some(&Scope::Pids(wanted.flows.clone())), WATCH_FLOWS);
        add(Some(&Scope::Pids(wanted.queues.clone())), WATCH_QUEUES);
        if wanted.socket_stacks {
            scope |= WITH_SOCKET_STACKS;
        }
        if wanted.offspring == Offspring::Watched {
            scope |= WITH_OFFSPRING;
        }
        let failed = |cause| LoadError::Map { what: "set the watch list", cause };
        cgroups::watch(&mut self.maps.cgroups, &cgroups)?;
        self.maps.scope.set(0, scope, 0).map_err(failed)?;
        if self.wanted.offspring == Offspring::Watched && wanted.offspring == Offspring::Ignored {
            // Whom the kernel side has put on the list since, it alone knows.
            for index in 0..self.maps.watch.len() {
                self.maps.watch.set(index, 0, 0).map_err(failed)?;
            }
            self.bits.clear();
        }
        let changed = |pid: &&u32| self.bits.get(pid) != bits.get(pid);
        let pids: BTreeSet<u32> = self.bits.keys().chain(bits.keys()).filter(changed).copied().collect();
        for pid in pids {
            let (index, shift) = (pid / 8, pid % 8 * 8);
            if index >= self.maps.watch.len() {
                continue; // No process can have that number here.
            }
            let word = self.maps.watch.get(&index, 0).map_err(failed)?;
            let byte = u64::from(bits.get(&pid).copied().unwrap_or(0) & 0xff);
            self.maps.watch.set(index, (word & !(0xff << shift)) | (byte << shift), 0).map_err(failed)?;
        }
        self.bits = bits;
        Ok(())
    }
}
