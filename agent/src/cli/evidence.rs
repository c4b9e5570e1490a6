//! The two grades of evidence beside each other: what a pipeline reports, and what the kernel alone tells of its process.
//! Signals in, a table and lines out; asks nobody.

use tidegate_client::abi::{DescriptorJson, KernelGradeJson, PressureJson, SignalsJson, UsageJson};

use super::pipelines::{millis, rounded};
use super::table::{Cell, bytes, table};

/// The table, and how the kernel's column came about; nothing before the kernel has told of the process.
pub(super) fn shown(s: &SignalsJson) -> Option<String> {
    let kernel = s.kernel.as_deref()?;
    // Signals that rest on the kernel alone are no second opinion.
    let report = if kernel.alone { SignalsJson::default() } else { s.clone() };
    let lines = [
        figures(&report, kernel),
        vec![String::new()],
        role("sink", kernel.sink.as_ref(), "most bytes go out by it"),
        role("input", kernel.input.as_ref(), "most bytes come in by it, the sink left out"),
        kernel.flush_ends_with.as_deref().map(ending).into_iter().map(str::to_owned).collect(),
        kernel.cause.as_deref().map(cause).into_iter().map(str::to_owned).collect(),
        s.usage.as_deref().map(usage).unwrap_or_default(),
    ];
    Some(lines.concat().join("\n"))
}

fn figures(report: &SignalsJson, kernel: &KernelGradeJson) -> Vec<String> {
    let with_error = |value: Option<f64>, error: Option<f64>, unit: &str| {
        let (value, error) = value.zip(error)?;
        Some(format!("{value:.2} ± {error:.2} {unit}"))
    };
    let per_s = |rate: f64| format!("{}/s", rounded(rate));
    let size = |value: f64| format!("{} B", rounded(value));
    let rows = [
        ("events", report.rate.map(per_s), kernel.rate.map(per_s)),
        ("bytes in", None, kernel.bytes_in_per_s.map(|b| format!("{}/s", whole_bytes(b)))),
        (
            "flushes",
            report.flushes_per_s.map(|f| format!("{f:.1}/s")),
            kernel.flushes_per_s.map(|f| format!("{f:.1}/s")),
        ),
        ("events a flush", per_flush(report), kernel.flush_events.map(|n| format!("{n:.1}"))),
        ("flush, before it is packed", report.flush_bytes.map(size), None),
        ("flush, as it goes out", None, kernel.flush_bytes.map(size)),
        ("flush takes", report.flush_ms.map(millis), kernel.flush_ms.map(millis)),
        ("gap before it", None, kernel.gap_ms.map(millis)),
        ("flusher busy", report.busy_share.map(percent), kernel.busy_share.map(percent)),
        ("in writes to the sink", None, kernel.in_writes_share.map(percent)),
        (
            "fixed cost a",
            report.flush_fixed_ms.map(|a| format!("{a:.2} ms")),
            with_error(kernel.flush_fixed_ms, kernel.flush_fixed_error_ms, "ms"),
        ),
        (
            "cost b of a KiB",
            report.flush_per_kib_us.map(|b| format!("{b:.2} µs")),
            with_error(kernel.flush_per_kib_us, kernel.flush_per_kib_error_us, "µs"),
        ),
    ];
    let known = rows.into_iter().filter(|(_, report, kernel)| report.is_some() || kernel.is_some());
    let cells = known.map(|(what, report, kernel)| vec![Cell::text(what), Cell::maybe(report), Cell::maybe(kernel)]);
    vec![table(&["evidence", "report", "kernel"], cells).to_string()]
}

fn per_flush(report: &SignalsJson) -> Option<String> {
    let flushes = report.flushes_per_s.filter(|per_s| *per_s > 0.0)?;
    Some(format!("{:.1}", report.rate? / flushes))
}

fn role(what: &str, descriptor: Option<&DescriptorJson>, why: &str) -> Vec<String> {
    let Some(DescriptorJson { fd, target, share, among }) = descriptor else { return Vec::new() };
    let leads = if target.is_empty() { String::new() } else { format!(" ({target})") };
    let others = if *among > 1 { format!(", one of {among} like it") } else { String::new() };
    vec![format!("{what}: descriptor {fd}{leads}{others}: {why}, {:.0} %", 100.0 * share)]
}

/// What the process uses and waits for, a line each for itself, its cgroup and the host.
fn usage(usage: &UsageJson) -> Vec<String> {
    let UsageJson {
        cpu_cores,
        switches_per_s,
        resident_bytes,
        run_delay,
        page_faults_per_s,
        instructions_per_cycle,
        host_pressure,
        group_pressure,
    } = usage;
    let known = |parts: &[(&str, Option<String>)]| {
        let told = parts.iter().filter_map(|(what, value)| Some(format!("{what} {}", value.as_ref()?)));
        told.collect::<Vec<_>>().join(", ")
    };
    let own = known(&[
        ("CPU", cpu_cores.map(|cores| format!("{cores:.3} cores"))),
        ("memory", resident_bytes.map(bytes)),
        ("waiting for a CPU", run_delay.map(percent)),
        ("switches", switches_per_s.map(|n| format!("{}/s", rounded(n)))),
        ("page faults", page_faults_per_s.map(|n| format!("{}/s", rounded(n)))),
        ("instructions", instructions_per_cycle.map(|n| format!("{n:.2}/cycle"))),
    ]);
    let pressure = |whose: &str, of: &Option<PressureJson>| {
        let of = of.as_ref()?;
        let told = known(&[
            ("CPU", of.cpu_some.map(percent)),
            ("memory", of.memory_some.map(percent)),
            ("disk", of.io_some.map(percent)),
        ]);
        Some(format!("pressure {whose}: {told}"))
    };
    let lines = [
        (!own.is_empty()).then(|| format!("process: {own}")),
        pressure("on its cgroup", group_pressure),
        pressure("on the host", host_pressure),
    ];
    lines.into_iter().flatten().collect()
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn ending(word: &str) -> &'static str {
    match word {
        "answer" => "a flush: the writes up to the answer of the sink, or to the end of a sync",
        _ => "a flush: each write, for nothing answers them",
    }
}

fn cause(word: &str) -> &'static str {
    match word {
        "timer" => "flushes begin by a timer: their intervals are alike, their sizes follow the load",
        "size" => "flushes begin when a batch is full: their sizes are alike, their intervals follow the load",
        "downstream" => "flushes begin when the one before has ended: the sink sets the pace",
        _ => "why flushes begin cannot be told from outside: sizes and intervals vary alike, or not at all",
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates, rates are positive")]
fn whole_bytes(figure: f64) -> String {
    bytes(figure.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signals(alone: bool) -> SignalsJson {
        let kernel = KernelGradeJson {
            alone,
            rate: Some(4_998.0),
            flush_ms: Some(12.0),
            flush_fixed_ms: Some(10.0),
            flush_fixed_error_ms: Some(0.125),
            cause: Some("timer".to_owned()),
            sink: Some(DescriptorJson { fd: 7, target: "socket:[9]".to_owned(), share: 0.995, among: 2 }),
            ..KernelGradeJson::default()
        };
        SignalsJson { rate: Some(5_012.0), kernel: Some(Box::new(kernel)), ..SignalsJson::default() }
    }

    #[test]
    fn both_grades_stand_beside_each_other_with_how_the_sink_was_found() {
        let text = shown(&signals(false)).expect("the kernel has told");
        let row = |what: &str| text.lines().find(|line| line.contains(what)).unwrap_or_default().to_owned();
        assert!(row("events").contains("5,012/s") && row("events").contains("4,998/s"), "{text}");
        assert!(row("fixed cost").contains('–') && row("fixed cost").contains("10.00 ± 0.12 ms"), "{text}");
        assert!(text.contains("sink: descriptor 7 (socket:[9]), one of 2 like it: most bytes go out by it"), "{text}");
        assert!(text.contains("by a timer"), "{text}");
        assert!(!text.contains("gap"), "a row that nobody knows is left out: {text}");
    }

    #[test]
    fn evidence_of_the_kernel_alone_is_not_shown_twice() {
        let text = shown(&signals(true)).expect("the kernel has told");
        assert!(!text.contains("5,012") && text.contains("4,998/s"), "{text}");
        assert_eq!(shown(&SignalsJson::default()), None);
    }
}
