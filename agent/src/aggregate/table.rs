//! A bounded table: rows by key in, the rows seen most recently out. It never grows past its capacity.
//!
//! When it is full the eighth that has been gone longest makes room, all at once, so that a flood of keys costs a
//! constant share per key; what was evicted is counted. Ordered by key, so that a replay evicts what the live run did.

use std::collections::BTreeMap;

use crate::units::Nanos;

/// Rows by key, each with the time it was last seen.
#[derive(Clone, Debug)]
pub struct Table<K, V> {
    rows: BTreeMap<K, (Nanos, V)>,
    capacity: usize,
    evicted: u64,
}

impl<K: Ord + Copy, V> Table<K, V> {
    /// An empty table of at most `capacity` rows (at least one).
    pub fn with_capacity(capacity: usize) -> Self {
        Self { rows: BTreeMap::new(), capacity: capacity.max(1), evicted: 0 }
    }

    /// Puts a row in and returns the one it replaces.
    pub fn put(&mut self, now: Nanos, key: K, value: V) -> Option<V> {
        if let Some(slot) = self.rows.get_mut(&key) {
            return Some(std::mem::replace(slot, (now, value)).1);
        }
        if self.rows.len() >= self.capacity {
            self.make_room();
        }
        self.rows.insert(key, (now, value));
        None
    }

    /// Takes a row out.
    pub fn remove(&mut self, key: K) -> Option<V> {
        self.rows.remove(&key).map(|(_, value)| value)
    }

    /// The row of `key`.
    pub fn get(&self, key: K) -> Option<&V> {
        self.rows.get(&key).map(|(_, value)| value)
    }

    /// All rows, by key.
    pub fn iter(&self) -> impl Iterator<Item = &V> {
        self.rows.values().map(|(_, value)| value)
    }

    /// Rows held.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Rows that had to make room.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn make_room(&mut self) {
        let mut by_age: Vec<(Nanos, K)> = self.rows.iter().map(|(key, (seen, _))| (*seen, *key)).collect();
        by_age.sort_unstable();
        for (_, key) in by_age.iter().take(self.capacity.div_ceil(8)) {
            self.rows.remove(key);
            self.evicted = self.evicted.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_keys_evicts_what_has_been_gone_longest_and_counts_it() {
        let mut table = Table::with_capacity(16);
        for key in 0..1_000_u64 {
            table.put(Nanos(key), key, key);
            table.put(Nanos(key), u64::MAX, key);
            assert!(table.len() <= 16);
        }
        assert_eq!(table.get(u64::MAX), Some(&999), "a row that is seen all the time stays");
        assert_eq!(table.get(999), Some(&999));
        assert_eq!(table.get(0), None);
        assert_eq!(table.evicted() + table.len() as u64, 1_001);
    }
}
