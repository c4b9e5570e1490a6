//! The hard clamps of a registration: any settings in, settings within them out. Nothing passes by them.

use tidegate_client::abi::{Boundary, KnobRange, Knobs, Registration};

use crate::units::{BatchSize, FlushInterval, Generation, Settings};

/// Bounds of both knobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    batch: KnobRange,
    interval: KnobRange,
}

impl Bounds {
    /// The bounds of a registration. A range that is upside down shrinks to its lower end, and a default outside its
    /// range moves into it: the socket refuses both, a recording may hold anything.
    pub fn new(knobs: &Knobs) -> Self {
        Self { batch: upright(knobs.batch_bytes), interval: upright(knobs.flush_interval_us) }
    }

    /// The pipeline's own settings.
    pub fn defaults(&self) -> Settings {
        Settings { batch: BatchSize(self.batch.default), interval: FlushInterval(self.interval.default) }
    }

    /// Flush as soon as the sink is free: the shortest interval, and a batch size that never decides.
    pub fn shortest(&self) -> Settings {
        Settings { batch: BatchSize(self.batch.max), interval: FlushInterval(self.interval.min) }
    }

    /// `settings` moved into the bounds, and which bound moved them.
    pub fn clamp(&self, settings: Settings) -> (Settings, Option<Boundary>) {
        let (batch, batch_by) = within(settings.batch.0, self.batch);
        let (interval, interval_by) = within(settings.interval.0, self.interval);
        (Settings { batch: BatchSize(batch), interval: FlushInterval(interval) }, interval_by.or(batch_by))
    }

    /// Whether `settings` lie within.
    pub fn hold(&self, settings: Settings) -> bool {
        self.clamp(settings).0 == settings
    }
}

/// What a pipeline starts with: the settings for its page and their generation, 0 for its own defaults.
///
/// `resumed` is what its page held before, when an agent served it earlier: generations only rise, and a pipeline that
/// is tuned goes on where it was, within its bounds. In mode `observe` the page holds the pipeline's own defaults.
pub fn initial(registration: &Registration, resumed: Option<(Generation, Settings)>) -> (Settings, Generation) {
    let bounds = Bounds::new(&registration.knobs);
    let Some((generation, held)) = resumed.filter(|(generation, _)| *generation > Generation(0)) else {
        return (bounds.defaults(), Generation(0));
    };
    let wanted = if registration.mode.acts() { bounds.clamp(held).0 } else { bounds.defaults() };
    if wanted == held { (held, generation) } else { (wanted, Generation(generation.0.saturating_add(1))) }
}

fn upright(range: KnobRange) -> KnobRange {
    let max = range.max.max(range.min);
    KnobRange { min: range.min, max, default: range.default.clamp(range.min, max) }
}

fn within(value: u64, range: KnobRange) -> (u64, Option<Boundary>) {
    if value < range.min {
        (range.min, Some(Boundary::Min))
    } else if value > range.max {
        (range.max, Some(Boundary::Max))
    } else {
        (value, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidegate_client::abi::Mode;

    fn registration(mode: Mode) -> Registration {
        let knobs = Knobs {
            batch_bytes: KnobRange { min: 4_096, max: 1 << 20, default: 256 << 10 },
            flush_interval_us: KnobRange { min: 1_000, max: 250_000, default: 250_000 },
        };
        Registration { mode, ..Registration::new(knobs) }
    }

    proptest! {
        #[test]
        fn clamped_settings_lie_within_any_bounds(
            b in any::<[u64; 3]>(), i in any::<[u64; 3]>(), batch in any::<u64>(), interval in any::<u64>(),
        ) {
            let range = |[min, max, default]: [u64; 3]| KnobRange { min, max, default };
            let bounds = Bounds::new(&Knobs { batch_bytes: range(b), flush_interval_us: range(i) });
            let (clamped, _) = bounds.clamp(Settings { batch: BatchSize(batch), interval: FlushInterval(interval) });
            prop_assert!(bounds.hold(clamped) && bounds.hold(bounds.defaults()));
            prop_assert!(clamped.batch.0 >= b[0] && clamped.interval.0 >= i[0]);
        }
    }

    #[test]
    fn a_tuned_pipeline_goes_on_where_it_was() {
        let held = Settings { batch: BatchSize(8_192), interval: FlushInterval(5_000) };
        assert_eq!(initial(&registration(Mode::On), Some((Generation(7), held))), (held, Generation(7)));
        let outside = Settings { batch: BatchSize(1), interval: FlushInterval(5_000) };
        let (settings, generation) = initial(&registration(Mode::On), Some((Generation(7), outside)));
        assert_eq!((settings.batch, generation), (BatchSize(4_096), Generation(8)), "a changed value is a new one");
    }

    #[test]
    fn advice_leaves_the_defaults_on_the_page() {
        let held = Settings { batch: BatchSize(8_192), interval: FlushInterval(5_000) };
        let (settings, generation) = initial(&registration(Mode::Observe), Some((Generation(7), held)));
        assert_eq!(settings.interval, FlushInterval(250_000));
        assert_eq!(generation, Generation(8));
        assert_eq!(initial(&registration(Mode::On), None).1, Generation(0));
    }
}
