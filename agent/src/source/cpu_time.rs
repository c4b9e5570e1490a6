//! How much CPU time the kernel itself has charged: to a process with all its threads, ended ones included, to a cgroup, to
//! the whole host. The measure that samples are held against.

use std::path::Path;

use procfs::{CurrentSI as _, KernelStats};

use crate::units::{Nanos, Pid};

/// Of a process and its threads; `None` when it has gone.
pub fn of_process(pid: Pid) -> Option<Nanos> {
    let clock = nix::time::clock_getcpuclockid(nix::unistd::Pid::from_raw(i32::try_from(pid.0).ok()?)).ok()?;
    let time = nix::time::clock_gettime(clock).ok()?;
    let (seconds, nanos) = (u64::try_from(time.tv_sec()).ok()?, u64::try_from(time.tv_nsec()).ok()?);
    Some(Nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos)))
}

/// Of a process and of those below it that have ended and were waited for: these in clock ticks.
pub fn of_process_and_reaped(pid: Pid) -> Option<Nanos> {
    let stat = procfs::process::Process::new(i32::try_from(pid.0).ok()?).ok()?.stat().ok()?;
    let ticks = u64::try_from(stat.cutime.saturating_add(stat.cstime)).ok()?;
    Some(of_process(pid)? + Nanos(ticks.saturating_mul(1_000_000_000 / procfs::ticks_per_second())))
}

/// Of a cgroup (version 2) and those below it.
pub fn of_cgroup(directory: &Path) -> Option<Nanos> {
    let text = std::fs::read_to_string(directory.join("cpu.stat")).ok()?;
    let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    Some(Nanos::from_micros(usage.trim().parse().ok()?))
}

/// Of all CPUs together but for idle time, in clock ticks; time that other machines stole is none.
pub fn of_host() -> Option<Nanos> {
    let total = KernelStats::current().ok()?.total;
    let parts = [total.user, total.nice, total.system, total.irq.unwrap_or(0), total.softirq.unwrap_or(0)];
    let ticks: u64 = parts.iter().sum();
    Some(Nanos(ticks.saturating_mul(1_000_000_000 / procfs::ticks_per_second())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_is_charged_for_it_and_one_that_is_not_there_for_nothing() {
        let own = Pid(std::process::id());
        let before = of_process(own).unwrap();
        let mut sum = 0_u64;
        while of_process(own).unwrap().since(before) < Nanos::from_millis(5) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert_eq!(of_process(Pid(u32::MAX)), None);
        assert_eq!(of_cgroup(Path::new("/nowhere")), None);
        assert!(of_host().unwrap() > Nanos(0));
    }
}
