//! What `cargo test` prints, read into counts. Takes the log with both streams in order: cargo names a test binary on
//! one of them, the binary sums up on the other. Never runs anything.

/// Test binary that needs root and a real kernel.
const PRIVILEGED: &str = "tests/kernel/main.rs";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// Of those that ran, the ones that need root.
    pub(crate) privileged: u64,
    /// Of the skipped ones, those that need root.
    pub(crate) privileged_skipped: u64,
}

impl Counts {
    pub(crate) fn ran(self) -> u64 {
        self.passed + self.failed
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        let Self { passed, failed, skipped, privileged, privileged_skipped } = other;
        Self {
            passed: self.passed + passed,
            failed: self.failed + failed,
            skipped: self.skipped + skipped,
            privileged: self.privileged + privileged,
            privileged_skipped: self.privileged_skipped + privileged_skipped,
        }
    }
}

/// Sums up every `test result:` line.
pub(crate) fn counts(log: &str) -> Counts {
    let mut sum = Counts::default();
    let mut privileged = false;
    for line in log.lines().map(str::trim) {
        if let Some(binary) = line.strip_prefix("Running ") {
            privileged = binary.contains(PRIVILEGED);
        } else if line.starts_with("Doc-tests ") {
            privileged = false;
        } else if let Some(result) = result_line(line) {
            sum = sum.plus(if privileged {
                Counts { privileged: result.ran(), privileged_skipped: result.skipped, ..result }
            } else {
                result
            });
        }
    }
    sum
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn result_line(line: &str) -> Option<Counts> {
    // A test that prints without a line's end can stand before it.
    let (_, result) = line.split_once("test result: ")?;
    let number = |word: &str| -> Option<u64> {
        result.split([';', '.']).map(str::trim).find_map(|part| part.strip_suffix(word)?.trim().parse().ok())
    };
    Some(Counts {
        passed: number("passed")?,
        failed: number("failed")?,
        skipped: number("ignored").unwrap_or(0),
        ..Counts::default()
    })
}

/// Whether a failed `cargo` call failed before any test ran.
pub(crate) fn does_not_build(log: &str) -> bool {
    log.lines().any(|line| {
        line.starts_with("error: could not compile") || line.starts_with("error: failed to run custom build")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "
     Running unittests src/lib.rs (target/debug/deps/tidegate-1)
running 3 tests
test units::tests::a ... ok
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
     Running tests/kernel/main.rs (target/debug/deps/kernel-1)
running 5 tests
test result: FAILED. 2 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 1.00s
   Doc-tests tidegate
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out
";

    #[test]
    fn results_of_all_binaries_are_summed_and_privileged_ones_told_apart() {
        let want = Counts { passed: 6, failed: 1, skipped: 2, privileged: 3, privileged_skipped: 2 };
        assert_eq!(counts(LOG), want);
    }

    #[test]
    fn a_result_behind_other_output_on_its_line_counts() {
        assert_eq!(counts("noise test result: ok. 4 passed; 0 failed; 0 ignored").passed, 4);
    }

    #[test]
    fn a_broken_build_is_told_from_a_failed_test() {
        assert!(does_not_build("error[E0433]: x\nerror: could not compile `tidegate` (lib) due to 1 previous error\n"));
        assert!(!does_not_build(LOG));
    }
}
