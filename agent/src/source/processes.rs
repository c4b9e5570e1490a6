//! Who the processes are that other records speak of: one `Process` record for each, when it is first seen.

use std::collections::HashMap;

use procfs::process::Process as ProcProcess;

use crate::event::{Comm, Process, RawBatch, encode};
use crate::units::{Nanos, Pid};

/// Processes that were told already. Bounded: it is emptied when it is full, and the records are sent again.
#[derive(Debug, Default)]
pub struct Processes {
    told: HashMap<Pid, u64>,
}

const MOST: usize = 16_384;

impl Processes {
    /// Appends a record for `pid` unless it was told before or has ended.
    pub fn tell(&mut self, pid: Pid, now: Nanos, batch: &mut RawBatch) {
        if self.told.contains_key(&pid) {
            return;
        }
        if self.told.len() >= MOST {
            self.told.clear();
        }
        if let Some(process) = look_up(pid) {
            self.told.insert(pid, process.start_ticks);
            encode::process(batch, now, &process);
        }
    }

    /// Forgets everything that has ended or whose number has passed to another process.
    pub fn sweep(&mut self) {
        self.told.retain(|pid, start| look_up(*pid).is_some_and(|p| p.start_ticks == *start));
    }
}

/// A process by its number, `None` when there is none.
pub fn look_up(pid: Pid) -> Option<Process> {
    let stat = ProcProcess::new(i32::try_from(pid.0).ok()?).ok()?.stat().ok()?;
    let mut comm = [0; agent_common::COMM_BYTES];
    for (to, from) in comm.iter_mut().zip(stat.comm.bytes().take(agent_common::COMM_BYTES - 1)) {
        *to = from;
    }
    Some(Process { pid, start_ticks: stat.starttime, comm: Comm(comm) })
}
