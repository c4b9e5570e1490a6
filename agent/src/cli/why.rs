//! Why the settings are what they are, in words: decisions in; signal, rule, change, expected and measured effect out. And
//! the differential flame graph of a change, from the profile windows before and after it.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use hyper::Method;
use tidegate_client::abi::{Applied, BeforeAfterJson, Boundary, DecisionJson, EffectJson, ModelJson, SignalsJson};

use super::client::{ask, get};
use super::flame::with_query;
use super::pipelines::{interval, millis, pipeline_path, rounded};
use super::record::write_out;
use super::table::{bytes, nanos};
use super::watching::Output;
use crate::serve::reply::PipelineJson;
use crate::source::clock::monotonic;
use crate::units::Nanos;

/// What lies on either side of a change in its graph.
const SIDE: Nanos = Nanos::from_secs(10);
/// Decisions looked through for the change to draw.
const LOOKED_THROUGH: usize = 512;

/// The newest decisions of a pipeline.
pub(super) fn why(socket: &Path, name: &str, newest: usize, output: Output) -> anyhow::Result<()> {
    let decisions: Vec<DecisionJson> = get(socket, &pipeline_path(name, &format!("/decisions?limit={newest}")))?;
    let mut out = std::io::stdout().lock();
    if output == Output::Json {
        serde_json::to_writer_pretty(&mut out, &decisions)?;
        return Ok(writeln!(out)?);
    }
    if decisions.is_empty() {
        writeln!(out, "no decision on {name} yet: too few signals so far, see `tidegate pipelines show {name}`")?;
        return Ok(());
    }
    let now = out.is_terminal().then(monotonic);
    for decision in &decisions {
        writeln!(out, "{}", explain(decision, now))?;
    }
    Ok(writeln!(out, "{}", what_now(name, &decisions))?)
}

/// Draws what a change did: the profile of the pipeline before it against that after it.
pub(super) fn draw(socket: &Path, name: &str, which: Option<u64>, file: &Path) -> anyhow::Result<()> {
    let path = pipeline_path(name, &format!("/decisions?limit={LOOKED_THROUGH}"));
    let decisions: Vec<DecisionJson> = get(socket, &path)?;
    let is_it = |d: &&DecisionJson| d.applied == Applied::Applied && which.is_none_or(|which| d.sequence == which);
    let change = decisions.iter().rev().max_by_key(|d| if is_it(d) { d.sequence + 1 } else { 0 }).filter(is_it);
    let change = change.with_context(|| match which {
        Some(which) => {
            format!("decision {which} of {name} changed nothing, or is no longer kept (see `tidegate tune why`)")
        }
        None => format!("no change of {name} is kept: it has never been given other settings"),
    })?;
    let pipeline: PipelineJson = get(socket, &pipeline_path(name, ""))?;
    let at = Nanos(change.time_ns);
    let end = (at + SIDE).min(monotonic());
    let times = [("from", at), ("to", end), ("diff_from", at.since(SIDE)), ("diff_to", at)];
    let mut query: Vec<(&'static str, String)> = times.map(|(key, at)| (key, at.0.to_string())).into();
    query.extend([("pid", pipeline.pid.to_string()), ("format", "svg".to_owned())]);
    let drawn = ask(socket, Method::GET, &with_query("/v1/profiles/cpu/diff", &query), None)?;
    write_out(file, &drawn.body)
}

/// One decision as text. With `now` its time is told from there, else as the seconds of the monotonic clock.
fn explain(d: &DecisionJson, now: Option<Nanos>) -> String {
    let when = match now {
        Some(now) => format!("{} ago", nanos(now.since(Nanos(d.time_ns)).0)),
        None => format!("at {:.3} s", Nanos(d.time_ns).as_secs_f64()),
    };
    let applied = match d.applied {
        Applied::Applied => "applied",
        Applied::Advised => "advice only",
        Applied::Held => "held",
    };
    let change = |from: String, to: String| if from == to { to } else { format!("{from} → {to}") };
    let batch = change(bytes(d.from_batch_bytes), bytes(d.batch_bytes));
    let linger = change(interval(d.from_flush_interval_us), interval(d.flush_interval_us));
    let bound = match d.bound_by {
        None => "",
        Some(Boundary::Min) => ", at the pipeline's smallest value",
        Some(Boundary::Max) => ", at the pipeline's largest value",
        Some(Boundary::Slew) => ", at the step limit",
    };
    let inputs: Vec<_> = inputs(&d.signals).into_iter().map(|(what, value)| format!("{what} {value}")).collect();
    let mut text = format!(
        "#{} {when}, {applied}, generation {}\n  batch {batch}, flush interval {linger}{bound}\n  {} [{}, policy {}]\n",
        d.sequence, d.generation, d.explanation, d.reason, d.policy,
    );
    let more = [
        ("reckoned", d.model.as_ref().map(reckoned)),
        (
            "expected",
            d.predicted.map(|p| format!("p99 {}, flusher busy {:.0} %", millis(p.p99_ms), 100.0 * p.busy_share)),
        ),
        ("measured", d.effect.as_ref().map(measured)),
        ("from", Some(if inputs.is_empty() { "no signal".to_owned() } else { inputs.join(", ") })),
    ];
    for (what, said) in more {
        if let Some(said) = said.filter(|said| !said.is_empty()) {
            text.extend(["  ", what, " ", &said, "\n"]);
        }
    }
    for why in &d.signals.degraded {
        text.extend(["  degraded: ", why, "\n"]);
    }
    text
}

/// The candidates between which the model chose.
fn reckoned(model: &ModelJson) -> String {
    let ms = |us: f64| millis(us / 1e3);
    let by_caps = format!("at least {} for the caps", ms(model.by_caps_us));
    match model.by_objective_us {
        Some(us) if us > 0.0 => format!("{by_caps}, at most {} for the wanted p99", ms(us)),
        Some(_) => format!("{by_caps}; the wanted p99 leaves nothing to wait"),
        None => by_caps,
    }
}

fn measured(effect: &EffectJson) -> String {
    let told = |what: &str, BeforeAfterJson { before, after }: BeforeAfterJson, show: &dyn Fn(f64) -> String| {
        let after = after.map(show)?;
        Some(match before.map(show) {
            Some(before) => format!("{what} {before} → {after}"),
            None => format!("{what} {after}"),
        })
    };
    let parts = [
        told("p99", effect.p99_ms, &millis),
        told("busy", effect.busy_share, &|share| format!("{:.0} %", 100.0 * share)),
        told("CPU", effect.cpu_us_per_event, &|us| format!("{us:.2} µs/event")),
        told("flushes", effect.flushes_per_s, &|n| format!("{n:.0}/s")),
    ];
    let load = if effect.same_load { "" } else { ", while the load changed" };
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        String::new()
    } else {
        format!("{} in {:.1} s{load}", parts.join(", "), seconds(effect.after_ms))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few seconds")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}

/// What a reader can do about it.
fn what_now(name: &str, decisions: &[DecisionJson]) -> String {
    let advice = decisions.iter().any(|d| d.applied == Applied::Advised);
    let newest = decisions.iter().max_by_key(|d| d.sequence).map_or(0, |d| d.flush_interval_us);
    let pin = format!("sudo tidegate tune pin {name} --flush-interval {newest}us");
    if advice {
        format!("nothing was changed: this is advice. To take it for ten minutes: {pin} --for 10m")
    } else {
        format!(
            "to hold it here: {pin}\nto see what the newest change did: tidegate tune why {name} --flame change.svg"
        )
    }
}

/// Signals that are known, for the eye.
pub(super) fn inputs(s: &SignalsJson) -> Vec<(&'static str, String)> {
    let queue = s.queue_bytes.map(|queued| match s.queue_capacity {
        Some(capacity) => format!("{} of {}", bytes(queued), bytes(capacity)),
        None => bytes(queued),
    });
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let causes = s.flush_causes.map(|c| {
        let named =
            [("age", c.age), ("size", c.size), ("backlog", c.backlog), ("panic", c.panic), ("waiting", c.waiting)];
        let known = named.into_iter().filter(|(_, share)| *share >= 0.005);
        known.map(|(cause, share)| format!("{} {cause}", percent(share))).collect::<Vec<_>>().join(" ")
    });
    let cost = s.flush_fixed_ms.map(|fixed| match s.flush_per_kib_us {
        Some(kib) => format!("{} and {kib:.2} µs/KiB", millis(fixed)),
        None => millis(fixed),
    });
    [
        ("rate", s.rate.map(|r| format!("{}/s", rounded(r)))),
        ("newest rate", s.newest_rate.map(|r| format!("{}/s", rounded(r)))),
        ("event", s.event_bytes.map(|b| format!("{} B", rounded(b)))),
        ("queue", queue),
        ("unread in sockets", s.receive_queue_bytes.map(bytes)),
        ("residency", s.residency_ms.map(millis)),
        ("flush", s.flush_ms.map(millis)),
        ("flush size", s.flush_bytes.map(|b| format!("{} B", rounded(b)))),
        ("flushes", s.flushes_per_s.map(|f| format!("{f:.1}/s"))),
        ("begun by", causes),
        ("flusher busy", s.busy_share.map(percent)),
        ("flush cost", cost),
        ("flushes failed", s.flush_errors_per_s.filter(|n| *n > 0.0).map(|n| format!("{n:.1}/s"))),
        ("senders held up", s.stalled_share.filter(|share| *share > 0.0).map(percent)),
        ("p99", s.p99_ms.map(millis)),
        ("CPU", s.cpu_us_per_event.map(|us| format!("{us:.2} µs/event"))),
        ("system calls", s.syscalls_per_event.map(|n| format!("{n:.3}/event"))),
        ("switches", s.switches_per_flush.map(|n| format!("{n:.1}/flush"))),
    ]
    .into_iter()
    .filter_map(|(what, value)| Some((what, value?)))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_client::abi::PredictedJson;

    fn decision() -> DecisionJson {
        DecisionJson {
            name: "ingest".to_owned(),
            sequence: 12,
            time_ns: 40_000_000_000,
            generation: 7,
            applied: Applied::Applied,
            batch_bytes: 524_288,
            flush_interval_us: 9_500,
            from_batch_bytes: 262_144,
            from_flush_interval_us: 9_500,
            policy: "model".to_owned(),
            reason: "busy_cap".to_owned(),
            explanation: "a flush costs 5.70 ms".to_owned(),
            bound_by: Some(Boundary::Max),
            model: Some(ModelJson {
                fixed_ms: 5.7,
                per_kib_us: None,
                rate: 55_000.0,
                busy_cap: 0.6,
                by_caps_us: 9_480.0,
                by_objective_us: None,
            }),
            predicted: Some(PredictedJson { p99_ms: 15.0, busy_share: 0.6 }),
            effect: Some(EffectJson {
                after_ms: 3_000,
                same_load: true,
                p99_ms: BeforeAfterJson { before: Some(21.0), after: Some(15.2) },
                busy_share: BeforeAfterJson { before: None, after: Some(0.59) },
                ..EffectJson::default()
            }),
            signals: SignalsJson { rate: Some(55_000.4), queue_bytes: Some(1 << 20), ..SignalsJson::default() },
        }
    }

    #[test]
    fn a_decision_is_told_with_its_change_its_reason_its_effect_and_its_inputs() {
        let text = explain(&decision(), Some(Nanos::from_secs(43)));
        assert_eq!(
            text,
            "#12 3.00 s ago, applied, generation 7\n  \
             batch 256 KiB → 512 KiB, flush interval 9.50 ms, at the pipeline's largest value\n  \
             a flush costs 5.70 ms [busy_cap, policy model]\n  \
             reckoned at least 9.48 ms for the caps\n  \
             expected p99 15.0 ms, flusher busy 60 %\n  \
             measured p99 21.0 ms → 15.2 ms, busy 59 % in 3.0 s\n  \
             from rate 55,000/s, queue 1.00 MiB\n"
        );
        assert!(explain(&decision(), None).starts_with("#12 at 40.000 s, "));
    }

    #[test]
    fn a_reader_learns_how_to_hold_a_change_and_how_to_take_advice() {
        let applied = what_now("ingest", &[decision()]);
        assert!(
            applied.contains("tune pin ingest --flush-interval 9500us") && applied.contains("--flame"),
            "{applied}"
        );
        let advice = what_now("ingest", &[DecisionJson { applied: Applied::Advised, ..decision() }]);
        assert!(advice.contains("advice") && advice.contains("--for 10m"), "{advice}");
    }
}
