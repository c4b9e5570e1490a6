//! Looks addresses up while their process still lives, and keeps what it found.
//!
//! A caller's frame is a return address: it is looked up one byte earlier, inside the call, or the last call of a
//! function would be charged to its neighbour.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use blazesym::Pid as BlazePid;
use blazesym::symbolize::source::{Kernel, Process, Source};
use blazesym::symbolize::{Input, Reason, Symbolized, Symbolizer};
use procfs::process::MMapPath;

use super::names::{Names, Space};
use crate::aggregate::stacks::StackCounts;
use crate::source::processes;
use crate::units::Pid;

/// Addresses kept; the table is emptied when it is full, and what is still needed is looked up again.
const MOST_ADDRESSES: usize = 400_000;

/// Rounds without a new address after which what was read of the symbol files is let go: the symbols of one big binary
/// take more memory than the rest of the agent.
const IDLE_ROUNDS: u32 = 10;

/// Fills a [`Names`].
pub struct Resolver {
    symbolizer: Symbolizer,
    idle_rounds: u32,
    names: Names,
    starts: BTreeMap<Pid, u64>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("addresses", &self.names.len()).finish_non_exhaustive()
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

impl Resolver {
    /// An empty table.
    pub fn new() -> Self {
        Self { symbolizer: symbolizer(), idle_rounds: 0, names: Names::default(), starts: BTreeMap::new() }
    }

    /// What is known.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Looks up every address of `counts` that is not known yet.
    pub fn resolve(&mut self, counts: &StackCounts) {
        if self.names.len() > MOST_ADDRESSES {
            self.names = Names::default();
        }
        let mut wanted: BTreeMap<Space, BTreeSet<u64>> = BTreeMap::new();
        for key in counts.counts.keys() {
            let user = Space::User(key.pid);
            for (space, address) in frames(&key.kernel, Space::Kernel).chain(frames(&key.user, user)) {
                if self.names.get(space, address).is_none() {
                    wanted.entry(space).or_default().insert(address);
                }
            }
        }
        self.idle_rounds = if wanted.is_empty() { self.idle_rounds + 1 } else { 0 };
        if self.idle_rounds == IDLE_ROUNDS {
            self.symbolizer = symbolizer();
        }
        for (space, addresses) in wanted {
            let addresses: Vec<u64> = addresses.into_iter().collect();
            match space {
                Space::Kernel => self.kernel(&addresses),
                Space::User(pid) => self.process(pid, &addresses),
            }
        }
    }

    fn kernel(&mut self, addresses: &[u64]) {
        let source = Source::Kernel(Kernel { debug_syms: false, ..Kernel::default() });
        let found = self.symbolizer.symbolize(&source, Input::AbsAddr(addresses));
        let found = found.unwrap_or_else(|cause| {
            tracing::warn!(%cause, "no kernel names (reading /proc/kallsyms needs CAP_SYSLOG)");
            Vec::new()
        });
        let mut found = found.into_iter();
        for address in addresses {
            let frames = match found.next() {
                Some(Symbolized::Sym(sym)) => vec![sym.name.into_owned()],
                // Never the address: it would tell where the kernel lies.
                Some(Symbolized::Unknown(_)) | None => vec!["vmlinux+0x?".to_owned()],
            };
            self.names.insert(Space::Kernel, *address, frames);
        }
    }

    fn process(&mut self, pid: Pid, addresses: &[u64]) {
        let start = processes::look_up(pid).map(|p| p.start_ticks);
        if let Some(start) = start
            && self.starts.insert(pid, start).is_some_and(|before| before != start)
        {
            self.names.forget(pid);
        }
        let maps = Maps::read(pid);
        let found = if start.is_some() { look_up(&self.symbolizer, pid, addresses) } else { Vec::new() };
        let mut found = found.into_iter();
        for address in addresses {
            let frames = match found.next() {
                Some(Symbolized::Sym(sym)) => {
                    let inlined = sym.inlined.iter().map(|f| f.name.clone().into_owned());
                    std::iter::once(sym.name.into_owned()).chain(inlined).collect()
                }
                Some(Symbolized::Unknown(_)) | None => vec![maps.module_and_offset(*address)],
            };
            self.names.insert(Space::User(pid), *address, frames);
        }
    }
}

fn symbolizer() -> Symbolizer {
    // Line numbers are never shown, and reading them costs most of the time.
    Symbolizer::builder().enable_code_info(false).enable_inlined_fns(true).build()
}

/// One file that cannot be read fails a whole batch. Then debug information is done without, and then the addresses
/// are asked one by one, so that only those of that file stay without a name.
fn look_up<'a>(symbolizer: &'a Symbolizer, pid: Pid, addresses: &[u64]) -> Vec<Symbolized<'a>> {
    let mut process = Process::new(BlazePid::from(pid.0));
    // A map of a JIT lies in /tmp and is written by anybody; it waits for a sandbox.
    process.perf_map = false;
    let whole = symbolizer.symbolize(&Source::Process(process.clone()), Input::AbsAddr(addresses));
    whole.unwrap_or_else(|cause| {
        tracing::debug!(%cause, %pid, "symbolize with debug information");
        process.debug_syms = false;
        let source = Source::Process(process);
        let each = addresses.iter().map(|address| {
            let found = symbolizer.symbolize_single(&source, Input::AbsAddr(*address));
            found.unwrap_or(Symbolized::Unknown(Reason::IgnoredError))
        });
        each.collect()
    })
}

/// Nothing is ever mapped below this: a frame pointer chain that leads there has ended.
const LOWEST_ADDRESS: u64 = 4096;

/// The addresses under which the frames of a stack are looked up: the innermost as it is, callers one byte earlier.
pub fn frames(stack: &[u64], space: Space) -> impl Iterator<Item = (Space, u64)> + '_ {
    stack.iter().enumerate().filter_map(move |(at, address)| place(at, *address, space))
}

/// The address under which frame number `at` of a stack is looked up; none where a chain of frame pointers has ended.
pub fn place(at: usize, address: u64, space: Space) -> Option<(Space, u64)> {
    let address = if at == 0 { address } else { address.saturating_sub(1) };
    (address >= LOWEST_ADDRESS).then_some((space, address))
}

/// Where the files of a process are mapped.
struct Maps {
    modules: Vec<(Range<u64>, u64, String)>,
}

impl Maps {
    fn read(pid: Pid) -> Self {
        let maps = i32::try_from(pid.0).ok().and_then(|pid| procfs::process::Process::new(pid).ok()?.maps().ok());
        let modules = maps.into_iter().flatten().map(|map| {
            let name = match &map.pathname {
                MMapPath::Path(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                MMapPath::Vdso => "[vdso]".to_owned(),
                MMapPath::Heap => "[heap]".to_owned(),
                MMapPath::Stack | MMapPath::TStack(_) => "[stack]".to_owned(),
                _ => "[anonymous]".to_owned(),
            };
            (map.address.0..map.address.1, map.offset, name)
        });
        Self { modules: modules.collect() }
    }

    /// `module+0xoffset` in its file; `ended+0x…` when the process has gone and nobody can tell any more.
    fn module_and_offset(&self, address: u64) -> String {
        match self.modules.iter().find(|(range, _, _)| range.contains(&address)) {
            Some((range, offset, name)) => format!("{name}+{:#x}", address - range.start + offset),
            None if self.modules.is_empty() => format!("ended+{address:#x}"),
            None => format!("unmapped+{address:#x}"),
        }
    }
}
