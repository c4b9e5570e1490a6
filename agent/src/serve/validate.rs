//! What a registration may say: a parsed body in, nothing or the first fault with its place out. Reads no file.

use std::path::Path;

use axum::http::StatusCode;
use tidegate_client::abi::{
    BoundRange, BoundsRequest, Caps, KnobRange, Knobs, LeaseTerms, Objective, OverrideRequest, REPORT_HISTOGRAM_WORDS,
    Registration, SignalsReport,
};

use crate::serve::problem::Refusal;

/// Largest batch that makes sense, bytes: more than the memory of most hosts that batch.
pub const BATCH_MAX: u64 = 1 << 32;
/// Longest flush interval, microseconds: an hour.
pub const INTERVAL_MAX: u64 = 3_600_000_000;
/// Shortest lease, ms: it is renewed at a third of it, and the agent turns once in 100 ms.
pub const TTL_MIN: u64 = 300;
/// Longest lease, ms: an hour.
pub const TTL_MAX: u64 = 3_600_000;
/// Longest hold after a lease, ms: a day.
pub const HOLD_MAX: u64 = 86_400_000;
/// Longest objective, ms: an hour.
pub const OBJECTIVE_MAX: u64 = 3_600_000;
/// Longest path the system takes, bytes.
const PATH_MAX: usize = 4095;
/// Longest override, seconds: a week.
const OVERRIDE_MAX: u64 = 604_800;

/// Refuses a registration that no pipeline can mean.
pub fn registration(r: &Registration) -> Result<(), Refusal> {
    let Registration { knobs, objective, mode: _, policy: _, report, lease, watch: _ } = r;
    let Knobs { batch_bytes, flush_interval_us } = knobs;
    range(*batch_bytes, "/knobs/batch_bytes", BATCH_MAX)?;
    range(*flush_interval_us, "/knobs/flush_interval_us", INTERVAL_MAX)?;
    let Objective { p99_ms, goal: _, caps } = objective;
    if let Some(p99) = p99_ms {
        within(*p99, 1, OBJECTIVE_MAX, "/objective/p99_ms")?;
    }
    let Caps { flusher_busy, cpu_cores, queue_bytes, flushes_per_s } = *caps;
    share(flusher_busy, 0.01, 0.95, "/objective/caps/flusher_busy")?;
    share(cpu_cores, 0.001, 4_096.0, "/objective/caps/cpu_cores")?;
    share(flushes_per_s, 0.1, 1e6, "/objective/caps/flushes_per_s")?;
    if let Some(bytes) = queue_bytes {
        within(bytes, 4_096, 1 << 40, "/objective/caps/queue_bytes")?;
    }
    let LeaseTerms { ttl_ms, hold_ms, on_expiry: _ } = lease;
    within(*ttl_ms, TTL_MIN, TTL_MAX, "/lease/ttl_ms")?;
    within(*hold_ms, 0, HOLD_MAX, "/lease/hold_ms")?;
    report.as_deref().map_or(Ok(()), report_path)
}

/// Refuses an override that says nothing, or what no pipeline can take. Its bounds are the pipeline's own.
pub fn pin(request: &OverrideRequest, knobs: &Knobs) -> Result<(), Refusal> {
    let OverrideRequest { batch_bytes, flush_interval_us, ttl_s } = *request;
    if batch_bytes.is_none() && flush_interval_us.is_none() {
        return Err(unprocessable(
            "empty-override",
            "nothing to pin".to_owned(),
            "give batch_bytes or flush_interval_us",
        ));
    }
    if let Some(batch) = batch_bytes {
        within(batch, knobs.batch_bytes.min, knobs.batch_bytes.max, "/batch_bytes")?;
    }
    if let Some(interval) = flush_interval_us {
        within(interval, knobs.flush_interval_us.min, knobs.flush_interval_us.max, "/flush_interval_us")?;
    }
    ttl_s.map_or(Ok(()), |ttl| within(ttl, 1, OVERRIDE_MAX, "/ttl_s"))
}

/// Refuses a report that names a bucket which no page has.
pub fn report(report: &SignalsReport) -> Result<(), Refusal> {
    let beyond = report.latency.iter().position(|(bucket, _)| *bucket >= REPORT_HISTOGRAM_WORDS);
    beyond.map_or(Ok(()), |i| {
        let bucket = report.latency[i].0 as u64;
        within(bucket, 0, REPORT_HISTOGRAM_WORDS as u64 - 1, &format!("/latency/{i}/0"))
    })
}

/// The bounds that a request leads to: those in force where it says nothing, and nothing beyond `outer`.
pub fn bounds(request: &BoundsRequest, in_force: &Knobs, outer: &Knobs) -> Result<Knobs, Refusal> {
    let BoundsRequest { batch_bytes, flush_interval_us } = *request;
    let one = |wanted: Option<BoundRange>, held: KnobRange, outer: KnobRange, pointer: &str| {
        let Some(BoundRange { min, max }) = wanted else { return Ok(held) };
        if min > max {
            let detail = format!("bounds inverted: min {min} is above max {max}");
            return Err(unprocessable("bounds-inverted", detail, "exchange min and max").at(pointer));
        }
        if min < outer.min || max > outer.max {
            let detail = format!("{min}..={max} goes beyond {}..={}", outer.min, outer.max);
            let fix = "stay within; root may widen up to what the pipeline registered, and nobody beyond";
            return Err(Refusal::forbidden("wider-bounds", detail, fix).at(pointer));
        }
        Ok(KnobRange { min, max, default: held.default })
    };
    Ok(Knobs {
        batch_bytes: one(batch_bytes, in_force.batch_bytes, outer.batch_bytes, "/batch_bytes")?,
        flush_interval_us: one(
            flush_interval_us,
            in_force.flush_interval_us,
            outer.flush_interval_us,
            "/flush_interval_us",
        )?,
    })
}

fn range(knob: KnobRange, pointer: &str, largest: u64) -> Result<(), Refusal> {
    let KnobRange { min, max, default } = knob;
    within(min, 1, largest, &format!("{pointer}/min"))?;
    within(max, 1, largest, &format!("{pointer}/max"))?;
    if min > max {
        let detail = format!("bounds inverted: min {min} is above max {max}");
        return Err(unprocessable("bounds-inverted", detail, "exchange min and max").at(pointer));
    }
    within(default, min, max, &format!("{pointer}/default"))
}

fn share(value: Option<f64>, min: f64, max: f64, pointer: &str) -> Result<(), Refusal> {
    let Some(value) = value.filter(|value| !(min..=max).contains(value)) else {
        return Ok(());
    };
    let detail = format!("{value} is outside {min}..={max}");
    Err(unprocessable("out-of-range", detail, format!("give a value from {min} to {max}")).at(pointer))
}

fn within(value: u64, min: u64, max: u64, pointer: &str) -> Result<(), Refusal> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let detail = format!("{value} is outside {min}..={max}");
    Err(unprocessable("out-of-range", detail, format!("give a value from {min} to {max}")).at(pointer))
}

fn report_path(path: &Path) -> Result<(), Refusal> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let refuse = |detail: String, fix: &str| Err(unprocessable("bad-report-path", detail, fix).at("/report"));
    if bytes.len() > PATH_MAX {
        return refuse(format!("{} bytes long, the system takes {PATH_MAX}", bytes.len()), "give a shorter path");
    }
    if bytes.contains(&0) {
        return refuse("holds a zero byte".to_owned(), "give a path the system can take");
    }
    if !path.is_absolute() || path.components().any(|c| matches!(c, std::path::Component::ParentDir)) {
        let detail = format!("{} is not an absolute path without `..`", path.display());
        return refuse(detail, "give the whole path, from the root");
    }
    Ok(())
}

fn unprocessable(code: &'static str, detail: String, fix: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail, fix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_client::abi::{Mode, Policy};

    fn good() -> Registration {
        Registration {
            knobs: Knobs {
                batch_bytes: KnobRange { min: 4096, max: 1 << 20, default: 1 << 18 },
                flush_interval_us: KnobRange { min: 1_000, max: 250_000, default: 250_000 },
            },
            objective: Objective::default(),
            mode: Mode::On,
            policy: Policy::Model,
            report: Some("/run/user/1000/report".into()),
            lease: LeaseTerms::default(),
            watch: None,
        }
    }

    fn check(spoil: impl FnOnce(&mut Registration), code: &str, pointer: &str) {
        let mut spoilt = good();
        spoil(&mut spoilt);
        let refusal = registration(&spoilt).expect_err("the registration is faulty");
        assert_eq!((refusal.code(), refusal.pointer()), (code, Some(pointer)));
        assert_eq!(refusal.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }

    #[test]
    fn a_registration_no_pipeline_can_mean_is_refused_at_its_place() {
        assert_eq!(registration(&good()), Ok(()));
        check(|r| r.knobs.batch_bytes.min = 1 << 21, "bounds-inverted", "/knobs/batch_bytes");
        check(|r| r.knobs.batch_bytes.min = 0, "out-of-range", "/knobs/batch_bytes/min");
        check(|r| r.knobs.batch_bytes.default = 1, "out-of-range", "/knobs/batch_bytes/default");
        check(|r| r.knobs.flush_interval_us.min = 0, "out-of-range", "/knobs/flush_interval_us/min");
        check(|r| r.knobs.flush_interval_us.max = u64::MAX, "out-of-range", "/knobs/flush_interval_us/max");
        check(|r| r.knobs.flush_interval_us.default = 300_000, "out-of-range", "/knobs/flush_interval_us/default");
        check(|r| r.objective.p99_ms = Some(0), "out-of-range", "/objective/p99_ms");
        check(|r| r.lease.ttl_ms = 0, "out-of-range", "/lease/ttl_ms");
        check(|r| r.lease.ttl_ms = u64::MAX, "out-of-range", "/lease/ttl_ms");
        check(|r| r.lease.hold_ms = u64::MAX, "out-of-range", "/lease/hold_ms");
        check(|r| r.report = Some("report".into()), "bad-report-path", "/report");
        check(|r| r.report = Some("/run/../etc/shadow".into()), "bad-report-path", "/report");
        check(|r| r.report = Some(format!("/{}", "x".repeat(5000)).into()), "bad-report-path", "/report");
        check(|r| r.report = Some("/a\0b".into()), "bad-report-path", "/report");
    }

    #[test]
    fn an_override_outside_the_pipelines_bounds_is_refused() {
        let knobs = good().knobs;
        let pins = |batch_bytes, flush_interval_us, ttl_s| {
            pin(&OverrideRequest { batch_bytes, flush_interval_us, ttl_s }, &knobs).map_err(|r| r.code())
        };
        assert_eq!(pins(Some(8192), None, Some(60)), Ok(()));
        assert_eq!(pins(None, None, None), Err("empty-override"));
        assert_eq!(pins(Some(1), None, None), Err("out-of-range"));
        assert_eq!(pins(None, Some(1), None), Err("out-of-range"));
        assert_eq!(pins(Some(8192), None, Some(0)), Err("out-of-range"));
    }
}
