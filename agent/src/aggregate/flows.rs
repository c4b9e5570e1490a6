//! Rows of descriptors in, what moved through each within one tick out. Never negative: counters that fell are left out.
//!
//! Counting begins when a descriptor is first used under the watch, so that its first row is all of one tick; a descriptor
//! that comes back after its row had to make room only sets a new baseline.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agent_common::{FLOW_BUCKETS, FlowCalls, FlowFlushes, FlowRow, FlowStats};

use crate::aggregate::table::Table;
use crate::units::{Nanos, Pid};

/// What moved through one descriptor in one tick: the counters are differences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowDelta {
    /// The descriptor.
    pub fd: u32,
    /// When it was first used under the watch: tells it from others with its number.
    pub first: Nanos,
    /// Where it leads; empty when that is not known.
    pub target: Arc<str>,
    /// Calls, by `FLOW_READS`, `FLOW_WRITES`, `FLOW_SYNCS`.
    pub ways: [FlowCalls; 3],
    /// Flushes, by `FLOW_ANSWERED`, `FLOW_EACH_WRITE`. The times of the last one are not differences.
    pub flushes: [FlowFlushes; 2],
    /// Bytes that were written and wait for their answer now.
    pub open_bytes: u64,
    /// Messages whose bytes nobody tells.
    pub untold: u64,
}

/// A descriptor of a process, and when it was first used.
type Key = (Pid, u32, u64);

/// Newest rows, by descriptor.
#[derive(Debug)]
pub struct FlowRows {
    rows: Table<Key, (FlowStats, Arc<str>)>,
    tick: BTreeMap<Pid, Vec<FlowDelta>>,
    known: BTreeSet<Pid>,
}

/// A first row older than this has been here before.
const FRESH: Nanos = Nanos::from_secs(2);

impl FlowRows {
    /// Keeps at most `capacity` rows.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { rows: Table::with_capacity(capacity), tick: BTreeMap::new(), known: BTreeSet::new() }
    }

    /// Takes in a row.
    pub fn observe(&mut self, now: Nanos, row: &FlowRow) {
        let FlowRow { key, target, stats } = row;
        let pid = Pid(key.pid);
        let place = (pid, key.fd, stats.first_ns);
        let before = if key.ended_ns == 0 {
            let leads = self.rows.get(place).map_or_else(|| text(target), |(_, known)| Arc::clone(known));
            self.rows.put(now, place, (*stats, leads))
        } else {
            self.rows.remove(place)
        };
        let of_pid = self.tick.entry(pid).or_default();
        let (then, leads) = match before {
            Some(before) => before,
            None if now.since(Nanos(stats.first_ns)) <= FRESH => (FlowStats::ZERO, text(target)),
            None => return,
        };
        let Some(delta) = since(stats, &then) else { return };
        of_pid.push(FlowDelta { fd: key.fd, target: leads, ..delta });
    }

    /// Ends the tick: what moved, of every process that the kernel has told of. `keep` says which stay known.
    pub fn cut(&mut self, keep: impl Fn(Pid) -> bool) -> BTreeMap<Pid, Vec<FlowDelta>> {
        let mut tick = std::mem::take(&mut self.tick);
        self.known.extend(tick.keys());
        self.known.retain(|pid| keep(*pid));
        // Rows come when something changed: whoever is known and has none did nothing.
        for pid in &self.known {
            tick.entry(*pid).or_default();
        }
        tick
    }
}

fn text(target: &[u8]) -> Arc<str> {
    let end = target.iter().position(|byte| *byte == 0).unwrap_or(target.len());
    String::from_utf8_lossy(&target[..end]).into()
}

/// What happened between two rows, or nothing when a counter fell.
fn since(now: &FlowStats, then: &FlowStats) -> Option<FlowDelta> {
    let mut ways = [FlowCalls::ZERO; 3];
    for (way, (now, then)) in ways.iter_mut().zip(now.ways.iter().zip(&then.ways)) {
        *way = calls_since(now, then)?;
    }
    let mut flushes = [FlowFlushes::ZERO; 2];
    for (sums, (now, then)) in flushes.iter_mut().zip(now.flushes.iter().zip(&then.flushes)) {
        *sums = flushes_since(now, then)?;
    }
    Some(FlowDelta {
        fd: 0,
        first: Nanos(now.first_ns),
        target: Arc::from(""),
        ways,
        flushes,
        open_bytes: if now.open_ns == 0 { 0 } else { now.open_bytes },
        untold: now.untold.checked_sub(then.untold)?,
    })
}

fn calls_since(now: &FlowCalls, then: &FlowCalls) -> Option<FlowCalls> {
    let FlowCalls { calls, bytes, errors, again, timed, total_ns } = now;
    Some(FlowCalls {
        calls: calls.checked_sub(then.calls)?,
        bytes: bytes.checked_sub(then.bytes)?,
        errors: errors.checked_sub(then.errors)?,
        again: again.checked_sub(then.again)?,
        timed: timed.checked_sub(then.timed)?,
        total_ns: total_ns.checked_sub(then.total_ns)?,
    })
}

fn flushes_since(now: &FlowFlushes, then: &FlowFlushes) -> Option<FlowFlushes> {
    let mut gaps = [0; FLOW_BUCKETS];
    let mut sizes = [0; FLOW_BUCKETS];
    for (counts, (now, then)) in [(&mut gaps, (&now.gaps, &then.gaps)), (&mut sizes, (&now.sizes, &then.sizes))] {
        for (count, (now, then)) in counts.iter_mut().zip(now.iter().zip(then)) {
            // Four bytes: at a thousand flushes a second they turn over after 50 days.
            *count = now.wrapping_sub(*then);
        }
    }
    Some(FlowFlushes {
        flushes: now.flushes.checked_sub(then.flushes)?,
        bytes: now.bytes.checked_sub(then.bytes)?,
        bytes_squared: now.bytes_squared.wrapping_sub(then.bytes_squared),
        duration_ns: now.duration_ns.checked_sub(then.duration_ns)?,
        bytes_us: now.bytes_us.wrapping_sub(then.bytes_us),
        us_squared: now.us_squared.wrapping_sub(then.us_squared),
        intervals: now.intervals.checked_sub(then.intervals)?,
        interval_us: now.interval_us.checked_sub(then.interval_us)?,
        interval_us_squared: now.interval_us_squared.wrapping_sub(then.interval_us_squared),
        gap_ns: now.gap_ns.checked_sub(then.gap_ns)?,
        arrived: now.arrived.checked_sub(then.arrived)?,
        arrived_squared: now.arrived_squared.wrapping_sub(then.arrived_squared),
        arrived_us: now.arrived_us.wrapping_sub(then.arrived_us),
        paired_ns: now.paired_ns.checked_sub(then.paired_ns)?,
        paired_us_squared: now.paired_us_squared.wrapping_sub(then.paired_us_squared),
        last_taken: now.last_taken,
        last_begin_ns: now.last_begin_ns,
        last_end_ns: now.last_end_ns,
        gaps,
        sizes,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use agent_common::{FLOW_ANSWERED, FLOW_READS, FLOW_WRITES, FlowKey};

    pub(in crate::aggregate) fn row(fd: u32, ended_ns: u64, first_ns: u64, written: u64) -> FlowRow {
        let mut stats = FlowStats { first_ns, ..FlowStats::ZERO };
        stats.ways[FLOW_WRITES] = FlowCalls { calls: written / 10, bytes: written, ..FlowCalls::ZERO };
        stats.flushes[FLOW_ANSWERED] = FlowFlushes {
            flushes: written / 10,
            bytes: written,
            bytes_us: written.wrapping_sub(60),
            ..FlowFlushes::ZERO
        };
        let mut target = [0; agent_common::FLOW_TARGET_BYTES];
        target[..4].copy_from_slice(b"/out");
        FlowRow { key: FlowKey { pid: 7, fd, ended_ns }, target, stats }
    }

    fn written(rows: &mut FlowRows) -> Option<Vec<(u32, u64)>> {
        let deltas = rows.cut(|_| true).remove(&Pid(7))?;
        Some(deltas.iter().map(|d| (d.fd, d.ways[FLOW_WRITES].bytes)).collect())
    }

    #[test]
    fn a_descriptor_counts_from_its_first_call_and_an_idle_tick_is_empty_not_unknown() {
        let mut rows = FlowRows::with_capacity(8);
        assert_eq!(written(&mut rows), None, "nobody has told of it yet");
        rows.observe(Nanos(100), &row(3, 0, 50, 40));
        assert_eq!(written(&mut rows), Some(vec![(3, 40)]));
        assert_eq!(written(&mut rows), Some(vec![]));
        rows.observe(Nanos(300), &row(3, 0, 50, 100));
        let delta = rows.cut(|_| true).remove(&Pid(7)).unwrap().remove(0);
        assert_eq!((delta.ways[FLOW_WRITES].bytes, delta.ways[FLOW_READS].bytes), (60, 0));
        assert_eq!(
            (delta.flushes[FLOW_ANSWERED].flushes, delta.flushes[FLOW_ANSWERED].bytes_us),
            (6, 60),
            "it wrapped"
        );
        assert_eq!(&*delta.target, "/out");
    }

    #[test]
    fn a_number_that_is_used_again_begins_from_nothing() {
        let mut rows = FlowRows::with_capacity(8);
        rows.observe(Nanos(100), &row(3, 0, 50, 40));
        assert_eq!(written(&mut rows), Some(vec![(3, 40)]));
        rows.observe(Nanos(200), &row(3, 150, 50, 70));
        rows.observe(Nanos(200), &row(3, 0, 160, 20));
        assert_eq!(written(&mut rows), Some(vec![(3, 30), (3, 20)]));
        rows.observe(Nanos(300), &row(3, 0, 160, 30));
        assert_eq!(written(&mut rows), Some(vec![(3, 10)]));
    }

    #[test]
    fn what_comes_back_after_it_made_room_is_a_baseline_and_what_fell_is_left_out() {
        let mut rows = FlowRows::with_capacity(8);
        rows.observe(Nanos::from_secs(100), &row(3, 0, 50, 4_000_000));
        assert_eq!(written(&mut rows), Some(vec![]));
        rows.observe(Nanos::from_secs(101), &row(3, 0, 50, 100));
        assert_eq!(written(&mut rows), Some(vec![]), "it fell");
        rows.observe(Nanos::from_secs(102), &row(3, 0, 50, 150));
        assert_eq!(written(&mut rows), Some(vec![(3, 50)]));
    }

    #[test]
    fn whom_nobody_keeps_is_forgotten() {
        let mut rows = FlowRows::with_capacity(8);
        rows.observe(Nanos(100), &row(3, 0, 50, 40));
        assert_eq!(rows.cut(|_| false).len(), 1, "this tick's rows are told");
        assert!(rows.cut(|_| true).is_empty());
    }
}
