//! A logarithmic axis: values in, pixels and ticks out. Latencies and costs span decades, and ratios are what matters.

/// From values to pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// For `values`, with some room at both ends, between the pixels `from` and `to`; `None` without a value above 0.
    pub(super) fn of(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Option<Self> {
        let positive = values.filter(|v| *v > 0.0 && v.is_finite());
        let (low, high) = positive.fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
        if high <= 0.0 {
            return None;
        }
        // At least a factor of 2, so that noise does not fill the plot.
        let middle = (low * high).sqrt();
        let (low, high) = (low.min(middle / 1.4), high.max(middle * 1.4));
        let room = (high / low).powf(0.08);
        Some(Self { low: low / room, high: high * room, from, to })
    }

    pub(super) fn at(&self, value: f64) -> f64 {
        let share = (value / self.low).ln() / (self.high / self.low).ln();
        self.from + share * (self.to - self.from)
    }

    /// 1, 2 and 5 times the powers of ten; only 1 where those would be too many, and more where they would be too few.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let steps: &[f64] = match self.high / self.low {
            wide if wide > 300.0 => &[1.0],
            narrow if narrow < 5.0 => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
            _ => &[1.0, 2.0, 5.0],
        };
        #[expect(clippy::cast_possible_truncation, reason = "decades between 1e-9 and 1e9")]
        let decades = (self.low.log10().floor() as i32)..=(self.high.log10().ceil() as i32);
        let all = decades.flat_map(|d| steps.iter().map(move |s| s * 10_f64.powi(d)));
        all.filter(|v| (self.low..=self.high).contains(v)).collect()
    }
}

/// A tick as it is written.
pub(super) fn label(value: f64) -> String {
    if value >= 10.0 {
        return format!("{value:.0}");
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ratios_are_equal_distances() {
        let axis = Axis::of([1.0, 10.0, 100.0].into_iter(), 0.0, 300.0).unwrap();
        let (a, b, c) = (axis.at(1.0), axis.at(10.0), axis.at(100.0));
        assert!((b - a - (c - b)).abs() < 1e-9 && a > 0.0 && c < 300.0);
        assert!(axis.ticks().contains(&10.0) && axis.ticks().contains(&50.0));
        assert!(Axis::of([0.0].into_iter(), 0.0, 1.0).is_none());
    }

    #[test]
    fn ticks_are_written_without_a_tail() {
        assert_eq!([0.05, 1.5, 2.0, 500.0].map(label), ["0.05", "1.5", "2", "500"]);
    }
}
