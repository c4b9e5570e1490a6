//! Where the code of processes is mapped: addresses in, places in files out. Learns it from `/proc` while a process lives,
//! and from what the source told of it; remembers a bounded number of processes after they have ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use procfs::process::{MMPermissions, MMapPath, Process as ProcProcess};

use crate::event::Mapping;
use crate::units::{Nanos, Pid};

/// Processes that are remembered.
const MOST_PROCESSES: usize = 2048;
/// Code mappings of one process; a process with more keeps its lowest.
const MOST_MAPPINGS: usize = 4096;
/// The mappings of one process are read anew no more often than this.
const AGE: Nanos = Nanos::from_millis(500);

/// What lies at a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Backing {
    /// A file.
    File {
        /// Device as the process sees it.
        dev: u64,
        /// Inode.
        inode: u64,
        /// Path in the mount namespace of the process.
        path: Arc<str>,
    },
    /// The code that the kernel lends to every process.
    Vdso,
    /// Memory: code made at run time.
    Anonymous,
}

/// A mapping of code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CodeMapping {
    pub(super) begin: u64,
    pub(super) end: u64,
    /// Where in the file it begins.
    pub(super) offset: u64,
    pub(super) backing: Backing,
}

impl CodeMapping {
    /// Place in the file, or in the memory that is mapped.
    pub(super) fn place(&self, address: u64) -> u64 {
        address.wrapping_sub(self.begin).wrapping_add(self.offset)
    }

    /// How it is called where there is no name.
    pub(super) fn module(&self) -> &str {
        match &self.backing {
            Backing::File { path, .. } => {
                let name = path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path);
                name.strip_suffix(" (deleted)").unwrap_or(name)
            }
            Backing::Vdso => "[vdso]",
            Backing::Anonymous => "jit",
        }
    }
}

/// One process.
#[derive(Debug, Default)]
pub(super) struct ProcessSpace {
    /// Tells a process from another with its number, and a program from the one before it.
    identity: Option<Identity>,
    /// Sorted by address.
    mappings: Vec<CodeMapping>,
    read: Option<Nanos>,
    used: Nanos,
}

impl ProcessSpace {
    pub(super) fn find(&self, address: u64) -> Option<&CodeMapping> {
        let after = self.mappings.partition_point(|m| m.begin <= address);
        self.mappings.get(after.checked_sub(1)?).filter(|m| address < m.end)
    }

    /// Puts a mapping over whatever lay there before. Says whether that was something else.
    fn cover(&mut self, mapping: CodeMapping) -> Now {
        if self.find(mapping.begin) == Some(&mapping) {
            return Now::Same;
        }
        let before = self.mappings.len();
        self.mappings.retain(|m| m.end <= mapping.begin || m.begin >= mapping.end);
        let lay_there = if self.mappings.len() < before { Now::Another } else { Now::Same };
        if self.mappings.len() < MOST_MAPPINGS {
            let at = self.mappings.partition_point(|m| m.begin < mapping.begin);
            self.mappings.insert(at, mapping);
        }
        lay_there
    }

    pub(super) fn is_known(&self) -> bool {
        !self.mappings.is_empty()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    start_ticks: u64,
    /// Where code and stack begin: another program of the same process lies elsewhere.
    code: u64,
    stack: u64,
}

/// Whether a process is still what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Now {
    /// Nothing is known to have changed.
    Same,
    /// Another process has its number, or it runs another program.
    Another,
}

/// The processes.
#[derive(Debug, Default)]
pub(super) struct Spaces {
    processes: BTreeMap<Pid, ProcessSpace>,
}

impl Spaces {
    /// Looks whether `pid` is still what it was, and reads its mappings unless it has ended.
    pub(super) fn visit(&mut self, pid: Pid, now: Nanos) -> Now {
        self.make_room();
        let process = i32::try_from(pid.0).ok().and_then(|pid| ProcProcess::new(pid).ok());
        let stat = process.as_ref().and_then(|process| process.stat().ok());
        let space = self.processes.entry(pid).or_default();
        space.used = now;
        let (Some(process), Some(stat)) = (process, stat) else { return Now::Same };
        let identity = Identity { start_ticks: stat.starttime, code: stat.startcode, stack: stat.startstack };
        let another = space.identity.is_some_and(|before| before != identity);
        if space.identity.is_some_and(|before| before.start_ticks != identity.start_ticks) {
            *space = ProcessSpace { used: now, ..ProcessSpace::default() };
        }
        // What the program before it had mapped stays beside the new: samples of it may still come.
        space.identity = Some(identity);
        // What the source told is enough; what an address is missing in is looked at again.
        if another || space.mappings.is_empty() {
            read(space, &process, now);
        }
        if another { Now::Another } else { Now::Same }
    }

    /// Reads the mappings of a living process anew: a library may have been loaded since.
    pub(super) fn look_again(&mut self, pid: Pid, now: Nanos) {
        let Some(space) = self.processes.get_mut(&pid) else { return };
        if space.read.is_some_and(|read| now.since(read) < AGE) {
            return;
        }
        if let Some(process) = i32::try_from(pid.0).ok().and_then(|pid| ProcProcess::new(pid).ok()) {
            read(space, &process, now);
        }
    }

    pub(super) fn get(&self, pid: Pid) -> Option<&ProcessSpace> {
        self.processes.get(&pid)
    }

    /// Notes a mapping that the source told of. What it tells later covers what it told before: says whether it did.
    pub(super) fn learn(&mut self, mapping: &Mapping, now: Nanos) -> Now {
        self.make_room();
        if mapping.begin >= mapping.end {
            return Now::Same;
        }
        let space = self.processes.entry(mapping.pid).or_default();
        space.used = now;
        let path: Arc<str> = String::from_utf8_lossy(&mapping.path).into();
        let backing = match &*path {
            "[vdso]" => Backing::Vdso,
            "" => Backing::Anonymous,
            _ => Backing::File { dev: mapping.dev, inode: mapping.inode, path },
        };
        space.cover(CodeMapping { begin: mapping.begin, end: mapping.end, offset: mapping.offset, backing })
    }

    /// The longest unused half goes when it is full: which processes have ended is told by nobody here.
    fn make_room(&mut self) {
        if self.processes.len() < MOST_PROCESSES {
            return;
        }
        let mut used: Vec<Nanos> = self.processes.values().map(|space| space.used).collect();
        used.sort_unstable();
        let median = used.get(used.len() / 2).copied().unwrap_or_default();
        self.processes.retain(|_, space| space.used > median);
    }
}

fn read(space: &mut ProcessSpace, process: &ProcProcess, now: Nanos) {
    let Ok(maps) = process.maps() else { return };
    let code = maps.into_iter().filter(|map| map.perms.contains(MMPermissions::EXECUTE)).filter_map(|map| {
        let backing = match map.pathname {
            // Shared memory that is executable is where some runtimes put what they compile.
            MMapPath::Path(path) if path.starts_with("/memfd:") || path.starts_with("/dev/zero") => Backing::Anonymous,
            MMapPath::Path(path) => {
                let (major, minor) = map.dev;
                let dev = rustix::fs::makedev(u32::try_from(major).ok()?, u32::try_from(minor).ok()?);
                Backing::File { dev, inode: map.inode, path: path.to_string_lossy().into() }
            }
            MMapPath::Vdso => Backing::Vdso,
            MMapPath::Vsyscall => return None,
            _ => Backing::Anonymous,
        };
        Some(CodeMapping { begin: map.address.0, end: map.address.1, offset: offset(&backing, map.offset), backing })
    });
    // A process that is just ending shows none; what was known of it still holds.
    for mapping in code.take(MOST_MAPPINGS) {
        space.cover(mapping);
        space.read = Some(now);
    }
}

/// Only files are counted from their beginning.
fn offset(backing: &Backing, offset: u64) -> u64 {
    if matches!(backing, Backing::File { .. }) { offset } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(pid: u32, begin: u64, end: u64, path: &[u8]) -> Mapping {
        Mapping { pid: Pid(pid), begin, end, offset: 0x1000, dev: 1, inode: 2, build_id: [].into(), path: path.into() }
    }

    #[test]
    fn an_address_of_an_ended_process_is_placed_by_what_was_told_of_it() {
        let mut spaces = Spaces::default();
        let pid = Pid(u32::MAX);
        spaces.learn(&mapping(pid.0, 0x5000, 0x7000, b"/usr/bin/app (deleted)"), Nanos(1));
        spaces.learn(&mapping(pid.0, 0x9000, 0x9000, b"/never"), Nanos(1));
        assert_eq!(spaces.visit(pid, Nanos(2)), Now::Same);
        let space = spaces.get(pid).unwrap();
        let found = space.find(0x5010).unwrap();
        assert_eq!((found.module(), found.place(0x5010)), ("app", 0x1010));
        assert!(space.find(0x7000).is_none() && space.find(0x4fff).is_none() && space.find(0x9000).is_none());
    }

    #[test]
    fn what_is_told_later_covers_what_was_told_before() {
        let mut spaces = Spaces::default();
        spaces.learn(&mapping(1, 0x5000, 0x7000, b"/old"), Nanos(1));
        spaces.learn(&mapping(1, 0x6000, 0x8000, b"/new"), Nanos(2));
        let space = &spaces.processes[&Pid(1)];
        assert_eq!(space.find(0x6500).unwrap().module(), "new");
        assert_eq!(space.mappings.len(), 1);
    }

    #[test]
    fn processes_are_bounded_and_those_used_last_stay() {
        let mut spaces = Spaces::default();
        for pid in 0..10_000 {
            spaces.learn(&mapping(pid, 0x5000, 0x7000, b"/app"), Nanos(u64::from(pid)));
        }
        assert!(spaces.processes.len() <= MOST_PROCESSES && spaces.get(Pid(9_999)).is_some());
    }

    #[test]
    fn this_process_is_found_in_its_own_file() {
        let mut spaces = Spaces::default();
        let pid = Pid(std::process::id());
        spaces.visit(pid, Nanos(1));
        let here = this_process_is_found_in_its_own_file as fn() as usize as u64;
        let found = spaces.get(pid).unwrap().find(here).unwrap();
        assert!(matches!(&found.backing, Backing::File { inode, .. } if *inode > 0), "{found:?}");
    }
}
