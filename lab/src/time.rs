//! Sleeping until an instant of the monotonic clock, and reading spans as people write them.

use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec};
use tidegate_client::{Nanos, clock};

/// Sleeps until `instant` of the monotonic clock; returns at once when it has passed.
pub(crate) fn sleep_until(instant: Nanos) {
    let at = Timespec {
        tv_sec: i64::try_from(instant.0 / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(instant.0 % 1_000_000_000).unwrap_or(0),
    };
    // A signal may end a sleep early; there is no other way for it to fail.
    while clock::monotonic() < instant && clock_nanosleep_absolute(ClockId::Monotonic, &at).is_err() {}
}

/// Sleeps for `span`.
pub(crate) fn sleep(span: Nanos) {
    sleep_until(clock::monotonic() + span);
}

/// In milliseconds.
#[expect(clippy::cast_precision_loss, reason = "a span of 104 days is still exact to a nanosecond")]
pub(crate) fn as_ms(span: Nanos) -> f64 {
    span.0 as f64 / 1e6
}

/// Reads `10ms`, `250us`, `8s`, `1.5s`, `0`.
pub(crate) fn parse_span(text: &str) -> Result<Nanos, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let ns = match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "" if number == "0" => 1.0,
        _ => return Err(format!("span {text:?}: want a number with ns, us, ms, s or m, like 250ms")),
    };
    let number: f64 = number.parse().map_err(|e| format!("span {text:?}: {e}"))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and rounded on purpose")]
    Ok(Nanos((number * ns).round() as u64))
}

/// Reads `256KiB`, `64MiB`, `1GiB`, `512`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => return Err(format!("size {text:?}: want a number with B, KiB, MiB or GiB, like 256KiB")),
    };
    let number: u64 = number.parse().map_err(|e| format!("size {text:?}: {e}"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("size {text:?}: too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_read_as_people_write_them() {
        assert_eq!(parse_span("250ms"), Ok(Nanos::from_millis(250)));
        assert_eq!(parse_span("1.5s"), Ok(Nanos::from_millis(1_500)));
        assert_eq!(parse_span("0"), Ok(Nanos(0)));
        assert_eq!(parse_bytes("256KiB"), Ok(256 << 10));
        assert_eq!(parse_bytes("512"), Ok(512));
        for bad in ["", "250", "ms", "-1s", "1h"] {
            assert!(parse_span(bad).is_err(), "{bad:?} was taken");
        }
        for bad in ["", "KiB", "1TB", "99999999999GiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad:?} was taken");
        }
    }
}
