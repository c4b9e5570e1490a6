//! Flows: the kernel's counters by descriptor in, a row for each that changed out, the last one when it has been closed.
//!
//! A row that was being written while it was read is read again; where it leads is looked up once, when it is first seen.

use std::collections::{BTreeSet, HashMap};

use agent_common::{FLOW_TARGET_BYTES, FlowKey, FlowRow, FlowStats};
use aya::maps::MapError;

use super::EbpfSource;
use crate::event::{RawBatch, encode};
use crate::source::Wanted;
use crate::units::{Nanos, Pid};

/// Times that a row is read at the most. A writer is done in less time than a second read needs to begin.
const READS: usize = 4;

/// What was sent of the descriptors that are open: when it last changed, and where it leads.
#[derive(Debug, Default)]
pub(super) struct Sent {
    rows: HashMap<(u32, u32), Seen>,
}

#[derive(Debug)]
struct Seen {
    first_ns: u64,
    last_ns: u64,
    target: [u8; FLOW_TARGET_BYTES],
}

impl EbpfSource {
    pub(super) fn snapshot_flows(&mut self, now: Nanos, batch: &mut RawBatch, seen: &mut BTreeSet<Pid>) {
        let keys: Vec<FlowKey> = self.maps.flows.keys().filter_map(Result::ok).collect();
        for key in keys {
            let Some(stats) = self.whole(&key) else { continue };
            let sent = self.flows.rows.get(&(key.pid, key.fd)).filter(|sent| sent.first_ns == stats.first_ns);
            let target = match sent {
                Some(sent) if sent.last_ns == stats.last_ns && key.ended_ns == 0 => continue,
                Some(sent) => sent.target,
                // Its number may lead elsewhere by now.
                None if key.ended_ns != 0 => [0; FLOW_TARGET_BYTES],
                None => target(key.pid, key.fd),
            };
            seen.insert(Pid(key.pid));
            encode::flow(batch, now, &FlowRow { key, target, stats });
            if key.ended_ns == 0 {
                let told = Seen { first_ns: stats.first_ns, last_ns: stats.last_ns, target };
                self.flows.rows.insert((key.pid, key.fd), told);
            } else {
                if self.flows.rows.get(&(key.pid, key.fd)).is_some_and(|sent| sent.first_ns == stats.first_ns) {
                    self.flows.rows.remove(&(key.pid, key.fd));
                }
                self.forget_flow(&key);
            }
        }
    }

    /// Counters of processes that are not watched any more: whoever gets such a number next begins from nothing.
    pub(super) fn forget_flows(&mut self, wanted: &Wanted) {
        self.flows.rows.retain(|(pid, _), _| wanted.flows.contains(&Pid(*pid)));
        if self.wanted.flows.is_subset(&wanted.flows) {
            return;
        }
        let keys: Vec<FlowKey> = self.maps.flows.keys().filter_map(Result::ok).collect();
        for key in keys.iter().filter(|key| !wanted.flows.contains(&Pid(key.pid))) {
            self.forget_flow(key);
        }
        let pids: Vec<u32> = self.maps.flow_intake.keys().filter_map(Result::ok).collect();
        for pid in pids.into_iter().filter(|pid| !wanted.flows.contains(&Pid(*pid))) {
            if let Err(cause) = self.maps.flow_intake.remove(&pid) {
                tracing::debug!(%cause, pid, "forget what a process took in");
            }
        }
    }

    /// The counters of `key` as they were between two flushes; `None` when it has gone, or could not be had whole.
    fn whole(&self, key: &FlowKey) -> Option<FlowStats> {
        (0..READS)
            .filter_map(|_| self.maps.flows.get(key, 0).ok())
            .find(|stats| stats.version_begin == stats.version_end)
    }

    fn forget_flow(&mut self, key: &FlowKey) {
        match self.maps.flows.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(cause) => tracing::debug!(%cause, pid = key.pid, fd = key.fd, "forget a descriptor"),
        }
    }
}

/// Where a descriptor leads, as /proc shows it; all zero when the process has gone.
fn target(pid: u32, fd: u32) -> [u8; FLOW_TARGET_BYTES] {
    use std::os::unix::ffi::OsStrExt as _;
    let mut target = [0; FLOW_TARGET_BYTES];
    if let Ok(path) = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")) {
        for (to, from) in target.iter_mut().zip(path.as_os_str().as_bytes()) {
            *to = *from;
        }
    }
    target
}
