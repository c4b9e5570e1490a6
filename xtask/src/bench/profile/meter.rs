//! What a program and all its children cost: CPU time to the nanosecond, run time of their BPF programs, memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// Readings that rise, and levels.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    /// CPU time of the processes, ended threads included.
    pub(super) cpu_ns: u64,
    /// Run time of their BPF programs, which is charged to whoever they interrupt.
    pub(super) bpf_ns: u64,
    /// How often they ran.
    pub(super) bpf_runs: u64,
    /// Resident memory.
    pub(super) rss_bytes: u64,
    /// Memory of their BPF maps.
    pub(super) map_bytes: u64,
}

/// Reads the cost of `root` and all that descend from it. Waits for nothing.
pub(super) fn read(root: u32) -> Cost {
    let mut cost = Cost::default();
    let mut programs = BTreeMap::new();
    let mut maps = BTreeMap::new();
    for pid in family(root) {
        cost.cpu_ns += cpu_time(pid).unwrap_or(0);
        cost.rss_bytes += status_kib(pid, "VmRSS:").unwrap_or(0) * 1024;
        let Ok(entries) = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fdinfo")) else { continue };
        for text in entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok()) {
            if let (Some(id), Some(time)) = (field(&text, "prog_id:"), field(&text, "run_time_ns:")) {
                programs.insert(id, (time, field(&text, "run_cnt:").unwrap_or(0)));
            } else if let (Some(id), Some(bytes)) = (field(&text, "map_id:"), field(&text, "memlock:")) {
                maps.insert(id, bytes);
            }
        }
    }
    cost.bpf_ns = programs.values().map(|(time, _)| time).sum();
    cost.bpf_runs = programs.values().map(|(_, runs)| runs).sum();
    cost.map_bytes = maps.values().sum();
    cost
}

/// CPU time of the programs that this one has started and waited for.
pub(super) fn of_ended() -> Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("ask for the CPU time of ended programs")?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(u64::try_from(micros).unwrap_or(0) * 1_000)
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn cpu_time(pid: u32) -> Option<u64> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid).ok()?)).ok()?;
    let time = clock.now().ok()?;
    u64::try_from(time.tv_sec()).ok()?.checked_mul(1_000_000_000)?.checked_add(u64::try_from(time.tv_nsec()).ok()?)
}

fn status_kib(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// `root` and its descendants.
fn family(root: u32) -> BTreeSet<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name may hold anything, parentheses too: what follows the last one is numbers.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let mut family = BTreeSet::from([root]);
    loop {
        let before = family.len();
        family.extend(
            parents.iter().filter(|(_, parent)| family.contains(parent)).map(|(pid, _)| *pid).collect::<Vec<_>>(),
        );
        if family.len() == before {
            return family;
        }
    }
}

/// Keeps the kernel's statistics of BPF run time on, and puts the switch back.
pub(super) struct BpfStatistics {
    before: String,
}

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl BpfStatistics {
    pub(super) fn on() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("read {SWITCH}"))?;
        fs::write(SWITCH, "1").with_context(|| format!("write {SWITCH}"))?;
        Ok(Self { before })
    }
}

impl Drop for BpfStatistics {
    fn drop(&mut self) {
        // Whoever cannot write it back could not have switched it on.
        fs::write(SWITCH, self.before.trim()).ok();
    }
}
