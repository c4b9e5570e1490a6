//! An interval log as HdrHistogram's own tools read it: a line a second, values in nanoseconds, tagged by phase. Finished
//! slices come in, lines go out to a file at once; nothing is kept. Time counts from the begin of the schedule.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use rustix::time::{ClockId, clock_gettime};

use super::schedule::Schedule;

/// A log that is being written.
pub(crate) struct IntervalLog {
    file: BufWriter<File>,
    shown: String,
    serializer: V2DeflateSerializer,
    /// Phases before this one are a warm-up and are left out.
    first: usize,
}

impl IntervalLog {
    pub(crate) fn create(path: &Path, what: &str, first: usize) -> Result<Self> {
        let shown = path.display().to_string();
        let file = File::create(path).with_context(|| format!("create {shown} (does its directory exist?)"))?;
        let mut file = BufWriter::new(file);
        let now = clock_gettime(ClockId::Realtime);
        let seconds = format!("{}.{:03}", now.tv_sec, now.tv_nsec / 1_000_000);
        let header = format!(
            "#[{}]\n#[Histogram log format version 1.3]\n#[StartTime: {seconds} (seconds since epoch)]\n\
             #[BaseTime: {seconds} (seconds since epoch)]\n\
             \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
            what.replace(['\n', '\r'], " ")
        );
        file.write_all(header.as_bytes()).with_context(|| format!("write {shown}"))?;
        Ok(Self { file, shown, serializer: V2DeflateSerializer::new(), first })
    }

    /// Adds a slice with its latencies in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds for a reader's eye")]
    pub(crate) fn write(&mut self, schedule: &Schedule, index: usize, micros: &Histogram<u32>) -> Result<()> {
        let slice = schedule.slices()[index];
        if slice.phase < self.first {
            return Ok(());
        }
        let mut nanos = Histogram::<u64>::new(micros.sigfig()).context("a histogram of three figures")?;
        for value in micros.iter_recorded() {
            // It grows with its values.
            nanos.record_n(value.value_iterated_to().saturating_mul(1_000), value.count_at_value().into()).ok();
        }
        let mut packed = Vec::new();
        self.serializer.serialize(&nanos, &mut packed).context("pack a histogram")?;
        let (begin, span) = (schedule.begin_of(index).0 as f64 / 1e9, slice.span.0 as f64 / 1e9);
        let (phase, most, packed) = (slice.phase - self.first, nanos.max() as f64 / 1e6, STANDARD.encode(packed));
        writeln!(self.file, "Tag=phase{phase},{begin:.3},{span:.3},{most:.3},{packed}")
            .with_context(|| format!("write {}", self.shown))
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        self.file.flush().with_context(|| format!("write {}", self.shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::latency::{Keep, Latencies};
    use crate::load::schedule::Phases;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use tidegate_client::Nanos;

    #[test]
    fn the_log_is_read_back_by_the_librarys_own_reader() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.hlog");
        let schedule = Schedule::new("10x1s,20x1500ms".parse::<Phases>().unwrap().0);
        let log = IntervalLog::create(&path, "a run\nof two lines", 1).unwrap();
        let mut latencies = Latencies::new(&schedule, Keep::Phases).logged(Some(log));
        for due in schedule.walk() {
            latencies.record(&schedule, due.slice, Nanos::from_millis(due.slice as u64 * 100)).unwrap();
        }
        latencies.finish(&schedule).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let mut read = Vec::new();
        for entry in IntervalLogIterator::new(&bytes) {
            if let Ok(LogEntry::Interval(interval)) = entry {
                let packed = STANDARD.decode(interval.encoded_histogram()).unwrap();
                let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut packed.as_slice()).unwrap();
                let tag = interval.tag().unwrap().as_str().to_owned();
                let times = (interval.start_timestamp().as_millis(), interval.duration().as_millis());
                read.push((tag, times, histogram.len(), histogram.value_at_quantile(0.5) / 1_000_000));
            }
        }
        let phase0 = "phase0".to_owned();
        assert_eq!(read, [(phase0.clone(), (1_000, 1_000), 20, 100), (phase0, (2_000, 500), 10, 200)]);
    }
}
