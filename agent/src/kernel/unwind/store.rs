//! Which tables lie where in the one array of rows: sizes and use in, places and evictions out. It touches no map itself.
//!
//! A table keeps its index while a process has its file mapped, whether its rows are in the array or not, so that mappings
//! stay true. What is little used makes room for what is used more, never the other way round, and what found no room is
//! counted. Rows are never moved: the kernel side may be reading them.

use std::collections::HashMap;

use agent_common::{TableRange, UnwindRow};

use super::table::TableId;

/// Index of a table, as mappings name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableIndex(pub u32);

/// What came of adding a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Added {
    /// Its rows are in the array already.
    Loaded(TableIndex),
    /// Its rows go to `range`. First the ranges of `evicted` are to be emptied, and a moment (1 ms) is to pass for
    /// walks that have read them; then the rows are to be written, and then the range of `index`.
    Load {
        /// Its index.
        index: TableIndex,
        /// Where its rows go.
        range: TableRange,
        /// Tables whose rows were there. May hold `index` itself, when another table had that index.
        evicted: Vec<TableIndex>,
    },
    /// There is no room among what is used more. It has an index, whose range is to be emptied: another table may have had it.
    NoRoom(TableIndex),
    /// Every index is in use.
    NoIndex,
}

/// What found no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Tables of files that are mapped.
    pub tables: u32,
    /// Bytes that they would need on top of the budget.
    pub bytes: u64,
}

/// Hits that a table is taken to have had before it was first looked at: what came in a moment ago is not driven out.
const NEW: u64 = 1;

#[derive(Debug)]
struct Entry {
    id: TableId,
    rows: u32,
    range: TableRange,
    /// Mappings that name it.
    users: u32,
    /// The kernel side's count at the last look.
    hits: u64,
    /// Hits of late; each look halves what was before.
    recent: u64,
}

/// The tables of a host.
#[derive(Debug)]
pub struct Store {
    /// Rows that the array holds.
    budget: u32,
    entries: Vec<Option<Entry>>,
    by_id: HashMap<TableId, TableIndex>,
}

impl Store {
    /// A store for an array of `budget` rows and for `tables` tables.
    pub fn new(budget: u32, tables: u32) -> Self {
        let entries = (0..tables).map(|_| None).collect();
        Self { budget, entries, by_id: HashMap::new() }
    }

    /// Adds a table of `rows` rows, or brings one back that was evicted.
    pub fn add(&mut self, id: &TableId, rows: u32) -> Added {
        let mut evicted = Vec::new();
        let index = match self.by_id.get(id) {
            Some(index) => *index,
            None => match self.claim(id, rows) {
                Some((index, reused)) => {
                    evicted.extend(reused.then_some(index));
                    index
                }
                None => return Added::NoIndex,
            },
        };
        let Some(entry) = self.entry(index) else { return Added::NoIndex };
        if entry.range.len != 0 {
            return Added::Loaded(index);
        }
        let Some(place) = self.place(entry.rows, entry.recent / 2) else { return Added::NoRoom(index) };
        for victim in &place.victims {
            if let Some(entry) = self.entry_mut(*victim) {
                entry.range = TableRange::default();
            }
        }
        evicted.extend(place.victims);
        let Some(entry) = self.entry_mut(index) else { return Added::NoIndex };
        entry.range = TableRange { start: place.start, len: entry.rows };
        entry.recent = entry.recent.max(NEW);
        Added::Load { index, range: entry.range, evicted }
    }

    /// The index of a table that was added before.
    pub fn find(&self, id: &TableId) -> Option<TableIndex> {
        self.by_id.get(id).copied()
    }

    /// Where the rows of a table lie; empty when they are not in the array.
    pub fn range(&self, index: TableIndex) -> TableRange {
        self.entry(index).map_or(TableRange::default(), |entry| entry.range)
    }

    /// A mapping names this table.
    pub fn acquire(&mut self, index: TableIndex) {
        if let Some(entry) = self.entry_mut(index) {
            entry.users = entry.users.saturating_add(1);
        }
    }

    /// A mapping that named it is gone. Its rows stay until their room is needed: the next process may need them.
    pub fn release(&mut self, index: TableIndex) {
        if let Some(entry) = self.entry_mut(index) {
            entry.users = entry.users.saturating_sub(1);
        }
    }

    /// Takes in how often each table was used since it got its index, evicted ones included. To be called about every 10 s.
    pub fn look(&mut self, hits: impl Fn(TableIndex) -> u64) {
        for (index, entry) in (0..).zip(&mut self.entries) {
            if let Some(entry) = entry {
                let now = hits(TableIndex(index));
                // A count that went down was begun anew.
                let new = now.checked_sub(entry.hits).unwrap_or(now);
                entry.hits = now;
                entry.recent = (entry.recent / 2).saturating_add(new);
            }
        }
    }

    /// Tables without rows in the array that are used enough to be added again, most used first.
    pub fn wanted(&self) -> Vec<TableIndex> {
        let mut wanted: Vec<(u64, TableIndex)> = self
            .indexed()
            .filter(|(_, e)| e.range.len == 0 && e.users > 0 && e.recent > 0)
            .filter(|(_, e)| self.place(e.rows, e.recent / 2).is_some())
            .map(|(index, e)| (e.recent, index))
            .collect();
        wanted.sort_unstable_by(|a, b| b.cmp(a));
        wanted.into_iter().map(|(_, index)| index).collect()
    }

    /// What found no room although it is mapped.
    pub fn missing(&self) -> Missing {
        let absent = self.indexed().filter(|(_, e)| e.range.len == 0 && e.users > 0);
        let (tables, rows) = absent.fold((0, 0_u64), |(n, rows), (_, e)| (n + 1, rows + u64::from(e.rows)));
        let free = u64::from(self.budget).saturating_sub(self.loaded_rows());
        Missing { tables, bytes: rows.saturating_sub(free) * size_of::<UnwindRow>() as u64 }
    }

    /// Rows that are in the array.
    pub fn loaded_rows(&self) -> u64 {
        self.indexed().map(|(_, e)| u64::from(e.range.len)).sum()
    }

    /// An index for a new table, and whether another table had it whose range may still be set.
    fn claim(&mut self, id: &TableId, rows: u32) -> Option<(TableIndex, bool)> {
        let free = (0..).zip(&self.entries).find(|(_, entry)| entry.is_none()).map(|(index, _)| TableIndex(index));
        let unused = || self.indexed().filter(|(_, e)| e.users == 0).min_by_key(|(_, e)| e.recent);
        let index = free.or_else(|| unused().map(|(index, _)| index))?;
        // The kernel side goes on counting at this index; what the table before it had is no use of this one.
        let hits = self.entry(index).map_or(0, |old| old.hits);
        let new = Entry { id: id.clone(), rows, range: TableRange::default(), users: 0, hits, recent: 0 };
        let old = self.entries.get_mut(usize::try_from(index.0).ok()?)?.replace(new);
        if let Some(old) = &old {
            self.by_id.remove(&old.id);
        }
        self.by_id.insert(id.clone(), index);
        Some((index, old.is_some()))
    }

    /// Room for `rows` rows: a hole, the smallest that serves; else the neighbours that are used least, all of them
    /// together at most `worth`.
    fn place(&self, rows: u32, worth: u64) -> Option<Place> {
        let blocks = self.blocks();
        let hole = blocks.iter().filter(|b| b.table.is_none() && b.len >= rows).min_by_key(|b| b.len);
        if let Some(hole) = hole {
            return Some(Place { start: hole.start, victims: Vec::new() });
        }
        // The shortest run that is long enough, for each place where one can end.
        let mut best: Option<(u64, u64, &[Block])> = None;
        let (mut from, mut length, mut used) = (0, 0_u64, 0_u64);
        for (to, block) in blocks.iter().enumerate() {
            length += u64::from(block.len);
            used = used.saturating_add(block.used);
            while let Some(first) = blocks.get(from).filter(|b| length - u64::from(b.len) >= u64::from(rows)) {
                length -= u64::from(first.len);
                used = used.saturating_sub(first.used);
                from += 1;
            }
            if length >= u64::from(rows) && best.is_none_or(|(u, l, _)| (used, length) < (u, l)) {
                best = blocks.get(from..=to).map(|run| (used, length, run));
            }
        }
        let (_, _, run) = best.filter(|(used, ..)| *used <= worth)?;
        Some(Place { start: run.first()?.start, victims: run.iter().filter_map(|block| block.table).collect() })
    }

    /// The array from its first row to its last: tables, and the holes between them.
    fn blocks(&self) -> Vec<Block> {
        let mut loaded: Vec<(TableRange, TableIndex, u64)> = self
            .indexed()
            .filter(|(_, e)| e.range.len != 0)
            .map(|(index, e)| (e.range, index, if e.users == 0 { 0 } else { e.recent }))
            .collect();
        loaded.sort_unstable_by_key(|(range, ..)| range.start);
        let mut blocks = Vec::with_capacity(loaded.len() * 2 + 1);
        let mut end = 0;
        for (range, index, used) in loaded {
            if range.start > end {
                blocks.push(Block { start: end, len: range.start - end, table: None, used: 0 });
            }
            blocks.push(Block { start: range.start, len: range.len, table: Some(index), used });
            end = range.start + range.len;
        }
        if end < self.budget {
            blocks.push(Block { start: end, len: self.budget - end, table: None, used: 0 });
        }
        blocks
    }

    fn indexed(&self) -> impl Iterator<Item = (TableIndex, &Entry)> {
        (0..).zip(&self.entries).filter_map(|(index, entry)| Some((TableIndex(index), entry.as_ref()?)))
    }

    fn entry(&self, index: TableIndex) -> Option<&Entry> {
        self.entries.get(usize::try_from(index.0).ok()?)?.as_ref()
    }

    fn entry_mut(&mut self, index: TableIndex) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(index.0).ok()?)?.as_mut()
    }
}

struct Place {
    start: u32,
    victims: Vec<TableIndex>,
}

#[derive(Debug)]
struct Block {
    start: u32,
    len: u32,
    table: Option<TableIndex>,
    used: u64,
}
