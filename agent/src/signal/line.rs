//! Sums for a straight line: flushes of a span in; means, spread about them, slope and its error out. Never knows what a
//! line is for.
//!
//! In KiB and ms, so that the terms of a product are of like size and no digits are lost in their differences.

use crate::signal::flush_cost::FlushSums;

/// Durations are told in whole microseconds: none is known better.
const RESOLUTION_MS: f64 = 0.001;
/// Standard deviation of what rounding to microseconds adds or takes.
const ROUNDING_MS: f64 = 0.000_29;

/// Weighted sums as they lie.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Level {
    /// Flushes.
    pub(super) n: f64,
    kib: f64,
    kib_squared: f64,
    ms: f64,
    kib_ms: f64,
    ms_squared: f64,
}

/// Weighted sums of deviations from means.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spread {
    /// Degrees of freedom: flushes less means.
    free: f64,
    /// Sum of the squares of the means, a flush each: what the deviations of the sizes are measured against.
    mean_squares: f64,
    kib_squared: f64,
    kib_ms: f64,
    ms_squared: f64,
}

/// A slope, ms per KiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slope {
    pub(super) value: f64,
    pub(super) error: f64,
    /// Standard deviation about the line, ms.
    pub(super) noise: f64,
}

impl Level {
    /// Of one span.
    #[expect(clippy::cast_precision_loss, reason = "the sums of a span are good to 52 bits, a line needs twenty")]
    pub(super) fn of(sums: &FlushSums) -> Self {
        let n = sums.flushes as f64;
        let us = sums.duration_ns as f64 / 1e3;
        let bytes = sums.bytes as f64;
        Self {
            n,
            kib: bytes / 1_024.0,
            kib_squared: sums.bytes_squared as f64 / 1_024.0 / 1_024.0,
            ms: us / 1e3,
            // Rounded to the nearest microsecond, each duration is as often above as below.
            kib_ms: sums.bytes_us as f64 / 1_024.0 / 1e3,
            ms_squared: sums.us_squared as f64 / 1e6,
        }
    }

    pub(super) fn scale(&mut self, by: f64) {
        for sum in
            [&mut self.n, &mut self.kib, &mut self.kib_squared, &mut self.ms, &mut self.kib_ms, &mut self.ms_squared]
        {
            *sum *= by;
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.n += other.n;
        self.kib += other.kib;
        self.kib_squared += other.kib_squared;
        self.ms += other.ms;
        self.kib_ms += other.kib_ms;
        self.ms_squared += other.ms_squared;
    }

    /// Mean size, KiB. Only where there are flushes.
    pub(super) fn mean_kib(&self) -> f64 {
        self.kib / self.n
    }

    /// Mean duration, ms. Likewise.
    pub(super) fn mean_ms(&self) -> f64 {
        self.ms / self.n
    }
}

impl Spread {
    /// About the means of `level`.
    pub(super) fn inside(level: &Level) -> Self {
        if level.n <= 1.0 {
            return Self::default();
        }
        Self {
            free: level.n - 1.0,
            mean_squares: level.kib * level.mean_kib(),
            kib_squared: (level.kib_squared - level.kib * level.mean_kib()).max(0.0),
            kib_ms: level.kib_ms - level.kib * level.mean_ms(),
            ms_squared: (level.ms_squared - level.ms * level.mean_ms()).max(0.0),
        }
    }

    /// Degrees of freedom.
    pub(super) fn free(&self) -> f64 {
        self.free
    }

    pub(super) fn scale(&mut self, by: f64) {
        for sum in
            [&mut self.free, &mut self.mean_squares, &mut self.kib_squared, &mut self.kib_ms, &mut self.ms_squared]
        {
            *sum *= by;
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.free += other.free;
        self.mean_squares += other.mean_squares;
        self.kib_squared += other.kib_squared;
        self.kib_ms += other.kib_ms;
        self.ms_squared += other.ms_squared;
    }

    /// The slope with its error, unless there is but one size: sizes that differ by less than `one_size` of their mean, as a
    /// standard deviation, are.
    pub(super) fn slope(&self, one_size: f64) -> Option<Slope> {
        if self.free < 2.0 || self.kib_squared <= one_size * one_size * self.mean_squares {
            return None;
        }
        let value = self.kib_ms / self.kib_squared;
        let noise = self.noise_about(value);
        // The products are of rounded durations, their sum is not: what they differ by weighs with the size itself.
        let rounding = ROUNDING_MS * (self.mean_squares + self.kib_squared).sqrt() / self.kib_squared;
        let error = (noise * noise / self.kib_squared + rounding * rounding).sqrt();
        Some(Slope { value, error, noise })
    }

    /// Standard deviation of the durations about a line of slope `slope`, ms.
    pub(super) fn noise_about(&self, slope: f64) -> f64 {
        let about = self.ms_squared - 2.0 * slope * self.kib_ms + slope * slope * self.kib_squared;
        (about.max(0.0) / self.free.max(1.0)).sqrt().max(RESOLUTION_MS)
    }
}
