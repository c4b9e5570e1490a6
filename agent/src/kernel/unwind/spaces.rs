//! Which process has what mapped, now and a moment ago: facts in, address spaces out. Forked processes share a space until
//! one of them maps something. Plain computation: no file, no process and no clock is looked at here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::sideband::Mapped;
use crate::units::Nanos;

/// A mapping of executable code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    /// First address.
    pub(super) begin: u64,
    /// Address after the last.
    pub(super) end: u64,
    /// Offset in the file.
    pub(super) offset: u64,
    /// What is mapped.
    pub(super) code: Code,
}

/// What a mapping shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// A file, by its number among the files.
    File(u32),
    /// No file: made at run time.
    Anonymous,
}

/// The number of an address space.
pub(super) type SpaceId = u64;

/// What one address space has mapped, sorted and without overlaps.
#[derive(Clone, Debug, Default)]
pub(super) struct Space {
    mappings: Arc<Vec<Mapping>>,
    /// Processes that have it now.
    pids: BTreeSet<u32>,
    /// Processes that had it a moment ago.
    past: u32,
}

#[derive(Debug)]
struct Process {
    space: SpaceId,
    /// Spaces that it had, and until when, oldest first.
    past: Vec<(Nanos, SpaceId)>,
    ended: Option<Nanos>,
}

/// All address spaces.
#[derive(Debug, Default)]
pub(super) struct Spaces {
    processes: HashMap<u32, Process>,
    all: BTreeMap<SpaceId, Space>,
    next: SpaceId,
    changed: BTreeSet<SpaceId>,
    gone: Vec<u32>,
}

/// What has to be told to the kernel side.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Spaces whose mappings changed, or that are gone.
    pub(super) spaces: BTreeSet<SpaceId>,
    /// Processes that are known no more.
    pub(super) gone: Vec<u32>,
}

/// Most mappings of one process, which the kernel side can search; more are left out.
pub(super) const MOST_MAPPINGS: usize = 4_095;
/// Most processes that are followed.
pub(super) const MOST_PROCESSES: usize = 32_768;

impl Spaces {
    /// Whether `pid` is known.
    pub(super) fn knows(&self, pid: u32) -> bool {
        self.processes.get(&pid).is_some_and(|p| p.ended.is_none())
    }

    /// A process was born; the kernel side has let it share its parent's mappings already. False when its parent is not
    /// known: whoever wants to know has to look.
    pub(super) fn fork(&mut self, time: Nanos, pid: u32, parent: u32) -> bool {
        let Some(space) = self.processes.get(&parent).map(|p| p.space) else {
            self.remove(pid);
            return false;
        };
        self.enter(time, pid, space);
        true
    }

    /// A process replaced its program.
    pub(super) fn exec(&mut self, time: Nanos, pid: u32) {
        let space = self.fresh(Vec::new());
        self.enter(time, pid, space);
    }

    /// The mappings of a process were read whole.
    pub(super) fn set(&mut self, time: Nanos, pid: u32, mut mappings: Vec<Mapping>) {
        mappings.sort_by_key(|m| m.begin);
        mappings.truncate(MOST_MAPPINGS);
        let space = self.fresh(mappings);
        self.enter(time, pid, space);
    }

    /// A process mapped code. False when it is not known.
    pub(super) fn map(&mut self, pid: u32, mapping: Mapping) -> bool {
        let Some(process) = self.processes.get_mut(&pid) else { return false };
        let Some(space) = self.all.get_mut(&process.space) else { return false };
        if space.mappings.contains(&mapping) {
            return true; // Told twice: by a look and by the kernel.
        }
        if space.pids.len() > 1 || space.past > 0 {
            // Others share it: from here on this process has one of its own.
            space.pids.remove(&pid);
            let mut own = space.mappings.as_ref().clone();
            insert(&mut own, mapping);
            let id = self.next;
            self.next += 1;
            process.space = id;
            self.all.insert(id, Space { mappings: Arc::new(own), pids: [pid].into(), past: 0 });
            self.changed.insert(id);
        } else {
            insert(Arc::make_mut(&mut space.mappings), mapping);
            self.changed.insert(process.space);
        }
        true
    }

    /// The first thread of a process has ended.
    pub(super) fn exit(&mut self, time: Nanos, pid: u32) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.ended = Some(time);
        }
    }

    /// Processes whose first thread ended before `time`.
    pub(super) fn ended_before(&self, time: Nanos) -> Vec<u32> {
        self.processes.iter().filter(|(_, p)| p.ended.is_some_and(|t| t < time)).map(|(pid, _)| *pid).collect()
    }

    /// All processes.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.processes.keys().copied().collect()
    }

    /// Forgets a process.
    pub(super) fn remove(&mut self, pid: u32) {
        let Some(process) = self.processes.remove(&pid) else { return };
        self.leave(process.space, pid);
        for (_, space) in process.past {
            self.release(space);
        }
        self.gone.push(pid);
    }

    /// Forgets what processes had before `time`.
    pub(super) fn forget_past(&mut self, time: Nanos) {
        let mut released = Vec::new();
        for process in self.processes.values_mut() {
            process.past.retain(|(until, space)| {
                let keep = *until >= time;
                if !keep {
                    released.push(*space);
                }
                keep
            });
        }
        for space in released {
            self.release(space);
        }
    }

    /// What `pid` had mapped at `time`.
    pub(super) fn at(&self, pid: u32, time: Nanos) -> Option<&Arc<Vec<Mapping>>> {
        let process = self.processes.get(&pid)?;
        let past = process.past.iter().find(|(until, _)| time < *until).map(|(_, space)| *space);
        self.all.get(&past.unwrap_or(process.space)).map(|space| &space.mappings)
    }

    /// What a space has mapped, and which processes have it; `None` when it is gone.
    pub(super) fn space(&self, id: SpaceId) -> Option<(&[Mapping], &BTreeSet<u32>)> {
        self.all.get(&id).map(|space| (space.mappings.as_slice(), &space.pids))
    }

    /// Marks every space that shows one of `files` as changed, because what is known of them has changed.
    pub(super) fn touch(&mut self, files: &BTreeSet<u32>) {
        for (id, space) in &self.all {
            let shows = |m: &Mapping| matches!(m.code, Code::File(file) if files.contains(&file));
            if space.mappings.iter().any(shows) {
                self.changed.insert(*id);
            }
        }
    }

    /// Marks the space of `pid` as changed.
    pub(super) fn touch_process(&mut self, pid: u32) {
        self.changed.extend(self.processes.get(&pid).map(|p| p.space));
    }

    /// Every file that is mapped anywhere.
    pub(super) fn files(&self) -> BTreeSet<u32> {
        let all = self.all.values().flat_map(|space| space.mappings.iter());
        all.filter_map(|m| if let Code::File(file) = m.code { Some(file) } else { None }).collect()
    }

    /// A process that has `file` mapped, and where.
    pub(super) fn place_of(&self, file: u32) -> Option<(u32, u64, u64)> {
        self.all.values().find_map(|space| {
            let mapping = space.mappings.iter().find(|m| m.code == Code::File(file))?;
            Some((*space.pids.first()?, mapping.begin, mapping.end))
        })
    }

    /// What has changed since the last time.
    pub(super) fn changes(&mut self) -> Changes {
        Changes { spaces: std::mem::take(&mut self.changed), gone: std::mem::take(&mut self.gone) }
    }

    fn fresh(&mut self, mappings: Vec<Mapping>) -> SpaceId {
        let id = self.next;
        self.next += 1;
        self.all.insert(id, Space { mappings: Arc::new(mappings), ..Space::default() });
        self.changed.insert(id);
        id
    }

    /// `pid` has `space` from now on.
    fn enter(&mut self, time: Nanos, pid: u32, space: SpaceId) {
        if !self.processes.contains_key(&pid) && self.processes.len() >= MOST_PROCESSES {
            self.leave(space, pid);
            return;
        }
        if let Some(s) = self.all.get_mut(&space) {
            s.pids.insert(pid);
        }
        let Some(process) = self.processes.get_mut(&pid) else {
            self.processes.insert(pid, Process { space, past: Vec::new(), ended: None });
            return;
        };
        let before = std::mem::replace(&mut process.space, space);
        process.past.push((time, before));
        process.ended = None;
        if let Some(s) = self.all.get_mut(&before) {
            s.past += 1;
        }
        if before != space {
            self.leave(before, pid);
        }
    }

    fn leave(&mut self, space: SpaceId, pid: u32) {
        if let Some(s) = self.all.get_mut(&space) {
            s.pids.remove(&pid);
        }
        self.drop_unused(space);
    }

    fn release(&mut self, space: SpaceId) {
        if let Some(s) = self.all.get_mut(&space) {
            s.past = s.past.saturating_sub(1);
        }
        self.drop_unused(space);
    }

    fn drop_unused(&mut self, space: SpaceId) {
        if self.all.get(&space).is_some_and(|s| s.pids.is_empty() && s.past == 0) {
            self.all.remove(&space);
            self.changed.insert(space);
        }
    }
}

/// Puts `new` in its place; what lay there before is cut or gone.
fn insert(mappings: &mut Vec<Mapping>, new: Mapping) {
    let mut kept = Vec::with_capacity(mappings.len() + 2);
    for old in mappings.drain(..) {
        if old.begin < new.begin {
            kept.push(Mapping { end: old.end.min(new.begin), ..old });
        }
        if old.end > new.end {
            let begin = old.begin.max(new.end);
            kept.push(Mapping { begin, offset: old.offset.wrapping_add(begin - old.begin), ..old });
        }
    }
    if kept.len() < MOST_MAPPINGS {
        kept.push(new);
    }
    kept.sort_by_key(|m| m.begin);
    *mappings = kept;
}

impl Mapping {
    /// Of what the kernel told, showing `code`.
    pub(super) fn of(mapped: &Mapped, code: Code) -> Self {
        Self { begin: mapped.begin, end: mapped.end, offset: mapped.offset, code }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mapping(begin: u64, end: u64, file: u32) -> Mapping {
        Mapping { begin, end, offset: begin, code: Code::File(file) }
    }

    fn of(spaces: &Spaces, pid: u32, time: u64) -> Vec<u64> {
        spaces.at(pid, Nanos(time)).map(|m| m.iter().map(|m| m.begin).collect()).unwrap_or_default()
    }

    #[test]
    fn a_child_shares_its_parents_mappings_until_one_of_them_maps_something() {
        let mut spaces = Spaces::default();
        spaces.set(Nanos(1), 1, vec![mapping(10, 20, 0)]);
        assert!(spaces.fork(Nanos(2), 2, 1));
        assert!(spaces.map(1, mapping(30, 40, 1)));
        assert_eq!((of(&spaces, 1, 5), of(&spaces, 2, 5)), (vec![10, 30], vec![10]));
        assert!(spaces.map(2, mapping(50, 60, 2)));
        assert_eq!((of(&spaces, 1, 5), of(&spaces, 2, 5)), (vec![10, 30], vec![10, 50]));
        assert!(!spaces.fork(Nanos(3), 4, 99), "nobody knows that parent");
    }

    #[test]
    fn a_sample_from_before_a_change_of_program_is_read_by_the_mappings_of_then() {
        let mut spaces = Spaces::default();
        spaces.set(Nanos(1), 1, vec![mapping(10, 20, 0)]);
        spaces.exec(Nanos(5), 1);
        spaces.map(1, mapping(70, 80, 3));
        assert_eq!((of(&spaces, 1, 4), of(&spaces, 1, 5)), (vec![10], vec![70]));
        spaces.forget_past(Nanos(6));
        assert_eq!(of(&spaces, 1, 4), [70], "that was forgotten");
        spaces.remove(1);
        assert!(spaces.all.is_empty() && spaces.changes().gone == [1]);
    }

    proptest! {
        #[test]
        fn spaces_stay_sorted_and_none_is_left_behind(steps in proptest::collection::vec((0..5_u8, 0..6_u32, 0..6_u32, 0..40_u64), 0..80)) {
            let mut spaces = Spaces::default();
            for (time, (what, pid, other, at)) in (1..).zip(steps) {
                match what {
                    0 => spaces.set(Nanos(time), pid, vec![mapping(at, at + 5, other)]),
                    1 => { spaces.fork(Nanos(time), pid, other); }
                    2 => spaces.exec(Nanos(time), pid),
                    3 => { spaces.map(pid, mapping(at, at + 1 + u64::from(other), other)); }
                    _ => spaces.remove(pid),
                }
                for space in spaces.all.values() {
                    prop_assert!(space.mappings.windows(2).all(|w| w[0].end <= w[1].begin));
                    prop_assert!(space.mappings.iter().all(|m| m.begin < m.end));
                    prop_assert!(space.past > 0 || !space.pids.is_empty());
                }
            }
            for pid in spaces.pids() {
                spaces.remove(pid);
            }
            prop_assert!(spaces.all.is_empty());
        }
    }
}
