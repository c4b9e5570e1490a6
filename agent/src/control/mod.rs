//! Signals in, decisions out: pure functions of state, signals and time.

use tidegate_client::abi::{KnobRange, Mode, Registration};

use crate::units::{BatchSize, FlushInterval, Generation, Settings};

/// What a pipeline starts with: the settings for its page and their generation.
///
/// `resumed` is what its page held before, when an agent served it earlier: generations only rise, and a pipeline that
/// is tuned goes on where it was, within its bounds. In mode `observe` the page holds the pipeline's own defaults.
pub fn initial(registration: &Registration, resumed: Option<(Generation, Settings)>) -> (Settings, Generation) {
    let defaults = Settings {
        batch: BatchSize(registration.knobs.batch_bytes.default),
        interval: FlushInterval(registration.knobs.flush_interval_us.default),
    };
    let Some((generation, held)) = resumed else {
        return (clamp(defaults, registration), Generation(1));
    };
    let wanted = match registration.mode {
        Mode::Observe => clamp(defaults, registration),
        Mode::On => clamp(held, registration),
    };
    if wanted == held { (held, generation) } else { (wanted, Generation(generation.0.saturating_add(1))) }
}

fn clamp(settings: Settings, registration: &Registration) -> Settings {
    Settings {
        batch: BatchSize(within(settings.batch.0, registration.knobs.batch_bytes)),
        interval: FlushInterval(within(settings.interval.0, registration.knobs.flush_interval_us)),
    }
}

/// `value` moved into the range. A range that is upside down yields its lower end, never a panic.
fn within(value: u64, range: KnobRange) -> u64 {
    value.min(range.max).max(range.min)
}
