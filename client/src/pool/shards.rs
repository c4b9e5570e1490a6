//! A map that is read all the time and written hardly ever: each reader locks a copy near it, a writer changes them all.
//! Never makes two readers on two CPUs write to the same cache line, which is what a single lock costs most.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Copies of the map; threads beyond so many share.
const SHARDS: usize = 16;

static NEXT_SEAT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SEAT: usize = NEXT_SEAT.fetch_add(1, Ordering::Relaxed);
    static HINT: Cell<usize> = const { Cell::new(0) };
}

/// Number of the calling thread, from 0 up.
pub(super) fn seat() -> usize {
    SEAT.with(|seat| *seat)
}

/// Where the calling thread last found what it wanted.
pub(super) fn hint() -> usize {
    HINT.with(Cell::get)
}

/// Remembers that for next time.
pub(super) fn set_hint(at: usize) {
    HINT.with(|hint| hint.set(at));
}

/// Keeps what two CPUs write to on lines of their own; two lines, because they are fetched in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Padded<T>(pub(super) T);

type Copy<K, V> = Padded<RwLock<BTreeMap<K, Arc<V>>>>;

/// The map.
#[derive(Debug)]
pub(super) struct Shards<K, V> {
    copies: [Copy<K, V>; SHARDS],
    /// One writer at a time, so that all copies come to agree.
    writer: Mutex<()>,
}

impl<K: Ord + Clone, V> Shards<K, V> {
    pub(super) fn new() -> Self {
        Self { copies: std::array::from_fn(|_| Padded(RwLock::new(BTreeMap::new()))), writer: Mutex::new(()) }
    }

    /// Looks at the value of a key, under the read lock of the caller's copy.
    #[inline]
    pub(super) fn look<R>(&self, key: &K, look: impl FnOnce(&Arc<V>) -> R) -> Option<R> {
        let copy = self.copies[seat() % SHARDS].0.read().unwrap_or_else(PoisonError::into_inner);
        copy.get(key).map(look)
    }

    /// The value of a key, made if there is none.
    pub(super) fn get_or_insert(&self, key: &K, make: impl FnOnce() -> V) -> Arc<V> {
        let _one = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = self.look(key, Arc::clone) {
            return there;
        }
        let value = Arc::new(make());
        for copy in &self.copies {
            copy.0.write().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), Arc::clone(&value));
        }
        value
    }

    /// Every key and value.
    pub(super) fn all(&self) -> Vec<(K, Arc<V>)> {
        let copy = self.copies[0].0.read().unwrap_or_else(PoisonError::into_inner);
        copy.iter().map(|(key, value)| (key.clone(), Arc::clone(value))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_insert_at_once_get_the_same_value_and_all_copies_have_it() {
        let (shards, made) = (Shards::<u32, usize>::new(), AtomicUsize::new(0));
        let values: Vec<usize> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| *shards.get_or_insert(&7, || made.fetch_add(1, Ordering::Relaxed))))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!((made.into_inner(), values), (1, vec![0; 8]));
        assert!(shards.copies.iter().all(|copy| copy.0.read().unwrap().contains_key(&7)));
    }
}
