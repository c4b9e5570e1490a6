//! The schedule of a run: phases or laws of arrival in, the due time of every record out. Both ends of a load walk the same
//! one, drawn from the same seed, so that no record's due time has to be kept or sent. Never reads a clock.

use std::fmt;
use std::str::FromStr;

use tidegate_client::Nanos;

use super::arrivals::Arrivals;
use super::law::{Law, Segment};
use super::random::Random;
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
    /// Records due in it, when they come evenly.
    pub(crate) fn records(&self) -> u64 {
        u64::try_from(u128::from(self.rate) * u128::from(self.span.0) / u128::from(SECOND)).unwrap_or(u64::MAX)
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
    segments: Vec<Segment>,
    seed: u64,
    phases: Vec<Phase>,
    begins: Vec<Nanos>,
    slices: Vec<Slice>,
    first_slice: Vec<usize>,
}

impl Schedule {
    /// Phases of even arrivals.
    pub(crate) fn new(phases: Vec<Phase>) -> Self {
        let even = |phase: Phase| Segment {
            law: Law::Even { rate: phase.rate },
            span: phase.span,
            text: format!("even@{}", Phases(vec![phase])),
        };
        Self::of(phases.into_iter().map(even).collect(), 0)
    }

    /// Segments of any law; the same seed gives the same schedule.
    pub(crate) fn of(segments: Vec<Segment>, seed: u64) -> Self {
        let (mut begins, mut slices, mut first_slice) = (Vec::new(), Vec::new(), Vec::new());
        let mut begin = Nanos(0);
        for (index, Segment { span, .. }) in segments.iter().enumerate() {
            begins.push(begin);
            first_slice.push(slices.len());
            begin = begin + *span;
            let mut at = 0;
            while at < span.0 {
                let length = Nanos(SECOND.min(span.0 - at));
                slices.push(Slice { phase: index, span: length, records: 0 });
                at += length.0;
            }
        }
        let mut schedule = Self { segments, seed, phases: Vec::new(), begins, slices: Vec::new(), first_slice };
        for due in schedule.walk() {
            slices[due.slice].records += 1;
        }
        schedule.slices = slices;
        let phase = |(index, segment): (usize, &Segment)| {
            let rate = match segment.law {
                Law::Even { rate } => rate,
                _ => mean_rate(schedule.records_of(index), segment.span),
            };
            Phase { rate, span: segment.span }
        };
        schedule.phases = schedule.segments.iter().enumerate().map(phase).collect();
        schedule
    }

    /// Spans and rates: of a law that has none, that which came out.
    pub(crate) fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// The laws.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub(crate) fn slices(&self) -> &[Slice] {
        &self.slices
    }

    /// Begin of a slice.
    pub(crate) fn begin_of(&self, slice: usize) -> Nanos {
        let phase = self.slices[slice].phase;
        Nanos(self.begins[phase].0 + (slice - self.first_slice[phase]) as u64 * SECOND)
    }

    /// Index of the first slice of a phase.
    pub(crate) fn first_slice(&self, phase: usize) -> usize {
        self.first_slice[phase]
    }

    /// Begin of each phase.
    pub(crate) fn begins(&self) -> &[Nanos] {
        &self.begins
    }

    pub(crate) fn end(&self) -> Nanos {
        self.segments.iter().fold(Nanos(0), |sum, s| sum + s.span)
    }

    pub(crate) fn records(&self) -> u64 {
        self.slices.iter().map(|slice| slice.records).sum()
    }

    /// Records due in a phase.
    pub(crate) fn records_of(&self, phase: usize) -> u64 {
        self.slices.iter().filter(|slice| slice.phase == phase).map(|slice| slice.records).sum()
    }

    /// All records in order.
    pub(crate) fn walk(&self) -> Walk<'_> {
        Walk { schedule: self, phase: 0, arrivals: None }
    }

    fn arrivals(&self, phase: usize) -> Option<Arrivals<'_>> {
        let segment = self.segments.get(phase)?;
        Some(Arrivals::new(&segment.law, segment.span, Random::new(self.seed, phase as u64)))
    }
}

fn mean_rate(records: u64, span: Nanos) -> u64 {
    u64::try_from(u128::from(records) * u128::from(SECOND) / u128::from(span.0.max(1))).unwrap_or(u64::MAX)
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
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    schedule: &'a Schedule,
    phase: usize,
    arrivals: Option<Arrivals<'a>>,
}

impl Iterator for Walk<'_> {
    type Item = Due;
    fn next(&mut self) -> Option<Due> {
        loop {
            if self.arrivals.is_none() {
                self.arrivals = Some(self.schedule.arrivals(self.phase)?);
            }
            if let Some(at) = self.arrivals.as_mut().and_then(Iterator::next) {
                let second = usize::try_from(at.0 / SECOND).unwrap_or(0);
                let slice = self.schedule.first_slice[self.phase] + second;
                return Some(Due { at: self.schedule.begins[self.phase] + at, slice });
            }
            self.phase += 1;
            self.arrivals = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::law::Traffic;

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
        assert_eq!([0, 1, 2].map(|phase| schedule.records_of(phase)), [600, 10, 1_000]);
        assert_eq!(schedule.slices()[3].span, Nanos::from_millis(500));
    }

    #[test]
    fn two_walks_of_any_traffic_are_the_same_and_its_slices_count_them() {
        let traffic: Traffic = "poisson@300x2s,burst@400x2500ms,even@7x1s,flash@100x2s".parse().unwrap();
        let schedule = Schedule::of(traffic.0.clone(), 5);
        let (one, other): (Vec<Due>, Vec<Due>) = (schedule.walk().collect(), schedule.walk().collect());
        assert_eq!(one, other);
        assert_eq!(one.len() as u64, schedule.records());
        assert!(one.windows(2).all(|pair| pair[0].at <= pair[1].at && pair[0].slice <= pair[1].slice));
        for (index, slice) in schedule.slices().iter().enumerate() {
            assert_eq!(one.iter().filter(|due| due.slice == index).count() as u64, slice.records);
        }
        let again: Vec<Due> = Schedule::of(traffic.0, 6).walk().collect();
        assert_ne!(one, again, "another seed is another schedule");
    }
}
