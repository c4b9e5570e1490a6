//! What watched processes use and wait for, from /proc and the cgroup hierarchy: resident memory, run-queue delay, pressure.
//! What this host does not tell is marked as not told, never as nothing.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use agent_common::{NOT_TOLD, UsageRow};

use super::cgroups::hierarchy;
use crate::event::{RawBatch, encode};
use crate::source::threads::Scheduled;
use crate::units::{Nanos, Pid};

/// Ticks after which the cgroup of a process is looked up again: processes are moved seldom.
const LOOK_AGAIN: u32 = 100;

/// The files of pressure, and which of their lines comes first.
const FILES: [&str; 3] = ["cpu", "memory", "io"];

/// Reads what watched processes use.
#[derive(Debug)]
pub struct Usages {
    hierarchy: Option<PathBuf>,
    page: u64,
    groups: HashMap<Pid, (u32, Option<PathBuf>)>,
}

impl Default for Usages {
    fn default() -> Self {
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4_096);
        Self { hierarchy: hierarchy(Path::new("/proc/self/mounts")), page, groups: HashMap::new() }
    }
}

impl Usages {
    /// Appends a row for each process in `scheduled` that lives.
    pub fn append(&mut self, scheduled: &BTreeMap<Pid, Scheduled>, now: Nanos, batch: &mut RawBatch) {
        self.groups.retain(|pid, _| scheduled.contains_key(pid));
        if scheduled.is_empty() {
            return;
        }
        let host = pressure(Path::new("/proc/pressure"), str::to_owned);
        for (pid, Scheduled { delay_ns, .. }) in scheduled {
            let Some(resident) = resident(*pid, self.page) else { continue };
            let group =
                self.group(*pid).map_or([NOT_TOLD; 6], |path| pressure(&path, |what| format!("{what}.pressure")));
            let row = UsageRow { pid: pid.0, reserved: 0, resident, run_delay_ns: *delay_ns, host, group };
            encode::usage(batch, now, &row);
        }
    }

    /// Directory of the cgroup that a process is in; none where it is in the root, whose pressure is the host's.
    fn group(&mut self, pid: Pid) -> Option<PathBuf> {
        let known = self.groups.get_mut(&pid).filter(|(age, _)| *age < LOOK_AGAIN);
        if let Some((age, path)) = known {
            *age += 1;
            return path.clone();
        }
        let found = self.hierarchy.as_deref().and_then(|root| {
            let lines = fs::read_to_string(format!("/proc/{}/cgroup", pid.0)).ok()?;
            let path = lines.lines().find_map(|line| line.strip_prefix("0::/"))?;
            (!path.is_empty()).then(|| root.join(path))
        });
        self.groups.insert(pid, (0, found.clone()));
        found
    }
}

/// Resident memory, bytes; nothing when the process has gone.
fn resident(pid: Pid, page: u64) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{}/statm", pid.0)).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(page))
}

/// Totals of pressure, microseconds, from the files in `directory`.
fn pressure(directory: &Path, name: impl Fn(&str) -> String) -> [u64; 6] {
    let mut totals = [NOT_TOLD; 6];
    for (place, what) in FILES.iter().enumerate() {
        let Ok(text) = fs::read_to_string(directory.join(name(what))) else { continue };
        for (total, word) in totals[2 * place..].iter_mut().zip(["some", "full"]) {
            *total = total_of(&text, word).unwrap_or(NOT_TOLD);
        }
    }
    totals
}

fn total_of(text: &str, word: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(word))?;
    line.split_whitespace().find_map(|field| field.strip_prefix("total="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: &str = "some avg10=98.09 avg60=98.52 avg300=98.35 total=12749803827\n\
                       full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";

    #[test]
    fn pressure_is_told_by_its_totals_and_a_file_that_is_missing_is_not_nothing() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("cpu.pressure"), CPU).unwrap();
        // Before 5.13 there is no `full` of a CPU.
        fs::write(directory.path().join("io.pressure"), "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n").unwrap();
        let totals = pressure(directory.path(), |what| format!("{what}.pressure"));
        assert_eq!(totals, [12_749_803_827, 0, NOT_TOLD, NOT_TOLD, 7, NOT_TOLD]);
        assert_eq!(total_of("some total=x", "some"), None);
    }

    #[test]
    fn this_process_uses_memory_and_one_that_has_gone_is_not_told_of() {
        let me = Pid(std::process::id());
        assert!(resident(me, 4_096).unwrap() > 1 << 20);
        assert_eq!(resident(Pid(u32::MAX), 4_096), None);
        let mut batch = RawBatch::new();
        let scheduled = Scheduled { threads: 1, switches: 0, delay_ns: 7 };
        Usages::default().append(&[(me, scheduled), (Pid(u32::MAX), scheduled)].into(), Nanos(1), &mut batch);
        assert_eq!(crate::event::Decoder::new(batch.bytes()).count(), 1);
    }
}
