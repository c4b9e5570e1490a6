//! Tables in the kernel's memory: each once, however many files show it, as long as the budget holds. What is used least
//! makes room; what found none is told by name.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_common::{TableRange, UnwindRow};
use aya::maps::{MapData, PerCpuArray};

use super::shared::Shared;
use super::store::{Added, Store, TableIndex};
use super::table::Table;

/// By then every walk that has read a range has ended.
const WALKS_END: Duration = Duration::from_millis(1);

/// The tables that are loaded.
pub(super) struct Installed {
    rows: Shared<UnwindRow>,
    ranges: Shared<TableRange>,
    hits: PerCpuArray<MapData, u64>,
    store: Store,
    /// Names of the files that found no room, by their table.
    refused: BTreeMap<TableIndex, String>,
}

impl std::fmt::Debug for Installed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Installed").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Installed {
    pub(super) fn new(rows: Shared<UnwindRow>, ranges: Shared<TableRange>, hits: PerCpuArray<MapData, u64>) -> Self {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let store = Store::new(number(rows.len()), number(ranges.len()));
        Self { rows, ranges, hits, store, refused: BTreeMap::new() }
    }

    /// Loads a table, unless it is loaded, and gives its number, which it keeps also when its rows find no room. `None` when
    /// there is no number left.
    pub(super) fn install(&mut self, name: &str, table: &Table) -> Option<u32> {
        let rows = u32::try_from(table.rows.len()).ok()?;
        let index = match self.store.add(&table.id, rows) {
            Added::Loaded(index) => index,
            Added::Load { index, range, evicted } => {
                self.empty(&evicted);
                // The rows first: a range that is there has its rows.
                let written = self.rows.write(place(range.start), &table.rows);
                if !written || !self.ranges.write(place(index.0), &[range]) {
                    return None;
                }
                self.refused.remove(&index);
                index
            }
            Added::NoRoom(index) => {
                self.empty(&[index]);
                self.refused.insert(index, name.to_owned());
                index
            }
            Added::NoIndex => return None,
        };
        Some(index.0)
    }

    /// A file shows this table from now on.
    pub(super) fn acquire(&mut self, number: u32) {
        self.store.acquire(TableIndex(number));
    }

    /// A file that showed this table is mapped no more.
    pub(super) fn release(&mut self, number: u32) {
        self.store.release(TableIndex(number));
    }

    /// Looks at what was used of late, and gives the tables that should be made again, because they are used more than others
    /// that are loaded.
    pub(super) fn review(&mut self) -> Vec<u32> {
        let hits = &self.hits;
        self.store.look(|index| hits.get(&index.0, 0).map_or(0, |each| each.iter().sum()));
        self.store.wanted().into_iter().map(|index| index.0).collect()
    }

    /// The rows of a table; none when they are not loaded.
    pub(super) fn rows(&self, number: u32) -> &[UnwindRow] {
        let TableRange { start, len } = self.store.range(TableIndex(number));
        self.rows.read(place(start), place(len))
    }

    /// What found no room, when anything did.
    pub(super) fn degraded(&self) -> Option<String> {
        let missing = self.store.missing();
        let names: Vec<&str> = self.refused.values().take(3).map(String::as_str).collect();
        (missing.tables > 0).then(|| {
            format!(
                "unwinding: the tables of {} files find no room: {} MiB are given and {} MiB more would be needed (unwind.mib in the configuration); \
                 among them {}",
                missing.tables,
                (self.rows.len() * size_of::<UnwindRow>()) >> 20,
                missing.bytes.div_ceil(1 << 20),
                if names.is_empty() { "such as are used little".to_owned() } else { names.join(", ") }
            )
        })
    }

    fn empty(&mut self, tables: &[TableIndex]) {
        if tables.is_empty() {
            return;
        }
        for index in tables {
            self.ranges.write(place(index.0), &[TableRange::default()]);
        }
        std::thread::park_timeout(WALKS_END);
    }
}

fn place(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
