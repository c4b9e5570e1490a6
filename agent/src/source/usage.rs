//! What watched processes use and wait for, from /proc and the cgroup hierarchy: resident memory, run-queue delay, pressure.
//! What this host does not tell is marked as not told, never as nothing.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use agent_common::{NOT_TOLD, UsageRow};

use super::cgroups::hierarchy;
use super::reread::{LONGEST, Reread};
use crate::event::{RawBatch, encode};
use crate::source::threads::Scheduled;
use crate::units::{Nanos, Pid};

/// Ticks after which cgroups are looked up again, and the files of the host's pressure: processes are moved seldom.
const LOOK_AGAIN: u32 = 100;
/// Processes whose files are kept open, four each; those of others are opened at each tick.
const MOST_KEPT: usize = 64;

/// The files of pressure, and which of their lines comes first.
const FILES: [&str; 3] = ["cpu", "memory", "io"];

/// Reads what watched processes use.
#[derive(Debug)]
pub struct Usages {
    hierarchy: Option<PathBuf>,
    page: u64,
    host: Option<Pressure>,
    watched: HashMap<Pid, Watched>,
    ticks: u32,
}

/// One process.
#[derive(Debug)]
struct Watched {
    /// Directory of its cgroup; none where it is in the root, whose pressure is the host's.
    group: Option<PathBuf>,
    /// Its files, while they are kept open.
    files: Option<Files>,
    /// Tick at which the cgroup was looked up.
    since: u32,
}

#[derive(Debug)]
struct Files {
    memory: Reread,
    group: Option<Pressure>,
}

/// The files of pressure of a cgroup or of the host, those that there are.
#[derive(Debug)]
struct Pressure([Option<Reread>; 3]);

impl Default for Usages {
    fn default() -> Self {
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4_096);
        let hierarchy = hierarchy(Path::new("/proc/self/mounts"));
        Self { hierarchy, page, host: None, watched: HashMap::new(), ticks: 0 }
    }
}

impl Usages {
    /// Appends a row for each process in `scheduled` that lives.
    pub fn append(&mut self, scheduled: &BTreeMap<Pid, Scheduled>, now: Nanos, batch: &mut RawBatch) {
        let Self { hierarchy, page, host, watched, ticks } = self;
        *ticks = ticks.wrapping_add(1);
        watched.retain(|pid, known| scheduled.contains_key(pid) && ticks.wrapping_sub(known.since) < LOOK_AGAIN);
        if ticks.is_multiple_of(LOOK_AGAIN) {
            *host = None;
        }
        if scheduled.is_empty() {
            return;
        }
        let mut room = [0; LONGEST];
        let host = host.get_or_insert_with(|| Pressure::open(Path::new("/proc/pressure"), str::to_owned));
        let host = host.totals(&mut room);
        for (place, (pid, Scheduled { delay_ns, .. })) in scheduled.iter().enumerate() {
            let known = watched.entry(*pid).or_insert_with(|| Watched::look_up(*pid, hierarchy.as_deref(), *ticks));
            let files = known.files.take().or_else(|| Files::open(*pid, known.group.as_deref()));
            let told = files.and_then(|files| Some((files.resident(*page, &mut room)?, files)));
            let Some((resident, files)) = told else { continue };
            let group = files.group.as_ref().map_or([NOT_TOLD; 6], |group| group.totals(&mut room));
            let row = UsageRow { pid: pid.0, reserved: 0, resident, run_delay_ns: *delay_ns, host, group };
            encode::usage(batch, now, &row);
            known.files = (place < MOST_KEPT).then_some(files);
        }
    }
}

impl Watched {
    fn look_up(pid: Pid, hierarchy: Option<&Path>, tick: u32) -> Self {
        let group = hierarchy.and_then(|root| {
            let lines = fs::read_to_string(format!("/proc/{}/cgroup", pid.0)).ok()?;
            let path = lines.lines().find_map(|line| line.strip_prefix("0::/"))?;
            (!path.is_empty()).then(|| root.join(path))
        });
        Self { group, files: None, since: tick }
    }
}

impl Files {
    /// Nothing when the process has gone.
    fn open(pid: Pid, group: Option<&Path>) -> Option<Self> {
        let memory = Reread::open(format!("/proc/{}/statm", pid.0)).ok()?;
        Some(Self { memory, group: group.map(|path| Pressure::open(path, |what| format!("{what}.pressure"))) })
    }

    /// Resident memory, bytes; nothing when the process has gone.
    fn resident(&self, page: u64, room: &mut [u8; LONGEST]) -> Option<u64> {
        let pages: u64 = self.memory.text(room).ok()?.split_whitespace().nth(1)?.parse().ok()?;
        Some(pages.saturating_mul(page))
    }
}

impl Pressure {
    fn open(directory: &Path, name: impl Fn(&str) -> String) -> Self {
        Self(FILES.map(|what| Reread::open(directory.join(name(what))).ok()))
    }

    /// Totals, microseconds.
    fn totals(&self, room: &mut [u8; LONGEST]) -> [u64; 6] {
        let mut totals = [NOT_TOLD; 6];
        for (file, totals) in self.0.iter().zip(totals.chunks_exact_mut(2)) {
            let Some(Ok(text)) = file.as_ref().map(|file| file.text(room)) else { continue };
            for (total, word) in totals.iter_mut().zip(["some", "full"]) {
                *total = total_of(text, word).unwrap_or(NOT_TOLD);
            }
        }
        totals
    }
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
        let totals = Pressure::open(directory.path(), |what| format!("{what}.pressure")).totals(&mut [0; LONGEST]);
        assert_eq!(totals, [12_749_803_827, 0, NOT_TOLD, NOT_TOLD, 7, NOT_TOLD]);
        assert_eq!(total_of("some total=x", "some"), None);
    }

    #[test]
    fn this_process_uses_memory_and_one_that_has_gone_is_not_told_of() {
        let me = Pid(std::process::id());
        let files = Files::open(me, None).unwrap();
        assert!(files.resident(4_096, &mut [0; LONGEST]).unwrap() > 1 << 20);
        assert!(Files::open(Pid(u32::MAX), None).is_none());
        let mut batch = RawBatch::new();
        let scheduled = Scheduled { threads: 1, switches: 0, delay_ns: 7 };
        Usages::default().append(&[(me, scheduled), (Pid(u32::MAX), scheduled)].into(), Nanos(1), &mut batch);
        assert_eq!(crate::event::Decoder::new(batch.bytes()).count(), 1);
    }
}
