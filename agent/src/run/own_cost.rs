//! What the agent itself costs: its own entries in `/proc` in, CPU time and memory out. Asked once a second at most.

use procfs::process::Process;
use procfs::{CurrentSI as _, KernelStats};

use crate::serve::view::OwnCost;
use crate::units::{Nanos, Pid};

/// Time between two looks: they cost some ten microseconds each.
const EVERY: Nanos = Nanos::SECOND;

/// Remembers the newest look.
#[derive(Debug, Default)]
pub(super) struct OwnCostMeter {
    looked: Option<Nanos>,
    newest: OwnCost,
}

impl OwnCostMeter {
    /// The cost so far; `probes` is the run time of the probes where the kernel tells it.
    pub(super) fn read(&mut self, now: Nanos, probes: Option<Nanos>, child: Option<Pid>) -> OwnCost {
        if self.looked.is_none_or(|then| now.since(then) >= EVERY) {
            self.looked = Some(now);
            match look(child) {
                // A child that was replaced is counted a moment later, when it has been waited for: never less than before.
                Ok(cost) => {
                    let children_cpu_ns = cost.children_cpu_ns.max(self.newest.children_cpu_ns);
                    self.newest = OwnCost { children_cpu_ns, ..cost };
                }
                Err(error) => tracing::debug!(%error, "own cost could not be read"),
            }
        }
        self.newest.probes_ns = probes.map(|p| p.0);
        self.newest
    }
}

fn look(child: Option<Pid>) -> procfs::ProcResult<OwnCost> {
    let stat = Process::myself()?.stat()?;
    let tick_ns = Nanos::SECOND.0 / procfs::ticks_per_second().max(1);
    let ticks = |n: u64| n.saturating_mul(tick_ns);
    let lives = child.and_then(|pid| Process::new(i32::try_from(pid.0).ok()?).ok()?.stat().ok());
    let lives = lives.map_or(0, |stat| stat.utime + stat.stime);
    let ended = u64::try_from(stat.cutime + stat.cstime).unwrap_or(0);
    Ok(OwnCost {
        children_cpu_ns: ticks(lives.saturating_add(ended)),
        steal_ns: KernelStats::current().ok().and_then(|host| host.total.steal).map(ticks),
        user_cpu_ns: stat.utime.saturating_mul(tick_ns),
        system_cpu_ns: stat.stime.saturating_mul(tick_ns),
        resident_bytes: stat.rss.saturating_mul(procfs::page_size()),
        probes_ns: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_is_seen() {
        let cost = OwnCostMeter::default().read(Nanos(0), Some(Nanos(5)), None);
        assert!(cost.resident_bytes > 1 << 20, "{cost:?}");
        assert_eq!(cost.probes_ns, Some(5));
    }
}
