//! MANUAL hand-off: what was published and what a pipeline says it uses in; "somebody else holds the knob" out.
//!
//! Only a report that names the newest generation counts: one that has not taken it yet is late, not defiant. It takes
//! half a second of such reports, because page and report are written at different instants.

use crate::signal::InUse;
use crate::units::{Generation, Settings};

/// Reports in a row that must disagree.
pub const REPORTS: u32 = 5;
/// Values closer than this share are the same: a pipeline may round to its own unit.
const SAME_WITHIN: u64 = 64;

/// Counts reports that disagree with what was published.
#[derive(Clone, Copy, Debug, Default)]
pub struct HandOff {
    disagreeing: u32,
}

impl HandOff {
    /// Takes in what the pipeline says it uses; `Some` when somebody else holds the knob.
    pub fn observe(&mut self, published: (Generation, Settings), in_use: Option<InUse>) -> Option<Settings> {
        let (generation, settings) = published;
        let said = in_use.filter(|said| said.generation == generation && generation > Generation(0))?;
        // A report that leaves the values out tells nothing about them.
        if said.settings.batch.0 == 0 && said.settings.interval.0 == 0 {
            return None;
        }
        let agree =
            near(said.settings.batch.0, settings.batch.0) && near(said.settings.interval.0, settings.interval.0);
        self.disagreeing = if agree { 0 } else { self.disagreeing.saturating_add(1) };
        (self.disagreeing >= REPORTS).then_some(said.settings)
    }
}

fn near(a: u64, b: u64) -> bool {
    a.abs_diff(b) <= a.max(b) / SAME_WITHIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{BatchSize, FlushInterval};

    const OURS: Settings = Settings { batch: BatchSize(65_536), interval: FlushInterval(5_000) };
    const THEIRS: Settings = Settings { batch: BatchSize(65_536), interval: FlushInterval(90_000) };

    fn observe(hand_off: &mut HandOff, generation: u64, settings: Settings) -> bool {
        let said = InUse { generation: Generation(generation), settings };
        hand_off.observe((Generation(3), OURS), Some(said)).is_some()
    }

    #[test]
    fn a_knob_that_somebody_else_turned_is_theirs_after_half_a_second() {
        let mut hand_off = HandOff::default();
        let seen: Vec<bool> = (0..5).map(|_| observe(&mut hand_off, 3, THEIRS)).collect();
        assert_eq!(seen, [false, false, false, false, true]);
    }

    #[test]
    fn a_pipeline_that_is_late_or_on_its_defaults_is_not_defiant() {
        let mut hand_off = HandOff::default();
        assert!((0..50).all(|_| !observe(&mut hand_off, 2, THEIRS)));
        assert!((0..50).all(|_| !observe(&mut hand_off, 0, THEIRS)));
    }

    #[test]
    fn one_report_that_agrees_clears_the_suspicion() {
        let mut hand_off = HandOff::default();
        for nth in 0..50 {
            assert!(!observe(&mut hand_off, 3, if nth % 5 == 4 { OURS } else { THEIRS }));
        }
    }

    #[test]
    fn rounding_is_not_defiance() {
        let rounded = Settings { batch: BatchSize(65_000), interval: FlushInterval(5_050) };
        let mut hand_off = HandOff::default();
        assert!((0..50).all(|_| !observe(&mut hand_off, 3, rounded)));
    }
}
