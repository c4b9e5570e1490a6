//! A process whose doings are known, by what its descriptors tell alone.

use std::sync::Arc;

use agent_common::FlowCalls;

use super::*;

/// Ticks of 100 ms of a pipeline that takes `events` of 500 bytes a tick and flushes twice in it, a quarter of the bytes,
/// at 4 ms and 40 µs a KiB.
pub(in crate::signal) fn flows(events: u64, i: u64) -> Vec<FlowDelta> {
    let mut out = FlowFlushes::ZERO;
    for k in 0..2_u64 {
        let bytes = events * 500 / 8 + (i * 2 + k) * 7_919 % 12_000;
        let us = 4_000 + bytes * 40 / 1_024;
        let interval = 50_000 + (i * 2 + k) * 104_729 % 500;
        out.flushes += 1;
        out.bytes += bytes;
        out.bytes_squared += bytes * bytes;
        out.duration_ns += us * 1_000;
        out.bytes_us += bytes * us;
        out.us_squared += us * us;
        out.intervals += 1;
        out.interval_us += interval;
        out.interval_us_squared += interval * interval;
        // Four times the bytes came in, and the cost of a byte is a quarter.
        out.arrived += 4 * bytes;
        out.arrived_squared += 16 * bytes * bytes;
        out.arrived_us += 4 * bytes * us;
        out.paired_ns += us * 1_000;
        out.paired_us_squared += us * us;
        out.gap_ns += (interval - us) * 1_000;
        out.gaps[16] += 1;
    }
    let calls = |bytes| FlowCalls { calls: 4, bytes, timed: 4, total_ns: 1_000_000, ..FlowCalls::ZERO };
    let flow = |fd, target: &str, ways, flushes| FlowDelta {
        fd,
        first: Nanos(1),
        target: Arc::from(target),
        ways,
        flushes,
        open_bytes: 0,
        untold: 0,
    };
    vec![
        flow(4, "socket:[1]", [calls(events * 500), calls(16), FlowCalls::ZERO], [FlowFlushes::ZERO; 2]),
        flow(7, "socket:[2]", [calls(16), calls(out.bytes), FlowCalls::ZERO], [out, out]),
    ]
}

fn after(ticks: u64, event_bytes: Option<u64>) -> KernelGrade {
    let mut tracker = KernelTracker::new(event_bytes);
    let mut last = None;
    for i in 0..ticks {
        last = Some(tracker.observe(Nanos::TICK, &flows(300, i)));
    }
    last.unwrap()
}

fn near(seen: Option<f64>, truth: f64) {
    assert!(seen.is_some_and(|seen| (seen - truth).abs() <= 0.03 * truth), "{seen:?} is not {truth}");
}

#[test]
fn everything_that_a_report_would_tell_of_flushes_is_told_by_descriptors() {
    let grade = after(60, Some(500));
    assert_eq!((grade.sink.as_ref().map(|d| d.fd), grade.input.as_ref().map(|d| d.fd)), (Some(7), Some(4)));
    near(grade.rate.map(|rate| rate.0), 3_000.0);
    near(grade.bytes_in_per_s, 1_500_000.0);
    near(grade.flushes_per_s, 20.0);
    near(grade.flush_events, 150.0);
    near(grade.flush_bytes, 24_750.0);
    near(grade.flush_ms, 4.967);
    near(grade.busy, 0.0993);
    near(grade.gap_ms, 45.28);
    near(grade.in_writes, 0.01);
    let line = grade.cost.and_then(|cost| cost.line).unwrap();
    near(Some(line.fixed_ms), 4.0);
    near(Some(line.per_kib_us), 10.0);
    assert_eq!(grade.cost_of, Some(SizedBy::Arrival));
    assert_eq!(grade.cause, Some(FlushCause::Timer));
    assert_eq!(grade.answering, Some(Answering::Always));
}

#[test]
fn without_a_size_of_events_bytes_are_told_and_events_are_not() {
    let grade = after(60, None);
    near(grade.bytes_in_per_s, 1_500_000.0);
    assert_eq!((grade.rate, grade.newest_rate, grade.flush_events, grade.event_bytes), (None, None, None, None));
}

#[test]
fn a_sink_that_answers_nothing_is_told_by_its_writes() {
    let mut tracker = KernelTracker::new(Some(500));
    let mut last = None;
    for i in 0..40 {
        let mut seen = flows(300, i);
        seen[1].flushes[FLOW_ANSWERED] = FlowFlushes::ZERO;
        last = Some(tracker.observe(Nanos::TICK, &seen));
    }
    let grade = last.unwrap();
    assert_eq!(grade.answering, Some(Answering::Never));
    near(grade.flushes_per_s, 20.0);
}
