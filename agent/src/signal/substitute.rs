//! Signals of a process that was never changed: what the kernel alone tells in, the same signals that a report would have
//! given out. What the kernel cannot see, such as the queue inside the process and the latency of its events, stays absent.
//!
//! The kernel sees bytes as they leave, often compressed; policies reckon in bytes as they arrive. The ratio of the two
//! converts sizes and the cost of a byte.

use crate::signal::Signals;
use crate::signal::flush_cost::{CostLine, FlushCost};
use crate::signal::kernel_grade::{KernelGrade, SizedBy};
use crate::units::Ratio;

/// Below this many bytes out per byte in, or above its inverse, the two are not the same events.
const LEAST_RATIO: f64 = 1e-4;

/// Fills in what a report would have told.
pub fn substitute(signals: &mut Signals, kernel: &KernelGrade) {
    signals.rate = kernel.rate;
    signals.newest_rate = kernel.newest_rate;
    signals.step = kernel.step.filter(|_| kernel.rate.is_some());
    signals.event_bytes = kernel.event_bytes;
    let ratio = bytes_out_per_byte_in(kernel);
    signals.flushes.bytes = kernel.flush_bytes.zip(ratio).map(|(bytes, ratio)| bytes / ratio);
    // Of all that the process does: nobody else says what was for events.
    let per =
        |number: Option<f64>, count: Option<f64>| number.zip(count.filter(|count| *count > 0.0)).map(|(n, c)| n / c);
    let rate = kernel.rate.map(|rate| rate.0);
    signals.cost.cpu_us_per_event = per(signals.usage.cpu_cores.map(|cores| cores * 1e6), rate);
    signals.cost.switches_per_flush = per(signals.usage.switches_per_s, kernel.flushes_per_s);
    signals.flushes.duration_ms = kernel.flush_ms;
    signals.flushes.per_s = kernel.flushes_per_s;
    signals.flushes.busy = kernel.busy.map(|share| Ratio(share.min(1.0)));
    signals.flushes.cost = cost_by_arrival(kernel);
    signals.flushes.cost_step = kernel.cost_step;
}

/// Bytes that leave for each that arrives; unknown where either stands still.
pub fn bytes_out_per_byte_in(kernel: &KernelGrade) -> Option<f64> {
    let out = kernel.flush_bytes? * kernel.flushes_per_s?;
    let ratio = out / kernel.bytes_in_per_s.filter(|bytes| *bytes > 0.0)?;
    (LEAST_RATIO..=1.0 / LEAST_RATIO).contains(&ratio).then_some(ratio)
}

/// The cost of a flush in bytes as they arrive.
pub fn cost_by_arrival(kernel: &KernelGrade) -> Option<FlushCost> {
    if kernel.cost_of == Some(SizedBy::Arrival) {
        return kernel.cost;
    }
    let (cost, ratio) = (kernel.cost?, bytes_out_per_byte_in(kernel)?);
    let line = cost.line.map(|line| CostLine {
        per_kib_us: line.per_kib_us * ratio,
        per_kib_error_us: line.per_kib_error_us * ratio,
        ..line
    });
    Some(FlushCost { mean_bytes: cost.mean_bytes / ratio, line, ..cost })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::EventsPerSec;

    fn grade() -> KernelGrade {
        let line = CostLine { fixed_ms: 10.0, fixed_error_ms: 0.1, per_kib_us: 80.0, per_kib_error_us: 4.0 };
        let cost = FlushCost { mean_ms: 12.0, mean_bytes: 25_600.0, noise_ms: 0.2, flushes: 100.0, line: Some(line) };
        KernelGrade {
            bytes_in_per_s: Some(2_560_000.0),
            rate: Some(EventsPerSec(5_000.0)),
            event_bytes: Some(512.0),
            flush_bytes: Some(25_600.0),
            flush_ms: Some(12.0),
            flushes_per_s: Some(50.0),
            cost: Some(cost),
            cost_of: Some(SizedBy::Departure),
            ..KernelGrade::default()
        }
    }

    #[test]
    fn sizes_and_the_cost_of_a_byte_are_those_of_bytes_as_they_arrive() {
        let mut signals = Signals::default();
        substitute(&mut signals, &grade());
        assert_eq!(signals.flushes.bytes, Some(51_200.0), "half of it was compressed away");
        let cost = cost_by_arrival(&grade()).unwrap();
        let line = cost.line.unwrap();
        assert_eq!((line.fixed_ms, line.per_kib_us, line.per_kib_error_us), (10.0, 40.0, 2.0));
        assert!((cost.at_ms(51_200.0) - grade().cost.unwrap().at_ms(25_600.0)).abs() < 1e-9);
    }

    #[test]
    fn what_an_event_costs_is_all_that_the_process_uses_over_its_events() {
        let mut signals = Signals::default();
        signals.usage.cpu_cores = Some(0.1);
        signals.usage.switches_per_s = Some(200.0);
        substitute(&mut signals, &grade());
        assert_eq!((signals.cost.cpu_us_per_event, signals.cost.switches_per_flush), (Some(20.0), Some(4.0)));
    }

    #[test]
    fn without_an_input_no_size_is_invented() {
        let mut signals = Signals::default();
        let kernel = KernelGrade { bytes_in_per_s: None, rate: None, ..grade() };
        substitute(&mut signals, &kernel);
        assert_eq!((signals.flushes.bytes, signals.rate, cost_by_arrival(&kernel)), (None, None, None));
        assert_eq!(signals.flushes.duration_ms, Some(12.0));
    }
}
