//! Report pages in, the deltas of one tick out. The page is written by somebody else: it is hostile input.
//!
//! Bounded, monotone and sane, or ignored with a reason that has a name: nothing a page says can make a number
//! negative, infinite or absurd, and nothing it says panics.

use tidegate_client::abi::{
    Acknowledgement, PAGE_BYTES, REPORT_ABI_VERSION, REPORT_HISTOGRAM_AT, REPORT_HISTOGRAM_WORDS, REPORT_MAGIC,
    REPORT_WORDS, ReportWord, SignalsReport,
};

use crate::units::{BatchSize, FlushInterval, Generation, Nanos, Settings};

/// More events or flushes a second than any process on one host makes.
pub const MAX_EVENTS_PER_S: u64 = 1_000_000_000;
/// More bytes a second than memory moves.
pub const MAX_BYTES_PER_S: u64 = 1_000_000_000_000;
/// A mean flush longer than this is no flush.
pub const MAX_FLUSH: Nanos = Nanos::from_secs(3_600);

const FIRST_WORD_AT: usize = 16;

/// Counters that must not fall, with their names.
const CUMULATIVE: [(ReportWord, &str); 14] = [
    (ReportWord::EventsIn, "events_in"),
    (ReportWord::EventsOut, "events_out"),
    (ReportWord::BytesIn, "bytes_in"),
    (ReportWord::BytesOut, "bytes_out"),
    (ReportWord::Flushes, "flushes"),
    (ReportWord::FlushesByAge, "flushes_by_age"),
    (ReportWord::FlushesBySize, "flushes_by_size"),
    (ReportWord::FlushesByBacklog, "flushes_by_backlog"),
    (ReportWord::FlushesByPanic, "flushes_by_panic"),
    (ReportWord::FlushNs, "flush_ns"),
    (ReportWord::FlushErrors, "flush_errors"),
    (ReportWord::EventsLost, "events_lost"),
    (ReportWord::FlushesByWaiting, "flushes_by_waiting"),
    (ReportWord::StalledNs, "stalled_ns"),
];

/// Why a report was ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportFault {
    /// It could not be read.
    #[error("report page: errno {0} while reading it")]
    Unreadable(i32),
    /// It was cut short, or is no page.
    #[error("report page: {0} bytes, want 4096")]
    Size(usize),
    /// Its first word is not the magic.
    #[error("report page: wrong magic, want \"tg-rep\"")]
    Magic,
    /// It is of another version.
    #[error("report page: version {0}, want 2 (build the pipeline with this version's client)")]
    Version(u32),
    /// It has fewer words than its version asks for, or more than fit.
    #[error("report page: {0} words, want 24 to 32")]
    Words(u32),
    /// A counter fell: the pipeline restarted, its counter wrapped, or it lies.
    #[error("report page: {0} fell")]
    Fell(&'static str),
    /// More is queued than there is room for.
    #[error("report page: queue above its capacity")]
    Queue,
    /// A rate that no process reaches.
    #[error("report page: absurd rate of {0}")]
    Absurd(&'static str),
}

/// A report page, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    words: [u64; REPORT_WORDS],
    histogram: [u64; REPORT_HISTOGRAM_WORDS],
}

/// What stands in a report now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Events waiting.
    pub queue_events: u64,
    /// Bytes waiting.
    pub queue_bytes: u64,
    /// Capacity of the queue, bytes; 0 when there is no bound.
    pub queue_capacity: u64,
    /// Generation of the settings in use; 0 for the pipeline's own defaults.
    pub generation: Generation,
    /// Settings in use.
    pub in_use: Settings,
}

/// What happened between two reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportDelta {
    /// Time between them.
    pub span: Nanos,
    /// Events taken in.
    pub events_in: u64,
    /// Bytes taken in.
    pub bytes_in: u64,
    /// Events acknowledged.
    pub events_out: u64,
    /// Bytes acknowledged.
    pub bytes_out: u64,
    /// Flushes acknowledged.
    pub flushes: u64,
    /// The same by why they began.
    pub by_cause: FlushCauses,
    /// Sum of their durations, ns.
    pub flush_ns: u64,
    /// Size against duration of the flushes; absent where the page does not tell it, or contradicts itself.
    pub moments: Option<FlushMoments>,
    /// Failed flushes.
    pub flush_errors: u64,
    /// Events lost.
    pub events_lost: u64,
    /// Time that senders waited for room, ns.
    pub stalled_ns: u64,
    /// Events by latency, in the buckets of the page.
    pub histogram: [u64; REPORT_HISTOGRAM_WORDS],
}

/// Flushes of one span by why they began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlushCauses {
    /// The oldest event was old enough.
    pub age: u64,
    /// The batch was full.
    pub size: u64,
    /// A backlog had gathered behind the flush before: the sink became idle.
    pub backlog: u64,
    /// The queue was nearly full.
    pub panic: u64,
    /// The waiting of all events together had come to the cost of a flush.
    pub waiting: u64,
}

/// Second moments of the flushes of one span: what a line through (size, duration) needs beside counts and sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushMoments {
    /// Sum of bytes squared.
    pub bytes_squared: u64,
    /// Sum of bytes times microseconds.
    pub bytes_us: u64,
    /// Sum of microseconds squared.
    pub us_squared: u64,
}

/// Takes a page apart, or says why it is ignored.
pub fn parse(page: &[u8]) -> Result<Report, ReportFault> {
    if page.len() != PAGE_BYTES {
        return Err(ReportFault::Size(page.len()));
    }
    let word = |at: usize| page.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes);
    let half = |at: usize| page.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
    if word(0) != REPORT_MAGIC {
        return Err(ReportFault::Magic);
    }
    if half(8) != REPORT_ABI_VERSION {
        return Err(ReportFault::Version(half(8)));
    }
    let told = usize::try_from(half(12)).unwrap_or(usize::MAX);
    if !(REPORT_WORDS..=REPORT_HISTOGRAM_AT).contains(&told) {
        return Err(ReportFault::Words(half(12)));
    }
    let report = Report {
        words: std::array::from_fn(|i| word(FIRST_WORD_AT + 8 * i)),
        histogram: std::array::from_fn(|i| word(FIRST_WORD_AT + 8 * (REPORT_HISTOGRAM_AT + i))),
    };
    report.fits()
}

/// A report that came over the socket instead of by a page: the same words, under the same doubts. `acknowledged` are the
/// settings that its pipeline said it runs by, for a report that does not say so itself.
pub fn posted(report: &SignalsReport, acknowledged: Option<&Acknowledgement>) -> Result<Report, ReportFault> {
    let mut report = Report { words: report.words(), histogram: report.histogram() };
    if let Some(Acknowledgement { sequence: _, generation, batch_bytes, flush_interval_us }) = acknowledged
        && report.word(ReportWord::BatchBytes) == 0
    {
        report.words[ReportWord::Generation as usize] = *generation;
        report.words[ReportWord::BatchBytes as usize] = *batch_bytes;
        report.words[ReportWord::FlushIntervalUs as usize] = *flush_interval_us;
    }
    report.fits()
}

impl Report {
    /// Itself, if its queue can be.
    fn fits(self) -> Result<Self, ReportFault> {
        let Levels { queue_bytes, queue_capacity, .. } = self.levels();
        // An eighth of slack: the page is read while it is written, and one event may overshoot.
        if queue_capacity > 0 && queue_bytes > queue_capacity.saturating_add(queue_capacity / 8) {
            return Err(ReportFault::Queue);
        }
        Ok(self)
    }

    /// What stands in it now.
    pub fn levels(&self) -> Levels {
        Levels {
            queue_events: self.word(ReportWord::QueueEvents),
            queue_bytes: self.word(ReportWord::QueueBytes),
            queue_capacity: self.word(ReportWord::QueueCapacity),
            generation: Generation(self.word(ReportWord::Generation)),
            in_use: Settings {
                batch: BatchSize(self.word(ReportWord::BatchBytes)),
                interval: FlushInterval(self.word(ReportWord::FlushIntervalUs)),
            },
        }
    }

    /// What happened since `earlier`, `span` ago, or why this report is ignored.
    pub fn since(&self, earlier: &Self, span: Nanos) -> Result<ReportDelta, ReportFault> {
        for (word, name) in CUMULATIVE {
            if self.word(word) < earlier.word(word) {
                return Err(ReportFault::Fell(name));
            }
        }
        if self.histogram.iter().zip(&earlier.histogram).any(|(now, then)| now < then) {
            return Err(ReportFault::Fell("histogram"));
        }
        let d = |word: ReportWord| self.word(word) - earlier.word(word);
        let delta = ReportDelta {
            span,
            events_in: d(ReportWord::EventsIn),
            bytes_in: d(ReportWord::BytesIn),
            events_out: d(ReportWord::EventsOut),
            bytes_out: d(ReportWord::BytesOut),
            flushes: d(ReportWord::Flushes),
            by_cause: FlushCauses {
                age: d(ReportWord::FlushesByAge),
                size: d(ReportWord::FlushesBySize),
                backlog: d(ReportWord::FlushesByBacklog),
                panic: d(ReportWord::FlushesByPanic),
                waiting: d(ReportWord::FlushesByWaiting),
            },
            flush_ns: d(ReportWord::FlushNs),
            moments: self.moments(earlier),
            flush_errors: d(ReportWord::FlushErrors),
            events_lost: d(ReportWord::EventsLost),
            stalled_ns: d(ReportWord::StalledNs),
            histogram: std::array::from_fn(|i| self.histogram[i] - earlier.histogram[i]),
        };
        delta.sane()
    }

    /// Second moments since `earlier`. Their sums wrap, and a page may say anything: what no flushes can have is left out.
    fn moments(&self, earlier: &Self) -> Option<FlushMoments> {
        let wrapped = |word: ReportWord| self.word(word).wrapping_sub(earlier.word(word));
        let plain = |word: ReportWord| u128::from(self.word(word).saturating_sub(earlier.word(word)));
        let moments = FlushMoments {
            bytes_squared: wrapped(ReportWord::FlushBytesSquared),
            bytes_us: wrapped(ReportWord::FlushBytesUs),
            us_squared: wrapped(ReportWord::FlushUsSquared),
        };
        let (flushes, bytes) = (plain(ReportWord::Flushes), plain(ReportWord::BytesOut));
        // Each duration was rounded to whole microseconds, so their sum lies up to one a flush below, if not above.
        let us = (plain(ReportWord::FlushNs) / 1_000).saturating_sub(flushes);
        let (b2, bd, d2) =
            (u128::from(moments.bytes_squared), u128::from(moments.bytes_us), u128::from(moments.us_squared));
        // By Cauchy and Schwarz: the square of a sum over n is at most the sum of the squares, and so for the product.
        let fits = flushes > 0
            && bytes.checked_mul(bytes).is_some_and(|sum| sum <= b2.saturating_mul(flushes))
            && us.checked_mul(us).is_some_and(|sum| sum <= d2.saturating_mul(flushes))
            && bd.checked_mul(bd).is_some_and(|sum| sum <= b2.saturating_mul(d2));
        fits.then_some(moments)
    }

    fn word(&self, word: ReportWord) -> u64 {
        self.words[word as usize]
    }
}

impl ReportDelta {
    fn sane(self) -> Result<Self, ReportFault> {
        let per_span = |per_s: u64| u128::from(per_s) * u128::from(self.span.0.max(1)) / 1_000_000_000;
        let in_buckets = self.histogram.iter().map(|n| u128::from(*n)).sum::<u128>();
        let counts = [
            ("events_in", u128::from(self.events_in), MAX_EVENTS_PER_S),
            ("events_out", u128::from(self.events_out), MAX_EVENTS_PER_S),
            ("flushes", u128::from(self.flushes), MAX_EVENTS_PER_S),
            ("flush_errors", u128::from(self.flush_errors), MAX_EVENTS_PER_S),
            ("events_lost", u128::from(self.events_lost), MAX_EVENTS_PER_S),
            ("histogram", in_buckets, MAX_EVENTS_PER_S),
            ("bytes_in", u128::from(self.bytes_in), MAX_BYTES_PER_S),
            ("bytes_out", u128::from(self.bytes_out), MAX_BYTES_PER_S),
        ];
        if let Some((name, ..)) = counts.iter().find(|(_, count, limit)| *count > per_span(*limit).max(1)) {
            return Err(ReportFault::Absurd(name));
        }
        if u128::from(self.flush_ns) > u128::from(MAX_FLUSH.0) * u128::from(self.flushes.max(1)) {
            return Err(ReportFault::Absurd("flush_ns"));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::sim::page;
    use proptest::prelude::*;

    fn words(pairs: &[(ReportWord, u64)]) -> [u64; REPORT_WORDS] {
        let mut words = [0; REPORT_WORDS];
        for (word, value) in pairs {
            words[*word as usize] = *value;
        }
        words
    }

    fn page(pairs: &[(ReportWord, u64)]) -> Vec<u8> {
        page::render(&words(pairs), &[0; REPORT_HISTOGRAM_WORDS])
    }

    #[test]
    fn a_page_of_the_wrong_shape_is_ignored_by_name() {
        let good = page(&[]);
        assert!(parse(&good).is_ok());
        for cut in [0, 1, 15, 16, 4095] {
            assert_eq!(parse(&good[..cut]), Err(ReportFault::Size(cut)));
        }
        assert_eq!(parse(&[0; 4096]), Err(ReportFault::Magic));
        let mut other = good.clone();
        other[8] = 9;
        assert_eq!(parse(&other), Err(ReportFault::Version(9)));
        let mut other = good;
        other[12] = 3;
        assert_eq!(parse(&other), Err(ReportFault::Words(3)));
    }

    #[test]
    fn a_queue_above_its_capacity_is_a_lie() {
        let at = |queue| parse(&page(&[(ReportWord::QueueBytes, queue), (ReportWord::QueueCapacity, 800)]));
        assert!(at(800).is_ok());
        assert_eq!(at(2_000), Err(ReportFault::Queue));
    }

    #[test]
    fn a_counter_that_falls_is_ignored_and_named() {
        for (word, name) in CUMULATIVE {
            let before = parse(&page(&[(word, 10)])).unwrap();
            let after = parse(&page(&[(word, 9)])).unwrap();
            assert_eq!(after.since(&before, Nanos::TICK), Err(ReportFault::Fell(name)));
        }
    }

    #[test]
    fn a_rate_that_no_process_reaches_is_ignored_and_named() {
        let before = parse(&page(&[])).unwrap();
        let after = parse(&page(&[(ReportWord::EventsIn, u64::MAX)])).unwrap();
        assert_eq!(after.since(&before, Nanos::TICK), Err(ReportFault::Absurd("events_in")));
        let after = parse(&page(&[(ReportWord::Flushes, 1), (ReportWord::FlushNs, u64::MAX)])).unwrap();
        assert_eq!(after.since(&before, Nanos::TICK), Err(ReportFault::Absurd("flush_ns")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused_without_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..64),
            len in prop_oneof![Just(4096_usize), 0_usize..5000],
            span in any::<u64>(),
        ) {
            bytes.resize(len, 0x5a);
            let mut shaped = bytes.clone();
            if let Some(head) = shaped.get_mut(..16) {
                head.copy_from_slice(&page(&[])[..16]);
            }
            for candidate in [parse(&bytes), parse(&shaped)].into_iter().flatten() {
                prop_assert!(len == PAGE_BYTES);
                let zero = parse(&page(&[])).unwrap();
                if let Ok(delta) = candidate.since(&zero, Nanos(span)) {
                    prop_assert!(u128::from(delta.events_in) <= u128::from(span.max(1)).max(1));
                }
            }
        }
    }
}
