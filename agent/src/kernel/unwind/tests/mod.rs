//! Tables of real files.

use std::fs::File;
use std::path::Path;

use agent_common::CfaRule;

use super::{Limits, Table};

/// Files with frames of every kind that this machine may have.
const FILES: [&str; 7] = [
    "/proc/self/exe",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib64/ld-linux-x86-64.so.2",
    "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
    "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
    "/bin/bash",
    "/usr/bin/node",
];

fn table(path: impl AsRef<Path>) -> Table {
    Table::of_file(&File::open(path).expect("it is there"), Limits::default(), &mut || true).expect("it has a table")
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the time that it takes is printed, nothing is decided by it")]
fn real_files_are_covered() {
    for path in FILES.iter().filter(|path| Path::new(path).exists()) {
        let start = std::time::Instant::now();
        let table = table(path);
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
