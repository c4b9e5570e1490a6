//! Tables of real files.

mod hostile;
mod live;
mod reference;
mod store;

use std::fs::File;

use agent_common::CfaRule;

use super::{Limits, Table, bias};

/// Files with frames of every kind that this machine may have.
const FILES: [&str; 6] = [
    "/proc/self/exe",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib64/ld-linux-x86-64.so.2",
    "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
    "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
    "/bin/bash",
];

/// The table of a file, if the file exists.
fn table(path: &str) -> Option<Table> {
    let file = File::open(path).ok()?;
    Some(Table::of_file(&file, Limits::default(), &mut || true).expect("it has a table"))
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the time that it takes is printed, nothing is decided by it")]
fn real_files_are_covered() {
    for path in FILES {
        let start = std::time::Instant::now();
        let Some(table) = table(path) else { continue };
        let took = start.elapsed();
        let coverage = table.coverage();
        let bytes: u64 = coverage.iter().map(|(_, bytes)| bytes).sum();
        let of = |rule| coverage.iter().find(|(r, _)| *r == rule).map_or(0, |(_, bytes)| *bytes);
        let unsupported = of(CfaRule::Unsupported);
        eprintln!(
            "{path}: {} rows, {} kB of code, unsupported {} of 10,000, gaps {} of 10,000, {took:?}, {:?}",
            table.rows.len(),
            bytes >> 10,
            unsupported * 10_000 / bytes,
            of(CfaRule::Gap) * 10_000 / bytes,
            table.skipped
        );
        assert!(table.rows.is_sorted_by(|a, b| a.pc < b.pc), "{path}");
        assert!(unsupported * 40 < bytes, "{path}: {unsupported} of {bytes} bytes are unsupported");
    }
}

#[test]
fn a_mapping_of_something_else_has_no_bias() {
    let segments = [super::Segment { offset: 0x1_234, file_size: 0x5_000, address: 0x40_1234, size: 0x5_000 }];
    assert_eq!(bias(&segments, 0x40_1000, 0x7f00_0000_1000, 0x1_000), Some(0x7f00_0000_1000));
    assert_eq!(bias(&segments, 0x40_1000, 0x7f00_0000_3000, 0x3_000), Some(0x7f00_0000_1000));
    assert_eq!(bias(&segments, 0x40_1000, 0x7f00_0000_1000, 0x0), None);
    assert_eq!(bias(&segments, 0x40_1000, 0x7f00_0000_1000, 0x7_000), None);
}
