//! What a flush costs: sums over the flushes of a span in; a fixed part, a part per byte and their errors out. Never sees
//! a single flush, and never names a line that its data cannot carry.
//!
//! Least squares with forgetting. The slope is taken from whichever knows it better: the newest flushes as they lie, or the
//! spread inside each span over a far longer time, which a fixed cost that moves from span to span cannot bend. A span far
//! off the line waits for the next one. Two in a row to the same side are a sink that has changed, and the level starts from
//! the second, because the first may hold flushes of both. Alone it was a stall: it weighs less, and bends no slope.

use crate::aggregate::report::ReportDelta;
use crate::signal::line::{Level, Spread};

/// Sums over the flushes of one span. The sizes may be compressed bytes or not: the slope is per byte of that kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlushSums {
    /// Flushes.
    pub flushes: u64,
    /// Sum of their bytes.
    pub bytes: u64,
    /// Sum of their bytes squared.
    pub bytes_squared: u64,
    /// Sum of their durations, ns.
    pub duration_ns: u64,
    /// Sum of bytes times microseconds, each duration rounded to the nearest.
    pub bytes_us: u64,
    /// Sum of microseconds squared, likewise rounded.
    pub us_squared: u64,
}

impl FlushSums {
    /// Those of a report, if it tells them.
    pub fn of_report(report: &ReportDelta) -> Option<Self> {
        report.moments.map(|moments| Self {
            flushes: report.flushes,
            bytes: report.bytes_out,
            bytes_squared: moments.bytes_squared,
            duration_ns: report.flush_ns,
            bytes_us: moments.bytes_us,
            us_squared: moments.us_squared,
        })
    }
}

/// What a flush costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlushCost {
    /// Mean duration of the newest flushes, ms.
    pub mean_ms: f64,
    /// Their mean size, bytes.
    pub mean_bytes: f64,
    /// Standard deviation of the durations about the line, or about the mean where there is none, ms.
    pub noise_ms: f64,
    /// Flushes that the level rests on, older ones weighing less.
    pub flushes: f64,
    /// Fixed and growing part; absent while the sizes are too alike to tell them apart.
    pub line: Option<CostLine>,
}

/// A flush of `n` bytes takes `fixed_ms + per_kib_us * n / 1024 / 1000` ms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CostLine {
    /// Cost of a flush of any size, ms; never negative.
    pub fixed_ms: f64,
    /// Its standard error, ms.
    pub fixed_error_ms: f64,
    /// Cost of a KiB, microseconds; never negative.
    pub per_kib_us: f64,
    /// Its standard error, microseconds.
    pub per_kib_error_us: f64,
}

/// A change of the cost of a flush.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CostStep {
    /// Mean duration before, ms.
    pub from_ms: f64,
    /// Mean duration after, ms.
    pub to_ms: f64,
}

impl FlushCost {
    /// Expected duration of a flush of `bytes`, ms. Without a line that of the mean flush, whatever the size.
    pub fn at_ms(&self, bytes: f64) -> f64 {
        self.line.map_or(self.mean_ms, |line| line.fixed_ms + line.per_kib_us * bytes / 1_024.0 / 1_000.0)
    }
}

/// A mean needs more flushes than this.
const FEWEST: f64 = 3.0;
/// Flushes that a line needs.
const FEWEST_FOR_LINE: f64 = 12.0;
/// The level forgets beyond so many flushes.
const LEVEL_FLUSHES: f64 = 200.0;
/// But keeps this many spans, however many flushes they hold.
const LEVEL_SPANS: f64 = 20.0;
/// The spread inside spans forgets beyond so many flushes.
const SPREAD_FLUSHES: f64 = 4_000.0;
/// A line is given from where the fixed part is known to this share of the mean duration, as a standard error.
const KNOWN_TO: f64 = 0.25;
/// Standard errors by which a span is off the line.
const OFF_ERRORS: f64 = 5.0;
/// And the share of the expected duration.
const OFF_SHARE: f64 = 0.2;
/// Flushes of a span's own that what was known of the noise before weighs as much as.
const BORROWED: f64 = 2.0;
/// Weight that what is known of the slope keeps when the sink has changed.
const KEPT_AT_CHANGE: f64 = 0.25;

/// Follows the cost of the flushes of a sink.
#[derive(Clone, Debug)]
pub struct FlushCostTracker {
    one_size: f64,
    level: Level,
    spread: Spread,
    suspect: Option<Suspect>,
}

/// A span off the line, on which side, and what it weighs if it stays alone.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    span: Level,
    is_slower: bool,
    weight: f64,
}

/// Sizes that differ by less than this share of their mean are one size.
const ONE_SIZE: f64 = 0.005;
/// And where each is known to a few hundredths only: the errors of the sizes themselves would pass for their spread, and
/// flatten the line.
const ONE_INEXACT_SIZE: f64 = 0.1;

impl Default for FlushCostTracker {
    fn default() -> Self {
        Self { one_size: ONE_SIZE, level: Level::default(), spread: Spread::default(), suspect: None }
    }
}

impl FlushCostTracker {
    /// Of flushes whose sizes are not known exactly.
    pub fn of_inexact_sizes() -> Self {
        Self { one_size: ONE_INEXACT_SIZE, ..Self::default() }
    }

    /// Takes in the flushes of a span. They may show that the sink has changed.
    pub fn observe(&mut self, sums: &FlushSums) -> Option<CostStep> {
        if sums.flushes == 0 {
            return None;
        }
        let span = Level::of(sums);
        let spread = Spread::inside(&span);
        let off = self.off(&span);
        let suspect = self.suspect.take();
        if let (Some(before), Some(newest)) = (suspect, off)
            && before.is_slower == newest.is_slower
        {
            let known = self.value();
            self.level = span;
            if span.n <= FEWEST {
                self.level.add(&before.span);
            }
            self.spread.scale(KEPT_AT_CHANGE);
            self.spread.add(&spread);
            return known.zip(self.value()).map(|(from, to)| CostStep { from_ms: from.mean_ms, to_ms: to.mean_ms });
        }
        if let Some(alone) = suspect {
            let mut light = alone.span;
            light.scale(alone.weight);
            self.fold(&light, Spread::default());
        }
        match off {
            Some(suspect) => self.suspect = Some(suspect),
            None => self.fold(&span, spread),
        }
        None
    }

    /// What is known now; nothing before the fourth flush.
    pub fn value(&self) -> Option<FlushCost> {
        let level = self.level;
        if level.n <= FEWEST {
            return None;
        }
        let line = self.line();
        Some(FlushCost {
            mean_ms: level.mean_ms(),
            mean_bytes: level.mean_kib() * 1_024.0,
            noise_ms: self.noise(line),
            flushes: level.n,
            line,
        })
    }

    fn fold(&mut self, span: &Level, spread: Spread) {
        let by_flushes = 1.0 / (1.0 + span.n / LEVEL_FLUSHES);
        self.level.scale(by_flushes.max(1.0 - 1.0 / LEVEL_SPANS));
        self.level.add(span);
        self.spread.scale(1.0 / (1.0 + span.n / SPREAD_FLUSHES));
        self.spread.add(&spread);
    }

    /// `span`, if it is off the line.
    fn off(&self, span: &Level) -> Option<Suspect> {
        let known = self.value().filter(|known| known.flushes >= FEWEST_FOR_LINE)?;
        let (size, mean_size) = (span.mean_kib(), known.mean_bytes / 1_024.0);
        let (least, most, slope_error) = if let Some(line) = known.line {
            let on_line = known.at_ms(size * 1_024.0);
            (on_line, on_line, line.per_kib_error_us / 1_000.0 * (size - mean_size))
        } else {
            // Another size may well take longer or shorter, but neither part of a cost is negative: a flush of twice the
            // size takes as long at least, and twice as long at most.
            let in_proportion = known.mean_ms * size / mean_size.max(1e-9);
            (known.mean_ms.min(in_proportion), known.mean_ms.max(in_proportion), 0.0)
        };
        let (took, squared) = (span.mean_ms(), known.noise_ms * known.noise_ms);
        // Flushes that are short again after a spell of erratic ones must not be lost in the noise of the spell: they are
        // judged by their own where it is less. That of a few is little known, and leans on what was known.
        let of_span = if took < least {
            let own = Spread::inside(span);
            let noise = own.noise_about(known.line.map_or(0.0, |line| line.per_kib_us / 1_000.0));
            squared.min((noise * noise * own.free() + squared * BORROWED) / (own.free() + BORROWED))
        } else {
            squared
        };
        let variance = of_span / span.n + squared / known.flushes;
        let error = (variance + slope_error * slope_error).sqrt();
        let expected = took.clamp(least, most);
        let limit = OFF_ERRORS * error + OFF_SHARE * expected;
        let residual = took - expected;
        (residual.abs() > limit).then(|| Suspect {
            span: *span,
            is_slower: residual > 0.0,
            weight: limit / residual.abs(),
        })
    }

    /// The line, where the sizes are spread enough for its fixed part to be known.
    fn line(&self) -> Option<CostLine> {
        let level = self.level;
        if level.n < FEWEST_FOR_LINE {
            return None;
        }
        let slopes = [Spread::inside(&level).slope(self.one_size), self.spread.slope(self.one_size)];
        let slope = slopes.into_iter().flatten().min_by(|a, b| a.error.total_cmp(&b.error))?;
        let (mean_kib, mean_ms) = (level.mean_kib(), level.mean_ms());
        let fixed_error =
            (slope.noise * slope.noise / level.n + mean_kib * mean_kib * slope.error * slope.error).sqrt();
        if fixed_error > KNOWN_TO * mean_ms {
            return None;
        }
        // Neither part can be negative: where the free line says so, the best line through the bound is taken.
        let (fixed, per_kib) = if slope.value < 0.0 {
            (mean_ms, 0.0)
        } else if slope.value * mean_kib > mean_ms {
            (0.0, mean_ms / mean_kib)
        } else {
            (mean_ms - slope.value * mean_kib, slope.value)
        };
        Some(CostLine {
            fixed_ms: fixed,
            fixed_error_ms: fixed_error,
            per_kib_us: per_kib * 1_000.0,
            per_kib_error_us: slope.error * 1_000.0,
        })
    }

    fn noise(&self, line: Option<CostLine>) -> f64 {
        Spread::inside(&self.level).noise_about(line.map_or(0.0, |line| line.per_kib_us / 1_000.0))
    }
}

#[cfg(test)]
mod tests;
