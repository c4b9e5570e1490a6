//! The metrics: a view in, text of the format `OpenMetrics` out. The one place that names them; dashboards are held against this table.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::serve::view::{PipelineView, View};

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name as it is exposed, with unit and suffix.
    pub name: &'static str,
    kind: Kind,
    help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, help }
}

const OWN_CPU: Metric = counter("tidegate_own_cpu_seconds_total", "CPU time of the agent itself, by mode");
const OWN_MEMORY: Metric = gauge("tidegate_own_resident_bytes", "Resident memory of the agent");
const OWN_PROBES: Metric = counter("tidegate_own_probes_seconds_total", "Run time of the agent's probes in the kernel");
const OWN_CHILDREN: Metric =
    counter("tidegate_own_children_cpu_seconds_total", "CPU time of the agent's own processes");
const STEAL: Metric = counter("tidegate_host_steal_seconds_total", "CPU time that this virtual machine was not given");
const BUDGET: Metric = gauge("tidegate_budget_ratio", "Share of the host that the agent may cost");
const BUDGET_USED: Metric = gauge("tidegate_budget_used_ratio", "Share of the host that it cost over ten seconds");
const BUDGET_STEP: Metric = gauge("tidegate_budget_step", "What is left out for it: 0 is nothing");
const PROFILE_PERIOD: Metric = gauge("tidegate_profile_cpu_period_seconds", "Time between two samples of a CPU");
const SYMBOLIZER_STARTED: Metric = counter("tidegate_symbolizer_started_total", "Symbolizers started");
const SYMBOLIZER_DIED: Metric =
    counter("tidegate_symbolizer_died_total", "Symbolizers that died of a file or were ended");
const SYMBOLIZER_REFUSED: Metric =
    counter("tidegate_symbolizer_refused_files_total", "Files not shown to a symbolizer");
const SYMBOLIZER_WITHOUT_INLINED: Metric =
    gauge("tidegate_symbolizer_files_without_inlined", "Files whose inlined functions are not named");
const LOST: Metric = counter("tidegate_lost_total", "What was lost, by reason");
const INBOX_REFUSED: Metric = counter("tidegate_inbox_refused_total", "Requests refused because the inbox was full");
const HISTORY_BYTES: Metric = gauge("tidegate_history_bytes", "Bytes of the history in use");
const HISTORY_WINDOWS: Metric = gauge("tidegate_history_windows", "Profile windows in the history");
const HISTORY_TAKEN: Metric = counter("tidegate_history_records_total", "Records that the history took");
const HISTORY_LOST: Metric = counter("tidegate_history_lost_total", "Records that it did not take, by cause");
const WINDOWS_LOST: Metric =
    counter("tidegate_profile_windows_lost_total", "Windows lost because naming them was behind");
const PROFILE_RECORDED: Metric = gauge("tidegate_profile_recorded", "1 for each kind of profile that is recorded");
const ATTACHED: Metric = gauge("tidegate_probe_attached", "1 for each probe that is attached");
const DEGRADED: Metric = gauge("tidegate_degraded_signals", "Signals that cannot be had here");
const UPTIME: Metric = gauge("tidegate_uptime_seconds", "Time since the agent started");
const PAUSED: Metric = gauge("tidegate_tuning_paused", "1 while tuning is paused");
const PIPELINES: Metric = gauge("tidegate_pipelines", "Registered pipelines");
const RATE: Metric = gauge("tidegate_pipeline_events_per_second", "Event rate over the rolling window");
const BATCH: Metric = gauge("tidegate_pipeline_batch_bytes", "Batch size in force");
const INTERVAL: Metric = gauge("tidegate_pipeline_flush_interval_seconds", "Flush interval in force");
const QUEUE: Metric = gauge("tidegate_pipeline_queue_bytes", "Bytes that wait in the pipeline");
const QUEUE_CAPACITY: Metric = gauge("tidegate_pipeline_queue_capacity_bytes", "Capacity of that queue");
const SOCKET_QUEUE: Metric = gauge("tidegate_pipeline_receive_queue_bytes", "Bytes that wait unread in its sockets");
const RESIDENCY: Metric =
    gauge("tidegate_pipeline_residency_seconds", "Time that bytes waited in its sockets, mean; while somebody looks");
const FLUSH: Metric = gauge("tidegate_pipeline_flush_seconds", "Duration of a flush, mean");
const FLUSHES: Metric = gauge("tidegate_pipeline_flushes_per_second", "Flushes per second");
const P99: Metric = gauge("tidegate_pipeline_latency_p99_seconds", "99th percentile of the latency, newest window");
const GENERATION: Metric = gauge("tidegate_pipeline_settings_generation", "Generation of the settings in force");
const DECISIONS: Metric = counter("tidegate_pipeline_decisions_total", "Decisions, by reason");

/// All of them.
pub const METRICS: [Metric; 38] = [
    OWN_CPU,
    OWN_MEMORY,
    OWN_PROBES,
    OWN_CHILDREN,
    STEAL,
    BUDGET,
    BUDGET_USED,
    BUDGET_STEP,
    PROFILE_PERIOD,
    SYMBOLIZER_STARTED,
    SYMBOLIZER_DIED,
    SYMBOLIZER_REFUSED,
    SYMBOLIZER_WITHOUT_INLINED,
    LOST,
    INBOX_REFUSED,
    HISTORY_BYTES,
    HISTORY_WINDOWS,
    HISTORY_TAKEN,
    HISTORY_LOST,
    WINDOWS_LOST,
    PROFILE_RECORDED,
    ATTACHED,
    DEGRADED,
    UPTIME,
    PAUSED,
    PIPELINES,
    RATE,
    BATCH,
    INTERVAL,
    QUEUE,
    QUEUE_CAPACITY,
    SOCKET_QUEUE,
    RESIDENCY,
    FLUSH,
    FLUSHES,
    P99,
    GENERATION,
    DECISIONS,
];

/// The text of a view.
pub fn render(view: &Arc<View>, inbox_refused: u64) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Collected { view: Arc::clone(view), inbox_refused }));
    let mut text = String::new();
    encode(&mut text, &registry).expect("writing to a string does not fail");
    text
}

#[derive(Debug)]
struct Collected {
    view: Arc<View>,
    inbox_refused: u64,
}

type Written = Result<(), std::fmt::Error>;

impl Collector for Collected {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Written {
        self.own(&mut to)?;
        self.profiles(&mut to)?;
        self.state(&mut to)?;
        self.pipelines(&mut to)
    }
}

impl Collected {
    fn own(&self, to: &mut DescriptorEncoder<'_>) -> Written {
        let own = &self.view.own;
        family(to, OWN_CPU, "mode", [("user", seconds(own.user_cpu_ns)), ("system", seconds(own.system_cpu_ns))])?;
        alone(to, OWN_MEMORY, Some(whole(own.resident_bytes)))?;
        alone(to, OWN_PROBES, own.probes_ns.map(seconds))?;
        alone(to, OWN_CHILDREN, Some(seconds(own.children_cpu_ns)))?;
        alone(to, STEAL, own.steal_ns.map(seconds))?;
        let budget = &self.view.budget;
        alone(to, BUDGET, Some(budget.budget.0))?;
        alone(to, BUDGET_USED, budget.share.map(|share| share.0))?;
        alone(to, BUDGET_STEP, Some(count(budget.step)))?;
        alone(to, PROFILE_PERIOD, Some(budget.cpu_period.as_secs_f64()))?;
        let names = &self.view.names;
        alone(to, SYMBOLIZER_STARTED, Some(whole(names.started)))?;
        alone(to, SYMBOLIZER_DIED, Some(whole(names.died)))?;
        alone(to, SYMBOLIZER_REFUSED, Some(whole(names.refused)))?;
        alone(to, SYMBOLIZER_WITHOUT_INLINED, Some(whole(names.without_inlined)))?;
        family(to, LOST, "reason", self.view.lost.by_reason().map(|(reason, count)| (reason, whole(count))))?;
        alone(to, INBOX_REFUSED, Some(whole(self.inbox_refused)))
    }

    fn profiles(&self, to: &mut DescriptorEncoder<'_>) -> Written {
        let history = self.view.history.as_ref();
        alone(to, HISTORY_BYTES, history.map(|h| whole(h.bytes)))?;
        alone(to, HISTORY_WINDOWS, history.map(|h| whole(h.windows)))?;
        alone(to, HISTORY_TAKEN, history.map(|h| whole(h.taken)))?;
        let lost = history.into_iter().flat_map(|h| h.lost);
        family(to, HISTORY_LOST, "cause", lost.map(|(cause, count)| (cause, whole(count))))?;
        alone(to, WINDOWS_LOST, Some(whole(self.view.windows_lost)))?;
        family(to, PROFILE_RECORDED, "kind", self.view.recorded.iter().map(|kind| (kind.name(), 1.0)))
    }

    fn state(&self, to: &mut DescriptorEncoder<'_>) -> Written {
        let view = &self.view;
        family(to, ATTACHED, "probe", view.attached.iter().map(|probe| (*probe, 1.0)))?;
        alone(to, DEGRADED, Some(count(view.degraded.len())))?;
        alone(to, UPTIME, Some(view.now.since(view.started).as_secs_f64()))?;
        alone(to, PAUSED, Some(f64::from(u8::from(view.paused))))?;
        alone(to, PIPELINES, Some(count(view.pipelines.len())))
    }

    fn pipelines(&self, to: &mut DescriptorEncoder<'_>) -> Written {
        let ms = |v: Option<f64>| v.map(|ms| ms / 1e3);
        self.each(to, RATE, |p| p.signals.rate)?;
        self.each(to, BATCH, |p| Some(whole(p.settings.batch.0)))?;
        self.each(to, INTERVAL, |p| Some(whole(p.settings.interval.0) / 1e6))?;
        self.each(to, QUEUE, |p| p.signals.queue_bytes.map(whole))?;
        self.each(to, QUEUE_CAPACITY, |p| p.signals.queue_capacity.map(whole))?;
        self.each(to, SOCKET_QUEUE, |p| p.signals.receive_queue_bytes.map(whole))?;
        self.each(to, RESIDENCY, |p| ms(p.signals.residency_ms))?;
        self.each(to, FLUSH, |p| ms(p.signals.flush_ms))?;
        self.each(to, FLUSHES, |p| p.signals.flushes_per_s)?;
        self.each(to, P99, |p| ms(p.signals.p99_ms))?;
        self.each(to, GENERATION, |p| Some(whole(p.generation.0)))?;
        let mut metric = describe(to, DECISIONS)?;
        for p in &self.view.pipelines {
            for (reason, n) in &p.decisions_by_reason {
                let labels = [("pipeline", p.name.as_str()), ("reason", *reason)];
                value(&mut metric.encode_family(&labels)?, DECISIONS.kind, whole(*n))?;
            }
        }
        Ok(())
    }

    /// A metric of every pipeline that has it: what is not known is absent, never 0.
    fn each(
        &self,
        to: &mut DescriptorEncoder<'_>,
        metric: Metric,
        of: impl Fn(&PipelineView) -> Option<f64>,
    ) -> Written {
        let known = self.view.pipelines.iter().filter_map(|p| Some((p.name.as_str(), of(p)?)));
        family(to, metric, "pipeline", known)
    }
}

fn family<'l>(
    to: &mut DescriptorEncoder<'_>,
    metric: Metric,
    label: &'static str,
    rows: impl IntoIterator<Item = (&'l str, f64)>,
) -> Written {
    let mut encoder = describe(to, metric)?;
    for (text, number) in rows {
        value(&mut encoder.encode_family(&[(label, text)])?, metric.kind, number)?;
    }
    Ok(())
}

fn alone(to: &mut DescriptorEncoder<'_>, metric: Metric, number: Option<f64>) -> Written {
    let mut encoder = describe(to, metric)?;
    number.map_or(Ok(()), |number| value(&mut encoder, metric.kind, number))
}

fn value(encoder: &mut MetricEncoder<'_>, kind: Kind, number: f64) -> Written {
    match kind {
        Kind::Counter => encoder.encode_counter::<NoLabelSet, f64, f64>(&number, None),
        Kind::Gauge => encoder.encode_gauge(&number),
    }
}

/// The encoder appends unit and suffix itself, so they are taken off the exposed name first.
fn describe<'s>(to: &'s mut DescriptorEncoder<'_>, metric: Metric) -> Result<MetricEncoder<'s>, std::fmt::Error> {
    const SECONDS: Unit = Unit::Seconds;
    const BYTES: Unit = Unit::Bytes;
    let Metric { name, kind, help } = metric;
    let (name, kind) = match kind {
        Kind::Counter => (name.strip_suffix("_total").unwrap_or(name), MetricType::Counter),
        Kind::Gauge => (name, MetricType::Gauge),
    };
    let (name, unit) = if let Some(stem) = name.strip_suffix("_seconds") {
        (stem, Some(&SECONDS))
    } else if let Some(stem) = name.strip_suffix("_bytes") {
        (stem, Some(&BYTES))
    } else {
        (name, None)
    };
    to.encode_descriptor(name, help, unit, kind)
}

fn seconds(ns: u64) -> f64 {
    whole(ns) / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "OpenMetrics numbers are floats; counters are exact up to 2^53")]
fn whole(n: u64) -> f64 {
    n as f64
}

#[expect(clippy::cast_precision_loss, reason = "a list of 2^52 entries does not exist")]
fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::view::OwnCost;

    fn view() -> View {
        let mut view = View { attached: vec!["cpu"], ..View::default() };
        view.own = OwnCost { user_cpu_ns: 1_500_000_000, probes_ns: Some(1), ..OwnCost::default() };
        view.lost.set(agent_common::LossReason::RingFull, 3);
        view
    }

    #[test]
    fn every_metric_is_exposed_under_the_name_in_the_table() {
        let text = render(&Arc::new(view()), 0);
        for Metric { name, kind, .. } in METRICS {
            let family = if kind == Kind::Counter { name.strip_suffix("_total").unwrap() } else { name };
            assert!(text.contains(&format!("# TYPE {family} ")), "{name} is not in\n{text}");
        }
        assert_eq!(text.matches("# TYPE ").count(), METRICS.len(), "a metric is missing from the table");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn losses_and_own_cost_are_shown() {
        let text = render(&Arc::new(view()), 7);
        for line in [
            "tidegate_own_cpu_seconds_total{mode=\"user\"} 1.5",
            "tidegate_lost_total{reason=\"ring_full\"} 3.0",
            "tidegate_probe_attached{probe=\"cpu\"} 1.0",
            "tidegate_inbox_refused_total 7.0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
