//! Places of tables: never two in one place, never more than the budget, never a used one driven out by an unused one.

use std::collections::HashMap;

use proptest::prelude::*;

use super::super::{Added, Store, TableId, TableIndex};

fn id(n: u64) -> TableId {
    TableId::of_test(n)
}

fn load(store: &mut Store, n: u64, rows: u32) -> Added {
    let added = store.add(&id(n), rows);
    if let Added::Load { index, .. } | Added::NoRoom(index) = added {
        store.acquire(index);
    }
    added
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Add(u64, u32),
    Acquire(u64),
    Release(u64),
    Look(u64),
    Bring,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..40_u64, 1..400_u32).prop_map(|(n, rows)| Step::Add(n, rows)),
        2 => (0..40_u64).prop_map(Step::Acquire),
        2 => (0..40_u64).prop_map(Step::Release),
        1 => any::<u64>().prop_map(Step::Look),
        1 => Just(Step::Bring),
    ]
}

const BUDGET: u32 = 1_000;

/// What the kernel side would see: ranges by index, as a caller that obeys has set them.
#[derive(Default)]
struct Kernel(HashMap<TableIndex, (u32, u32)>);

impl Kernel {
    fn obey(&mut self, added: &Added) {
        match added {
            Added::Load { index, range, evicted } => {
                self.0.retain(|index, _| !evicted.contains(index));
                assert!(self.0.insert(*index, (range.start, range.len)).is_none(), "a table is loaded once");
            }
            Added::NoRoom(index) => self.0.retain(|other, _| other != index),
            Added::Loaded(_) | Added::NoIndex => {}
        }
    }

    fn check(&self, store: &Store) {
        let mut places: Vec<(u32, u32)> = self.0.values().copied().collect();
        places.sort_unstable();
        assert!(places.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0), "no two overlap: {places:?}");
        assert!(places.iter().all(|(start, len)| *len > 0 && start + len <= BUDGET), "in the budget: {places:?}");
        for (index, place) in &self.0 {
            let range = store.range(*index);
            assert_eq!((range.start, range.len), *place, "the store knows what the kernel side sees");
        }
        assert_eq!(store.loaded_rows(), places.iter().map(|(_, len)| u64::from(*len)).sum::<u64>());
    }
}

proptest! {
    #[test]
    fn places_never_overlap_nor_exceed_the_budget(steps in prop::collection::vec(step(), 1..200)) {
        let mut store = Store::new(BUDGET, 24);
        let mut kernel = Kernel::default();
        let mut sizes: HashMap<u64, u32> = HashMap::new();
        let mut users: HashMap<u64, (TableIndex, u32)> = HashMap::new();
        let mut hits = 0_u64;
        for step in steps {
            match step {
                Step::Add(n, rows) => {
                    let rows = *sizes.entry(n).or_insert(rows);
                    let added = store.add(&id(n), rows);
                    kernel.obey(&added);
                    if let (Some(index), Some(range)) = (store.find(&id(n)), store.find(&id(n)).map(|i| store.range(i))) {
                        prop_assert!(range.len == 0 || range.len == rows);
                        prop_assert!(users.get(&n).is_none_or(|(i, count)| *count == 0 || *i == index));
                    }
                }
                Step::Acquire(n) => {
                    if let Some(index) = store.find(&id(n)) {
                        store.acquire(index);
                        let entry = users.entry(n).or_insert((index, 0));
                        *entry = (index, if entry.0 == index { entry.1 + 1 } else { 1 });
                    }
                }
                Step::Release(n) => {
                    if let Some((index, count)) = users.get_mut(&n).filter(|(_, count)| *count > 0) {
                        store.release(*index);
                        *count -= 1;
                    }
                }
                Step::Look(seed) => {
                    hits += 1_000;
                    store.look(|index| hits.wrapping_mul(seed % 7 + u64::from(index.0)));
                }
                Step::Bring => {
                    for index in store.wanted() {
                        let n = (0..40).find(|n| store.find(&id(*n)) == Some(index));
                        let n = n.expect("it was added");
                        let added = store.add(&id(n), sizes[&n]);
                        kernel.obey(&added);
                    }
                }
            }
            // A table that is mapped keeps its index.
            for (n, (index, count)) in &users {
                prop_assert!(*count == 0 || store.find(&id(*n)) == Some(*index));
            }
            kernel.check(&store);
        }
    }
}

#[test]
fn a_table_is_kept_once_for_all_who_map_its_file() {
    let mut store = Store::new(100, 4);
    let Added::Load { index, .. } = load(&mut store, 1, 60) else { panic!("there is room") };
    assert_eq!(load(&mut store, 1, 60), Added::Loaded(index));
    assert_eq!(store.loaded_rows(), 60);
}

#[test]
fn what_finds_no_room_is_counted_with_what_it_would_need() {
    let mut store = Store::new(100, 4);
    load(&mut store, 1, 60);
    store.look(|_| 5);
    assert!(matches!(load(&mut store, 2, 70), Added::NoRoom(_)));
    let missing = store.missing();
    assert_eq!((missing.tables, missing.bytes), (1, (70 - 40) * 8));
}

#[test]
fn what_is_used_more_drives_out_what_is_used_least_and_only_that() {
    let mut store = Store::new(100, 4);
    load(&mut store, 1, 40);
    load(&mut store, 2, 40);
    let Added::NoRoom(third) = load(&mut store, 3, 40) else { panic!("there is none") };
    store.look(|index| [100, 10, 0][index.0 as usize]);
    assert!(store.wanted().is_empty(), "nobody uses it");
    store.look(|index| [200, 20, 15][index.0 as usize]);
    assert!(store.wanted().is_empty(), "used about as much as the second: no to and fro");
    store.look(|index| [300, 30, 90][index.0 as usize]);
    assert_eq!(store.wanted(), [third]);
    let Added::Load { evicted, range, .. } = store.add(&id(3), 40) else { panic!("it is wanted") };
    assert_eq!(evicted, [TableIndex(1)]);
    assert_eq!((range.start, range.len), (40, 40));
    assert_eq!(store.missing().tables, 1, "the second, now");
}

#[test]
fn a_table_that_nobody_maps_makes_room_however_much_it_was_used() {
    let mut store = Store::new(100, 4);
    let Added::Load { index, .. } = load(&mut store, 1, 80) else { panic!("there is room") };
    store.look(|_| 1_000);
    store.release(index);
    assert_eq!(store.range(index).len, 80, "the next process may need it");
    let Added::Load { evicted, .. } = load(&mut store, 2, 80) else { panic!("it makes room") };
    assert_eq!(evicted, [index]);
}

#[test]
fn an_index_is_given_again_only_when_no_mapping_names_it() {
    let mut store = Store::new(100, 2);
    let Added::Load { index, .. } = load(&mut store, 1, 10) else { panic!("there is room") };
    load(&mut store, 2, 10);
    assert_eq!(load(&mut store, 3, 10), Added::NoIndex);
    store.release(index);
    let Added::Load { index: again, evicted, .. } = load(&mut store, 3, 10) else { panic!("one is free") };
    assert_eq!((again, evicted), (index, vec![index]));
    assert_eq!(store.find(&id(1)), None);
}
