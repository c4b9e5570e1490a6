//! Tables in the kernel's memory: each once, however many files show it, as long as the budget holds. What found no room is
//! told by name.

use std::collections::{BTreeMap, HashMap};

use agent_common::{TableRange, UnwindRow};

use super::regions::{Region, Regions};
use super::shared::Shared;
use super::table::{Table, TableId};

/// The tables that are loaded.
#[derive(Debug)]
pub(super) struct Installed {
    rows: Shared<UnwindRow>,
    ranges: Shared<TableRange>,
    free: Regions,
    known: HashMap<TableId, u32>,
    next: u32,
    /// Rows of the files that found no room, by name.
    refused: BTreeMap<String, usize>,
}

impl Installed {
    pub(super) fn new(rows: Shared<UnwindRow>, ranges: Shared<TableRange>) -> Self {
        let free = Regions::of(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        Self { rows, ranges, free, known: HashMap::new(), next: 0, refused: BTreeMap::new() }
    }

    /// Loads a table, unless it is loaded. `None` when there is no room for it.
    pub(super) fn install(&mut self, name: &str, table: &Table) -> Option<u32> {
        if let Some(number) = self.known.get(&table.id) {
            return Some(*number);
        }
        let len = u32::try_from(table.rows.len()).ok()?;
        let number = self.next;
        let room = (usize::try_from(number).ok()? < self.ranges.len()).then(|| self.free.take(len)).flatten();
        let Some(Region { start, len }) = room else {
            self.refused.insert(name.to_owned(), table.rows.len());
            return None;
        };
        let (first, slot) = (usize::try_from(start).ok()?, usize::try_from(number).ok()?);
        // The rows first: a range that is there has its rows.
        if !self.rows.write(first, &table.rows) || !self.ranges.write(slot, &[TableRange { start, len }]) {
            return None;
        }
        self.next += 1;
        self.known.insert(table.id.clone(), number);
        Some(number)
    }

    /// The rows of a loaded table.
    pub(super) fn rows(&self, number: u32) -> &[UnwindRow] {
        let slot = usize::try_from(number).unwrap_or(usize::MAX);
        let Some(TableRange { start, len }) = self.ranges.read(slot, 1).first().copied() else { return &[] };
        let at = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        self.rows.read(at(start), at(len))
    }

    /// What found no room, when anything did.
    pub(super) fn degraded(&self) -> Option<String> {
        let mib = |rows: usize| (rows * size_of::<UnwindRow>()).div_ceil(1 << 20);
        let wanted: usize = self.refused.values().sum();
        let mut largest: Vec<(&String, &usize)> = self.refused.iter().collect();
        largest.sort_by_key(|(_, rows)| std::cmp::Reverse(**rows));
        let names: Vec<&str> = largest.iter().take(3).map(|(name, _)| name.as_str()).collect();
        (!names.is_empty()).then(|| {
            format!(
                "unwinding: {} files found no room for their tables, {} MiB beyond the {} MiB that are given: {} (give more by unwind_mib)",
                largest.len(),
                mib(wanted),
                mib(self.rows.len()),
                names.join(", ")
            )
        })
    }
}
