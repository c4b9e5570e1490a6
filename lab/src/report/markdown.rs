//! The report as Markdown: verdicts first, then a table a study.

use std::fmt::Write;

use super::ms;
use crate::compare::digest::{ALL, Row};
use crate::compare::plan::Part;
use crate::compare::table::sections;
use crate::tuning::Proof;

/// The text.
pub(super) fn render(proof: &Proof) -> String {
    let machine = &proof.machine;
    let mut text =
        format!("# Tuning, measured\n\n{} processors ({}), Linux {}.\n\n", machine.cpus, machine.cpu, machine.kernel);
    if proof.quick {
        text.push_str("A quick run: it tries the plumbing, and its figures are not to be quoted.\n\n");
    }
    if proof.studies.iter().any(|s| s.digest.quiet.noisy) {
        text.push_str(
            "The machine was not quiet: in some studies too few blocks would have been left, so all count.\n\n",
        );
    }
    text.push_str("| | of | asked | measured | remark |\n|---|---|---|---|---|\n");
    for v in &proof.verdicts {
        writeln!(text, "| {} | {} | {} | {} | {} |", v.holds, v.of, v.asked, v.measured, v.remark).ok();
    }
    if !proof.no_help.is_empty() {
        text.push_str("\n## Where tuning does not help\n\n");
        for sentence in &proof.no_help {
            writeln!(text, "- {sentence}").ok();
        }
    }
    for done in &proof.studies {
        let digest = &done.digest;
        write!(text, "\n## {}\n\n", digest.title).ok();
        writeln!(
            text,
            "Sink {}, phases {}, {} blocks, {} left out.\n",
            digest.sink, digest.phases, digest.quiet.run, digest.quiet.dropped
        )
        .ok();
        for c in digest.aa.iter().filter(|c| c.part == Part::Settled && c.phase != ALL) {
            writeln!(
                text,
                "A/A p99, {}: {:.2} ({:.2} to {:.2})  ",
                c.phase,
                c.ratio.median,
                c.ratio.low(),
                c.ratio.high()
            )
            .ok();
        }
        text.push_str(
            "\n| phase | policy | p50 ms | p99 ms | p99.9 ms | mean ms | flushes/1000 | CPU ms/1000 | busy |\n",
        );
        text.push_str("|---|---|--:|--:|--:|--:|--:|--:|--:|\n");
        for (phase, weighting, title) in sections(digest) {
            let part = if phase == ALL { Part::Whole } else { Part::Settled };
            let fits = |r: &&Row| r.phase == phase && r.part == part && r.weighting == weighting;
            for r in digest.rows.iter().filter(fits) {
                let figures = [r.p50_ms, r.p99_ms, r.p999_ms, r.mean_ms, r.flushes_per_1000, r.cpu_ms_per_1000].map(ms);
                writeln!(text, "| {title}, {part} | {} | {} | {:.2} |", r.policy, figures.join(" | "), r.busy).ok();
            }
        }
    }
    if !proof.highest.is_empty() {
        text.push_str("\n## Highest rate with a p99 of 50 ms\n\n| policy | events/s | p99 ms there |\n|---|--:|--:|\n");
        for h in &proof.highest {
            let end = if h.at_end { " or more" } else { "" };
            writeln!(text, "| {} | {}{end} | {} |", h.policy, h.rate, ms(h.p99_ms)).ok();
        }
    }
    text
}
