//! What the demo says at its end: decisions with reasons, where the flame graph lies, each promise with its figure, and
//! what to ask next. Takes what was seen and measured; decides nothing but whether a figure is within its limit.

use std::path::Path;

use super::report::{Report, Statistic, Weighting};
use super::watcher::{Seen, Witness};
use crate::ui;

/// Decisions that are printed; all of them are in the agent's answer.
const DECISIONS_SHOWN: usize = 24;

/// A promise about the tuned pipeline beside the fixed one.
struct Promise {
    what: &'static str,
    statistic: Statistic,
    /// Largest ratio tuned / fixed that keeps it.
    limit: f64,
}

const PROMISES: [Promise; 3] = [
    Promise { what: "p99", statistic: Statistic::P99, limit: 0.15 },
    Promise { what: "p99.9", statistic: Statistic::P999, limit: 0.08 },
    Promise { what: "mean", statistic: Statistic::Mean, limit: 1.0 },
];

pub(super) fn decisions(witness: &Witness) {
    for seen in witness.pipelines.iter().filter(|seen| is_tuned(seen)) {
        let all: Vec<_> = seen.decisions.values().collect();
        let shown = &all[all.len().saturating_sub(DECISIONS_SHOWN)..];
        let (name, pid) = (&seen.pipeline.name, seen.pipeline.pid);
        ui::line(format_args!(
            "\ndecisions of {name} (process {pid}): {} in all, the last {}:",
            all.len(),
            shown.len()
        ));
        let start = all.first().map_or(0, |decision| decision.time_ns);
        let rows: Vec<Vec<String>> = shown
            .iter()
            .map(|decision| {
                let change = |from: u64, to: u64, unit: fn(u64) -> String| {
                    if from == to { unit(to) } else { format!("{} → {}", unit(from), unit(to)) }
                };
                vec![
                    format!("{:.1}", seconds(decision.time_ns.saturating_sub(start))),
                    change(decision.from_batch_bytes, decision.batch_bytes, size),
                    change(decision.from_flush_interval_us, decision.flush_interval_us, interval),
                    decision.reason.clone(),
                    decision.explanation.clone(),
                ]
            })
            .collect();
        ui::line(ui::table(&["at s>", "batch size", "flush interval", "reason", ""], &rows));
    }
}

pub(super) fn flame(witness: &Witness, root: &Path) {
    match &witness.flame {
        Ok(file) => ui::line(format_args!("\nflame graph: {}", file.strip_prefix(root).unwrap_or(file).display())),
        Err(error) => ui::line(format_args!("\nflame graph: none: {error:#}")),
    }
}

/// One line a promise: the figure, the limit, kept or not.
pub(super) fn print(report: &Report, witness: &Witness) {
    ui::line("\ntuned against fixed, over the whole run:");
    let mut rows = Vec::new();
    for (weighting, by) in [(Weighting::Time, "by seconds"), (Weighting::Event, "by events")] {
        for promise in &PROMISES {
            let of = |policy| report.latency(policy, weighting, promise.statistic);
            let (Some(fixed), Some(tuned)) = (of("fixed"), of("model")) else {
                rows.push(vec![
                    "MISS".to_owned(),
                    promise.what.to_owned(),
                    by.to_owned(),
                    "not in the report".to_owned(),
                ]);
                continue;
            };
            let ratio = tuned / fixed;
            let kept = if ratio <= promise.limit { "PASS" } else { "MISS" };
            let limit = match promise.limit {
                1.0 => "wanted lower".to_owned(),
                limit => format!("wanted {:+.0} % or better", (limit - 1.0) * 100.0),
            };
            rows.push(vec![
                kept.to_owned(),
                promise.what.to_owned(),
                by.to_owned(),
                format!("{fixed:.1} ms"),
                format!("{tuned:.1} ms"),
                format!("{:+.1} %", (ratio - 1.0) * 100.0),
                limit,
            ]);
        }
    }
    ui::line(ui::table(&["", "", "", "fixed>", "tuned>", "change>", ""], &rows));
    let strays: usize = witness.pipelines.iter().map(Seen::out_of_bounds).sum();
    let decided: usize = witness.pipelines.iter().map(|seen| seen.decisions.len()).sum();
    let kept = if strays == 0 && decided > 0 { "PASS" } else { "MISS" };
    ui::line(format_args!("{kept}  {strays} of {decided} decisions outside the pipeline's bounds, wanted 0"));
    let drawn = witness.flame.as_ref().ok().and_then(|file| std::fs::read_to_string(file).ok());
    let names = if drawn.is_some_and(|svg| names_both_sides(&svg)) { "PASS" } else { "MISS" };
    ui::line(format_args!("{names}  the flame graph names the pipeline's own functions and the kernel's"));
}

pub(super) fn curl(socket: &Path, pipeline: &str) {
    let curl = format!("sudo curl --unix-socket {}", socket.display());
    ui::line("\nto go on with:");
    ui::line(format_args!("  {curl} http://localhost/v1/pipelines/{pipeline}/decisions"));
    ui::line(format_args!("  {curl} 'http://localhost/v1/profiles/cpu?from=-60s&format=svg' -o flame.svg"));
    ui::line(format_args!("  {curl} http://localhost/v1/metrics"));
}

/// Whether a flame graph shows functions of the laboratory and the kernel's entry, on either processor.
fn names_both_sides(svg: &str) -> bool {
    svg.contains("tidegate_lab::") && ["entry_SYSCALL_64", "el0_svc"].iter().any(|entry| svg.contains(entry))
}

fn is_tuned(seen: &Seen) -> bool {
    seen.decisions.values().any(|decision| decision.applied == "applied")
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}

fn interval(us: u64) -> String {
    if us < 1000 { format!("{us} µs") } else { format!("{}.{} ms", us / 1000, us % 1000 / 100) }
}

fn seconds(ns: u64) -> f64 {
    std::time::Duration::from_nanos(ns).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_without_names_is_not_taken_for_one_with_them() {
        assert!(names_both_sides(
            "<title>tidegate_lab::flush (3)</title><title>entry_SYSCALL_64_after_hwframe</title>"
        ));
        assert!(!names_both_sides("<title>tidegate-lab+0x1f00</title><title>entry_SYSCALL_64_after_hwframe</title>"));
        assert!(!names_both_sides("<title>tidegate_lab::flush (3)</title>"));
    }

    #[test]
    fn sizes_and_intervals_are_told_with_their_units() {
        assert_eq!((size(512), size(262_144), size(2_097_152)), ("512 B".into(), "256 KiB".into(), "2 MiB".into()));
        assert_eq!((interval(900), interval(12_345)), ("900 µs".into(), "12.3 ms".into()));
    }
}
