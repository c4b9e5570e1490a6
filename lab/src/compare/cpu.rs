//! Who uses the processors: process numbers in, CPU time of ours and of everybody else out. Kernel threads count as ours:
//! what they do in a quiet block, they do for our files and sockets.

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread::available_parallelism;

use tidegate_client::{Nanos, clock};

/// Length of the kernel's tick in `/proc`: `USER_HZ` is 100 everywhere.
const TICK_NS: u64 = 10_000_000;
/// Process that all kernel threads are children of.
const KTHREADD: u32 = 2;

/// Processors for two kinds of work, so that a generator never takes the CPU of what it loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cpus {
    /// For pipelines.
    pub(crate) pipelines: String,
    /// For loads and sinks.
    pub(crate) loads: String,
}

impl Cpus {
    /// Half of them for each; `None` where there is only one.
    pub(crate) fn divide() -> Option<Self> {
        let count = available_parallelism().map_or(1, std::num::NonZero::get);
        let list = |range: std::ops::Range<usize>| range.map(|c| c.to_string()).collect::<Vec<_>>().join(",");
        (count >= 2).then(|| Self { pipelines: list(0..count / 2), loads: list(count / 2..count) })
    }
}

/// CPU time at one instant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    at: Nanos,
    busy: u64,
    ours: u64,
}

impl Reading {
    /// Of now; `roots` and all that descends from them is ours.
    pub(crate) fn take(roots: &[u32]) -> Option<Self> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let mut processes = HashMap::new();
        for entry in fs::read_dir("/proc").ok()?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let text = fs::read_to_string(entry.path().join("stat"));
            if let Some(process) = text.ok().as_deref().and_then(Process::parse) {
                processes.insert(pid, process);
            }
        }
        Some(Self { at: clock::monotonic(), busy: busy_ticks(&stat)?, ours: ticks_of(&processes, roots) })
    }

    /// Share of all processors that others took between `earlier` and this.
    #[expect(clippy::cast_precision_loss, reason = "ticks of a run")]
    pub(crate) fn foreign_since(&self, earlier: &Self) -> f64 {
        let cpus = available_parallelism().map_or(1, std::num::NonZero::get) as f64;
        let (busy, ours) = (self.busy.saturating_sub(earlier.busy), self.ours.saturating_sub(earlier.ours));
        let wall = (self.at - earlier.at).0.max(1) as f64;
        busy.saturating_sub(ours) as f64 * TICK_NS as f64 / wall / cpus
    }

    /// CPU time of ours since `earlier`, cores.
    #[expect(clippy::cast_precision_loss, reason = "ticks of a run")]
    pub(crate) fn cores_since(&self, earlier: &Self) -> f64 {
        let wall = (self.at - earlier.at).0.max(1) as f64;
        self.ours.saturating_sub(earlier.ours) as f64 * TICK_NS as f64 / wall
    }
}

/// What `/proc/PID/stat` tells.
struct Process {
    parent: u32,
    /// User and system time, that of children it has waited for included.
    ticks: u64,
}

/// Time of `roots`, of the kernel's threads, and of all that descends from either.
fn ticks_of(processes: &HashMap<u32, Process>, roots: &[u32]) -> u64 {
    let is_ours = |pid: u32| {
        let mut at = pid;
        // Nobody has so many ancestors; a table that was read while it changed may hold a circle.
        for _ in 0..64 {
            if at == KTHREADD || roots.contains(&at) {
                return true;
            }
            match processes.get(&at) {
                Some(process) => at = process.parent,
                None => return false,
            }
        }
        false
    };
    processes.iter().filter(|(pid, _)| is_ours(**pid)).map(|(_, process)| process.ticks).sum()
}

impl Process {
    fn parse(stat: &str) -> Option<Self> {
        // The name in brackets may hold anything, so fields are counted from its end.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        let mut ticks = fields.nth(9)?.parse::<u64>().ok()?;
        for field in fields.take(3) {
            ticks += field.parse::<u64>().ok()?;
        }
        Some(Self { parent, ticks })
    }
}

/// Time of processes, and time that a hypervisor took away; interrupts belong to nobody.
fn busy_ticks(stat: &str) -> Option<u64> {
    let fields: Vec<u64> =
        stat.lines().next()?.split_ascii_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
    let at = |i: usize| fields.get(i).copied();
    Some(at(0)? + at(1)? + at(2)? + at(7).unwrap_or(0))
}

/// Process behind a Unix socket, if somebody listens there.
pub(crate) fn owner_of(socket: &Path) -> Option<u32> {
    let stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(stream.as_fd()).ok()?;
    u32::try_from(peer.pid.as_raw_nonzero().get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_from_the_end_of_the_name() {
        let stat = "77 (a b) c) S 2 77 77 0 -1 69238880 0 0 0 0 11 31 5 3 20 0 1 0 9 0 0";
        let process = Process::parse(stat).unwrap();
        assert_eq!((process.parent, process.ticks), (2, 50));
        assert!(Process::parse("77 (a").is_none());
    }

    #[test]
    fn idle_and_interrupt_time_is_nobodys_and_stolen_time_is() {
        assert_eq!(busy_ticks("cpu  10 20 30 4000 50 60 70 8 0 0\ncpu0 1 1 1 1"), Some(68));
    }

    #[test]
    fn what_descends_from_ours_is_ours_and_nothing_else() {
        let process = |parent, ticks| Process { parent, ticks };
        let table = HashMap::from([
            (1, process(0, 1)),
            (2, process(0, 2)),
            (9, process(2, 4)),
            (50, process(1, 8)),
            (51, process(50, 16)),
            (52, process(51, 32)),
            (60, process(1, 64)),
            // Two that name each other as parents.
            (70, process(71, 128)),
            (71, process(70, 256)),
        ]);
        assert_eq!(ticks_of(&table, &[50]), 2 + 4 + 8 + 16 + 32);
    }

    #[test]
    fn own_work_is_not_foreign() {
        let own = [std::process::id()];
        let before = Reading::take(&own).unwrap();
        // By its own CPU time: how long that takes is the business of a busy machine.
        let end = clock::process_cpu() + Nanos::from_millis(100);
        let mut work = 0_u64;
        while clock::process_cpu() < end {
            work = std::hint::black_box(work.wrapping_add(1));
        }
        let after = Reading::take(&own).unwrap();
        assert!(after.ours >= before.ours + 8, "{} ticks of 10", after.ours - before.ours);
    }
}
