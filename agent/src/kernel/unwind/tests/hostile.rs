//! Files that somebody bent: a table or a reason, never a panic, never more than the limits.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::super::{Elf, Limits, Table, TableError};

/// A small real program.
static PROGRAM: LazyLock<Vec<u8>> = LazyLock::new(|| std::fs::read("/bin/true").expect("it is always there"));
/// Where damage hurts: headers at both ends, frames in between.
static TENDER: LazyLock<Vec<(usize, usize)>> = LazyLock::new(|| {
    let elf = Elf::parse(&**PROGRAM, Limits::default()).expect("a whole file");
    let at = |bytes: &[u8]| bytes.as_ptr().addr() - PROGRAM.as_ptr().addr();
    let frames = elf.frames().expect("it has frames");
    let mut places: Vec<_> = frames.iter().map(|f| (at(&f.bytes), f.bytes.len())).collect();
    places.extend([(0, 64), (64, 13 * 56), (PROGRAM.len() - 32 * 64, 32 * 64), (0, PROGRAM.len())]);
    places
});

const LIMITS: Limits = Limits { section_bytes: 1 << 20, rows: 100_000, entry_bytes: 64 << 10 };

/// A place, how much of it, and what is written there.
fn damage() -> impl Strategy<Value = (usize, usize, Vec<u8>)> {
    let interesting = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        prop_oneof![Just(0_u64), Just(u64::MAX), Just(1 << 63), Just(1 << 40), any::<u64>()]
            .prop_map(|word| word.to_le_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 1..64),
    ];
    (0..5_usize, any::<prop::sample::Index>(), interesting).prop_map(|(place, index, bytes)| {
        let (begin, length) = TENDER[place % TENDER.len()];
        (begin + index.index(length), length, bytes)
    })
}

fn build(bytes: &[u8]) -> Result<Table, TableError> {
    let mut looks = 0;
    let table = Table::of_bytes(bytes, LIMITS, &mut || {
        looks += 1;
        looks < 100
    })?;
    assert!(table.rows.is_sorted_by(|a, b| a.pc < b.pc));
    assert!(table.rows.len() <= 2 * LIMITS.rows && !table.rows.is_empty());
    assert_eq!(table.base % 4_096, 0);
    for segment in &table.segments {
        let _any = table.bias(u64::MAX - 4_095, segment.offset);
    }
    Ok(table)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn damaged_files_give_a_table_or_a_reason(
        damages in prop::collection::vec(damage(), 1..8),
        length in prop_oneof![9 => Just(usize::MAX), 1 => any::<prop::sample::Index>().prop_map(|i| i.index(PROGRAM.len()))],
    ) {
        let mut bytes = PROGRAM.clone();
        for (at, _, new) in damages {
            let end = (at + new.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&new[..end - at]);
        }
        bytes.truncate(length);
        let _either = build(&bytes);
    }
}

#[test]
fn a_whole_file_passes_where_damaged_ones_are_tried() {
    assert!(build(&PROGRAM).expect("a whole file").rows.len() > 500);
}

#[test]
fn the_time_for_a_file_can_end() {
    let libc = std::fs::read("/lib/x86_64-linux-gnu/libc.so.6").or_else(|_| std::fs::read("/proc/self/exe"));
    let ended = Table::of_bytes(&libc.expect("this test"), Limits::default(), &mut || false);
    assert!(matches!(ended, Err(TableError::Timeout)), "{ended:?}");
}

#[test]
fn a_file_over_its_limits_is_refused_with_the_limit() {
    let rows = Table::of_bytes(&PROGRAM, Limits { rows: 10, ..LIMITS }, &mut || true);
    assert!(matches!(rows, Err(TableError::TooLarge { limit: 10, .. })), "{rows:?}");
    let bytes = Table::of_bytes(&PROGRAM, Limits { section_bytes: 10, ..LIMITS }, &mut || true);
    assert!(matches!(bytes, Err(TableError::TooLarge { limit: 10, .. })), "{bytes:?}");
}

#[test]
fn what_is_no_file_of_this_machine_is_named() {
    let mut arm = PROGRAM.clone();
    arm[18..20].copy_from_slice(&183_u16.to_le_bytes());
    assert!(matches!(Table::of_bytes(&arm, LIMITS, &mut || true), Err(TableError::Machine(183))));
    assert!(matches!(Table::of_bytes(b"#!/bin/sh\n", LIMITS, &mut || true), Err(TableError::NotElf(_))));
    let mut stripped = PROGRAM.clone();
    // Without its list of sections the frames are found by their own header.
    stripped[40..48].fill(0);
    stripped[60..64].fill(0);
    let whole = build(&PROGRAM).expect("a whole file");
    assert_eq!(build(&stripped).expect("it still unwinds").rows, whole.rows);
}
