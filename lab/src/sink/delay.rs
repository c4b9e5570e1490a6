//! The planted cost of a flush: time since the first flush and a count of records in, a delay out. Steps of the fixed part
//! change the plant under a steady rate. Pure: it never reads a clock and never sleeps.

use std::fmt;
use std::str::FromStr;

use tidegate_client::Nanos;

use crate::time::parse_span;

/// What a flush costs: a fixed part, which may change in steps, and a part for each record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FlushCost {
    /// Fixed part before the first step.
    pub(crate) fixed: Nanos,
    /// Part for each record.
    pub(crate) per_record: Nanos,
    /// Fixed part from each instant on.
    pub(crate) steps: Steps,
}

impl FlushCost {
    /// Cost of a flush of `records` that arrives `elapsed` after the begin.
    pub(crate) fn of(&self, elapsed: Nanos, records: u64) -> Nanos {
        let step = self.steps.0.iter().rev().find(|step| step.from <= elapsed);
        let fixed = step.map_or(self.fixed, |step| step.fixed);
        Nanos(fixed.0.saturating_add(self.per_record.0.saturating_mul(records)))
    }
}

/// The fixed part from `from` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Since the begin.
    pub(crate) from: Nanos,
    /// Fixed part of a flush.
    pub(crate) fixed: Nanos,
}

/// Steps in the order of their instants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Steps(pub(crate) Vec<Step>);

impl FromStr for Steps {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let step = |part: &str| {
            let (fixed, from) = part.trim().split_once('@')?;
            Some(Step { fixed: parse_span(fixed).ok()?, from: parse_span(from).ok()? })
        };
        let steps = text
            .split(',')
            .map(|part| step(part).ok_or_else(|| format!("step {part:?}: want DELAY@TIME, like 10ms@20s")))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(pair) = steps.windows(2).find(|pair| pair[0].from >= pair[1].from) {
            return Err(format!("steps {text:?}: {} does not come after {}", ShownStep(pair[1]), ShownStep(pair[0])));
        }
        Ok(Self(steps))
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{}", ShownStep(*step))?;
        }
        Ok(())
    }
}

/// A step as it is typed.
struct ShownStep(Step);

impl fmt::Display for ShownStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}us@{}us", self.0.fixed.as_micros(), self.0.from.as_micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_flush_costs_its_fixed_part_and_its_records() {
        let cost = FlushCost { fixed: Nanos(2 * MS), per_record: Nanos(2_000), ..FlushCost::default() };
        assert_eq!(cost.of(Nanos(0), 0), Nanos(2 * MS));
        assert_eq!(cost.of(Nanos(0), 500), Nanos(3 * MS));
        assert_eq!(cost.of(Nanos(0), u64::MAX), Nanos(u64::MAX), "a count that cannot be is no panic");
    }

    #[test]
    fn a_step_holds_from_its_instant_until_the_next() {
        let steps = "1ms@5s,10ms@20s,3ms@40s".parse().unwrap();
        let cost = FlushCost { fixed: Nanos(7 * MS), per_record: Nanos(1), steps };
        let at = |seconds: u64| cost.of(Nanos(seconds * 1_000 * MS), 0).0 / MS;
        assert_eq!([0, 4, 5, 19, 20, 39, 40, 4_000].map(at), [7, 7, 1, 1, 10, 10, 3, 3]);
        assert_eq!(cost.of(Nanos(20_000 * MS - 1), 9), Nanos(MS + 9));
    }

    #[test]
    fn steps_are_read_as_they_are_shown_and_bad_ones_named() {
        let steps: Steps = "1ms@0,2500us@20s".parse().unwrap();
        assert_eq!(steps.to_string().parse(), Ok(steps));
        for bad in ["", "1ms", "1ms@", "@2s", "1ms@2s,", "1@2s", "1ms@2"] {
            assert!(bad.parse::<Steps>().is_err_and(|e| e.contains("like 10ms@20s")), "{bad:?} was taken");
        }
        let error = "1ms@2s,3ms@2s".parse::<Steps>().unwrap_err();
        assert!(error.contains("does not come after"), "{error}");
    }
}
