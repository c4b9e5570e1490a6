//! Expectations: traces of a scenario in, what it asked for and did not get out. Pure.

use crate::run::simulate::scenario::{PhaseExpect, Scenario};
use crate::run::simulate::{PolicyReport, Trace, in_force, phase_starts};
use crate::units::{Nanos, Settings};

/// What was not met.
pub(super) fn unmet(scenario: &Scenario, report: &PolicyReport, traces: &[Trace]) -> Vec<String> {
    let mut found = Vec::new();
    let starts = phase_starts(scenario);
    for (nth, expect) in scenario.expect.iter().enumerate() {
        let Some(expect) = expect else {
            continue;
        };
        let end = starts[nth] + scenario.phases[nth].length;
        for trace in traces {
            found.extend(settings_of(nth, expect, trace, starts[nth], end));
        }
        let p99 = report.phases.get(nth).and_then(|phase| phase.latency.p99_ms);
        found.extend(above(&format!("phase[{nth}].p99_ms"), p99, expect.p99_ms));
        let settled = report.phases.get(nth).and_then(|phase| phase.settled.p99_ms);
        found.extend(above(&format!("phase[{nth}].settled_p99_ms"), settled, expect.settled_p99_ms));
    }
    found.extend(of_the_whole(scenario, report, traces));
    found.dedup();
    found
}

fn settings_of(nth: usize, expect: &PhaseExpect, trace: &Trace, start: Nanos, end: Nanos) -> Vec<String> {
    let from = start + Nanos::from_millis(expect.within_ms);
    let changes = trace.settings.iter().filter(|(at, _)| *at < end).map(|(at, settings)| (*at, *settings));
    let settled =
        std::iter::once(in_force(trace, from)).chain(changes.clone().filter(|(at, _)| *at >= from).map(|(_, s)| s));
    let mut found: Vec<String> = settled.filter_map(|settings| outside(nth, expect, settings)).collect();
    if let Some(factor) = expect.overshoot {
        let last = Nanos::from(in_force(trace, end).interval).as_millis_f64();
        for (at, settings) in changes.filter(|(at, _)| *at >= start) {
            let ms = Nanos::from(settings.interval).as_millis_f64();
            if ms > factor * last || ms * factor < last {
                let after = at.since(start).as_secs_f64();
                found.push(format!(
                    "phase[{nth}].overshoot: {ms:.2} ms after {after:.1} s, {last:.2} ms at its end: expected within a factor of {factor}"
                ));
            }
        }
    }
    found
}

fn of_the_whole(scenario: &Scenario, report: &PolicyReport, traces: &[Trace]) -> Vec<String> {
    let mut found = Vec::new();
    let Some(total) = &scenario.total else { return found };
    let runs = traces.len() as u64;
    found.extend(above("p99_ms by time", report.by_time.p99_ms, total.p99_ms));
    found.extend(above("p999_ms by time", report.by_time.p999_ms, total.p999_ms));
    let most = |what: &str, value: u64, most: Option<u64>| {
        let most = most?.saturating_mul(runs);
        (value > most).then(|| format!("{what} = {value}: expected at most {most}"))
    };
    found.extend(most("changes", report.changes, total.changes));
    found.extend(most("reversals", traces.iter().map(|t| reversals(scenario, t)).sum(), total.reversals));
    found.extend(most("lost", report.lost, total.lost));
    for trace in traces {
        if let Some([low, high]) =
            total.breaker_trips.filter(|[low, high]| !(low..=high).contains(&&trace.breaker_trips))
        {
            found.push(format!("breaker_trips = {}: expected {low} to {high}", trace.breaker_trips));
        }
        let has = |reason: &String| trace.decisions.iter().any(|d| d.reason == *reason);
        found.extend(total.reasons.iter().filter(|r| !has(r)).map(|r| format!("reasons: none is {r}")));
        let says = |words: &String| trace.decisions.iter().any(|d| d.explanation.contains(words.as_str()));
        found.extend(total.says.iter().filter(|w| !says(w)).map(|w| format!("says: nothing says {w:?}")));
        found.extend(total.never.iter().filter(|r| has(r)).map(|r| format!("never: one is {r}")));
    }
    if let Some([low, high]) = total.busy.filter(|[low, high]| !(*low..=*high).contains(&report.utilization)) {
        found.push(format!("busy = {:.3}: expected {low} to {high}", report.utilization));
    }
    found
}

/// Changes of direction of the flush interval within each phase, added up. From one phase to the next the load turned, not
/// the controller; and a step of the load may be told in two.
pub(super) fn reversals(scenario: &Scenario, trace: &Trace) -> u64 {
    let starts = phase_starts(scenario);
    let mut turns = 0;
    for (start, phase) in starts.iter().zip(&scenario.phases) {
        let end = *start + phase.length;
        let within = trace.settings.iter().filter(|(at, _)| *at >= *start && *at < end).map(|(_, s)| s.interval.0);
        let intervals: Vec<u64> = std::iter::once(in_force(trace, *start).interval.0).chain(within).collect();
        let moves: Vec<bool> = intervals.windows(2).filter(|w| w[0] != w[1]).map(|w| w[1] > w[0]).collect();
        turns += moves.windows(2).filter(|w| w[0] != w[1]).count() as u64;
    }
    turns
}

fn outside(nth: usize, expect: &PhaseExpect, settings: Settings) -> Option<String> {
    let knobs = [
        ("batch_bytes", expect.batch_bytes, settings.batch.0),
        ("flush_interval_us", expect.flush_interval_us, settings.interval.0),
    ];
    knobs.into_iter().find_map(|(key, range, value)| {
        let [low, high] = range?;
        (!(low..=high).contains(&value))
            .then(|| format!("phase[{nth}].{key} = {value}: expected {low} to {high} after {} ms", expect.within_ms))
    })
}

fn above(what: &str, value: Option<f64>, limit: Option<f64>) -> Option<String> {
    let (value, limit) = (value?, limit?);
    (value > limit).then(|| format!("{what} = {value:.1}: expected at most {limit:.1}"))
}
