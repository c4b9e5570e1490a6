//! The one table of a comparison, and the ratios below it.

use std::fmt::{self, Write};

use comfy_table::{CellAlignment, Table, presets};

use super::report::{PipelineReport, Report, Row};

/// Rates, latencies and costs, by phase and in all.
pub(crate) fn render(report: &Report) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        "phase",
        "policy",
        "events/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "mean ms",
        "flushes/1000",
        "CPU µs/event",
    ]);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let phases = report.pipelines.first().map_or(0, |p| p.phases.len());
    for i in 0..phases {
        let title = report.pipelines.first().map_or(String::new(), |p| {
            let phase = &p.load.phases[i];
            format!("{}: {}/s, {} s", i + 1, phase.rate, phase.seconds)
        });
        group(&mut table, &report.pipelines, &title, |p| p.phases[i]);
    }
    group(&mut table, &report.pipelines, "all, by events", |p| p.by_event);
    group(&mut table, &report.pipelines, "all, by seconds", |p| p.by_time);

    let mut text = format!("{table}\n");
    say(
        &mut text,
        format_args!(
            "records of {} bytes, sink of {} ms, {} s of warm-up left out, {:.1} % of one core in all\n",
            report.record_bytes,
            report.sink_delay_ms,
            report.warmup_s,
            report.cores_used * 100.0
        ),
    );
    for ratio in report.tuned_against_fixed.iter().flatten() {
        say(
            &mut text,
            format_args!(
                "tuned against fixed, {:<10}: p99 {}, p99.9 {}, mean {}\n",
                ratio.weighting,
                lower(ratio.p99_reduction),
                lower(ratio.p999_reduction),
                lower(ratio.mean_reduction)
            ),
        );
    }
    for p in report.pipelines.iter().filter(|p| p.load.missing > 0) {
        say(&mut text, format_args!("{}: {} of {} records MISSING\n", p.policy, p.load.missing, p.load.scheduled));
    }
    text
}

fn group(table: &mut Table, pipelines: &[PipelineReport], title: &str, row: impl Fn(&PipelineReport) -> Row) {
    if !table.is_empty() {
        table.add_row([""; 9]);
    }
    for (i, pipeline) in pipelines.iter().enumerate() {
        let Row { events_per_s, latency, flushes_per_1000, cpu_us_per_event } = row(pipeline);
        let title = if i == 0 { title } else { "" };
        let two = |v: f64| format!("{v:.2}");
        table.add_row([
            title.to_owned(),
            pipeline.policy.to_string(),
            format!("{events_per_s:.0}"),
            two(latency.p50_ms),
            two(latency.p99_ms),
            two(latency.p999_ms),
            two(latency.mean_ms),
            two(flushes_per_1000),
            two(cpu_us_per_event),
        ]);
    }
}

/// A `String` takes whatever is written to it.
fn say(text: &mut String, what: fmt::Arguments<'_>) {
    text.write_fmt(what).ok();
}

fn lower(share: f64) -> String {
    let word = if share >= 0.0 { "lower" } else { "HIGHER" };
    format!("{:.1} % {word}", share.abs() * 100.0)
}
