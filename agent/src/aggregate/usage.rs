//! Rows of what processes use in, levels and differences of one tick out. Never negative: a counter that fell is unknown.

use std::collections::BTreeMap;

use agent_common::{NOT_TOLD, UsageRow};

use crate::aggregate::table::Table;
use crate::units::{Nanos, Pid};

/// What one process used and waited for between its last two rows; what this host does not tell is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageDelta {
    /// Time between them.
    pub span: Nanos,
    /// Resident memory, bytes.
    pub resident: Option<u64>,
    /// Time that its threads waited for a CPU, ns.
    pub run_delay_ns: Option<u64>,
    /// Microseconds of pressure on the host, by `PRESSURE_…`.
    pub host: [Option<u64>; 6],
    /// Likewise on its cgroup.
    pub group: [Option<u64>; 6],
}

/// Newest rows, by process.
#[derive(Debug)]
pub struct UsageRows {
    rows: Table<Pid, (Nanos, UsageRow)>,
    tick: BTreeMap<Pid, UsageDelta>,
}

impl UsageRows {
    /// Keeps at most `capacity` rows.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { rows: Table::with_capacity(capacity), tick: BTreeMap::new() }
    }

    /// Takes in a row.
    pub fn observe(&mut self, now: Nanos, row: UsageRow) {
        let pid = Pid(row.pid);
        let resident = told(row.resident);
        let delta = match self.rows.put(now, pid, (now, row)) {
            None => UsageDelta { resident, ..UsageDelta::default() },
            Some((then, before)) => UsageDelta {
                span: now.since(then),
                resident,
                run_delay_ns: rose(row.run_delay_ns, before.run_delay_ns),
                host: all(row.host, before.host),
                group: all(row.group, before.group),
            },
        };
        self.tick.insert(pid, delta);
    }

    /// Ends the tick.
    pub fn cut(&mut self) -> BTreeMap<Pid, UsageDelta> {
        std::mem::take(&mut self.tick)
    }
}

/// What was to be had.
pub(super) fn told(value: u64) -> Option<u64> {
    (value != NOT_TOLD).then_some(value)
}

fn rose(now: u64, then: u64) -> Option<u64> {
    told(now)?.checked_sub(told(then)?)
}

fn all(now: [u64; 6], then: [u64; 6]) -> [Option<u64>; 6] {
    std::array::from_fn(|i| rose(now[i], then[i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_told_at_once_differences_from_the_second_row_on_and_what_is_not_told_never() {
        let row = |resident, run_delay_ns, cpu| UsageRow {
            pid: 7,
            reserved: 0,
            resident,
            run_delay_ns,
            host: [cpu, NOT_TOLD, 0, 0, 0, 0],
            group: [NOT_TOLD; 6],
        };
        let mut rows = UsageRows::with_capacity(4);
        rows.observe(Nanos(100), row(10, 5, 50));
        let first = rows.cut()[&Pid(7)];
        assert_eq!((first.resident, first.run_delay_ns, first.host[0]), (Some(10), None, None));
        rows.observe(Nanos(200), row(12, 25, 90));
        let second = rows.cut()[&Pid(7)];
        assert_eq!((second.span, second.run_delay_ns), (Nanos(100), Some(20)));
        assert_eq!((second.host[0], second.host[1], second.host[2], second.group[0]), (Some(40), None, Some(0), None));
        rows.observe(Nanos(300), row(12, 3, 91));
        assert_eq!(rows.cut()[&Pid(7)].run_delay_ns, None, "a thread took its delay with it");
        assert!(rows.cut().is_empty());
    }
}
