//! From page to settings: a page, its lease and the pipeline's own bounds come in, settings to run by come out. Never
//! blocks; reads the boot-time clock only every so many reads.

use std::path::Path;
use std::sync::Arc;

use crate::abi::{KnobRange, Knobs, LeaseTerms, VALUE_BATCH_BYTES, VALUE_FLUSH_INTERVAL_US, VALUE_NAMES};
use crate::clock;
use crate::lease::{Lease, Phase};
use crate::page::{PageError, PageReader};
use crate::rule::Settings;
use crate::units::{Bytes, Nanos};

/// The clock costs ten times a read of the page, so it is asked at every 64th read and whenever the lease has moved.
const READS_PER_CLOCK: u32 = 64;

/// What a pipeline runs by, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Within the pipeline's own bounds, always.
    pub settings: Settings,
    /// Generation of these settings, 0 for the pipeline's own.
    pub generation: u64,
    /// Whose settings they are.
    pub phase: Phase,
}

/// Where in a slot the knobs lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueOrder {
    batch: usize,
    interval: usize,
}

impl Default for ValueOrder {
    fn default() -> Self {
        Self { batch: VALUE_BATCH_BYTES, interval: VALUE_FLUSH_INTERVAL_US }
    }
}

impl ValueOrder {
    /// The order that a registration reply names; `None` when a knob is missing from it.
    pub fn from_names(names: &[String]) -> Option<Self> {
        let find = |index: usize| names.iter().take(crate::abi::SETTINGS_VALUES).position(|n| n == VALUE_NAMES[index]);
        Some(Self { batch: find(VALUE_BATCH_BYTES)?, interval: find(VALUE_FLUSH_INTERVAL_US)? })
    }
}

/// Reads settings for one thread.
#[derive(Clone, Debug)]
pub struct SettingsReader {
    knobs: Knobs,
    lease: Lease,
    page: Option<(Arc<PageReader>, ValueOrder)>,
    phase: Phase,
    seen_expires: u64,
    reads: u32,
}

impl SettingsReader {
    /// A reader without a page: the pipeline's own settings.
    pub fn new(knobs: Knobs, terms: LeaseTerms) -> Self {
        Self { knobs, lease: Lease::new(terms), page: None, phase: Phase::Own, seen_expires: 0, reads: 0 }
    }

    /// A reader of the page at `path`, for a pipeline that was handed one by other means than a registration.
    pub fn open(path: &Path, knobs: Knobs, terms: LeaseTerms) -> Result<Self, PageError> {
        let mut reader = Self::new(knobs, terms);
        reader.set_page(Some((Arc::new(PageReader::open(path)?), ValueOrder::default())));
        Ok(reader)
    }

    /// Changes to another page; the lease is looked at anew with the next read.
    pub(crate) fn set_page(&mut self, page: Option<(Arc<PageReader>, ValueOrder)>) {
        self.page = page;
        self.look_again();
    }

    /// Makes the next read ask the clock.
    pub(crate) fn look_again(&mut self) {
        self.reads = READS_PER_CLOCK;
    }

    /// Settings to run by now.
    #[inline]
    pub fn read(&mut self) -> Reading {
        self.read_at(clock::boottime)
    }

    /// As [`SettingsReader::read`], with the boot-time clock handed in.
    #[inline]
    pub fn read_at(&mut self, boottime: impl FnOnce() -> Nanos) -> Reading {
        let Some((page, order)) = &self.page else { return self.own() };
        let Some([expires, generation, batch, interval]) = page.read_two(order.batch, order.interval) else {
            // No writer publishes without a pause for thousands of copies; one that does has gone astray.
            return self.own();
        };
        self.reads += 1;
        if expires != self.seen_expires || self.reads >= READS_PER_CLOCK {
            self.look(expires, boottime);
        }
        if self.phase == Phase::Own {
            return self.own();
        }
        let settings = Settings {
            batch: Bytes(clamp(batch, &self.knobs.batch_bytes)),
            interval: Nanos::from_micros(clamp(interval, &self.knobs.flush_interval_us)),
        };
        Reading { settings, generation, phase: self.phase }
    }

    #[cold]
    #[inline(never)]
    fn look(&mut self, expires: u64, boottime: impl FnOnce() -> Nanos) {
        self.reads = 0;
        self.seen_expires = expires;
        self.phase = self.lease.phase(Nanos(expires), boottime());
    }

    #[inline]
    fn own(&self) -> Reading {
        own(&self.knobs)
    }
}

#[inline]
fn own(knobs: &Knobs) -> Reading {
    let settings = Settings {
        batch: Bytes(knobs.batch_bytes.default),
        interval: Nanos::from_micros(knobs.flush_interval_us.default),
    };
    Reading { settings, generation: 0, phase: Phase::Own }
}

/// Unlike `Ord::clamp` it never panics: bounds are checked at registration, a reader can be made without one.
#[inline]
fn clamp(value: u64, range: &KnobRange) -> u64 {
    value.min(range.max).max(range.min)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::abi::OnExpiry;
    use crate::page::PageWriter;

    const TERMS: LeaseTerms = LeaseTerms { ttl_ms: 1_000, hold_ms: 500, on_expiry: OnExpiry::Default };
    const OWN: [u64; 2] = [262_144, 250_000];

    struct Bench {
        _dir: tempfile::TempDir,
        writer: PageWriter,
        reader: SettingsReader,
    }

    fn bench() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page");
        let writer = PageWriter::open(&path, &OWN).unwrap();
        let reader = SettingsReader::open(&path, Knobs::default(), TERMS).unwrap();
        Bench { _dir: dir, writer, reader }
    }

    fn ms(n: u64) -> Nanos {
        Nanos::from_millis(n)
    }

    #[test]
    fn a_lapsed_lease_is_noticed_within_sixty_four_reads_and_a_renewal_at_once() {
        let mut b = bench();
        assert_eq!(b.reader.read_at(|| ms(1)).phase, Phase::Own);
        b.writer.publish(3, &[8192, 5_000], ms(1_000).0).unwrap();
        let live = b.reader.read_at(|| ms(1));
        assert_eq!((live.phase, live.generation), (Phase::Live, 3));
        assert_eq!(live.settings, Settings { batch: Bytes(8192), interval: Nanos::from_millis(5) });

        let phases = |b: &mut Bench, now| (0..64).map(|_| b.reader.read_at(|| now)).last().unwrap();
        let held = phases(&mut b, ms(1_200));
        assert_eq!((held.phase, held.settings), (Phase::Held, live.settings));
        let own = phases(&mut b, ms(1_500));
        assert_eq!((own.phase, own.generation, own.settings.batch), (Phase::Own, 0, Bytes(OWN[0])));

        b.writer.renew(ms(9_000).0);
        assert_eq!(b.reader.read_at(|| ms(1_600)), live);
    }

    #[test]
    fn without_a_page_a_pipeline_runs_on_its_own_settings() {
        let mut reader = SettingsReader::new(Knobs::default(), TERMS);
        let reading = reader.read_at(|| unreachable!("there is no lease to check"));
        assert_eq!((reading.phase, reading.settings.batch, reading.generation), (Phase::Own, Bytes(OWN[0]), 0));
    }

    #[test]
    fn values_are_found_by_the_names_in_the_reply() {
        let names = |n: &[&str]| n.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let order = ValueOrder::from_names(&names(&["flush_interval_us", "other", "batch_bytes"])).unwrap();
        assert_eq!(order, ValueOrder { batch: 2, interval: 0 });
        assert_eq!(ValueOrder::from_names(&names(&["batch_bytes"])), None);
        let mut beyond = vec![String::new(); 8];
        beyond.extend(names(&["batch_bytes", "flush_interval_us"]));
        assert_eq!(ValueOrder::from_names(&beyond), None, "a slot holds eight values");
    }

    proptest! {
        #[test]
        fn whatever_the_page_says_settings_stay_within_the_pipelines_bounds(
            batch in any::<u64>(), interval in any::<u64>(), expires in any::<u64>(), now in any::<u64>(),
        ) {
            let mut b = bench();
            b.writer.publish(1, &[batch, interval], expires).unwrap();
            let Settings { batch, interval } = b.reader.read_at(|| Nanos(now)).settings;
            let knobs = Knobs::default();
            prop_assert!(batch.0 >= knobs.batch_bytes.min && batch.0 <= knobs.batch_bytes.max);
            let us = interval.as_micros();
            prop_assert!(us >= knobs.flush_interval_us.min && us <= knobs.flush_interval_us.max);
        }
    }
}
