//! What the agent itself costs: its own entries in `/proc` in, CPU time and memory out. Asked once a second at most.

use procfs::process::Process;

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
    /// The cost so far; `probes` is the run time of the probes where the kernel tells it, `symbolizer` a child that works.
    pub(super) fn read(&mut self, now: Nanos, probes: Option<Nanos>, symbolizer: Option<Pid>) -> OwnCost {
        if self.looked.is_none_or(|then| now.since(then) >= EVERY) {
            self.looked = Some(now);
            match look(symbolizer) {
                Ok(cost) => self.newest = cost,
                Err(error) => tracing::debug!(%error, "own cost could not be read"),
            }
        }
        self.newest.probes_ns = probes.map(|p| p.0);
        self.newest
    }
}

/// A child counts while it lives by itself, and by the sums of its parent once it has been waited for.
fn look(symbolizer: Option<Pid>) -> procfs::ProcResult<OwnCost> {
    let stat = Process::myself()?.stat()?;
    let child = symbolizer.and_then(|pid| Process::new(i32::try_from(pid.0).ok()?).ok()?.stat().ok());
    let (child_user, child_system, child_pages) = child.map_or((0, 0, 0), |c| (c.utime, c.stime, c.rss));
    let ended = |ticks: i64| u64::try_from(ticks).unwrap_or(0);
    let tick_ns = Nanos::SECOND.0 / procfs::ticks_per_second().max(1);
    Ok(OwnCost {
        user_cpu_ns: (stat.utime + ended(stat.cutime) + child_user).saturating_mul(tick_ns),
        system_cpu_ns: (stat.stime + ended(stat.cstime) + child_system).saturating_mul(tick_ns),
        resident_bytes: stat.rss.saturating_mul(procfs::page_size()),
        symbolizer_bytes: child_pages.saturating_mul(procfs::page_size()),
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
