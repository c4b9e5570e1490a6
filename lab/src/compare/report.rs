//! What a comparison found: counters at the phases' edges and the loads' own reports in, rows and ratios out. Pure.

use serde::Serialize;

use crate::load::LoadReport;
use crate::load::latency::Summary;
use crate::pipeline::Stats;
use crate::pipeline::policy::Policy;
use crate::sink::Received;

/// All of it, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Phases as they were asked for.
    pub(crate) phases: String,
    /// Bytes of a record on the wire.
    pub(crate) record_bytes: usize,
    /// Delay of the sink, ms.
    pub(crate) sink_delay_ms: f64,
    /// Warm-up left out of the results, s.
    pub(crate) warmup_s: f64,
    /// CPU time of all processes over the wall time of the phases: share of one core.
    pub(crate) cores_used: f64,
    /// One entry a policy.
    pub(crate) pipelines: Vec<PipelineReport>,
    /// `tuned` against `fixed`, when both ran.
    pub(crate) tuned_against_fixed: Option<[Ratio; 2]>,
}

/// One policy.
#[derive(Debug, Serialize)]
pub(crate) struct PipelineReport {
    /// Its policy.
    pub(crate) policy: Policy,
    /// Name of the pipeline.
    pub(crate) name: String,
    /// Its process.
    pub(crate) pid: u32,
    /// One row a phase.
    pub(crate) phases: Vec<Row>,
    /// All phases, every record counting alike.
    pub(crate) by_event: Row,
    /// All phases, every second counting alike.
    pub(crate) by_time: Row,
    /// Records due, sent, acknowledged, missing, and the sender's own worst delay.
    pub(crate) load: LoadReport,
    /// Counters at the begin, at each edge between phases, and at the end of the last.
    pub(crate) edges: Vec<Stats>,
    /// Counters after the drain.
    pub(crate) last: Stats,
    /// What arrived at the sink.
    pub(crate) received: Received,
}

/// What was measured of one policy.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) load: LoadReport,
    /// Counters at the begin and after each phase.
    pub(crate) edges: Vec<Stats>,
    pub(crate) last: Stats,
    pub(crate) received: Received,
}

/// One line of the table.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Row {
    /// Records due a second.
    pub(crate) events_per_s: f64,
    /// Latencies.
    #[serde(flatten)]
    pub(crate) latency: Summary,
    /// Flushes per 1,000 records.
    pub(crate) flushes_per_1000: f64,
    /// CPU time of the pipeline per record, microseconds.
    pub(crate) cpu_us_per_event: f64,
}

/// How much lower one policy lies than another.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Ratio {
    /// What counts alike.
    pub(crate) weighting: &'static str,
    /// Share by which the 99th percentile is lower.
    pub(crate) p99_reduction: f64,
    /// Share by which the 99.9th percentile is lower.
    pub(crate) p999_reduction: f64,
    /// Share by which the mean is lower.
    pub(crate) mean_reduction: f64,
}

/// Rows of one policy.
#[expect(clippy::cast_precision_loss, reason = "shares and means of counts far below 2^52")]
pub(crate) fn pipeline_report(policy: Policy, name: String, pid: u32, measured: Measured) -> PipelineReport {
    let Measured { load, edges, last, received } = measured;
    let phases: Vec<Row> = load
        .phases
        .iter()
        .zip(edges.windows(2))
        .map(|(phase, edge)| {
            let events = phase.scheduled.max(1) as f64;
            Row {
                events_per_s: phase.scheduled as f64 / phase.seconds,
                latency: phase.latency,
                flushes_per_1000: (edge[1].flushes - edge[0].flushes) as f64 * 1e3 / events,
                cpu_us_per_event: (edge[1].cpu_ns - edge[0].cpu_ns) as f64 / 1e3 / events,
            }
        })
        .collect();
    let mean = |weight: &dyn Fn(usize) -> f64, value: &dyn Fn(&Row) -> f64| {
        let weights: f64 = (0..phases.len()).map(weight).sum();
        phases.iter().enumerate().map(|(i, row)| weight(i) * value(row)).sum::<f64>() / weights
    };
    let total = |latency: Summary, weight: &dyn Fn(usize) -> f64| Row {
        events_per_s: mean(&|i| load.phases[i].seconds, &|r| r.events_per_s),
        latency,
        flushes_per_1000: mean(weight, &|r| r.flushes_per_1000),
        cpu_us_per_event: mean(weight, &|r| r.cpu_us_per_event),
    };
    let by_event = total(load.by_event, &|i| load.phases[i].scheduled as f64);
    let by_time = total(load.by_time, &|i| load.phases[i].seconds);
    PipelineReport { policy, name, pid, phases, by_event, by_time, load, edges, last, received }
}

/// `tuned` against `fixed`, by both weightings.
pub(crate) fn tuned_against_fixed(pipelines: &[PipelineReport]) -> Option<[Ratio; 2]> {
    let find = |policy| pipelines.iter().find(|p| p.policy == policy);
    let (tuned, fixed) = (find(Policy::Model)?, find(Policy::Fixed)?);
    let ratio = |weighting, tuned: &Row, fixed: &Row| {
        let lower = |value: fn(&Summary) -> f64| 1.0 - value(&tuned.latency) / value(&fixed.latency);
        Ratio {
            weighting,
            p99_reduction: lower(|s| s.p99_ms),
            p999_reduction: lower(|s| s.p999_ms),
            mean_reduction: lower(|s| s.mean_ms),
        }
    };
    Some([ratio("by events", &tuned.by_event, &fixed.by_event), ratio("by seconds", &tuned.by_time, &fixed.by_time)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::PhaseReport;

    fn latency(p99_ms: f64) -> Summary {
        Summary { records: 1, p50_ms: 1.0, p99_ms, p999_ms: 2.0 * p99_ms, mean_ms: 1.0, max_ms: 9.0 }
    }

    fn report(policy: Policy, p99_ms: f64) -> PipelineReport {
        let phase = |rate, seconds, scheduled| PhaseReport {
            rate,
            seconds,
            scheduled,
            latency: latency(p99_ms),
            traffic: None,
        };
        let load = LoadReport {
            begin_ns: 0,
            record_bytes: 512,
            phases: vec![phase(100, 1.0, 100), phase(300, 3.0, 900)],
            by_event: latency(p99_ms),
            by_time: latency(p99_ms),
            slices: Vec::new(),
            scheduled: 1_000,
            sent: 1_000,
            acknowledged: 1_000,
            missing: 0,
            worst_send_delay_ms: 0.0,
        };
        let at = |flushes, cpu_ns| Stats { cpu_ns, flushes, ..Stats::default() };
        let edges = vec![at(5, 1_000), at(15, 201_000), at(60, 2_001_000)];
        let measured = Measured { load, edges, last: Stats::default(), received: Received::default() };
        pipeline_report(policy, "p".into(), 1, measured)
    }

    #[test]
    fn rows_are_differences_between_edges_and_totals_follow_their_weighting() {
        let report = report(Policy::Fixed, 100.0);
        let flushes = |r: &Row| format!("{:.1}", r.flushes_per_1000);
        assert_eq!((flushes(&report.phases[0]), flushes(&report.phases[1])), ("100.0".into(), "50.0".into()));
        assert_eq!(flushes(&report.by_event), "55.0");
        assert_eq!(flushes(&report.by_time), "62.5");
        assert!((report.phases[0].cpu_us_per_event - 2.0).abs() < 1e-9);
        assert!((report.by_time.events_per_s - 250.0).abs() < 1e-9);
    }

    #[test]
    fn a_ratio_needs_both_and_says_how_much_lower() {
        assert!(tuned_against_fixed(&[report(Policy::Fixed, 100.0)]).is_none());
        let ratios = tuned_against_fixed(&[report(Policy::Model, 10.0), report(Policy::Fixed, 100.0)]).unwrap();
        assert!((ratios[0].p99_reduction - 0.9).abs() < 1e-9);
        assert!((ratios[1].mean_reduction - 0.0).abs() < 1e-9);
    }
}
