//! Every check and every test of the repository, in one run with one table at its end. A check that fails does not
//! keep the others from running; the closing lines count tests, and say which of them needed root.

mod libtest;
mod steps;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::leash;
use crate::setup;
use crate::shell::Workspace;
use crate::ui::{self, Stopwatch};
use libtest::Counts;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only the steps whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
}

/// What a step brought.
struct Finding {
    verdict: Verdict,
    counts: Counts,
}

struct Row {
    name: &'static str,
    took: Duration,
    finding: Finding,
}

impl Finding {
    fn of(verdict: Verdict) -> Self {
        Self { verdict, counts: Counts::default() }
    }
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let whole = Stopwatch::start();
    let toolchain = setup::ensure(workspace)?;
    let mut rows = vec![Row { name: "setup", took: whole.elapsed(), finding: Finding::of(Verdict::Passed) }];
    let mut build = Build::Whole;
    for step in &steps::ALL {
        if args.only.as_ref().is_some_and(|only| !step.name.contains(only.as_str())) {
            continue;
        }
        ui::line(format_args!("\n== {}", step.name));
        let watch = Stopwatch::start();
        let finding = if build == Build::Broken && step.needs == steps::Needs::Build {
            Finding::of(Verdict::Skipped("the build is broken".to_owned()))
        } else {
            match (step.run)(workspace, &toolchain) {
                Err(error) if leash::is_called_off() => return Err(error),
                result => result.unwrap_or_else(|error| Finding::of(Verdict::Failed(format!("{error:#}")))),
            }
        };
        if finding.verdict == Verdict::Failed(steps::DOES_NOT_BUILD.to_owned()) {
            build = Build::Broken;
        }
        rows.push(Row { name: step.name, took: watch.elapsed(), finding });
    }
    Ok(report(&rows, whole.elapsed()))
}

/// Whether the workspace compiles.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Build {
    Whole,
    Broken,
}

fn report(rows: &[Row], took: Duration) -> ExitCode {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let (word, cause) = match &row.finding.verdict {
                Verdict::Passed => ("ok", ""),
                Verdict::Failed(cause) => ("FAILED", cause.as_str()),
                Verdict::Skipped(cause) => ("skipped", cause.as_str()),
            };
            let counts = row.finding.counts;
            let tests = if counts.ran() + counts.skipped > 0 { counts.ran().to_string() } else { String::new() };
            vec![
                row.name.to_owned(),
                format!("{:.1}", row.took.as_secs_f64()),
                tests,
                word.to_owned(),
                cause.to_owned(),
            ]
        })
        .collect();
    ui::line(format_args!("\n{}\n", ui::table(&["step", "seconds>", "tests>", "result", ""], &cells)));

    let all = rows.iter().fold(Counts::default(), |sum, row| sum.plus(row.finding.counts));
    let rights = if rustix::process::geteuid().is_root() {
        "run as root".to_owned()
    } else {
        format!(
            "{} of them skipped: probes load as root only; run `sudo -E env PATH=\"$PATH\" cargo xtask test`",
            all.privileged_skipped
        )
    };
    let twice = "those of the agent without and with its probes";
    ui::line(format_args!("{} tests ran in {}, {twice}", all.ran(), ui::span(took)));
    ui::line(format_args!("{} of them are privileged kernel tests, {rights}", all.privileged));
    for row in rows {
        if let Verdict::Skipped(cause) = &row.finding.verdict {
            ui::line(format_args!("skipped: {}: {cause}", row.name));
        }
    }
    let (failed, skipped) = (all.failed + broken_steps(rows), all.skipped);
    ui::line(format_args!("{} passed, {failed} failed, {skipped} skipped", all.passed));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Steps that failed without a failed test: a lint, a build, a test binary that died. Each counts as one failure, so
/// that the last line never says that none failed when one did.
fn broken_steps(rows: &[Row]) -> u64 {
    let mut broken = 0;
    for row in rows {
        if matches!(row.finding.verdict, Verdict::Failed(_)) && row.finding.counts.failed == 0 {
            ui::line(format_args!("failed: {}", row.name));
            broken += 1;
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_step_is_a_failure_even_when_every_test_passed() {
        let row = |verdict, counts| Row { name: "step", took: Duration::ZERO, finding: Finding { verdict, counts } };
        let passed = Counts { passed: 3, ..Counts::default() };
        let failed = Counts { passed: 3, failed: 1, ..Counts::default() };
        let rows = [
            row(Verdict::Passed, passed),
            row(Verdict::Failed("a lint".to_owned()), Counts::default()),
            row(Verdict::Failed("1 tests failed".to_owned()), failed),
            row(Verdict::Skipped("no clippy".to_owned()), Counts::default()),
        ];
        assert_eq!(broken_steps(&rows), 1, "the failed test is counted already");
    }
}
