//! The schedule of a run: phases in, the due time of every record out. Pure: both ends of a load walk the same one, so
//! that no record's due time has to be kept or sent.

use std::fmt;
use std::str::FromStr;

use tidegate_client::Nanos;

use crate::time::parse_span;

const SECOND: u64 = 1_000_000_000;

/// A span at one rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Phase {
    /// Records a second.
    pub(crate) rate: u64,
    /// How long.
    pub(crate) span: Nanos,
}

impl Phase {
    /// Records due in it.
    pub(crate) fn records(&self) -> u64 {
        u64::try_from(u128::from(self.rate) * u128::from(self.span.0) / u128::from(SECOND)).unwrap_or(u64::MAX)
    }

    /// Due time of its record `i`, from its begin.
    fn due(&self, i: u64) -> Nanos {
        Nanos(u64::try_from(u128::from(i) * u128::from(SECOND) / u128::from(self.rate.max(1))).unwrap_or(u64::MAX))
    }
}

/// One phase after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Phases(pub(crate) Vec<Phase>);

impl FromStr for Phases {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let phase = |part: &str| {
            let (rate, span) = part.trim().split_once('x')?;
            let phase = Phase { rate: rate.parse().ok()?, span: parse_span(span).ok()? };
            (phase.rate > 0 && phase.span > Nanos(0)).then_some(phase)
        };
        text.split(',')
            .map(|part| phase(part).ok_or_else(|| format!("phase {part:?}: want RATExSPAN, like 5000x8s")))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, phase) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{}x{}ms", phase.rate, phase.span.0 / 1_000_000)?;
        }
        Ok(())
    }
}

/// A slice of a phase, a second long at most: the unit of the weighting by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    /// Which phase.
    pub(crate) phase: usize,
    /// How long.
    pub(crate) span: Nanos,
    /// Records due in it.
    pub(crate) records: u64,
}

/// All that is due, from the begin of the run.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    phases: Vec<Phase>,
    begins: Vec<Nanos>,
    slices: Vec<Slice>,
    first_slice: Vec<usize>,
}

impl Schedule {
    pub(crate) fn new(phases: Vec<Phase>) -> Self {
        let (mut begins, mut slices, mut first_slice) = (Vec::new(), Vec::new(), Vec::new());
        let mut begin = Nanos(0);
        for (index, phase) in phases.iter().enumerate() {
            begins.push(begin);
            first_slice.push(slices.len());
            begin = begin + phase.span;
            let mut at = 0;
            while at < phase.span.0 {
                let span = Nanos(SECOND.min(phase.span.0 - at));
                slices.push(Slice { phase: index, span, records: 0 });
                at += span.0;
            }
            for i in 0..phase.records() {
                let second = usize::try_from(phase.due(i).0 / SECOND).unwrap_or(0);
                slices[first_slice[index] + second].records += 1;
            }
        }
        Self { phases, begins, slices, first_slice }
    }

    pub(crate) fn phases(&self) -> &[Phase] {
        &self.phases
    }

    pub(crate) fn slices(&self) -> &[Slice] {
        &self.slices
    }

    pub(crate) fn end(&self) -> Nanos {
        self.phases.iter().fold(Nanos(0), |sum, p| sum + p.span)
    }

    pub(crate) fn records(&self) -> u64 {
        self.phases.iter().map(Phase::records).sum()
    }

    /// All records in order.
    pub(crate) fn walk(&self) -> Walk<'_> {
        Walk { schedule: self, phase: 0, i: 0 }
    }
}

/// A record that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// From the begin of the run.
    pub(crate) at: Nanos,
    /// Index of its slice.
    pub(crate) slice: usize,
}

/// Walks through a schedule.
#[derive(Clone, Debug)]
pub(crate) struct Walk<'a> {
    schedule: &'a Schedule,
    phase: usize,
    i: u64,
}

impl Iterator for Walk<'_> {
    type Item = Due;
    fn next(&mut self) -> Option<Due> {
        loop {
            let phase = self.schedule.phases.get(self.phase)?;
            let due = phase.due(self.i);
            // By number, not by time: the last record of a phase must not fall victim to rounding.
            if self.i < phase.records() {
                self.i += 1;
                let second = usize::try_from(due.0 / SECOND).unwrap_or(0);
                let slice = self.schedule.first_slice[self.phase] + second;
                return Some(Due { at: self.schedule.begins[self.phase] + due, slice });
            }
            self.phase += 1;
            self.i = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_read_and_bad_ones_named() {
        let phases: Phases = "300x8s,5000x500ms".parse().unwrap();
        assert_eq!(phases.0[1], Phase { rate: 5_000, span: Nanos::from_millis(500) });
        assert_eq!(phases.to_string().parse(), Ok(phases));
        for bad in ["", "300", "x8s", "300x", "0x8s", "300x8s,", "300x8q"] {
            assert!(bad.parse::<Phases>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn every_record_is_due_in_its_slice_and_none_is_left_out() {
        let schedule = Schedule::new("300x2s,7x1500ms,1000x1s".parse::<Phases>().unwrap().0);
        let mut per_slice = vec![0; schedule.slices().len()];
        let mut last = Nanos(0);
        for due in schedule.walk() {
            assert!(due.at >= last && due.at < schedule.end());
            last = due.at;
            per_slice[due.slice] += 1;
        }
        let expected: Vec<_> = schedule.slices().iter().map(|s| s.records).collect();
        assert_eq!(per_slice, expected);
        assert_eq!(schedule.records(), 600 + 10 + 1_000);
        assert_eq!(schedule.slices()[3].span, Nanos::from_millis(500));
    }
}
